package main_test

import (
	"bufio"
	"net/http"
	"os/exec"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"rowcast/sql/dbtest"
)

// While a hub stops, it is not ready, asks new clients to retry later, and still delivers rows.
func TestServeStops(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn, "--drain", "6s") // the last stream ends after about 4.5 s
	var tails []*process
	for range 10 {
		tails = append(tails, h.tail(t, "alice"))
	}
	insert := inserter(t, dsn) // connects before the hub stops
	h.cancel()
	got := askUntil(t, h.url+"/readyz", `"ready":false`)
	if got.status != 503 {
		t.Errorf("readiness: got %d, want 503", got.status)
	}
	insert("*=late")
	waitFor(t, "the row in a stream that is still open", func() bool {
		return slices.ContainsFunc(tails, func(tail *process) bool { return strings.Contains(tail.out.String(), `"data":"late"}`) })
	})
	if got := ask(t, "GET", h.url+"/healthz"); got.status != 200 {
		t.Errorf("health: got %d, want 200", got.status)
	}
	got = ask(t, "GET", h.url+"/events?uid=alice")
	if got.status != 200 || got.header.Get("Content-Type") != "text/event-stream" || !strings.HasPrefix(got.body, "retry: ") || strings.Contains(got.body, "data") {
		t.Errorf("a new client: got %+v, want 200 and only a retry time", got)
	}
	for _, tail := range tails {
		tail.stop()
	}
	if code := h.wait(); code != 0 {
		t.Errorf("got exit code %d, want 0: %s", code, h.err)
	}
	h.err.await(t, `msg=stopping streams=10\n(.*\n)*.*msg=stopped\n$`)
}

func TestServeEndsBySignal(t *testing.T) {
	t.Parallel()
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGINT} {
		t.Run(signal.String(), func(t *testing.T) {
			t.Parallel()
			p, url := spawnServe(t, dbtest.Database(t), "--drain", "100ms")
			streams := openStreams(t, url, 20)
			began := time.Now()
			if err := p.cmd.Process.Signal(signal); err != nil {
				t.Fatal(err)
			}
			for _, stream := range streams {
				for stream.Scan() { // read the stream to its end
				}
				if err := stream.Err(); err != nil {
					t.Errorf("a stream ended with %v, want a complete answer", err)
				}
			}
			if err := p.wait(t); err != nil {
				t.Errorf("got %v, want exit code 0", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("the hub stopped after %v, want at most 10s", took)
			}
		})
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	p, url := spawnServe(t, dbtest.Database(t), "--drain", "6s")
	openStreams(t, url, 1) // the hub ends it after about 4.5 s, so the hub still runs at the second signal
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.err.await(t, "msg=stopping")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	_ = p.wait(t)
	if state := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !state.Signaled() || state.Signal() != syscall.SIGTERM {
		t.Errorf("the hub ended with %v, want an end by SIGTERM", p.cmd.ProcessState)
	}
}

// With the variables of the systemd unit in the documentation, a hub that crashes does not exit with the code of a wrong
// command line, after which systemd would not restart it. SIGQUIT ends a Go program as a crash does.
func TestServeIsRestartedAfterACrash(t *testing.T) {
	t.Parallel()
	unit := regexp.MustCompile("(?s)```ini\n.*?```").FindString(readmeOf(t, "cmd/rowcast/README.md"))
	if !strings.Contains(unit, "\nRestartPreventExitStatus=2\n") || !strings.Contains(unit, "\nLimitCORE=0\n") {
		t.Error("the unit has another RestartPreventExitStatus or LimitCORE than this test expects")
	}
	var variables []string
	for _, line := range regexp.MustCompile(`(?m)^Environment=(.+)$`).FindAllStringSubmatch(unit, -1) {
		variables = append(variables, line[1])
	}
	p := spawnProgram(t, variables, 0, "serve", "--insecure-uid", "--listen=127.0.0.1:0", "--database-url", dbtest.Database(t))
	p.err.await(t, "msg=listening")
	if err := p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	_ = p.wait(t)
	if state := p.cmd.ProcessState; state.Exited() {
		t.Errorf("the hub ended with %v, want an end by a signal", state)
	}
}

// A spawned is a program that runs in a process of its own, not in the process of the test.
type spawned struct {
	cmd   *exec.Cmd
	err   *output
	ended chan error
}

func spawnServe(t *testing.T, dsn string, args ...string) (p *spawned, url string) {
	t.Helper()
	return spawnServeWith(t, 0, dsn, args...)
}

// spawnServeWith starts a hub. files limits the files that the hub may have open. 0 means the limit of this process.
func spawnServeWith(t *testing.T, files int, dsn string, args ...string) (p *spawned, url string) {
	t.Helper()
	return spawnServeIn(t, nil, files, dsn, args...)
}

// spawnServeIn starts a hub as spawnServeWith does, and adds variables to the environment of the hub.
func spawnServeIn(t *testing.T, variables []string, files int, dsn string, args ...string) (p *spawned, url string) {
	t.Helper()
	p = spawnProgram(t, variables, files, append([]string{"serve", "--insecure-uid", "--listen=127.0.0.1:0", "--database-url", dsn}, args...)...)
	return p, "http://" + p.err.await(t, `msg=listening addr=([0-9.:]+)`)[1]
}

// spawnProgram starts the program with args, and ends it at the end of the test. spawnServeIn describes variables, and
// spawnServeWith describes files.
func spawnProgram(t *testing.T, variables []string, files int, args ...string) *spawned {
	t.Helper()
	p := &spawned{command(t, t.TempDir(), args...), newOutput(), make(chan error, 1)}
	// ulimit -c 0: a program that ends by SIGABRT writes no core file.
	const start = `ulimit -c 0 && { test "$0" = 0 || ulimit -n "$0"; } && exec "$@"`
	p.cmd.Args = append([]string{"sh", "-c", start, strconv.Itoa(files), p.cmd.Path}, args...)
	p.cmd.Path = "/bin/sh"
	p.cmd.Env, p.cmd.Stderr = append(p.cmd.Environ(), variables...), p.err
	if err := p.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() {
		err := p.cmd.Wait()
		p.err.close()
		p.ended <- err
	}()
	t.Cleanup(func() {
		_ = p.cmd.Process.Kill()
		_ = p.wait(t)
	})
	return p
}

func (p *spawned) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err // for the next call of wait
		return err
	case <-time.After(waitLimit):
		t.Fatalf("the program has not ended within %v: %s", waitLimit, p.err)
		return nil
	}
}

// openStreams opens n streams of alice and waits for the rowcast.hello of each stream.
func openStreams(t *testing.T, url string, n int) (streams []*bufio.Scanner) {
	t.Helper()
	for range n {
		request, err := http.NewRequestWithContext(dbtest.Context(t), http.MethodGet, url+"/events?uid=alice", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := streamClient.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		lines := bufio.NewScanner(response.Body)
		for lines.Text() != "event: rowcast.hello" {
			if !lines.Scan() {
				t.Fatalf("the stream ended before rowcast.hello; the scanner's error is %v", lines.Err())
			}
		}
		streams = append(streams, lines)
	}
	return streams
}
