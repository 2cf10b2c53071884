package main_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/cookiejar"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// exampleDir is the directory of the example app, in the repository.
const exampleDir = "stream/web/example"

// An example is the running app in stream/web/example, with its own hub and its own PostgreSQL server.
type example struct {
	t                *testing.T
	dsn              string // of the superuser, in the database of the app
	url, hubURL      string
	environment      []string
	settings         string // the exports and changes of directory in the README
	hubLine, appLine string // the last two commands of the README
	hub              *exampleHub
}

// An exampleHub is the process of the hub that an example has started last.
type exampleHub struct{ *exec.Cmd }

// startExample runs the commands in the README of the example. It replaces addresses, sets a short heartbeat, and uses
// a copy of the example's directory. It also replaces two programs: sudo connects psql to the server of the test, and
// npm uses the modules that .ci/run has installed.
func startExample(t *testing.T) *example {
	t.Helper()
	server, appPort, hubAddress := dbtest.Cluster(t), dbtest.Port(t), freeAddress(t)
	admin, err := pgx.ParseConfig(server.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	x := &example{t: t, dsn: server.DSN("tasks"), url: fmt.Sprint("http://127.0.0.1:", appPort), hubURL: "http://" + hubAddress, hub: &exampleHub{}}
	x.environment = append(os.Environ(), fmt.Sprint("PORT=", appPort), "HUB="+x.hubURL, "ROWCAST_LISTEN="+hubAddress, "ROWCAST_HEARTBEAT=2s",
		"GOBIN="+filepath.Join(dir, "bin"), "GOWORK=off", "GOFLAGS=-buildvcs=false",
		strings.Join([]string{"PATH=" + filepath.Join(dir, "bin"), filepath.Dir(dbtest.Client(t, "psql")), filepath.Dir(dbtest.Node(t)), os.Getenv("PATH")}, ":"))
	modules := dbtest.NodeModules(t, exampleDir, "example", "connect-pg-simple")
	x.write(filepath.Join(dir, "bin", "npm"), fmt.Sprintf("[ \"$*\" = ci ] && cmp package-lock.json '%s/../package-lock.json' && ln -s '%s' node_modules", modules, modules))
	x.write(filepath.Join(dir, "bin", "sudo"), fmt.Sprintf("shift 2; PGHOST='%s' PGPORT=%d PGUSER=%s exec \"$@\"", admin.Host, admin.Port, admin.User))

	var setUp []string
	replace := strings.NewReplacer("localhost:5432", fmt.Sprint("127.0.0.1:", admin.Port), "http://127.0.0.1:3000", x.url)
	for _, line := range exampleCommands(t) {
		line = replace.Replace(line)
		switch {
		case strings.HasSuffix(line, " &"):
			x.hubLine = strings.TrimSuffix(line, " &")
		case strings.HasPrefix(line, "node "):
			x.appLine = line
		case line == "cd "+exampleDir:
			x.copyTo(filepath.Join(dir, exampleDir))
			setUp = append(setUp, "cd '"+dir+"'", line)
			x.settings += "cd '" + dir + "' && " + line + "\n"
		case strings.HasPrefix(line, "export "):
			x.settings += line + "\n"
			fallthrough
		default:
			setUp = append(setUp, line)
		}
	}
	if out, err := x.bash(strings.Join(setUp, "\n")).CombinedOutput(); err != nil {
		t.Fatalf("the commands of the README: %v\n%s", err, out)
	}
	x.startHub()
	t.Cleanup(x.killHub)
	runUntilEnd(t, x.bash(x.settings+"exec "+x.appLine))
	waitFor(t, "an answer of the app", func() bool { return beginOfAnswer(t, x.url) != "" })
	return x
}

// in returns the example for use in a subtest.
func (x *example) in(t *testing.T) *example {
	inTest := *x
	inTest.t = t
	return &inTest
}

// exampleCommands returns the commands in the README of the example.
func exampleCommands(t *testing.T) (commands []string) {
	t.Helper()
	for _, found := range regexp.MustCompile(`(?m)^    (.+)$`).FindAllStringSubmatch(section(t, readmeOf(t, exampleDir+"/README.md"), "## Run it"), -1) {
		commands = append(commands, found[1])
	}
	return commands
}

// write writes a shell script.
func (x *example) write(path, script string) {
	x.t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		x.t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("#!/bin/sh\n"+script+"\n"), 0o700); err != nil {
		x.t.Fatal(err)
	}
}

// copyTo copies the example, without Node modules that are installed in its directory.
func (x *example) copyTo(dir string) {
	x.t.Helper()
	for _, pattern := range []string{"*.*", "public/*"} {
		files, err := filepath.Glob(filepath.Join(root, exampleDir, pattern))
		if err != nil {
			x.t.Fatal(err)
		}
		for _, file := range files {
			name, err := filepath.Rel(filepath.Join(root, exampleDir), file)
			if err == nil {
				err = os.MkdirAll(filepath.Dir(filepath.Join(dir, name)), 0o700)
			}
			if err == nil {
				err = os.WriteFile(filepath.Join(dir, name), []byte(readmeOf(x.t, filepath.Join(exampleDir, name))), 0o600)
			}
			if err != nil {
				x.t.Fatal(err)
			}
		}
	}
}

