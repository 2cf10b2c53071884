//go:build unix

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"go.uber.org/goleak"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// base is the parent of the directories in which tests start servers. These are not in t.TempDir, because the server's
// user could not enter t.TempDir if root runs the tests.
var base string

func TestMain(m *testing.M) {
	if dir := os.Getenv(ownerVariable); dir != "" {
		os.Exit(own(dir))
	}
	var err error
	if base, err = os.MkdirTemp("", "rowcast-cluster-"); err == nil {
		err = os.Chmod(base, 0o755)
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	code := m.Run()
	if err := goleak.Find(); code == 0 && err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	_ = os.RemoveAll(base)
	os.Exit(code)
}

// patience is the time limit of a wait for a process or a server.
const patience = 2 * time.Minute

// directory returns a path at which nothing exists yet. No other test gets the same path.
func directory(t *testing.T) string {
	t.Helper()
	parent, err := os.MkdirTemp(base, "test-")
	if err == nil {
		err = os.Chmod(parent, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(parent, "pg")
}

// quick returns a cluster that starts fast. Its files are copied from a template that all results of quick share, so
// initdb runs only once for them, and fsync is off.
func quick(dir string) *cluster.Cluster {
	return &cluster.Cluster{
		Dir: dir, Template: filepath.Join(base, "template"), InitArgs: []string{"--wal-segsize=1"},
		Settings: map[string]string{"fsync": "off"},
	}
}

func start(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	t.Cleanup(func() { stop(t, c) })
	if err := c.Start(dbtest.Context(t)); err != nil {
		t.Fatal(err)
	}
}

func stop(t *testing.T, c *cluster.Cluster) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience) // the context of the test may have ended
	defer cancel()
	if err := c.Stop(ctx); err != nil {
		t.Error(err)
	}
}

func started(t *testing.T) *cluster.Cluster {
	t.Helper()
	c := quick(directory(t))
	start(t, c)
	return c
}

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(dbtest.Context(t), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// query runs statements on a new connection. It returns the first value of the last statement that returns a row, as
// text.
func query(t *testing.T, dsn string, statements ...string) (answer string) {
	t.Helper()
	conn := connect(t, dsn)
	defer conn.Close(dbtest.Context(t))
	for _, statement := range statements {
		results, err := conn.PgConn().Exec(dbtest.Context(t), statement).ReadAll()
		if err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
		if last := results[len(results)-1]; len(last.Rows) > 0 {
			answer = string(last.Rows[0][0])
		}
	}
	return answer
}

// running reports whether a process runs. A process that has ended still exists
// until its parent reads the exit code.
func running(pid int) bool {
	if text, err := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)); err == nil {
		return len(text) > 0
	}
	return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// until polls a condition that depends on another process, until it is true. what describes the condition.
func until(t *testing.T, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("after %v, this is still not true: %s", patience, what)
		}
	}
}
