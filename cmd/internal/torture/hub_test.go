package torture_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"io/fs"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	_ "rowcast/listener"
	_ "rowcast/stream"

	"rowcast/sql/dbtest"
)

// limit bounds the time of each start, connection attempt, transaction and breakage, and the time in which the clients
// catch up.
const limit = 60 * time.Second

// build builds the command, with the race detector if the test runs with it.
func build(t *testing.T) string {
	t.Helper()
	// go test does not use a cached result after a change in a package that the test imports, or in a directory that it
	// lists. Therefore this file imports libraries of the command, and build lists the directories below cmd.
	err := filepath.WalkDir(filepath.Join("..", ".."), func(_ string, _ fs.DirEntry, err error) error { return err })
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "rowcast")
	args := []string{"build", "-buildvcs=false", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*limit)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", append(args, "rowcast/cmd/rowcast")...).CombinedOutput(); err != nil {
		t.Fatalf("build rowcast: %v\n%s", err, out)
	}
	return program
}

// A hub is a process of rowcast. The test can end the process and start another one at the same address.
type hub struct {
	name    string
	address string
	program string
	args    []string
	out     io.Writer // the output of the test

	process *exec.Cmd
	ended   chan struct{}  // closed when the process has ended
	how     error          // the result of the process; nil means exit code 0
	crashes atomic.Int64   // the number of data races and panics
	counts  map[string]int // the metrics, added up over all processes at this address
}

// start starts a process and waits until it listens.
func (h *hub) start() error {
	output := &log{hub: h, listening: make(chan struct{})}
	h.process = exec.Command(h.program, h.args...)
	h.process.Stderr = output
	h.process.WaitDelay = limit // the time to read the output of a process that has ended
	dieWithTest(h.process)
	if err := h.run(); err != nil {
		return err
	}
	select {
	case <-output.listening:
		return nil
	case <-h.ended:
		return fmt.Errorf("%s ended instead of listening: %s", h.name, h.process.ProcessState)
	case <-time.After(limit):
		return fmt.Errorf("%s does not listen after %v", h.name, limit)
	}
}

// run starts the process and returns. One thread starts the process and waits for its end, as dieWithTest requires.
func (h *hub) run() error {
	started := make(chan error)
	process, ended := h.process, make(chan struct{})
	go func() {
		runtime.LockOSThread()
		defer runtime.UnlockOSThread()
		err := process.Start()
		started <- err
		if err == nil {
			h.how = process.Wait()
			close(ended)
		}
	}()
	h.ended = ended
	return <-started
}

// coverage lists metrics that a run must increase. A metric that stays 0 shows that the run has not tested a feature.
var coverage = []string{"park_lock_acquired", "wakeups", "replayed_events", "replay_pages", "overflows"}

// metrics returns the metrics in coverage. It returns none if the process has ended or does not answer.
func (h *hub) metrics() map[string]int {
	once := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := once.Get("http://" + h.address + "/metrics")
	if err != nil {
		return nil
	}
	defer response.Body.Close()
	values := map[string]int{}
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		name, _, _ = strings.Cut(name, "{") // removes the labels, so that the values of all labels are added up
		name = strings.TrimSuffix(strings.TrimPrefix(name, "rowcast_"), "_total")
		if slices.Contains(coverage, name) {
			n, _ := strconv.ParseFloat(value, 64)
			values[name] += int(n)
		}
	}
	return values
}

// count adds the metrics of the process to counts.
func (h *hub) count() {
	for name, n := range h.metrics() {
		h.counts[name] += n
	}
}

// kill adds the metrics of the process to counts, kills the process and waits for its end.
func (h *hub) kill() {
	h.count()
	_ = h.process.Process.Kill()
	<-h.ended
}

// stop ends the process with SIGTERM. It returns an error unless the process exits with code 0 within 10 s.
func (h *hub) stop() error {
	select {
	case <-h.ended:
		return fmt.Errorf("%s has ended by itself: %s", h.name, h.process.ProcessState)
	default:
	}
	h.count()
	if err := h.process.Process.Signal(syscall.SIGTERM); err != nil {
		return err
	}
	select {
	case <-h.ended:
		if h.how != nil {
			return fmt.Errorf("%s ended after SIGTERM: %w", h.name, h.how)
		}
		return nil
	case <-time.After(10 * time.Second):
		h.kill()
		return fmt.Errorf("%s did not end within 10 s of SIGTERM", h.name)
	}
}

// freeze suspends the process until thaw is called.
func (h *hub) freeze() error { return dbtest.Suspend(h.process.Process.Pid) }
func (h *hub) thaw() error   { return dbtest.Resume(h.process.Process.Pid) }

// A log copies the log of a hub to the output of the test. It closes listening when the hub listens, and counts data
// races and panics.
type log struct {
	hub       *hub
	line      []byte
	begun     bool
	listening chan struct{}
}

func (l *log) Write(p []byte) (int, error) {
	l.line = append(l.line, p...)
	for {
		line, rest, found := bytes.Cut(l.line, []byte("\n"))
		if !found {
			return len(p), nil
		}
		fmt.Fprintf(l.hub.out, "%s %s: %s\n", time.Now().Format("15:04:05.000"), l.hub.name, line)
		if !l.begun && bytes.Contains(line, []byte("msg=listening")) {
			l.begun = true
			close(l.listening)
		}
		if bytes.Contains(line, []byte("DATA RACE")) || bytes.HasPrefix(line, []byte("panic:")) || bytes.Contains(line, []byte("panicked")) {
			l.hub.crashes.Add(1)
		}
		l.line = rest
	}
}

// freeAddresses returns addresses with free ports. The ports are below the default range for outgoing connections on
// Linux and macOS. An outgoing connection could otherwise take the port of a stopped hub.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for port := 12000 + os.Getpid()%4000; len(addresses) < n; port++ {
		if port > 20000 {
			t.Fatal("too few free TCP ports on 127.0.0.1 below 20001")
		}
		address := net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		if l, err := net.Listen("tcp", address); err == nil {
			l.Close()
			addresses = append(addresses, address)
		}
	}
	return addresses
}

const heartbeat = 500 * time.Millisecond

// newHubs returns three hubs with different weaknesses: the first connects to the database through the proxy, the
// second keeps few recent events in memory, and the third has a small backlog for each client.
func newHubs(t *testing.T, dsn, proxied string) []*hub {
	t.Helper()
	program, addresses := build(t), freeAddresses(t, 3)
	hubs := make([]*hub, len(addresses))
	for i, args := range [][]string{
		{"--database-url", proxied},
		{"--database-url", dsn, "--memory", "16KiB"},
		{"--database-url", dsn, "--backlog", "2KiB"},
	} {
		hubs[i] = &hub{name: fmt.Sprintf("hub %d", i), program: program, out: t.Output(), address: addresses[i], counts: map[string]int{}}
		hubs[i].args = append([]string{
			"serve", "--insecure-uid", "--listen", addresses[i], "--heartbeat", heartbeat.String(),
			"--retry", "50ms", "--drain", "200ms",
		}, args...)
	}
	return hubs
}
