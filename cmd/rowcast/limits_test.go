package main_test

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// When a limit is reached, the hub asks new clients to retry later, and counts the refused requests by reason. Open
// streams are not affected. An EventSource reconnects until it gets a stream. Behind a trusted proxy, the limit per
// address applies to the addresses of the clients.
func TestConnectionLimits(t *testing.T) {
	t.Parallel()
	later := regexp.MustCompile(`^retry: (1[5-9]|[23][0-9]|4[0-4])[0-9]\n$`) // ten times --retry, multiplied by 0.5 to 1.5
	for _, tt := range []struct {
		name, reason string
		args         []string
		one          [2]string // user and X-Forwarded-For of a stream that the test ends, so that the refused client gets a stream
		others       [][2]string
		refused      [2]string
	}{
		{"in all", "streams", []string{"--max-connections=2"}, [2]string{"a", ""}, [][2]string{{"b", ""}}, [2]string{"c", ""}},
		{"of a user", "user", []string{"--max-connections-per-user=1"}, [2]string{"a", ""}, [][2]string{{"b", ""}}, [2]string{"a", ""}},
		{"from an address", "address", []string{"--max-connections-per-address=1"}, [2]string{"a", "192.0.2.1"}, nil, [2]string{"b", "192.0.2.2"}},
		{
			"behind a proxy", "address",
			[]string{"--max-connections-per-address=1", "--trusted-proxy=127.0.0.0/8", "--trusted-proxy=::1"},
			[2]string{"a", "192.0.2.1"},
			[][2]string{{"a", "192.0.2.2"}, {"a", ""}},
			[2]string{"b", "198.51.100.1, 192.0.2.1"},
		},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			h := serve(t, dsn, append(tt.args, "--retry=30ms")...)
			var connected []<-chan string
			for _, who := range append(tt.others, tt.one) {
				connected = append(connected, h.streamOf(t, who))
			}
			got := ask(t, "GET", h.url+"/events?uid="+tt.refused[0], "X-Forwarded-For", tt.refused[1])
			if got.status != 200 || got.header.Get("Content-Type") != "text/event-stream" || !later.MatchString(got.body) {
				t.Errorf("got %+v, want 200, text/event-stream and only a retry of 150 to 449 ms", got)
			}
			refused := `(?m)^rowcast_refused_total\{reason="` + tt.reason + `"\} `
			askUntil(t, h.url+"/metrics", refused+"1$")
			greeted := h.reconnect(t, tt.refused)
			askUntil(t, h.url+"/metrics", refused+"([3-9]|[1-9][0-9]+)$")
			runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('*', 'notify', '1')`)
			for i, names := range connected {
				if got, _ := receive(t, names, "an event of a stream"); got != "notify" {
					t.Errorf("stream %d received the event %q, want notify", i, got)
				}
			}
			h.disconnect(t, dsn, tt.one[0]) // ends the stream of tt.one, so that the refused client can get a stream
			select {
			case <-greeted:
			case <-time.After(waitLimit):
				t.Errorf("the refused client got no stream within %v", waitLimit)
			}
		})
	}
}

// With the documented --max-event, a client that reads events with a bufio.Scanner of the default size can read every
// event.
func TestEventsFitIntoAScanner(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn, "--max-event", "60KiB")
	request, err := http.NewRequestWithContext(dbtest.Context(t), http.MethodGet, h.url+"/events?uid=alice", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := streamClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	events := bufio.NewScanner(response.Body)
	events.Split(func(data []byte, _ bool) (advance int, token []byte, err error) {
		if event, _, ended := bytes.Cut(data, []byte("\n\n")); ended {
			return len(event) + 2, event, nil
		}
		return 0, nil, nil
	})
	const largest = 60 << 10
	for _, size := range []int{largest, largest + 1} { // the size includes the quotes
		runSQL(t, dsn, fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'notify', to_jsonb(repeat('x', %d)))`, size-2))
	}
	for _, want := range []string{`data: "x`, fmt.Sprintf(`"size": %d}`, largest+1)} {
		found := false
		for !found && events.Scan() {
			found = strings.Contains(events.Text(), want)
		}
		if !found {
			t.Fatalf("the stream ended before an event with %s; the scanner's error is %v", want, events.Err())
		}
	}
}

