// Package dbtest gives tests a real PostgreSQL: a private server for a test binary, and in it a database for each test.
//
// A package whose tests need a database has this function:
//
//	func TestMain(m *testing.M) { dbtest.Main(m) }
//
// The server is started for the first test that needs a database. Its files are copies of files that initdb creates
// once for each version of PostgreSQL. It runs as package cluster describes, with fsync off. If PostgreSQL is
// not found and cannot be downloaded, the tests that need a database fail.
package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"rowcast/sql"
	"rowcast/sql/cluster"
)

// Main runs the tests of a package, fails if they leave goroutines behind, removes the servers and exits. If the binary
// is killed, the files of the servers remain in the directory for temporary files. On Linux and FreeBSD the kernel
// stops the servers of a killed binary. On other systems the servers run until somebody removes their files.
func Main(m *testing.M) {
	code := m.Run()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	err := errors.Join(binary.shared.Stop(ctx), os.RemoveAll(binary.dir))
	cancel()
	if leak := goleak.Find(); leak != nil && code == 0 {
		err = errors.Join(err, fmt.Errorf("the tests left goroutines behind: %w", leak))
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, "dbtest:", err)
		code = max(code, 1)
	}
	os.Exit(code)
}

// Database creates a database with the migrated schema for this test and returns its connection string. When the test
// ends, the sessions of the database are closed and the database is dropped.
func Database(t testing.TB) string {
	t.Helper()
	return create(t, migrated)
}

// Empty is like Database, but the database has no schema rowcast.
func Empty(t testing.TB) string {
	t.Helper()
	return create(t, "template0")
}

// Inbox is like Database, but the database also has the inbox.
func Inbox(t testing.TB) string {
	t.Helper()
	dsn := Database(t)
	m := sql.Migrator{DSN: dsn, Inbox: true}
	if _, _, err := m.Migrate(Context(t)); err != nil {
		t.Fatalf("dbtest: install the inbox: %v", err)
	}
	return dsn
}

// Example is like Database, but for an Example function, which has no testing.TB. The database remains until all tests
// have ended. Example panics if it cannot create the database.
func Example() string {
	dsn, _, err := copyOf(migrated)
	if err != nil {
		panic(fmt.Sprintf("dbtest: no database for the example: %v", err))
	}
	return dsn
}

func create(t testing.TB, template string) string {
	t.Helper()
	dsn, name, err := copyOf(template)
	if err != nil {
		t.Fatalf("dbtest: no database for the test: %v", err)
	}
	t.Cleanup(func() {
		if err := dropDatabase(name); err != nil {
			t.Errorf("dbtest: drop the database of the test: %v", err)
		}
	})
	return dsn
}

// copyOf creates a database with a new name from a template.
func copyOf(template string) (dsn, name string, err error) {
	if err := startShared(); err != nil {
		return "", "", err
	}
	name = "test_" + strings.ToLower(rand.Text()[:8])
	_, err = execute(binary.shared, "postgres", "CREATE DATABASE "+name+" TEMPLATE "+template)
	return binary.shared.DSN(name), name, err
}

// migrated is the database that Database copies.
const migrated = "template_rowcast"

// startShared starts the server of this test binary and creates the migrated database.
var startShared = sync.OnceValue(func() error {
	server, err := private()
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := server.Start(ctx); err != nil {
		return err
	}
	binary.shared = server
	if _, err := execute(server, "postgres", "CREATE DATABASE "+migrated+" TEMPLATE template0"); err != nil {
		return err
	}
	_, _, err = sql.Migrate(ctx, server.DSN(migrated))
	return err
})

// dropDatabase removes a database. DROP DATABASE fails if the database has prepared transactions. Only a session of the
// database can end them.
func dropDatabase(name string) error {
	statement := "DROP DATABASE " + name + " WITH (FORCE)"
	if _, err := execute(binary.shared, "postgres", statement); err == nil {
		return nil
	}
	rollbacks, err := execute(binary.shared, name, "SELECT format('ROLLBACK PREPARED %L', gid) FROM pg_prepared_xacts WHERE database = current_database()")
	for _, rollback := range rollbacks {
		_, failure := execute(binary.shared, name, rollback)
		err = errors.Join(err, failure)
	}
	_, failure := execute(binary.shared, "postgres", statement)
	return errors.Join(err, failure)
}

// execute runs a statement on a new connection and returns the first column of the result.
func execute(server *cluster.Cluster, database, statement string) ([]string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := pgx.Connect(ctx, server.DSN(database))
	if err != nil {
		return nil, err
	}
	defer conn.Close(ctx)
	rows, _ := conn.Query(ctx, statement, pgx.QueryExecModeSimpleProtocol) // CollectRows returns the error
	return pgx.CollectRows(rows, pgx.RowTo[string])
}
