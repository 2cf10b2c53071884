package stream_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
	"rowcast/stream"
)

// A flushing is an http.ResponseWriter that calls do before each flush. It gives do what was written since the last flush.
// The time that do takes does not count for the deadline of the flush.
type flushing struct {
	http.ResponseWriter
	do      func(written string)
	written *strings.Builder
}

func (w flushing) Write(b []byte) (int, error) {
	w.written.Write(b)
	return w.ResponseWriter.Write(b)
}

func (w flushing) FlushError() error {
	w.do(w.written.String())
	w.written.Reset()
	control := http.NewResponseController(w.ResponseWriter)
	return errors.Join(control.SetWriteDeadline(time.Now().Add(patience)), control.Flush())
}

func (w flushing) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serveAlice serves a feed to the user alice. It calls do while the hub writes the head of a response. written is the
// beginning of the body, which is sent with the head.
func serveAlice(t *testing.T, f *fakeFeed, do func(written string)) *site {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.hub.Serve(flushing{w, do, new(strings.Builder)}, r, stream.Grant{User: "alice"})
	}))
	t.Cleanup(server.Close)
	return &site{url: server.URL}
}

// A stream whose client has missed nothing, or only a few events that are in memory, is live before rowcast.hello is
// written. Events that are published in between come after the missed events.
func TestEventsWhileTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	for name, missed := range map[string][]string{"without a cursor": nil, "nothing missed": {}, "two events missed": {`"1"`, `"2"`}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serveFeed(t)
			for _, data := range missed {
				f.publish("alice", "", data)
			}
			alice := serveAlice(t, f, func(string) {
				f.publish("alice", "", `"published"`)
				f.hub.Send(feed.Message{Recipient: "alice", Data: []byte(`"with NOTIFY"`)})
			})
			id := ""
			if missed != nil {
				id = start.String()
			}
			c := resume(t, alice, id)
			c.hello()
			c.wantData(append(missed, `"published"`, `"with NOTIFY"`)...)
			f.publish("alice", "", `"live"`)
			c.wantData(`"live"`)
			if got := f.hub.Stats.Replayed.Load(); got != int64(len(missed)) {
				t.Errorf("%d events were replayed, want %d", got, len(missed))
			}
		})
	}
}

// Missed events are written together with the head of the response if they are in memory and have at most 16 KiB.
// Otherwise the head is written first. In both cases, the client receives what it has missed, or rowcast.reset.
func TestMissedEventsAreWrittenWithTheHead(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Memory = 64 << 10 })
	fits := text(15 << 10)
	before := f.now
	for range 8 { // more than the memory holds
		f.publish("alice", "", fits)
	}
	two := f.now
	f.publish("alice", "", fits)
	one := f.now
	f.publish("alice", "", fits)
	other := f.now
	other.Epoch++
	tests := map[string]struct {
		id     string
		missed int // the number of missed events; -1 if the client is reset
		with   bool
	}{
		"nothing missed":    {f.now.String(), 0, true},
		"few bytes":         {one.String(), 1, true},
		"more than 16 KiB":  {two.String(), 2, false},
		"not in memory":     {before.String(), 0, false}, // the source of the feed has no rows
		"another epoch":     {other.String(), 0, false},  // the source of the feed regards it as valid
		"malformed":         {"x", -1, false},
		"of another server": {cursor.Cursor{Xmax: f.now.Xmax + 1, Epoch: f.now.Epoch, Anchor: f.now.Anchor}.String(), -1, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			heads := make(chan string, 1)
			c := resume(t, serveAlice(t, f, func(written string) {
				select {
				case heads <- written:
				default:
				}
			}), tt.id)
			c.hello()
			for range tt.missed {
				c.wantData(fits)
			}
			if tt.missed < 0 {
				c.want("rowcast.reset")
			}
			head := dbtest.Receive(t, heads, "the head")
			if got := strings.Contains(head, "rowcast.hello"); got != tt.with {
				t.Errorf("rowcast.hello was written with the head: %v, want %v", got, tt.with)
			}
			want := 0
			if tt.with {
				want = tt.missed
			}
			if got := strings.Count(head, fits); got != want {
				t.Errorf("%d events were written with the head, want %d", got, want)
			}
		})
	}
}

// The stream of a client that does not accept the missed events that come with the head is closed after two heartbeat
// intervals.
func TestAClientThatDoesNotAcceptTheHead(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.buffer = 100*time.Millisecond, 1 })
	f.publish("alice", "", text(15<<10))
	conn, err := dial(f.url, request{recipients: []string{"alice"}, header: start.String(), buffer: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "the stream is opened", func() bool { return f.hub.Stats.Opened.Load() == 1 })
	eventually(t, "the stream is closed", func() bool { return f.hub.Stats.Streams.Load() == 0 })
}

// Disconnect can end a stream while its head is written. The client receives rowcast.hello and then rowcast.bye.
func TestDisconnectedWhileTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, serveAlice(t, f, func(string) { f.hub.Disconnect("alice") }))
	c.hello()
	c.want("rowcast.bye")
	c.wantEnd()
}

// Disconnect can also end a stream just after it has become live. If the missed events and rowcast.bye are then written
// together, the stream is still closed.
func TestDisconnectedBeforeTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	f := newFeed(t)
	f.publish("alice", "", `"missed"`)
	first, closed := f.hub.EndWhileBegun("alice", start)
	if text := string(first); !strings.Contains(text, `"missed"`) || !strings.Contains(text, "rowcast.bye") {
		t.Errorf("got %q, want the missed event and rowcast.bye", text)
	}
	dbtest.Receive(t, closed, "the end of the stream")
}

// A stream begins as usual if its heartbeats were due while its head was written.
func TestHeartbeatsWhileTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat = 50 * time.Millisecond })
	bob := listen(t, f.site, "bob")
	bob.hello()
	everySlot := make(chan struct{})
	conn, err := dial(serveAlice(t, f, func(string) {
		select {
		case <-everySlot:
		case <-t.Context().Done(): // the test has ended early
		}
	}).url, request{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream of alice is opened", func() bool { return f.hub.Stats.Opened.Load() == 2 })
	for range 3 {
		bob.want("rowcast.beat")
	}
	close(everySlot)
	begin(t, conn).hello()
}
