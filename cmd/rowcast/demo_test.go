package main_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"html"
	"net/http"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"rowcast/sql/dbtest"
)

// TestDemo runs four demos with a private PostgreSQL. The second demo begins while the first one runs, and fails. The third one begins
// after the first one was killed. The fourth one has --fresh, and ends when its PostgreSQL is killed.
func TestDemo(t *testing.T) {
	t.Parallel()
	home := dbtest.Home(t)
	begin := func(args ...string) *demoProcess {
		cmd := command(t, home, append([]string{"demo", "--listen", "127.0.0.1:0"}, args...)...)
		cmd.Env = append(cmd.Env, "PGSERVICE=other", "PGHOST=other", "PGOPTIONS=-c default_transaction_read_only=on") // a private server ignores these variables
		return spawn(t, cmd)
	}
	d := begin()
	if !strings.Contains(d.out.String(), home) {
		t.Fatalf("the demo does not use its home directory %s:\n%s", home, d.out)
	}
	if got := ask(t, http.MethodGet, d.url+"/"); got.status != http.StatusOK || !strings.Contains(html.UnescapeString(got.body), d.psql) {
		t.Errorf("GET /: got %d, %s\nwant 200 and the command %s", got.status, got.body, d.psql)
	}
	notifyAlice(t, d.demo)
	second, err := command(t, home, "demo").CombinedOutput()
	if exitCode(err) != 1 || !strings.Contains(string(second), "only one demo runs at a time") {
		t.Errorf("a second demo ended with %v and printed:\n%s", err, second)
	}

	d.kill()
	d = begin()
	if got, want := d.rows("alice"), []string{`{"n":1}`, `{"n":2}`}; !slices.Equal(got, want) {
		t.Errorf("after a kill, the rows are %v, want %v", got, want)
	}
	postmaster := postmasterOf(t, home)
	d.stop(syscall.SIGTERM)
	if dbtest.Running(postmaster) {
		t.Errorf("the demo has stopped, but its PostgreSQL (pid %d) has not", postmaster)
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
		t.Errorf("after its PostgreSQL was killed, the demo ended with %v and printed:\n%s", err, d.err)
	}
}

// notifyAlice sends notifications to Alice with the page and with psql, and waits for each of them.
func notifyAlice(t *testing.T, d demo) {
	t.Helper()
	expect := demoStream(t, d, "alice")
	if got := d.post(`{"recipient": "alice", "event": "notify", "data": "{\"n\": 1}"}`); got.status != http.StatusCreated {
		t.Errorf("insert: %d %s", got.status, got.body)
	}
	expect(`{"n": 1}`)
	d.runPsql(`INSERT INTO rowcast.notifications (data) VALUES ('{"n": 2}')`)
	expect(`{"n": 2}`)
	d.runPsql(`NOTIFY rowcast, 'a message'`)
	expect(`"a message"`)
}

// TestDemoAsNobody shows that a user without any rights can run the demo. If root runs the tests, TestDemo shows that root can run it.
func TestDemoAsNobody(t *testing.T) {
	t.Parallel()
	nobody, err := user.Lookup("nobody")
	if err != nil || os.Geteuid() != 0 {
		t.Skip("only root can start a program as the user nobody")
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
	if got := d.post(`{"event": "message", "data": "1"}`); got.status != http.StatusCreated {
		t.Errorf("insert: %d %s", got.status, got.body)
	}
	expect("1")
	postmaster := postmasterOf(t, home)
	d.stop(syscall.SIGINT)
	if dbtest.Running(postmaster) {
		t.Errorf("PostgreSQL (pid %d) is still running", postmaster)
	}
}

// TestDemoListensOnLoopback shows that other machines cannot reach the demo.
func TestDemoListensOnLoopback(t *testing.T) {
	t.Parallel()
	for _, address := range []string{":8080", "0.0.0.0:8080", "[::]:8080", "192.0.2.1:8080", "example.com:8080"} {
		code, _, errs := run(t, nil, "demo", "--listen", address)
		if code != 2 || !strings.Contains(errs, "not a loopback address") {
			t.Errorf("--listen %s: got exit code %d, %s, want 2", address, code, errs)
		}
	}
}

func TestDemoWithoutDatabase(t *testing.T) {
	t.Parallel()
	code, _, errs := run(t, environment{"DATABASE_URL": "postgres://u:secret@127.0.0.1:1/d?sslmode=disable"}, "demo", "--listen", "127.0.0.1:0")
	if code != 1 || !strings.Contains(errs, "cannot connect to PostgreSQL at 127.0.0.1:1") || strings.Contains(errs, "secret") {
		t.Errorf("exit code %d, %s", code, errs)
	}
}

// demoStream opens the stream of a user. The returned function waits for the next event and compares its data with want.
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
