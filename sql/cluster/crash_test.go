//go:build unix

package cluster_test

import (
	"context"
	"errors"
	"strings"
	"syscall"
	"testing"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

func TestRestart(t *testing.T) {
	t.Parallel()
	c := started(t)
	dsn := c.DSN("postgres")
	query(t, dsn, "CREATE UNLOGGED TABLE u AS SELECT 1")
	for _, test := range []struct {
		name string
		mode cluster.Mode
		want string // the number of unlogged rows after the restart; crash recovery removes them
	}{{"fast", cluster.Fast, "1"}, {"immediate", cluster.Immediate, "0"}} {
		before := c.PID()
		if err := c.Restart(dbtest.Context(t), test.mode); err != nil {
			t.Fatal(err)
		}
		if c.PID() == before || c.DSN("postgres") != dsn {
			t.Errorf("after a %s restart: got pid %d, want another than %d; got the address %s, want %s", test.name, c.PID(), before, c.DSN("postgres"), dsn)
		}
		if got := query(t, dsn, "SELECT count(*) FROM u"); got != test.want {
			t.Errorf("after a %s restart the unlogged table has %s rows, want %s", test.name, got, test.want)
		}
	}
}

func TestKill(t *testing.T) {
	t.Parallel()
	c := started(t)
	query(t, c.DSN("postgres"), "CREATE UNLOGGED TABLE u AS SELECT 1", "CREATE TABLE l AS SELECT 1")
	busy := connect(t, c.DSN("postgres"))
	backend := int(busy.PgConn().PID())
	ended := make(chan error, 1)
	go func() { // if Kill ended only the postmaster, this session would not notice that while it is busy
		_, err := busy.Exec(context.Background(), "SELECT count(*) FROM generate_series(1, 1e12)")
		ended <- err
	}()
	until(t, "the session is busy", func() bool {
		return query(t, c.DSN("postgres"), "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND pid <> pg_backend_pid()") == "1"
	})
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := dbtest.Receive(t, ended, "the end of the query on the killed server"); err == nil {
		t.Error("the query of the killed server succeeded, want an error")
	}
	until(t, "the session of the killed server ends", func() bool { return !running(backend) })
	start(t, c)
	if got := query(t, c.DSN("postgres"), "SELECT (SELECT count(*) FROM l) - (SELECT count(*) FROM u)"); got != "1" {
		t.Errorf("after the crash: the logged table has %s more rows than the unlogged table, want 1", got)
	}
}

func TestWait(t *testing.T) {
	t.Parallel()
	c := started(t)
	ctx, cancel := context.WithCancel(dbtest.Context(t))
	cancel()
	if err := c.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("Wait with a cancelled context: got error %v, want context.Canceled", err)
	}
	ended := make(chan error, 1)
	wait := func() { ended <- c.Wait(context.Background()) }

	go wait()
	if err := syscall.Kill(c.PID(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if err := dbtest.Receive(t, ended, "the return of Wait after the server has ended by itself"); err == nil || !strings.Contains(err.Error(), "database system is shut down") {
		t.Errorf("Wait for a server that ends by itself: got %v, want an error that contains the log line \"database system is shut down\"", err)
	}
	start(t, c)
	go wait()
	stop(t, c)
	if err := dbtest.Receive(t, ended, "the return of Wait after the server was stopped"); err != nil {
		t.Errorf("Wait for a server that Stop ends: got error %v, want nil", err)
	}
}
