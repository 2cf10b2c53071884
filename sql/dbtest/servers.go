package dbtest

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"rowcast/sql/cluster"
)

// Cluster starts a server for this test alone. The test may restart, crash or promote it. The server is stopped and
// removed when the test ends. All servers of a version of PostgreSQL have the same system identifier, except servers
// that Stranger starts.
func Cluster(t testing.TB) *cluster.Cluster {
	t.Helper()
	return startFor(t, func(*cluster.Cluster) {})
}

// Standby starts a hot standby of a server that Cluster returned.
func Standby(t testing.TB, primary *cluster.Cluster) *cluster.Cluster {
	t.Helper()
	return startFor(t, func(c *cluster.Cluster) { c.Primary = primary })
}

// Stranger is like Cluster, but the server has a system identifier of its own. It takes longer to start,
// because initdb creates its files.
func Stranger(t testing.TB) *cluster.Cluster {
	t.Helper()
	return startFor(t, func(c *cluster.Cluster) { c.Template = "" })
}

func startFor(t testing.TB, configure func(*cluster.Cluster)) *cluster.Cluster {
	t.Helper()
	c, err := private()
	if err == nil {
		configure(c)
		err = c.Start(Context(t))
	}
	if err != nil {
		t.Fatalf("dbtest: no PostgreSQL for the test: %v", err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		if err := errors.Join(c.Stop(ctx), os.RemoveAll(c.Dir)); err != nil {
			t.Errorf("dbtest: remove the PostgreSQL of the test: %v", err)
		}
	})
	return c
}

var password = rand.Text()

// TCP sets the password of the superuser and returns the superuser's connection string over TCP. On a standby it does
// not set the password, because the standby has the password of its primary.
func TCP(t testing.TB, c *cluster.Cluster, database string) string {
	t.Helper()
	_, err := execute(c, "postgres", `DO $$ BEGIN
		IF NOT pg_is_in_recovery() THEN ALTER ROLE postgres PASSWORD '`+password+`'; END IF;
	END $$`)
	if err != nil {
		t.Fatalf("dbtest: set the password: %v", err)
	}
	return fmt.Sprintf("postgres://postgres:%s@127.0.0.1:%d/%s?sslmode=disable", password, c.Port, database)
}

// private returns a server that is not started, with its own directory.
func private() (*cluster.Cluster, error) {
	if err := prepare(); err != nil {
		return nil, err
	}
	port, err := reservePort(firstPort, endPort)
	return &cluster.Cluster{
		Dir:      filepath.Join(binary.dir, strings.ToLower(rand.Text()[:8])),
		Programs: binary.programs,
		Template: filepath.Join(binary.base, "files-"+binary.programs.Version),
		InitArgs: []string{"--wal-segsize=1"}, // fewer bytes to copy
		Port:     port,
		// A commit waits until the WAL is written to its file, but not until the file is on the disk.
		Settings: map[string]string{
			"fsync": "off", "full_page_writes": "off", "max_connections": "300", "max_prepared_transactions": "20",
		},
	}, err
}

// binary contains what the tests of this test binary share.
var binary = struct {
	programs cluster.Programs
	base     string           // the directory with the data files that new servers copy (see Cluster.Template)
	dir      string           // the directory of the servers
	shared   *cluster.Cluster // the server of the tests that need no server of their own
}{shared: &cluster.Cluster{}}

// obtain is a variable because a test replaces it.
var obtain = cluster.Obtain

// prepare finds or downloads the server programs, and creates the directories of the servers and of their data files.
var prepare = sync.OnceValue(func() (err error) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if binary.programs, err = obtain(ctx, nil); err != nil {
		return err
	}
	if binary.base, err = cluster.DefaultDir("test"); err != nil {
		return err
	}
	binary.dir, err = temporary("rowcast-test-")
	return err
})

// Home creates a home directory for a program that starts a PostgreSQL server. The directory is removed when the test
// ends.
func Home(t testing.TB) string {
	t.Helper()
	dir, err := temporary("rowcast-home-")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	return dir
}

// temporary creates a directory that the server's user can enter even if root runs the tests. In that case the server's
// user could not enter a directory of t.TempDir.
func temporary(pattern string) (string, error) {
	dir, err := os.MkdirTemp("", pattern)
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	return dir, err
}
