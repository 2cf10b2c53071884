package main_test

import (
	"context"
	"net"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"rowcast/sql/dbtest"
)

// The program in stream/README.md can be built in another module, which has a replace directive for rowcast. It serves
// a stream.
func TestEmbeddingInAnotherModule(t *testing.T) {
	t.Parallel()
	address := freeAddress(t)
	program := buildElsewhere(t, strings.Replace(printed(t, "stream/README.md", "go", "^package main"), "127.0.0.1:8080", address, 1))
	command := exec.Command(program)
	command.Env = append(os.Environ(), "DATABASE_URL="+dbtest.Database(t))
	runUntilEnd(t, command)

	hello := regexp.MustCompile(`event: rowcast.hello\ndata: {"recipients":\["alice","team:7"\]`)
	waitFor(t, "a stream of the program", func() bool {
		return hello.MatchString(beginOfAnswer(t, "http://"+address+"/events"))
	})
}

// beginOfAnswer returns the first part of an answer, or "" if there is none.
func beginOfAnswer(t *testing.T, url string) string {
	t.Helper()
	request, err := http.NewRequestWithContext(dbtest.Context(t), http.MethodGet, url, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil {
		return ""
	}
	defer response.Body.Close()
	begin := make([]byte, 1<<10)
	n, _ := response.Body.Read(begin)
	return string(begin[:n])
}

// printed returns a code block of a document: the first one in the given language that matches the pattern.
func printed(t *testing.T, document, language, pattern string) string {
	t.Helper()
	for _, block := range regexp.MustCompile("(?s)```"+language+"\n(.*?)```").FindAllStringSubmatch(readmeOf(t, document), -1) {
		if regexp.MustCompile(pattern).MatchString(block[1]) {
			return block[1]
		}
	}
	t.Fatalf("%s has no code in %s that matches %q", document, language, pattern)
	return ""
}

// buildElsewhere builds a program in a new module, and returns the path of the executable. The module uses rowcast's
// go.sum, so no checksum is looked up.
func buildElsewhere(t *testing.T, program string) string {
	t.Helper()
	root, err := filepath.Abs("../..")
	if err != nil {
		t.Fatal(err)
	}
	sums, err := os.ReadFile(filepath.Join(root, "go.sum"))
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, content := range map[string]string{"main.go": program, "go.sum": string(sums)} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute) // the first build compiles all modules
	defer cancel()
	for _, arguments := range [][]string{
		{"mod", "init", "example.com/app"},
		{"mod", "edit", "-require=rowcast@v0.0.0", "-replace=rowcast=" + root},
		{"build", "-mod=mod", "-buildvcs=false", "-o", "app"},
	} {
		command := exec.CommandContext(ctx, "go", arguments...)
		command.Dir = dir
		command.Env = append(os.Environ(), "GOWORK=off", "GOFLAGS=")
		if out, err := command.CombinedOutput(); err != nil {
			t.Fatalf("go %v: %v\n%s", arguments, err, out)
		}
	}
	return filepath.Join(dir, "app")
}

// runUntilEnd starts a program. At the end of the test the program is interrupted, and must then exit with 0.
func runUntilEnd(t *testing.T, command *exec.Cmd) {
	t.Helper()
	command.Stdout, command.Stderr = t.Output(), t.Output()
	if signal.Ignored(os.Interrupt) { // as in a background job of a shell script; the program would ignore the interrupt, too
		signal.Notify(make(chan os.Signal, 1), os.Interrupt)
	}
	if err := command.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = command.Process.Signal(os.Interrupt)
		defer time.AfterFunc(waitLimit, func() { _ = command.Process.Kill() }).Stop()
		if err := command.Wait(); err != nil {
			t.Errorf("after an interrupt, the program ended with %v, want exit code 0", err)
		}
	})
}

// testFlask runs the app in README.md, in which only the hub's address is replaced, and clicks its button in a browser.
// The page then shows the notification.
func testFlask(t *testing.T, chromium browser) {
	t.Parallel()
	python := findFlask(t)
	dsn := dbtest.Database(t)
	h := serve(t, dsn)
	app := strings.ReplaceAll(printed(t, "README.md", "python", "Flask"), "http://127.0.0.1:8080", h.url)
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "app.py"), []byte(app), 0o600); err != nil {
		t.Fatal(err)
	}
	host, port, err := net.SplitHostPort(freeAddress(t))
	if err != nil {
		t.Fatal(err)
	}
	command := exec.Command(python, "-m", "flask", "run", "--host", host, "--port", port)
	command.Dir, command.Env = dir, append(os.Environ(), "DATABASE_URL="+dsn)
	runUntilEnd(t, command)
	site := "http://" + net.JoinHostPort(host, port) + "/"
	waitFor(t, "an answer of the app", func() bool { return beginOfAnswer(t, site) != "" })

	p := chromium.profile(t).open(t, site)
	askUntil(t, h.url+"/metrics", "(?m)^rowcast_streams 1$")
	p.do(chromedp.Click("button"))
	p.await("document.querySelector('#notifications li')?.textContent === 'Bob liked your post'")
}

// findFlask returns the name of a Python interpreter that has the modules of the example.
func findFlask(t *testing.T) string {
	t.Helper()
	for _, python := range []string{"python3", "/usr/bin/python3"} {
		if exec.CommandContext(dbtest.Context(t), python, "-c", "import flask, psycopg2").Run() == nil {
			return python
		}
	}
	dbtest.Missing(t, "no Python with Flask and psycopg2 found; install them: apt install python3-flask python3-psycopg2 (Debian)")
	return ""
}
