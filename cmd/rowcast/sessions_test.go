package main_test

import (
	"context"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"rowcast/sql/dbtest"
)

// idle is the time after which the apps of these tests end a session, counted from the last request that does not renew
// a stream.
const idle = 10 * time.Second

// signIn returns the cookie of a new session of the user 42.
func signIn(t *testing.T, app string) (cookie string) {
	t.Helper()
	login := ask(t, http.MethodPost, app+"/login")
	cookie, _, _ = strings.Cut(login.header.Get("Set-Cookie"), ";")
	if login.status != http.StatusNoContent || cookie == "" {
		t.Fatalf("login: got %+v, want 204 and a cookie", login)
	}
	return cookie
}

// checkRenewals opens a stream with a session. The hub renews the stream about once a second. checkRenewals checks that
// a visit of a page extends the session, and that a renewal does not: after the last visit, the session ends, and then
// the stream.
func checkRenewals(t *testing.T, h *hub, app, cookie string) {
	t.Helper()
	visit := func() string { return ask(t, http.MethodGet, app+"/", "Cookie", cookie).body }
	s := openStream(t, h, "", "", "Cookie", cookie)
	opened := time.Now()
	last := opened
	for last.Sub(opened) < 2*idle { // without the visits, the session would end within this time
		if got := visit(); got != "signed in" {
			t.Fatalf("%v after the stream was opened, the page says %q, want signed in", time.Since(opened), got)
		}
		last = time.Now()
		time.Sleep(idle / 10)
	}
	if bye := s.next("rowcast.bye"); !strings.Contains(bye.Data, `"revoked"`) {
		t.Errorf("got %s, want the reason revoked", bye.Data)
	}
	if lasted := time.Since(last); lasted < idle/2 { // Laravel counts whole seconds, so the session may end before idle has passed
		t.Errorf("the stream ended %v after the last visit, want at least %v", lasted, idle/2)
	}
	if got := visit(); got != "signed out" {
		t.Errorf("after the end of the stream, the page says %q, want signed out", got)
	}
}

// With the code of cmd/rowcast/README.md, a renewal of a stream does not extend the session of a framework.
func TestRenewalsLeaveSessionsAlone(t *testing.T) {
	t.Parallel()
	for _, framework := range []struct{ name, language, program, modules, packages string }{
		{"Django", "python", "/usr/bin/python3", "import django", "python3-django"},
		{"Rails", "ruby", "ruby", `require "action_controller/railtie"; require "webrick"`, "ruby ruby-railties ruby-webrick"},
		{"Laravel", "php", "php", `require "/usr/share/php/Illuminate/autoload.php"; exit(extension_loaded("pcntl") ? 0 : 1);`, "php-cli php-laravel-framework"},
	} {
		t.Run(framework.name, func(t *testing.T) {
			t.Parallel()
			program := dbtest.Interpreter(t, framework.program, framework.modules, framework.packages)
			app := startFramework(t, program, framework.name, framework.language)
			h := secure(t, "--auth-url", app+"/rowcast/auth")
			if status, says := listenTo(t, h, "", "Cookie", "session=other"); status != http.StatusUnauthorized {
				t.Errorf("without a session: got %d, %s, want 401", status, says)
			}
			checkRenewals(t, h, app, signIn(t, app))
		})
	}
}

// startFramework starts the app of a framework, and returns its URL.
func startFramework(t *testing.T, program, name, language string) string {
	t.Helper()
	dir := t.TempDir()
	file := filepath.Join(dir, "program_"+strings.ToLower(name)) // Python must not mistake it for the module django
	if err := os.WriteFile(file, []byte(frameworkApp(t, name, language)), 0o600); err != nil {
		t.Fatal(err)
	}
	address := freeAddress(t)
	host, port, _ := strings.Cut(address, ":")
	ctx, stop := context.WithCancel(context.Background())
	command := exec.CommandContext(ctx, program, file, host, port, dir)
	command.Env = []string{"PATH=" + os.Getenv("PATH"), "HOME=" + dir}
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

// frameworkApp returns the app of a framework in .ci/sessions, with the code of cmd/rowcast/README.md in place of the
// comment README. The app grants a stream for a second instead of five minutes.
func frameworkApp(t *testing.T, name, language string) string {
	t.Helper()
	section := afterText(t, readmeOf(t, "cmd/rowcast/README.md"), "\n- **"+name+"**")
	code, _, _ := strings.Cut(afterText(t, section, "\n  ```"+language), "\n  ```")
	code = strings.ReplaceAll(code, "\n  ", "\n") + "\n"
	files, err := filepath.Glob(filepath.Join(root, ".ci/sessions", strings.ToLower(name)+".*"))
	if err != nil || len(files) != 1 {
		t.Fatalf("got the apps %v and error %v, want one app for %s", files, err, name)
	}
	app, marker := readmeOf(t, strings.TrimPrefix(files[0], root+"/")), regexp.MustCompile(`(?m)^(#|//) README$`)
	if n := len(marker.FindAllString(app, -1)); n != 1 {
		t.Fatalf("%s has %d comments README, want 1", files[0], n)
	}
	app = marker.ReplaceAllLiteralString(app, code)
	lifetime := regexp.MustCompile(`(expires_in\W+)300\b`)
	if n := len(lifetime.FindAllString(app, -1)); n != 1 {
		t.Fatalf("the app for %s has an expires_in of 300 in %d places, want 1:\n%s", name, n, app)
	}
	return lifetime.ReplaceAllString(app, "${1}1")
}