// reconnect starts an eventSource. The channel is closed when rowcast.hello has arrived.
func (h *hub) reconnect(t *testing.T, who [2]string) <-chan struct{} {
	t.Helper()
	greeted, ended := make(chan struct{}), make(chan struct{})
	hello := sync.OnceFunc(func() { close(greeted) })
	c := eventSource{url: h.url + "/events?uid=" + who[0], from: who[1], onEvent: func(e sse.Event) {
		if e.Name == "rowcast.hello" {
			hello()
		}
	}}
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		defer close(ended)
		if err := c.run(ctx); err != nil {
			t.Error(err)
		}
	}()
	t.Cleanup(func() {
		cancel()
		receive(t, ended, "the end of a client")
	})
	return greeted
}

// disconnect ends a user's streams with NOTIFY.
func (h *hub) disconnect(t *testing.T, dsn, user string) {
	t.Helper()
	runSQL(t, dsn, `SELECT pg_notify('rowcast.disconnect', '`+user+`')`)
}

// streamOf opens a stream and waits for rowcast.hello. who has the user and the X-Forwarded-For header, which is not
// sent if it is empty. The channel receives the names of the next events, without heartbeats.
func (h *hub) streamOf(t *testing.T, who [2]string) <-chan string {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, h.url+"/events?uid="+who[0], nil)
	if err != nil {
		t.Fatal(err)
	}
	if who[1] != "" {
		request.Header.Set("X-Forwarded-For", who[1])
	}
	response, err := streamClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	names, done := make(chan string, 100), make(chan struct{})
	go func() {
		defer close(done)
		defer close(names)
		for e, err := range sse.Events(response.Body) {
			if err != nil {
				return
			}
			if e.Name != "rowcast.beat" { // on a slow machine, a heartbeat may arrive first
				names <- e.Name
			}
		}
	}()
	t.Cleanup(func() {
		cancel()
		_ = response.Body.Close()
		receive(t, done, "the end of a stream")
	})
	for _, want := range []string{"rowcast.void", "rowcast.hello"} {
		if got, _ := receive(t, names, "the beginning of a stream"); got != want {
			t.Fatalf("%v: got %q at the beginning, want %q", who, got, want)
		}
	}
	return names
}

// A hub that may open 500 files gets 1,000 connections on which no complete request is pending. A new client still gets
// a stream, and open streams stay open. Some connections have sent nothing, some a part of a request, and some a complete
// request and a part of another one.
func TestAttackThousandHalfOpenConnections(t *testing.T) {
	t.Parallel()
	const files, attackers = 500, 1000
	dsn := dbtest.Database(t)
	p, url := spawnServeWith(t, files, dsn)
	h := &hub{url: url}
	before := h.streamOf(t, [2]string{"alice", ""})
	for i := range attackers {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatalf("attacker %d: %v", i, err)
		}
		t.Cleanup(func() { conn.Close() })
		_, _ = io.WriteString(conn, []string{"", "G", "GET /events?uid=x HTTP/1.1\r\nHost: localhost\r\nX-A: ", "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\nGET"}[i%4])
	}
	during := h.streamOf(t, [2]string{"alice", ""})
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'notify', '1')`)
	for name, stream := range map[string]<-chan string{"the old stream": before, "the new stream": during} {
		if got, _ := receive(t, stream, "an event of "+name); got != "notify" {
			t.Errorf("%s received the event %q, want notify", name, got)
		}
	}
	if closed := metric(t, url, "rowcast_idle_connections_closed_total"); closed < attackers-files {
		t.Errorf("%v idle connections were closed, want at least %d", closed, attackers-files)
	}
	if strings.Contains(p.err.String(), "too many open files") {
		t.Errorf("the hub ran out of files: %s", p.err)
	}
}

// A hub does not start if its limit of open files is too low for --max-connections.
func TestMoreConnectionsThanFiles(t *testing.T) {
	t.Parallel()
	code, _, stderr := run(t, nil, "serve", "--insecure-uid", "--database-url", nobodyThere, "--max-connections", "10000000")
	if code != 2 || !regexp.MustCompile(`^rowcast: --max-connections: (this process may have|a hub uses at most) \d+ open files, which is enough for \d+ streams, not for 10000000: lower --max-connections, (or raise the limit |and start more hubs)`).MatchString(stderr) {
		t.Errorf("got %d, %q, want 2 and an error about the limit of open files", code, stderr)
	}
}

// A demo does not start either if the limit of open files leaves none for streams.
func TestDemoNeedsOpenFiles(t *testing.T) {
	t.Parallel()
	p := spawnProgram(t, nil, 24, "demo", "--listen=127.0.0.1:0", "--database-url", dbtest.Empty(t))
	err := p.wait(t)
	const want = "rowcast: this process may have only 24 open files"
	if code := p.cmd.ProcessState.ExitCode(); code != 1 || !strings.Contains(p.err.String(), want) {
		t.Errorf("got %v and %q, want exit code 1 and %q", err, p.err, want)
	}
}
