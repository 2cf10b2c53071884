package main_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// TestDemo runs five demos with a private PostgreSQL. The second demo begins while the first one runs, and fails. The
// third one begins after the first one was killed. The fourth one finds files of another version of PostgreSQL, and
// fails. The fifth one has --fresh, and ends when its PostgreSQL is killed.
func TestDemo(t *testing.T) {
	t.Parallel()
	home := dbtest.Home(t)
	begin := func(args ...string) *demoProcess {
		cmd := command(t, home, append([]string{"demo", "--listen", "127.0.0.1:0"}, args...)...)
		cmd.Env = append(cmd.Env, "PGSERVICE=other", "PGHOST=other", "PGOPTIONS=-c default_transaction_read_only=on") // the demo with a private PostgreSQL ignores these variables
		return spawn(t, cmd)
	}
	d := begin()
	if !strings.Contains(d.out.String(), home) {
		t.Fatalf("the demo prints no path in its home directory %s:\n%s", home, d.out)
	}
	if got := ask(t, http.MethodGet, d.url+"/"); got.status != http.StatusOK || !strings.Contains(html.UnescapeString(got.body), d.psql) {
		t.Errorf("GET /: got %d, %s\nwant 200 and the command %s", got.status, got.body, d.psql)
	}
	notifyAlice(t, d.demo)
	second, err := command(t, home, "demo").CombinedOutput()
	if exitCode(err) != 1 || !strings.Contains(string(second), "another demo uses the private PostgreSQL") {
		t.Errorf("a second demo ended with %v, want exit code 1 and the error that another demo uses the private PostgreSQL. It printed:\n%s", err, second)
	}

	d.kill()
	d = begin()
	if got, want := d.rows("alice"), []string{`{"n":1}`, `{"n":2}`, `{"msg":"You ordered a bicycle","order":1}`}; !slices.Equal(got, want) {
		t.Errorf("after a kill, the rows are %v, want %v", got, want)
	}
	postmaster := postmasterOf(t, home)
	d.stop(syscall.SIGTERM)
	if dbtest.Running(postmaster) {
		t.Errorf("the demo has stopped, but its PostgreSQL (pid %d) has not", postmaster)
	}

	version := filepath.Join(home, "cache", "rowcast", "demo", "data", "PG_VERSION")
	if err := os.WriteFile(version, []byte("9\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	const advice = "; install the version that created them, or delete them with rowcast demo --fresh\n"
	other, err := command(t, home, "demo").CombinedOutput()
	if exitCode(err) != 1 || !strings.HasSuffix(string(other), advice) {
		t.Errorf("with the files of another version, the demo ended with %v, want exit code 1 and %q at the end. It printed:\n%s", err, advice, other)
	}

	d = begin("--fresh")
	if got := d.rows("alice"); len(got) != 0 {
		t.Errorf("a demo with --fresh has the rows %v, want none", got)
	}
	// Without its PostgreSQL the demo ends.
	server, err := os.FindProcess(postmasterOf(t, home))
	if err == nil {
		err = server.Signal(syscall.SIGQUIT)
	}
	if err != nil {
		t.Fatal(err)
	}
	if err := d.wait(); exitCode(err) != 1 || !strings.Contains(d.err.String(), "PostgreSQL in "+filepath.Join(home, "cache")) {
		t.Errorf("after its PostgreSQL was killed, the demo ended with %v, want exit code 1 and an error with the directory of PostgreSQL. It printed:\n%s", err, d.err)
	}
}

// notifyAlice inserts a row as the page does, inserts a row and an order with psql, and sends a message with NOTIFY.
// The stream of Alice must have an event for each of them.
func notifyAlice(t *testing.T, d demo) {
	t.Helper()
	expect := demoStream(t, d, "alice")
	if got := d.post(`{"recipient": "alice", "event": "notify", "data": "{\"n\": 1}"}`); got.status != http.StatusCreated {
		t.Errorf("insert: got %d, %s, want 201", got.status, got.body)
	}
	expect(`{"n": 1}`)
	d.runPsql(`INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '{"n": 2}')`)
	expect(`{"n": 2}`)
	d.runPsql(d.printedOrder())
	expect(`{"msg": "You ordered a bicycle", "order": 1}`)
	d.runPsql(`NOTIFY rowcast, 'a message'`)
	expect(`"a message"`)
}

// TestDemoAsNobody shows that a user without any rights can run the demo. If root runs the tests, TestDemo shows that
// root can run it.
func TestDemoAsNobody(t *testing.T) {
	t.Parallel()
	nobody, err := user.Lookup("nobody")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("only root can start a program as the user nobody, and that user must exist")
	}
	uid, _ := strconv.Atoi(nobody.Uid)
	gid, _ := strconv.Atoi(nobody.Gid)
	home := dbtest.Home(t)
	cmd := command(t, home, "demo", "--listen", "127.0.0.1:0")
	program := filepath.Join(home, "rowcast") // other users cannot read the test binary
	if out, err := exec.Command("cp", cmd.Path, program).CombinedOutput(); err != nil {
		t.Fatalf("copy the program: %v: %s", err, out)
	}
	if err := os.Chown(home, uid, gid); err != nil {
		t.Fatal(err)
	}
	cmd.Path, cmd.Dir = program, "/"
	dbtest.RunAs(cmd, uid, gid)
	d := spawn(t, cmd)
	expect := demoStream(t, d.demo, "bob")
	if got := d.post(`{"recipient": "*", "event": "message", "data": "1"}`); got.status != http.StatusCreated {
		t.Errorf("insert: got %d, %s, want 201", got.status, got.body)
	}
	expect("1")
	postmaster := postmasterOf(t, home)
	d.stop(syscall.SIGINT)
	if dbtest.Running(postmaster) {
		t.Errorf("the demo has stopped, but its PostgreSQL (pid %d) has not", postmaster)
	}
}

// TestDemoOnNamedDatabase shows that the demo installs the schema in the database that the user names, and prints a
// psql command that opens this database.
func TestDemoOnNamedDatabase(t *testing.T) {
	t.Parallel()
	d := startDemo(t, dbtest.Empty(t))
	if want := "not a private database"; !strings.Contains(d.out.String(), want) {
		t.Errorf("the demo prints\n%s\nwant %q in it", d.out, want)
	}
	if want := "the schema rowcast in this database now has version "; !strings.Contains(d.err.String(), want) {
		t.Errorf("the demo prints\n%s\nwant %q in it", d.err, want)
	}
	d.runPsql(`INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1'), ('bob', '2')`)
	for user, want := range map[string][]string{"alice": {"1"}, "bob": {"2"}} {
		if got := d.rows(user); !slices.Equal(got, want) {
			t.Errorf("the inbox of %s has the rows %v, want %v", user, got, want)
		}
	}
}

// TestDemoOrdersOfAnotherRole shows that the demo does not use a table whose triggers another role may have written.
func TestDemoOrdersOfAnotherRole(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	name, _ := login(t, dsn, "Intruder")
	role := pgx.Identifier{name}.Sanitize()
	refused := func() {
		t.Helper()
		code, _, errs := run(t, nil, "demo", "--listen", "127.0.0.1:0", "--database-url", dsn)
		if code != 1 || !strings.Contains(errs, "another role owns the table or its schema") || strings.Count(errs, "DROP SCHEMA rowcast_demo CASCADE") != 1 {
			t.Errorf("got exit code %d, %s, want 1, the error that another role owns the table or its schema, and one DROP SCHEMA rowcast_demo CASCADE", code, errs)
		}
	}
	runSQL(t, dsn, "CREATE SCHEMA rowcast_demo AUTHORIZATION "+role)
	refused()
	runSQL(t, dsn, "ALTER SCHEMA rowcast_demo OWNER TO current_user", "CREATE TABLE rowcast_demo.orders (customer text, product text)",
		"ALTER TABLE rowcast_demo.orders OWNER TO "+role)
	refused()
	runSQL(t, dsn, "DROP SCHEMA rowcast_demo CASCADE")
	startDemo(t, dsn)
}

// TestDemoHidesPassword shows that no password of a connection string is printed or served.
func TestDemoHidesPassword(t *testing.T) {
	t.Parallel()
	dsn, err := url.Parse(dbtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	dsn.User = url.UserPassword(dsn.User.Username(), "secret")
	keyValue := fmt.Sprintf("host=%s port=%s user=%s dbname=%s password=secret",
		dsn.Query().Get("host"), dsn.Query().Get("port"), dsn.User.Username(), dsn.Path[1:])
	for _, dsn := range []string{dsn.String(), keyValue} {
		d := startDemo(t, dsn)
		page := ask(t, http.MethodGet, d.url+"/")
		if shown := d.out.String() + d.err.String() + page.body; page.status != http.StatusOK || strings.Contains(shown, "secret") {
			t.Errorf("got status %d, want 200, and no password in the page and the output:\n%s", page.status, shown)
		}
		d.runPsql("SELECT 1")
	}
}

// TestDemoTakesAnotherPort shows that the demo starts on a free port if the port of its address is in use.
func TestDemoTakesAnotherPort(t *testing.T) {
	t.Parallel()
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	d := startDemo(t, dbtest.Database(t), "--listen", taken.Addr().String())
	if got, want := d.err.String(), taken.Addr().String()+" is in use"; !strings.Contains(got, want) {
		t.Errorf("the demo prints %q, want %q in it", got, want)
	}
	if got := ask(t, http.MethodGet, d.url+"/"); got.status != http.StatusOK {
		t.Errorf("GET /: got status %d, want 200", got.status)
	}
}

// TestDemoServesItsFiles shows that the page's files have the content types that browsers require, and that other files
// are not served.
func TestDemoServesItsFiles(t *testing.T) {
	t.Parallel()
	d := startDemo(t, dbtest.Database(t))
	for path, want := range map[string]string{
		"/": "text/html", "/demo/demo.js": "text/javascript", "/demo/demo.css": "text/css", "/demo/icon.svg": "image/svg+xml", "/rowcast.js": "text/javascript",
	} {
		if got := ask(t, http.MethodGet, d.url+path); got.status != http.StatusOK || !strings.HasPrefix(got.header.Get("Content-Type"), want) {
			t.Errorf("%s: got status %d, type %s, want 200 and a type that begins with %s", path, got.status, got.header.Get("Content-Type"), want)
		}
	}
	for _, path := range []string{"/demo/index.html", "/demo/..%2fpage.go", "/demo/.", "/demo/"} {
		if got := ask(t, http.MethodGet, d.url+path); got.status < 400 || got.status >= 500 {
			t.Errorf("%s: got status %d, want 4xx", path, got.status)
		}
	}
}

// TestDemoRefuses shows that the demo refuses malformed requests, and requests from pages of other origins. If
// PostgreSQL refuses a row, the answer contains the error of PostgreSQL.
func TestDemoRefuses(t *testing.T) {
	t.Parallel()
	d := startDemo(t, dbtest.Database(t))
	const row = `{"recipient": "alice", "event": "notify", "data": "{}"}`
	for name, test := range map[string]struct {
		body    string
		headers []string
		status  int
		text    string
	}{
		"a page whose host name resolves to this machine": {row, []string{"Host", "evil.example"}, http.StatusForbidden, "localhost"},
		"a page of another site":                          {row, []string{"Sec-Fetch-Site", "cross-site"}, http.StatusForbidden, ""},
		"a page at another port":                          {row, []string{"Sec-Fetch-Site", "same-site"}, http.StatusForbidden, ""},
		"a page of another origin, in an old browser":     {row, []string{"Origin", "http://evil.example"}, http.StatusForbidden, ""},
		"a reserved event":                                {`{"recipient": "alice", "event": "rowcast.x", "data": "{}"}`, nil, http.StatusUnprocessableEntity, "event_is_not_reserved"},
		"an empty recipient":                              {`{"recipient": "", "event": "x", "data": "{}"}`, nil, http.StatusUnprocessableEntity, "recipient_is_1_to_256_bytes"},
		"no recipient":                                    {`{"event": "x", "data": "{}"}`, nil, http.StatusUnprocessableEntity, "recipient_is_1_to_256_bytes"},
		"an event with a line break":                      {`{"recipient": "alice", "event": "a\nb", "data": "{}"}`, nil, http.StatusUnprocessableEntity, "event_has_no_line_break"},
		"an event with NUL":                               {`{"recipient": "alice", "event": "a\u0000b", "data": "{}"}`, nil, http.StatusUnprocessableEntity, "0x00"},
		"data that is not JSON":                           {`{"recipient": "alice", "event": "x", "data": "{"}`, nil, http.StatusUnprocessableEntity, "invalid input syntax for type json"},
		"a request that is not JSON":                      {`recipient=alice`, nil, http.StatusBadRequest, "cannot read the request: "},
		"an unknown field":                                {`{"recipient": "alice", "event": "x", "data": "{}", "id": 1}`, nil, http.StatusBadRequest, "unknown field"},
		"a body above the limit":                          {`{"data": "` + strings.Repeat("x", 16<<20), nil, http.StatusBadRequest, "too large"},
	} {
		got := d.post(test.body, test.headers...)
		if got.status != test.status || !strings.Contains(got.body, test.text) {
			t.Errorf("%s: got %d, %s, want %d and %q in it", name, got.status, got.body, test.status, test.text)
		}
	}
	if got := d.rows("alice"); got != nil {
		t.Errorf("the refused requests inserted %v, want no row", got)
	}
	if got := d.post(row, "Sec-Fetch-Site", "same-origin", "Origin", d.url); got.status != http.StatusCreated {
		t.Errorf("the page's own request: got %d %s, want 201", got.status, got.body)
	}
}

// TestDemoListensOnLoopback shows that the demo refuses to listen at an address that is not a loopback address.
func TestDemoListensOnLoopback(t *testing.T) {
	t.Parallel()
	for _, address := range []string{":8080", "0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "example.com:8080"} {
		code, _, errs := run(t, nil, "demo", "--listen", address)
		if code != 2 || !strings.Contains(errs, "not a loopback address") {
			t.Errorf("--listen %s: got exit code %d, %s, want 2 and the error that this is not a loopback address", address, code, errs)
		}
	}
}

func TestDemoWithoutDatabase(t *testing.T) {
	t.Parallel()
	code, _, errs := run(t, environment{"DATABASE_URL": "postgres://u:secret@127.0.0.1:1/d?sslmode=disable"}, "demo", "--listen", "127.0.0.1:0")
	if code != 1 || !strings.Contains(errs, "cannot connect to PostgreSQL at 127.0.0.1:1") || strings.Contains(errs, "secret") {
		t.Errorf("got exit code %d, %s, want 1 and an error with the address but not the password", code, errs)
	}
}

// demoStream opens the stream of a user. The returned function waits for the next event that is not a heartbeat, and
// compares its data with want.
func demoStream(t *testing.T, d demo, uid string) func(want string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	t.Cleanup(cancel)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, d.url+"/events?uid="+uid, nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { response.Body.Close() })
	text, event := bufio.NewScanner(response.Body), ""
	next := func() string {
		for text.Scan() {
			field, value, _ := strings.Cut(text.Text(), ": ")
			switch {
			case field == "data" && event != "rowcast.beat":
				return value
			case field == "event":
				event = value
			case text.Text() == "":
				event = ""
			}
		}
		return fmt.Sprintf("the end of the stream (%v)", text.Err())
	}
	next() // rowcast.void
	next() // rowcast.hello
	return func(want string) {
		t.Helper()
		if got := next(); got != want {
			t.Errorf("the stream sends %s, want %s", got, want)
		}
	}
}

// postmasterOf returns the process id of the private PostgreSQL.
func postmasterOf(t *testing.T, home string) int {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(home, "cache", "rowcast", "demo", "data", "postmaster.pid"))
	if err != nil {
		t.Fatal(err)
	}
	line, _, _ := bytes.Cut(text, []byte("\n"))
	pid, err := strconv.Atoi(string(line))
	if err != nil {
		t.Fatal(err)
	}
	return pid
}

func exitCode(err error) int {
	if exit, ok := errors.AsType[*exec.ExitError](err); ok {
		return exit.ExitCode()
	}
	return -1
}
