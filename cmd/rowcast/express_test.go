package main_test

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

// startExpress runs the app in cmd/rowcast/README.md. Its sessions end after the given number of milliseconds without a
// visit, and its grants last for a second. startExpress returns the URL of the app.
func startExpress(t *testing.T, milliseconds string) string {
	t.Helper()
	node, modules := dbtest.Node(t), dbtest.NodeModules(t, exampleDir, "example", "express-session")
	address := freeAddress(t)
	host, port, _ := strings.Cut(address, ":")
	app := printed(t, "cmd/rowcast/README.md", "js", "express-session")
	for was, is := range map[string]string{
		"30 * 60 * 1000": milliseconds, "expires_in: 300": "expires_in: 1", `listen(3000, "127.0.0.1")`: `listen(` + port + `, "` + host + `")`,
	} {
		if strings.Count(app, was) != 1 {
			t.Fatalf("the app in cmd/rowcast/README.md does not contain %q exactly once", was)
		}
		app = strings.Replace(app, was, is, 1)
	}
	file := filepath.Join(t.TempDir(), "app.cjs") // with .js, a package.json above the directory could change its meaning
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

// The app in cmd/rowcast/README.md grants topics, and renewals do not extend its sessions.
func TestExpress(t *testing.T) {
	t.Parallel()
	app := startExpress(t, strconv.FormatInt(idle.Milliseconds(), 10))
	h := secure(t, "--auth-url", app+"/rowcast/auth")
	cookie := signIn(t, app)
	status, says := listenTo(t, h, "?topic=ticket:1", "Cookie", cookie)
	if want := `{"recipients":["42","team:7","ticket:1"],"heartbeat":15}`; status != 200 || says != want {
		t.Errorf("with a topic: got %d, %s, want 200, %s", status, says, want)
	}
	if status, says := listenTo(t, h, "?topic=ticket:2", "Cookie", cookie); status != 403 {
		t.Errorf("with a topic that the user may not read: got %d, %s, want 403", status, says)
	}
	checkRenewals(t, h, app, cookie)
}
