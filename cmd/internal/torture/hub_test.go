package torture_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
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

// patience bounds every wait, far above what it takes.
const patience = 60 * time.Second

// build makes the command, with the race detector if the test has it.
func build(t *testing.T) string {
	t.Helper()
	// go test takes the result of an earlier run for this one's unless it knows that the command is part of it. The packages of
	// the command are imported, if only for that.
	if _, err := os.ReadDir(".."); err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "rowcast")
	args := []string{"build", "-buildvcs=false", "-o", program}
	if info, ok := debug.ReadBuildInfo(); ok && slices.Contains(info.Settings, debug.BuildSetting{Key: "-race", Value: "true"}) {
		args = append(args, "-race")
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*patience)
	defer cancel()
	if out, err := exec.CommandContext(ctx, "go", append(args, "rowcast/cmd/rowcast")...).CombinedOutput(); err != nil {
		t.Fatalf("build rowcast: %v\n%s", err, out)
	}
	return program
}

// A hub is one of the places where clients find a stream: one process after another, all on the same port.
type hub struct {
	name    string
	address string
	program string
	args    []string
	out     io.Writer // of the test

	process *exec.Cmd
	ended   chan struct{}  // closed when it has
	how     error          // it has ended; nil for exit 0
	alarms  atomic.Int64   // data races and panics that its processes have reported
	did     map[string]int // what its processes have counted
}

// start starts a process and returns when it listens.
func (h *hub) start() error {
	words := &log{hub: h, listening: make(chan struct{})}
	h.process = exec.Command(h.program, h.args...)
	h.process.Stderr = words
	h.process.WaitDelay = patience // for its words, once it has ended
	dieWithTest(h.process)
	if err := h.run(); err != nil {
		return err
	}
	select {
	case <-words.listening:
		return nil
	case <-h.ended:
		return fmt.Errorf("%s ended instead of listening: %w", h.name, h.how)
	case <-time.After(patience):
		return fmt.Errorf("%s does not begin to listen", h.name)
	}
}

// run starts the process and waits for it on one thread.
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

// kinds are what a run must have made hubs do, for it to show anything about that.
var kinds = []string{"park_lock_acquired", "wakeups", "replayed_events", "replay_pages", "overflows"}

// count adds what the process has counted to what those before it have.
func (h *hub) count() {
	once := http.Client{Timeout: time.Second, Transport: &http.Transport{DisableKeepAlives: true}}
	response, err := once.Get("http://" + h.address + "/metrics")
	if err != nil {
		return // it is gone already
	}
	defer response.Body.Close()
	for lines := bufio.NewScanner(response.Body); lines.Scan(); {
		name, value, _ := strings.Cut(lines.Text(), " ")
		name, _, _ = strings.Cut(name, "{") // what differs in labels is added up
		name = strings.TrimSuffix(strings.TrimPrefix(name, "rowcast_"), "_total")
		if slices.Contains(kinds, name) {
			n, _ := strconv.ParseFloat(value, 64)
			h.did[name] += int(n)
		}
	}
}

// kill ends the process by force.
func (h *hub) kill() {
	h.count()
	_ = h.process.Process.Kill()
	<-h.ended
}

// stop ends the process in an orderly way, or says why that cannot be called so.
func (h *hub) stop() error {
	select {
	case <-h.ended:
		return fmt.Errorf("%s has ended by itself: %w", h.name, h.how)
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

// freeze stops the process from doing anything until thaw.
func (h *hub) freeze() error { return dbtest.Suspend(h.process.Process.Pid) }
func (h *hub) thaw() error   { return dbtest.Resume(h.process.Process.Pid) }

// A log passes a hub's words on to the test's, which shows them if it fails.
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
			l.hub.alarms.Add(1)
		}
		l.line = rest
	}
}

// freeAddresses finds ports below those that systems give to outgoing connections: one of those could take it while a hub is away.
func freeAddresses(t *testing.T, n int) (addresses []string) {
	t.Helper()
	for port := 12000 + os.Getpid()%4000; len(addresses) < n; port++ {
		if port > 20000 {
			t.Fatal("no free TCP ports on 127.0.0.1 between 12000 and 20000")
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

// newHubs makes three, each with a weakness of its own: one reaches the database through the proxy, one remembers next to nothing,
// one suffers no client to be owed much.
func newHubs(t *testing.T, dsn, proxied string) []*hub {
	t.Helper()
	program, addresses := build(t), freeAddresses(t, 3)
	hubs := make([]*hub, len(addresses))
	for i, args := range [][]string{
		{"--database-url", proxied},
		{"--database-url", dsn, "--memory", "16KiB"},
		{"--database-url", dsn, "--backlog", "2KiB"},
	} {
		hubs[i] = &hub{name: fmt.Sprintf("hub %d", i), program: program, out: t.Output(), address: addresses[i], did: map[string]int{}}
		hubs[i].args = append([]string{
			"serve", "--insecure-uid", "--listen", addresses[i], "--heartbeat", heartbeat.String(),
			"--retry", "50ms", "--drain", "200ms",
		}, args...)
	}
	return hubs
}
