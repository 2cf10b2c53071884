package main_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"rowcast/sql/dbtest"
)

// startExpress runs the app in README.md with sessions that end after a number of milliseconds without a visit, and with
// grants for a second. It returns the URL of the app.
func startExpress(t *testing.T, milliseconds string) string {
	t.Helper()
	node, modules := dbtest.Node(t), dbtest.NodeModules(t, ".ci/express", "express", "express-session")
	address := freeAddress(t)
	host, port, _ := strings.Cut(address, ":")
	app := printed(t, "cmd/rowcast/README.md", "js", "express-session")
	for was, is := range map[string]string{
		"30 * 60 * 1000": milliseconds, "expires_in: 300": "expires_in: 1", `listen(3000, "127.0.0.1")`: `listen(` + port + `, "` + host + `")`,
	} {
		if strings.Count(app, was) != 1 {
			t.Fatalf("the app in README.md does not contain %q exactly once", was)
		}
		app = strings.Replace(app, was, is, 1)
	}
	file := filepath.Join(t.TempDir(), "app.js")
	if err := os.WriteFile(file, []byte(app), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, stop := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, node, file)
	command.Env = append(os.Environ(), "NODE_PATH="+modules, "SESSION_SECRET="+secret)
	command.Stdout, command.Stderr = t.Output(), t.Output()
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		stop()
		_ = command.Wait()
	})
	url := "http://" + address
	waitFor(t, "an answer of the app", func() bool { return beginOfAnswer(t, url) != "" })
	return url
}

// The sessions of the app in README.md end after a time without a visit. An open stream, which the hub renews, does not
// extend its session, and ends with it. A visit extends the session, and the stream continues.
func TestRenewalsLeaveExpressSessionAlone(t *testing.T) {
	t.Parallel()
	const idle = 3 * time.Second
	app := startExpress(t, "3000")
	h := secure(t, "--auth-url", app+"/rowcast/auth")
	login := ask(t, http.MethodPost, app+"/login")
	cookie, _, _ := strings.Cut(login.header.Get("Set-Cookie"), ";")
	if login.status != http.StatusNoContent || cookie == "" {
		t.Fatalf("login: got %+v, want 204 and a cookie", login)
	}
	visit := func() string { return ask(t, http.MethodGet, app+"/", "Cookie", cookie).body }
	status, says := listenTo(t, h, "?topic=ticket:1", "Cookie", cookie)
	if want := `{"recipients":["42","team:7","ticket:1"],"heartbeat":15}`; status != 200 || says != want {
		t.Errorf("with a topic: got %d, %s, want 200, %s", status, says, want)
	}
	if status, says := listenTo(t, h, "?topic=ticket:2", "Cookie", cookie); status != 403 {
		t.Errorf("with a topic that the user may not read: got %d, %s, want 403", status, says)
	}

	s := openStream(t, h, "", "", "Cookie", cookie)
	opened := time.Now()
	last := opened
	for last.Sub(opened) < 2*idle { // visits, without which the session would end twice in this time
		if got := visit(); got != "signed in" {
			t.Fatalf("%v after the stream was opened, the user is %q", time.Since(opened), got)
		}
		last = time.Now()
		time.Sleep(idle / 10)
	}
	if bye := s.next("rowcast.bye"); !strings.Contains(bye.Data, `"revoked"`) {
		t.Errorf("got %s, want the reason revoked", bye.Data)
	}
	if lasted := time.Since(last); lasted < idle-idle/10 {
		t.Errorf("the stream ended %v after the last visit, want %v or more", lasted, idle)
	}
	if got := visit(); got != "signed out" {
		t.Errorf("after the stream has ended, the user is %q, want signed out", got)
	}
}
