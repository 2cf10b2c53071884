//go:build unix

package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

func TestStartFromNothing(t *testing.T) {
	t.Parallel()
	var steps []string
	c := &cluster.Cluster{Dir: directory(t), Progress: func(step string) { steps = append(steps, step) }}
	start(t, c)

	got := query(t, c.DSN("postgres"), `SELECT concat_ws(' ', current_user, pg_encoding_to_char(encoding), datcollate,
		current_setting('fsync')) FROM pg_database WHERE datname = 'postgres'`)
	if want := "postgres UTF8 C on"; got != want {
		t.Errorf("user, encoding, collation and fsync of the server are %q, want %q", got, want)
	}
	if len(steps) != 1 || !strings.Contains(steps[0], "creating a new database cluster in "+c.Dir) {
		t.Errorf("Progress was called with %q, want one step: the creation of the files", steps)
	}
	if err := c.Start(dbtest.Context(t)); err == nil {
		t.Error("a second Start succeeded, want an error")
	}
}

func TestOtherUsersCannotConnect(t *testing.T) {
	t.Parallel()
	c := started(t)
	if got := query(t, c.DSN("postgres"), "SHOW listen_addresses"); got != "" {
		t.Errorf("without a port the server listens on %q, want no address", got)
	}
	stop(t, c)
	c.Port = dbtest.Port(t)
	start(t, c)
	for _, user := range []string{"postgres", "postgres:guess"} {
		conn, err := pgx.Connect(dbtest.Context(t), fmt.Sprintf("postgres://%s@127.0.0.1:%d/postgres?sslmode=disable", user, c.Port))
		var refused *pgconn.PgError
		if err == nil {
			conn.Close(dbtest.Context(t))
		}
		if !errors.As(err, &refused) || refused.Code[:2] != "28" && !strings.Contains(err.Error(), "password") {
			t.Errorf("%s over TCP: got %v, want an authentication error", user, err)
		}
	}
	for name, want := range map[string]os.FileMode{"run": 0o700, "data": 0o700, "log": 0o600} {
		info, err := os.Stat(filepath.Join(c.Dir, name))
		if err != nil {
			t.Fatal(err)
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("the mode of %s is %04o, want %04o", name, got, want)
		}
	}
}