// bash returns a command that runs a script in the root of the repository.
func (x *example) bash(script string) *exec.Cmd {
	command := exec.Command(dbtest.Program(x.t, "bash", "bash"), "-euc", script)
	command.Dir, command.Env = root, x.environment
	return command
}

func (x *example) startHub() {
	x.t.Helper()
	x.hub.Cmd = x.bash(x.settings + "exec " + x.hubLine)
	said := newOutput()
	x.hub.Stderr = said
	if err := x.hub.Start(); err != nil {
		x.t.Fatal(err)
	}
	said.await(x.t, "msg=listening")
}

// killHub kills the hub, as kill -9 does.
func (x *example) killHub() {
	x.t.Helper()
	if err := x.hub.Process.Kill(); err != nil {
		x.t.Fatal(err)
	}
	_ = x.hub.Wait()
}

// An exampleClient sends forms to the app without a browser.
type exampleClient struct {
	*example
	http http.Client
}

// client returns a client that has signed in.
func (x *example) client(user string) *exampleClient {
	x.t.Helper()
	jar, err := cookiejar.New(nil)
	if err != nil {
		x.t.Fatal(err)
	}
	c := &exampleClient{example: x, http: http.Client{
		Jar: jar, Timeout: waitLimit,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
	if got := c.post("/sign-in", x.url, "user", user); got != http.StatusSeeOther {
		x.t.Fatalf("sign in: got %d, want 303", got)
	}
	return c
}

// post sends a form as a page of an origin does, and returns the status. fields are names, each followed by its value.
func (c *exampleClient) post(path, origin string, fields ...string) int {
	c.t.Helper()
	form := url.Values{}
	for i := 0; i < len(fields); i += 2 {
		form.Set(fields[i], fields[i+1])
	}
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodPost, c.url+path, strings.NewReader(form.Encode()))
	if err != nil {
		c.t.Fatal(err)
	}
	request.Header.Set("Content-Type", "application/x-www-form-urlencoded")
	request.Header.Set("Origin", origin)
	response, err := c.http.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	_ = response.Body.Close()
	return response.StatusCode
}

// stream opens a stream.
func (c *exampleClient) stream() *http.Response {
	c.t.Helper()
	request, err := http.NewRequestWithContext(c.t.Context(), http.MethodGet, c.url+"/events", http.NoBody)
	if err != nil {
		c.t.Fatal(err)
	}
	response, err := c.http.Do(request)
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = response.Body.Close() })
	return response
}

// give gives a task to a user.
func (c *exampleClient) give(assignee, title string) {
	c.t.Helper()
	if got := c.post("/tasks", c.url, "title", title, "assignee", assignee); got != http.StatusSeeOther {
		c.t.Errorf("give a task: got %d, want 303", got)
	}
}

// exampleHelpers are functions for the expressions of the tests.
const exampleHelpers = `
	window.titles = (list = "received") => [...document.querySelectorAll("#" + list + " .title")].map(({ textContent }) => textContent);
	window.inbox = () => document.querySelector("rowcast-inbox");
	window.badge = () => inbox().shadowRoot?.querySelector(".badge:not([hidden])")?.textContent ?? "";
	window.live = () => document.querySelector("#state")?.textContent === "live" && inbox().store?.state === "open";`

// signIn opens the app in a new tab of a profile and signs in. It calls watchConsole for the page.
func (x *example) signIn(profile browser, user string) page {
	x.t.Helper()
	p := profile.open(x.t, "about:blank")
	x.watchConsole(p)
	p.onNewDocument(exampleHelpers)
	p.do(chromedp.Navigate(x.url))
	p.click("button[value=" + user + "]")
	p.await("window.live?.()")
	return p
}

// click clicks an element by a script, because a browser ignores the mouse until it has painted the page.
func (p page) click(selector string) {
	p.t.Helper()
	p.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("document.querySelector(%q).click()", selector)))
}

// watchConsole fails the test at an error or a warning in the console of a page, except for requests of streams and
// inboxes, which may fail.
func (x *example) watchConsole(p page) {
	x.t.Helper()
	ctx, stop := context.WithCancel(p.ctx)
	messages := chromedp.Console(ctx) // subscribes at once
	var watching sync.WaitGroup
	watching.Go(func() {
		for message, err := range messages {
			if err != nil {
				return
			}
			path := strings.TrimPrefix(message.URL, x.url)
			if message.Source == "network" && (strings.HasPrefix(path, "/events") || strings.HasPrefix(path, "/inbox")) {
				continue
			}
			if message.IsException() || message.Type == chromedp.ConsoleError || message.Type == chromedp.ConsoleWarning {
				x.t.Errorf("the console of a page: %v %s", message, message.URL)
			}
		}
	})
	x.t.Cleanup(func() {
		stop()
		watching.Wait()
	})
}
