package main_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"

	"rowcast/sql/dbtest"
)

// eventSourcesDir has a program for each client that is not a browser, the versions of these clients, and a page for
// browsers.
const eventSourcesDir = "../../.ci/eventsources"

// otherClients returns the clients of the test.
func otherClients() []*otherClient {
	return []*otherClient{
		{"eventsource", inParts(1, exact), startNode},
		{"eventsource-client", inParts(1, exact), startNode},
		{"fetch-event-source", inParts(1, losesAfterID), startNode},
		{"event-source-polyfill", inParts(3, exact), startNode}, // reconnects after 1 s at the earliest
		{"reconnecting-eventsource", inParts(1, exact), startNode},
		{"launchdarkly-eventsource", inParts(1, exact), startNode},
		{"undici", inParts(1, exact), startNode},
		{"go-sse", inParts(1, exact), startGo},
		{"r3labs", inParts(1, takesParts), startGo},
		{"Chromium", inPages(1, forgets), startChromium},
		{"Firefox", inPages(2, mayClose), startFirefox}, // reconnects after 0.5 s at the earliest
		{"WebKitGTK", inPages(1, exact), startWebKit},
	}
}

// inParts returns kinds of a client. Each kind has a part of the cuts, and all have the same outcome.
func inParts(parts int, outcome outcome) (kinds []kind) {
	for part := range parts {
		kinds = append(kinds, kind{name: fmt.Sprintf("part %d of %d", part+1, parts), outcome: outcome, part: part, parts: parts})
	}
	return kinds
}

// inPages returns the kinds of an EventSource in a browser. The parameter answered is the outcome of a page whose
// service worker answers all requests. The other pages are exact.
func inPages(parts int, answered outcome) []kind {
	plain, left := inParts(parts, exact), inParts(parts, exact)
	for i := range parts {
		plain[i].name = "no service worker, " + plain[i].name
		left[i].name, left[i].worker = "service worker that leaves the path alone, "+left[i].name, "leave"
	}
	answers := kind{name: "service worker that answers", worker: "answer", outcome: answered, parts: 1}
	return slices.Concat(plain, left, []kind{answers})
}

// startNode starts the program of an npm client.
func startNode(t *testing.T, name string, participants []*participant) {
	t.Helper()
	node := dbtest.Node(t)
	modules := dbtest.NodeModules(t, ".ci/eventsources", "eventsources", "undici")
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(eventSourcesDir)); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink(modules, filepath.Join(dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	for _, p := range participants {
		startPrinter(t, p, node, filepath.Join(dir, name+".mjs"), p.url)
	}
}

// startGo starts the program of a Go client.
func startGo(t *testing.T, name string, participants []*participant) {
	t.Helper()
	bin := t.TempDir()
	dbtest.GoBuild(t, ".ci/eventsources/go", filepath.Join(eventSourcesDir, "go"), bin)
	for _, p := range participants {
		startPrinter(t, p, filepath.Join(bin, name), p.url)
	}
}

// startPrinter starts a program that prints the events that it receives.
func startPrinter(t *testing.T, p *participant, program string, args ...string) {
	t.Helper()
	cmd := exec.Command(program, args...)
	cmd.Stderr = t.Output()
	// When the test program ends, the pipe is closed, and a client in Node ends, too.
	if _, err := cmd.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			if err := p.addLine(lines.Bytes()); err != nil {
				t.Error(err)
			}
		}
		ended <- cmd.Wait()
	}()
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		receive(t, ended, "the end of "+program)
	})
}
