// Package dbtest gives tests a real PostgreSQL: a private server for each test
// binary, and in it a database for each test.
//
// A package whose tests need a database has this function:
//
//	func TestMain(m *testing.M) { dbtest.Main(m) }
//
// The server is started for the first test that needs one. Its files are copies of files that initdb creates once for
// each version of PostgreSQL. It runs as package cluster describes, with fsync off. If no PostgreSQL can be found or
// downloaded, the tests that need one fail.
package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"rowcast/sql"
	"rowcast/sql/cluster"
)

// Main runs the tests of a package, fails if they leave goroutines behind,
// removes the servers and exits. If the binary is killed, their files remain in
// the directory for temporary files. On Linux and FreeBSD the kernel stops the
// servers of a killed binary. Elsewhere they run until their files are gone.
func Main(m *testing.M) {
	code := m.Run()
	err := end()
	if leak := goleak.Find(); leak != nil && code == 0 {
		err = errors.Join(err, fmt.Errorf("the tests left goroutines behind: %w", leak))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dbtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// atEnd contains the functions that stop the shared server and remove the directory of this binary.
var atEnd []func(context.Context) error

func end() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, f := range slices.Backward(atEnd) {
		err = errors.Join(err, f(ctx))
	}
	return err
}

// Database creates a database with the migrated schema for this test and returns
// its connection string. When the test ends, the sessions of the database are
// closed and the database is dropped.
func Database(t testing.TB) string {
	t.Helper()
	return create(t, migratedServer, template)
}

// Empty does the same as Database, but the database has no schema rowcast.
func Empty(t testing.TB) string {
	t.Helper()
	return create(t, sharedServer, "template0")
}

// Inbox does the same as Database, and the database also has the inbox.
func Inbox(t testing.TB) string {
	t.Helper()
	dsn := Database(t)
	m := sql.Migrator{DSN: dsn, Inbox: true}
	if _, _, err := m.Migrate(Context(t)); err != nil {
		t.Fatalf("dbtest: install the inbox: %v", err)
	}
	return dsn
}

// sharedServer returns the server of this test binary. The first call starts it.
var sharedServer = sync.OnceValues(func() (*cluster.Cluster, error) {
	server, err := private()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	atEnd = append(atEnd, server.Stop)
	return server, server.Start(ctx)
})

// template is the database that Database copies.
const template = "template_rowcast"

// migratedServer returns the shared server with the template.
var migratedServer = sync.OnceValues(func() (*cluster.Cluster, error) {
	server, err := sharedServer()
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := execute(ctx, server, "CREATE DATABASE "+template+" TEMPLATE template0"); err != nil {
		return nil, err
	}
	_, _, err = sql.Migrate(ctx, server.DSN(template))
	return server, err
})

func create(t testing.TB, server func() (*cluster.Cluster, error), template string) (dsn string) {
	t.Helper()
	dsn, drop, err := copyOf(t.Context(), server, template)
	if err != nil {
		t.Fatalf("dbtest: no database for the test: %v", err)
	}
	t.Cleanup(func() {
		if err := drop(); err != nil {
			t.Errorf("dbtest: drop the database of the test: %v", err)
		}
	})
	return dsn
}

// Example does the same as Database for an Example function, which has no testing.TB. It panics if there is no
// database. The caller must call drop, which drops the database.
func Example() (dsn string, drop func()) {
	dsn, remove, err := copyOf(context.Background(), migratedServer, template)
	if err != nil {
		panic(fmt.Sprintf("dbtest: no database for the example: %v", err))
	}
	return dsn, func() {
		if err := remove(); err != nil {
			panic(fmt.Sprintf("dbtest: drop the database of the example: %v", err))
		}
	}
}

// copyOf creates a database with a new name from a template.
func copyOf(ctx context.Context, server func() (*cluster.Cluster, error), template string) (dsn string, drop func() error, err error) {
	c, err := server()
	if err != nil {
		return "", nil, err
	}
	name := "test_" + strings.ToLower(rand.Text()[:8])
	err = execute(ctx, c, "CREATE DATABASE "+name+" TEMPLATE "+template)
	return c.DSN(name), func() error { return dropDatabase(c, name) }, err
}

// dropDatabase removes a database. DROP DATABASE fails if there are prepared
// transactions, which only a session of that database can end.
func dropDatabase(server *cluster.Cluster, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	statement := "DROP DATABASE " + name + " WITH (FORCE)"
	if execute(ctx, server, statement) == nil {
		return nil
	}
	conn, err := pgx.Connect(ctx, server.DSN(name))
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	rows, _ := conn.Query(ctx, "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE database = current_database()")
	rollbacks, err := pgx.CollectRows(rows, pgx.RowTo[string])
	for _, rollback := range rollbacks {
		_, rollbackErr := conn.Exec(ctx, rollback)
		err = errors.Join(err, rollbackErr)
	}
	return errors.Join(err, execute(ctx, server, statement))
}

// execute runs a statement on a new connection.
func execute(ctx context.Context, server *cluster.Cluster, statement string) error {
	conn, err := pgx.Connect(ctx, server.DSN("postgres"))
	if err != nil {
		return err
	}
	defer conn.Close(context.WithoutCancel(ctx))
	_, err = conn.Exec(ctx, statement)
	return err
}

// Home creates a home directory for a program that starts a server. The server's
// user can enter it even if root runs the tests. That user could not enter a
// directory of t.TempDir.
func Home(t testing.TB) string {
	t.Helper()
	dir, err := temporary("rowcast-home-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}
