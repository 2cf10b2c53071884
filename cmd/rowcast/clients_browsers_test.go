package main_test

import (
	"bufio"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"

	"rowcast/sql/dbtest"
)

// servePages serves the page for browsers and its service worker. It records what the pages report.
func (c *course) servePages() *httptest.Server {
	c.t.Helper()
	mux := http.NewServeMux()
	mux.Handle("GET /", http.FileServer(http.Dir(eventSourcesDir)))
	mux.HandleFunc("POST /heard/{user}", func(_ http.ResponseWriter, r *http.Request) {
		var events []heardEvent
		if err := json.NewDecoder(r.Body).Decode(&events); err != nil {
			c.t.Errorf("a page reported events that cannot be read: %v", err)
		}
		c.mu.Lock()
		p := c.inBrowsers[r.PathValue("user")]
		c.mu.Unlock()
		for _, e := range events {
			p.add(e)
		}
	})
	server := httptest.NewUnstartedServer(mux)
	// The cutter passes a whole connection on to this server or to the hub, so a connection must have one request only.
	server.Config.SetKeepAlivesEnabled(false)
	server.Start()
	c.t.Cleanup(server.Close)
	return server
}

// startChromium opens the pages in Chromium.
func startChromium(t *testing.T, _ string, participants []*participant) {
	t.Helper()
	chromium := startBrowser(t)
	for _, p := range participants {
		chromium.open(t, p.page)
	}
}

// startFirefox opens the pages in Firefox.
func startFirefox(t *testing.T, _ string, participants []*participant) {
	t.Helper()
	program, home := newFirefox(t, "")
	args := []string{"--headless", "--no-remote", "--profile", home}
	for _, p := range participants {
		args = append(args, p.page)
	}
	startInBrowser(t, home, nil, program, args...)
}

// newFirefox returns the path of Firefox, and a new profile for it. more has further preferences.
func newFirefox(t *testing.T, more string) (program, home string) {
	t.Helper()
	program, home = dbtest.Program(t, "firefox-esr", "firefox-esr", "firefox"), dbtest.Home(t)
	// These preferences are meant to keep Firefox from opening pages of its own, updating itself and checking the
	// network.
	const preferences = `
		user_pref("app.update.enabled", false);
		user_pref("browser.aboutwelcome.enabled", false);
		user_pref("browser.shell.checkDefaultBrowser", false);
		user_pref("browser.tabs.firefox-view", false);
		user_pref("datareporting.policy.dataSubmissionEnabled", false);
		user_pref("extensions.update.enabled", false);
		user_pref("network.captive-portal-service.enabled", false);
		user_pref("network.connectivity-service.enabled", false);
		user_pref("services.settings.server", "http://127.0.0.1:1");
		user_pref("toolkit.telemetry.reportingpolicy.firstRun", false);
	`
	if err := os.WriteFile(filepath.Join(home, "user.js"), []byte(preferences+more), 0o600); err != nil {
		t.Fatal(err)
	}
	return program, home
}

// startWebKit opens the pages in MiniBrowser, the browser of WebKitGTK for tests. MiniBrowser needs a display.
func startWebKit(t *testing.T, _ string, participants []*participant) {
	t.Helper()
	program, home, environment := findMiniBrowser(t), dbtest.Home(t), startDisplay(t)
	for _, p := range participants {
		startInBrowser(t, home, environment, program, p.page)
	}
}

// startDisplay starts a display in memory. It returns the environment of a browser that uses it.
func startDisplay(t *testing.T) (environment []string) {
	t.Helper()
	xvfb := dbtest.Program(t, "xvfb", "Xvfb")
	display, number, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	server := exec.Command(xvfb, "-displayfd", "3", "-nolisten", "tcp", "-screen", "0", "800x600x24")
	server.ExtraFiles = []*os.File{number}
	startUntilEnd(t, server, syscall.SIGTERM) // after SIGTERM, Xvfb removes its socket
	number.Close()
	defer display.Close()
	name, err := bufio.NewReader(display).ReadString('\n') // the whole line, because Xvfb ends if the pipe is closed before
	if err != nil {
		t.Fatalf("read the number of the display from Xvfb: %v", err)
	}
	return []string{"DISPLAY=:" + strings.TrimSpace(name), "GDK_BACKEND=x11", "LIBGL_ALWAYS_SOFTWARE=1"}
}

// findMiniBrowser returns the path of MiniBrowser, the browser of WebKitGTK.
func findMiniBrowser(t *testing.T) string {
	t.Helper()
	pattern := "/usr/lib/*/webkit2gtk-4.*/MiniBrowser"
	programs, err := filepath.Glob(pattern)
	if err != nil {
		t.Fatal(err)
	}
	if len(programs) == 0 {
		dbtest.Missing(t, fmt.Sprintf("there is no %s on this %s: apt install webkit2gtk-driver (Debian)", pattern, runtime.GOOS))
	}
	return programs[len(programs)-1]
}

// startInBrowser starts a browser that keeps its files in the directory home. environment has further variables.
func startInBrowser(t *testing.T, home string, environment []string, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Env = append(os.Environ(), environment...)
	for _, name := range []string{"HOME", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME", "XDG_RUNTIME_DIR"} {
		cmd.Env = append(cmd.Env, name+"="+home)
	}
	startUntilEnd(t, cmd, syscall.SIGKILL)
}

// startUntilEnd starts a program, and ends it by a signal at the end of the test.
func startUntilEnd(t *testing.T, cmd *exec.Cmd, signal syscall.Signal) {
	t.Helper()
	stderr := newOutput()
	cmd.Stderr = stderr
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	t.Cleanup(func() {
		_ = cmd.Process.Signal(signal)
		receive(t, ended, "the end of "+cmd.Path)
		if t.Failed() {
			t.Logf("%s: %s", cmd.Path, stderr)
		}
	})
}
