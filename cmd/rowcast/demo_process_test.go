package main_test

import (
	"context"
	"encoding/json"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
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
	url, psql string // of its page, without a path; the command line that it prints
}

// awaitDemo waits until a demo is ready, and reads what it says of itself.
func awaitDemo(t *testing.T, out, err *output) demo {
	t.Helper()
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("the demo said: %s%s", out, err)
		}
	})
	page := out.await(t, `(?s)(http://\S+)/\?uid=alice.*Ctrl-C`)[1]
	psql := regexp.MustCompile(`(?m)^ *(\S*psql .*)$`).FindString(out.String())
	return demo{t, out, err, page, strings.TrimSpace(psql)}
}

// startDemo starts a demo inside of the test, on a database of the test's own.
func startDemo(t *testing.T, dsn string, args ...string) demo {
	t.Helper()
	args = append([]string{"demo", "--listen", "127.0.0.1:0", "--database-url", dsn}, args...)
	p := start(t, nil, args...)
	return awaitDemo(t, p.out, p.err)
}

// programVariable makes this test binary the program itself, for tests that need a process of their own to signal and to kill. Its
// name is none of a flag, which the benchmark keeps from its children.
const programVariable = "TEST_ROWCAST_PROGRAM"

func init() {
	if os.Getenv(programVariable) != "" {
		main.Main()
	}
}

// command prepares the program, with a home of its own and nothing in its environment that it would heed.
func command(t testing.TB, home string, args ...string) *exec.Cmd {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute) // far above what any takes
	t.Cleanup(cancel)
	cmd := exec.CommandContext(ctx, program, args...)
	cmd.Env = []string{programVariable + "=1", "HOME=" + home, "XDG_CACHE_HOME=" + filepath.Join(home, "cache"), "PATH=" + os.Getenv("PATH")}
	return cmd
}

// A demoProcess is a demo in a process of its own.
type demoProcess struct {
	demo
	cmd   *exec.Cmd
	ended chan error
}

// spawn starts a command and waits until the demo is ready. It is killed at the end of the test, if it still runs.
func spawn(t *testing.T, cmd *exec.Cmd) *demoProcess {
	t.Helper()
	out, errs := newOutput(), newOutput()
	cmd.Stdout, cmd.Stderr = out, errs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	p := &demoProcess{cmd: cmd, ended: make(chan error, 1)}
	go func() {
		err := cmd.Wait()
		out.close()
		p.ended <- err
	}()
	t.Cleanup(func() { p.kill() })
	p.demo = awaitDemo(t, out, errs)
	return p
}

// wait returns how it ended.
func (p *demoProcess) wait() error {
	p.t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err // for whoever asks again
		return err
	case <-time.After(patience):
		p.t.Error("the demo does not end")
		return nil
	}
}

func (p *demoProcess) kill() {
	_ = p.cmd.Process.Kill()
	receive(p.t, p.ended, "the end of the demo")
	p.ended <- nil
}

// stop ends it as the terminal or a service manager does.
func (p *demoProcess) stop(signal syscall.Signal) {
	p.t.Helper()
	if err := p.cmd.Process.Signal(signal); err != nil {
		p.t.Fatal(err)
	}
	if err := p.wait(); err != nil {
		p.t.Errorf("the demo ended by %v: %v", signal, err)
	}
}

// post inserts a row as the page does, with headers: name, value, name, value.
func (d demo) post(body string, headers ...string) answer {
	d.t.Helper()
	return send(d.t, http.MethodPost, d.url+"/demo/notifications", body, headers...)
}

// rows are the data of what is in the table for a user, as the page gets them.
func (d demo) rows(user string) []string {
	d.t.Helper()
	got := ask(d.t, http.MethodGet, d.url+"/demo/notifications?uid="+user)
	var history struct {
		Cursor string
		Rows   []struct{ Data json.RawMessage }
	}
	if err := json.Unmarshal([]byte(got.body), &history); got.status != http.StatusOK || err != nil || history.Cursor == "" {
		d.t.Fatalf("history: %d %s (%v)", got.status, got.body, err)
	}
	var data []string
	for _, row := range history.Rows {
		data = append(data, string(row.Data))
	}
	return data
}

// runPsql pastes the printed command line into a shell.
func (d demo) runPsql(statement string) {
	d.t.Helper()
	cmd := exec.Command("sh", "-c", d.psql+" -X -v ON_ERROR_STOP=1")
	cmd.Stdin = strings.NewReader(statement)
	if out, err := cmd.CombinedOutput(); err != nil {
		d.t.Errorf("%s: %v: %s", d.psql, err, out)
	}
}

// runSQL runs statements, one by one, on a connection of their own.
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