func TestServerHasItsOwnUserAndSession(t *testing.T) {
	t.Parallel()
	c := started(t)
	if group, err := syscall.Getpgid(c.PID()); err != nil || group != c.PID() {
		t.Errorf("the server is in the process group %d (%v), want %d, its own: Ctrl-C must not stop the server", group, err, c.PID())
	}
	if os.Geteuid() != 0 {
		return
	}
	// The server itself creates postmaster.pid.
	info, err := os.Stat(filepath.Join(c.Dir, "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	if info.Sys().(*syscall.Stat_t).Uid == 0 {
		t.Error("the server runs as root, want another user")
	}
}

func TestDataRemain(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	c := quick(dir)
	start(t, c)
	query(t, c.DSN("postgres"), "CREATE TABLE kept (n int)")
	dsn := c.DSN("postgres")
	stop(t, c)

	again := &cluster.Cluster{Dir: dir, Settings: c.Settings}
	start(t, again)
	if got := query(t, again.DSN("postgres"), "SELECT count(*) FROM kept"); got != "0" {
		t.Errorf("the table kept has %s rows, want 0", got)
	}
	if got := again.DSN("postgres"); got != dsn {
		t.Errorf("the connection string of the next run is %s, want %s as before", got, dsn)
	}
	stop(t, again)

	fresh := quick(dir)
	fresh.Fresh = true
	start(t, fresh)
	query(t, fresh.DSN("postgres"), "CREATE TABLE kept (n int)") // fails if the table exists
	stop(t, fresh)
	start(t, fresh)
	query(t, fresh.DSN("postgres"), "SELECT FROM kept") // only the first Start deletes the files
}

func TestOtherVersion(t *testing.T) {
	t.Parallel()
	dir := directory(t)
	c := quick(dir)
	start(t, c)
	stop(t, c)
	if err := os.WriteFile(filepath.Join(dir, "data", "PG_VERSION"), []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	err := c.Start(dbtest.Context(t))
	if !errors.Is(err, cluster.ErrOtherVersion) {
		t.Fatalf("Start with the files of another version: got %v, want ErrOtherVersion", err)
	}
	for _, part := range []string{dir, "version 9", c.Programs.Version} {
		if !strings.Contains(err.Error(), part) {
			t.Errorf("got error %q, want it to contain %s", err, part)
		}
	}
	c = quick(dir)
	c.Fresh = true
	start(t, c)
}

func TestStartReturnsTheErrorOfTheServer(t *testing.T) {
	t.Parallel()
	c := quick(directory(t))
	c.Settings["max_connections"] = "many"
	err := c.Start(dbtest.Context(t))
	if err == nil || !strings.Contains(err.Error(), `invalid value for parameter "max_connections": "many"`) {
		t.Fatalf("Start with a bad setting: got %v, want the error of the server", err)
	}
	delete(c.Settings, "max_connections")
	start(t, c)
}

func TestStartEndsWithItsContext(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(dbtest.Context(t))
	c := &cluster.Cluster{Dir: directory(t), Progress: func(string) { cancel() }} // Progress is called before initdb
	if err := c.Start(ctx); !errors.Is(err, context.Canceled) {
		t.Fatalf("Start with a context that is cancelled before initdb: got %v, want context.Canceled", err)
	}
	start(t, c)
}

func TestCancelledStartLeavesNothingRunning(t *testing.T) {
	t.Parallel()
	c := quick(directory(t))
	start(t, c)
	stop(t, c)
	// A standby that accepts no connections is never ready.
	c.Settings["hot_standby"] = "off"
	if err := os.WriteFile(filepath.Join(c.Dir, "data", "standby.signal"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(dbtest.Context(t))
	ended := make(chan error, 1)
	go func() { ended <- c.Start(ctx) }()
	var pid int
	until(t, "the standby runs", func() bool {
		text, _ := os.ReadFile(filepath.Join(c.Dir, "data", "postmaster.pid"))
		lines := strings.Split(string(text), "\n")
		pid, _ = strconv.Atoi(lines[0])
		return len(lines) > 7 && strings.HasPrefix(lines[7], "standby")
	})
	cancel()
	if err := dbtest.Receive(t, ended, "the return of Start after its context was cancelled"); !errors.Is(err, context.Canceled) {
		t.Errorf("Start with a cancelled context: got %v, want context.Canceled", err)
	}
	if running(pid) {
		t.Errorf("the server %d still runs after a cancelled Start, want it ended", pid)
	}
	c.Settings["hot_standby"] = "on"
	start(t, c) // succeeds only if the directory is not locked any more
}

func TestLongDir(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(directory(t), strings.Repeat("long name & ", 12), "pg")
	c := quick(dir)
	start(t, c)
	dsn := c.DSN("postgres")
	query(t, dsn, "SELECT 1")
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(config.Host); err != nil || info.Mode().Perm() != 0o700 {
		t.Errorf("the socket directory %s: got %v and error %v, want a directory with mode 0700", config.Host, info, err)
	}
	stop(t, c)
	if _, err := os.Stat(config.Host); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("find the socket directory %s after Stop: got error %v, want %v", config.Host, err, os.ErrNotExist)
	}
	start(t, c)
	if got := c.DSN("postgres"); got != dsn {
		t.Errorf("the connection string after a stop is %s, want %s as before", got, dsn)
	}
	stop(t, c)
	// Another user can predict the path of the socket directory, and can create it first.
	if err := os.Mkdir(config.Host, 0o700); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.Remove(config.Host) })
	if err := os.Chmod(config.Host, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(dbtest.Context(t)); err == nil {
		t.Error("Start succeeded with a socket directory that others can write to, want an error")
	}
}

func TestStandby(t *testing.T) {
	t.Parallel()
	primary := started(t)
	standby := quick(directory(t))
	standby.Primary = primary
	start(t, standby)
	query(t, primary.DSN("postgres"), "CREATE TABLE r AS SELECT 1")
	until(t, "the standby has the table", func() bool { return query(t, standby.DSN("postgres"), "SELECT to_regclass('r') IS NOT NULL") == "t" })
	if got := query(t, standby.DSN("postgres"), "SELECT pg_is_in_recovery()", "SELECT pg_promote()", "SELECT pg_is_in_recovery()"); got != "f" {
		t.Errorf("pg_is_in_recovery() after the promotion is %s, want f", got)
	}
}

// All copies of a template have the same system identifier. A new cluster has a different one.
func TestTemplateIsCopied(t *testing.T) {
	t.Parallel()
	const identifier = "SELECT system_identifier FROM pg_control_system()"
	one, other := query(t, started(t).DSN("postgres"), identifier), query(t, started(t).DSN("postgres"), identifier)
	stranger := quick(directory(t))
	stranger.Template = ""
	start(t, stranger)
	if own := query(t, stranger.DSN("postgres"), identifier); one != other || one == own {
		t.Errorf("copies have the identifiers %s and %s, a new cluster has %s; want the same for the copies and another for the new cluster", one, other, own)
	}
}

func ExampleCluster() {
	ctx := context.Background()
	dir, err := cluster.DefaultDir("example")
	if err != nil {
		fmt.Println(err)
		return
	}
	c := &cluster.Cluster{Dir: dir}
	if err := c.Start(ctx); err != nil {
		fmt.Println(err)
		return
	}
	defer c.Stop(ctx)
	fmt.Println(strings.HasPrefix(c.DSN("postgres"), "postgres://postgres@/postgres?host="))
}
