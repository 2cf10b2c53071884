package main_test

import (
	"bufio"
	"fmt"
	"net"
	"net/http"
	"os/exec"
	"strings"
	"syscall"
	"testing"
	"time"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// While it stops, a hub is not ready, sends newcomers away with a stream that they come back from, and still does its work.
func TestServeStops(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn, "--drain", "1m") // or until the last stream is gone
	first, second := h.tail(t, "alice"), h.tail(t, "alice")
	h.cancel()
	got := askUntil(t, h.url+"/readyz", `"ready":false`)
	if got.status != 503 {
		t.Errorf("readiness: got %d, want 503", got.status)
	}
	if got := ask(t, "GET", h.url+"/healthz"); got.status != 200 {
		t.Errorf("health: got %d, want 200", got.status)
	}
	got = ask(t, "GET", h.url+"/events?uid=alice")
	if got.status != 200 || got.header.Get("Content-Type") != "text/event-stream" || !strings.HasPrefix(got.body, "retry: ") || strings.Contains(got.body, "data") {
		t.Errorf("a newcomer: got %+v", got)
	}
	// Those who are still there are still told.
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (data) VALUES ('1')`)
	first.out.await(t, `"data":1}`)
	first.stop()
	second.stop()
	if code := h.wait(); code != 0 {
		t.Errorf("exit code %d: %s", code, h.err)
	}
	h.err.await(t, `msg=stopping streams=2\n(.*\n)*.*msg=stopped\n$`)
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
				for stream.Scan() { // to its end
				}
				if err := stream.Err(); err != nil {
					t.Errorf("a stream ends by %v, want an orderly end", err)
				}
			}
			if err := p.wait(t); err != nil {
				t.Errorf("got %v, want exit code 0", err)
			}
			if took := time.Since(began); took > 10*time.Second {
				t.Errorf("it took %v", took)
			}
		})
	}
}

func TestSecondSignalEndsAtOnce(t *testing.T) {
	t.Parallel()
	p, url := spawnServe(t, dbtest.Database(t), "--drain", "1h")
	openStreams(t, url, 2)
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.err.await(t, "msg=stopping")
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	err := p.wait(t)
	if state := p.cmd.ProcessState.Sys().(syscall.WaitStatus); !state.Signaled() || state.Signal() != syscall.SIGTERM {
		t.Errorf("got %v, want an end by the signal", err)
	}
}

// A spawned program is one in a process of its own.
type spawned struct {
	cmd   *exec.Cmd
	err   *output
	ended chan error
}

func spawnServe(t *testing.T, dsn string, args ...string) (p *spawned, url string) {
	t.Helper()
	args = append([]string{"serve", "--insecure-uid", "--listen=127.0.0.1:0", "--database-url", dsn}, args...)
	p = &spawned{command(t, t.TempDir(), args...), newOutput(), make(chan error, 1)}
	p.cmd.Stderr = p.err
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
	return p, "http://" + p.err.await(t, `msg=listening addr=([0-9.:]+)`)[1]
}

func (p *spawned) wait(t *testing.T) error {
	t.Helper()
	select {
	case err := <-p.ended:
		p.ended <- err // for whoever asks again
		return err
	case <-time.After(patience):
		t.Fatalf("it does not end: %s", p.err)
		return nil
	}
}

// openStreams opens streams and reads their greetings.
func openStreams(t *testing.T, url string, n int) (streams []*bufio.Scanner) {
	t.Helper()
	for range n {
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url+"/events?uid=alice", nil)
		if err != nil {
			t.Fatal(err)
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = response.Body.Close() })
		lines := bufio.NewScanner(response.Body)
		for lines.Scan() && lines.Text() != "event: rowcast.hello" {
		}
		streams = append(streams, lines)
	}
	return streams
}

// While PostgreSQL is away, streams stay open and the hub stays ready; afterwards nothing is missing.
func TestServeOutlivesPostgres(t *testing.T) {
	t.Parallel()
	server := dbtest.Cluster(t)
	dsn := server.DSN("postgres")
	if code, _, stderr := run(t, nil, "migrate", "--database-url", dsn); code != 0 {
		t.Fatal(stderr)
	}
	h := serve(t, dsn)
	tail := h.tail(t, "alice")
	insert := func(n int) string {
		return fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '%d')`, n)
	}
	runSQL(t, dsn, insert(1))
	tail.out.await(t, `"data":1}`)

	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := askUntil(t, h.url+"/readyz", `"postgres":"disconnected"`); got.status != 200 {
		t.Errorf("readiness: got %d, want 200", got.status)
	}
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_database_connected 0$`)
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	runSQL(t, dsn, insert(2))
	tail.out.await(t, `"data":2}`)
	askUntil(t, h.url+"/readyz", `"postgres":"connected"`)

	if err := server.Restart(t.Context(), cluster.Immediate); err != nil {
		t.Fatal(err)
	}
	runSQL(t, dsn, insert(3))
	tail.out.await(t, `"data":3}`)
	if got := tail.err.String(); strings.Count(got, "\n") != 1 {
		t.Errorf("the client noticed: %s", got)
	}
	if got, want := dataOf(t, tail.out), []string{"1", "2", "3"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Through a transaction pooler it polls, and needs neither LISTEN nor the park lock.
func TestServePolls(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, pooler(t, dsn), "--poll")
	tail := h.tail(t, "alice")
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
	tail.out.await(t, `"data":1}`)
	if got := ask(t, "GET", h.url+"/metrics").body; !strings.Contains(got, "\nrowcast_parks_total 0\n") {
		t.Errorf("it has parked:\n%s", got)
	}
}

func TestMessagesByHand(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	deaf, h := serve(t, dsn, "--no-notify-messages"), serve(t, dsn)
	deafTail, tail := deaf.tail(t, "alice"), h.tail(t, "alice")
	runSQL(t, dsn,
		`NOTIFY rowcast, 'hello'`,
		`NOTIFY rowcast, '{"recipient": "alice", "event": "x", "data": {"n": 1}}'`,
		`NOTIFY rowcast, '{"recipient": "bob", "data": 2}'`,
		`NOTIFY rowcast, '{"recipent": "alice", "data": 3}'`,
		`INSERT INTO rowcast.notifications (data) VALUES ('4')`)
	// A message and the row after it are told at the hub's next looks, which may be one or two.
	tail.out.await(t, `"data":4}`)
	tail.out.await(t, `{"n":1}`)
	deafTail.out.await(t, `"data":4}`)
	if got, want := fmt.Sprint(dataOf(t, deafTail.out)), "[4]"; got != want {
		t.Errorf("without messages: got %s, want %s", got, want)
	}
	got := dataOf(t, tail.out)
	for _, want := range []string{`"hello"`, `{"n":1}`, "4"} {
		if !strings.Contains(fmt.Sprint(got), want) {
			t.Errorf("got %v, want %s among it", got, want)
		}
	}
	if len(got) != 3 {
		t.Errorf("got %v, want three", got)
	}
	h.err.await(t, `msg="message by hand goes to nobody" error="envelope's \\"recipent\\" is not one of data, recipient, event"`)
}

func TestLargeEventsAreOnlyAnnounced(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	tail := serve(t, dsn, "--max-event", "1kB").tail(t, "alice")
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (data) VALUES (to_jsonb(repeat('x', 998))), (to_jsonb(repeat('x', 999)))`)
	tail.out.await(t, `"event":"message","data":"x{998}"`)
	tail.out.await(t, `"event":"rowcast.toolarge","data":{"id":2,"size":1001}}`)
}

// A client that stops reading ends nobody else's stream, and the hub's neither.
func TestClientsThatVanish(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn)
	tail := h.tail(t, "alice")
	for _, request := range []string{"", "GET", "GET /events?uid=alice HTTP/1.1\r\n", "GET /events?uid=alice HTTP/1.1\r\nHost: x\r\n\r\n", "\x16\x03\x01\x00\x00", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.TCPConn).SetLinger(0) // a reset
		_ = conn.Close()
	}
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
	tail.out.await(t, `"data":1}`)
	if got := askUntil(t, h.url+"/metrics", `(?m)^rowcast_connections 1$`); got.status != 200 {
		t.Errorf("got %d", got.status)
	}
}
