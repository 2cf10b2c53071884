package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	main "rowcast/cmd/rowcast"
)

// A demo is a running rowcast demo.
type demo struct {
	t         *testing.T
	out, err  *output
	url, psql string // the address of the page, and the psql command line that the demo printed
}

// awaitDemo waits until a demo is ready, and parses what it printed.
func awaitDemo(t *testing.T, out, err *output) demo {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the demo printed:\n%s%s", out, err)
		}
	})
	page := out.await(t, `(?s)(http://\S+)/.*Ctrl-C`)[1]
	psql := regexp.MustCompile(`(?m)^ *(\S*psql .*)$`).FindString(out.String())
	return demo{t, out, err, page, strings.TrimSpace(psql)}
}

// startDemo starts a demo in the test process, with the database dsn, and waits until it is ready.
func startDemo(t *testing.T, dsn string, args ...string) demo {
	t.Helper()
	args = append([]string{"demo", "--listen", "127.0.0.1:0", "--database-url", dsn}, args...)
	p := start(t, nil, args...)
	return awaitDemo(t, p.out, p.err)
}

// programVariable is the environment variable that turns the test binary into the program. Some tests need the program
// in a process of its own, for example to send it a signal.
const programVariable = "TEST_ROWCAST_PROGRAM"

func init() {
	if os.Getenv(programVariable) != "" {
		main.Main()
	}
}

// command returns a command that runs the program with the home directory home. No environment variable, such as
// DATABASE_URL, sets a flag of the program.
func command(t testing.TB, home string, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // longer than a test takes
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{programVariable + "=1", "HOME=" + home, "XDG_CACHE_HOME=" + filepath.Join(home, "cache"), "PATH=" + os.Getenv("PATH")}
	return cmd
}

// A demoProcess is a demo that runs in its own process.
type demoProcess struct {
	demo
	cmd   *exec.Cmd
	ended chan error
}

// spawn starts a demo in its own process and waits until it is ready. At the end of the test, the process is killed.
func spawn(t *testing.T, cmd *exec.Cmd) *demoProcess {
	t.Helper()
	out, errs := newOutput(), newOutput()
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &demoProcess{demo: demo{t: t}, cmd: cmd, ended: make(chan error, 1)}
	go func() {
		err := cmd.Wait()
		out.close()
		p.ended <- err
	}()
	t.Cleanup(func() { p.kill() })
	p.demo = awaitDemo(t, out, errs)
	return p
}

// wait waits for the end of the process and returns its error.
func (p *demoProcess) wait() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err // for the next call
		return err
	case <-time.After(waitLimit):
		p.t.Errorf("the demo did not end within %v", waitLimit)
		return nil
	}
}

func (p *demoProcess) kill() {
	_ = p.cmd.Process.Kill()
	receive(p.t, p.ended, "the end of the demo")
	p.ended <- nil
}

// stop sends a signal, as a terminal or a service manager does, and checks that the process then exits with code 0.
func (p *demoProcess) stop(signal syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
	if err := p.wait(); err != nil {
		p.t.Errorf("after the signal %v, the demo ended with %v, want exit code 0", signal, err)
	}
}

// post sends a request to insert a row, as the page does. headers are pairs of a name and a value.
func (d demo) post(body string, headers ...string) answer {
	d.t.Helper()
	return send(d.t, http.MethodPost, d.url+"/demo/notifications", body, headers...)
}

// rows returns the data of the rows in a user's inbox, the oldest row first.
func (d demo) rows(user string) []string {
	d.t.Helper()
	var data []string
	for _, item := range (inboxClient{T: d.t, url: d.url}).list("?uid=" + user).Items {
		var text bytes.Buffer
		if err := json.Compact(&text, item.Data); err != nil {
			d.t.Fatal(err)
		}
		data = append(data, text.String())
	}
	slices.Reverse(data)
	return data
}

// printedOrder returns the statement that inserts an order, as the demo printed it.
func (d demo) printedOrder() string {
	d.t.Helper()
	statement := regexp.MustCompile(`INSERT INTO rowcast_demo[^;]*;`).FindString(d.out.String())
	if statement == "" {
		d.t.Fatal("the demo prints no statement that inserts an order")
	}
	return statement
}

// runPsql runs the psql command line that the demo printed, with a statement as its input.
func (d demo) runPsql(statement string) {
	d.t.Helper()
	ctx, cancel := context.WithTimeout(d.t.Context(), waitLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", "-c", d.psql+" -X -v ON_ERROR_STOP=1")
	cmd.Stdin = strings.NewReader(statement)
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Errorf("%s: %v: %s", d.psql, err, out)
	}
}

// runSQL runs statements one after another on a new connection.
func runSQL(t *testing.T, dsn string, statements ...string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	for _, statement := range statements {
		if _, err := conn.Exec(t.Context(), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
}
