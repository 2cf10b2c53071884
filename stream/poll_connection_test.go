package stream_test

import (
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"strconv"
	"strings"
	"testing"
	"time"

	"rowcast/stream/sse"
)

// protocols has functions that start a server, by the protocol.
var protocols = map[string]func(*httptest.Server){
	"HTTP/1.1": (*httptest.Server).Start,
	"HTTP/2":   func(s *httptest.Server) { s.EnableHTTP2 = true; s.StartTLS() },
}

// A client receives many rows in several long answers. Each of them ends at the end of a block, after about as many
// bytes as a backlog may hold.
func TestLongAnswers(t *testing.T) {
	t.Parallel()
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFeed(t, func(s *site) { s.hub.Backlog = 100 << 10 })
			run(t, f.hub.Run)
			server := httptest.NewUnstartedServer(f)
			protocol(server)
			t.Cleanup(server.Close)
			const rows = 300
			for i := range rows {
				f.publish("alice", "message", strconv.Itoa(i)+strings.Repeat("x", 2000))
			}
			id, next, answers := start.String(), 0, 0
			for ; next < rows; answers++ {
				a := poll(t, server.Client(), server.URL, id, "alice")
				wantWholeBlocks(t, a.text)
				var events []sse.Event
				events, id = a.events(t)
				for _, e := range events {
					if e.Data != strconv.Itoa(next)+strings.Repeat("x", 2000) {
						t.Fatalf("got the row %.10s, want row %d", e.Data, next)
					}
					next++
				}
			}
			if answers < 6 || answers > 8 {
				t.Errorf("got %d answers, want from 6 to 8, because about 600 KB are sent in answers of about 100 KB", answers)
			}
		})
	}
}

// After an answer, the deadline of its write does not apply to the next request of the connection.
func TestConnectionAfterAnAnswer(t *testing.T) {
	t.Parallel()
	const heartbeat = 50 * time.Millisecond
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat = heartbeat })
	client := newPoller(t)
	poll(t, client, f.url, f.now.String(), "alice")
	<-time.After(4 * heartbeat) // longer than the deadline
	reused := false
	ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { reused = c.Reused }})
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, f.url+"/?poll=0", nil)
	if err != nil {
		t.Fatal(err)
	}
	response, err := client.Do(request)
	if err != nil || !reused {
		t.Fatalf("got the error %v, reused %v, want an answer over the same connection", err, reused)
	}
	_ = response.Body.Close()
}

// A poll may wait for longer than the server's time limits for a request and for a short answer.
func TestPollOutlastsDeadlines(t *testing.T) {
	t.Parallel()
	for name, protocol := range protocols {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			testDeadlines(t, protocol)
		})
	}
}

func testDeadlines(t *testing.T, protocol func(*httptest.Server)) {
	t.Helper()
	const limit = 3 * time.Second
	f := newFeed(t, func(s *site) { s.hub.Heartbeat = 3 * limit })
	run(t, f.hub.Run)
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(limit))
		f.ServeHTTP(w, r)
	}))
	server.Config.ReadTimeout = limit
	protocol(server)
	t.Cleanup(server.Close)
	if a := poll(t, server.Client(), server.URL, f.now.String(), "alice"); !strings.Contains(a.text, "event: rowcast.beat\n") {
		t.Errorf("got %q, want a heartbeat", a.text)
	}
}

// When a client disconnects, its poll no longer counts for the limits.
func TestPollOfAClientThatLeaves(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat = time.Hour })
	c, err := dial(f.url, request{recipients: []string{"alice"}, header: start.String(), poll: true})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the poll waits", func() bool { return f.hub.Stats.Streams.Load() == 1 })
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the poll ends", func() bool { return f.hub.Stats.Streams.Load() == 0 })
}

// A client that does not read a long answer is disconnected after two heartbeat intervals, and its memory is released.
func TestPollOfAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.hub.Backlog, s.buffer = 2*time.Second, 16<<20, 16<<10 })
	for range 4 {
		f.publish("alice", "message", strings.Repeat("x", 2<<20))
	}
	c, err := dial(f.url, request{recipients: []string{"alice"}, header: start.String(), poll: true, buffer: 4 << 10})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	eventually(t, "the answer is being written", func() bool { return f.hub.Held() > 1<<20 })
	eventually(t, "the poll ends", func() bool { return f.hub.Stats.Streams.Load() == 0 && f.hub.Held() == 0 })
	if a := poll(t, newPoller(t), f.url, start.String(), "alice"); len(a.text) < 8<<20 {
		t.Errorf("another client got %d bytes, want all rows, which have at least %d bytes", len(a.text), 8<<20)
	}
}
