package stream_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"rowcast/listener/feed"
	"rowcast/stream"
)

// A flushing is a response that calls a function when its head is written.
type flushing struct {
	http.ResponseWriter
	do func()
}

func (w flushing) FlushError() error {
	w.do()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w flushing) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serveAlice serves a feed to the user alice. do is called while the head of a response is written.
func serveAlice(t *testing.T, f *fakeFeed, do func()) *site {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.hub.Serve(flushing{w, do}, r, stream.Grant{User: "alice"})
	}))
	t.Cleanup(server.Close)
	return &site{url: server.URL}
}

// The stream of a client without a cursor is live before rowcast.hello is written. Events that are published meanwhile
// come after it.
func TestEventsWhileTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, serveAlice(t, f, func() {
		f.publish("alice", "", `"first"`)
		f.hub.Send(feed.Message{Recipient: "alice", Data: []byte(`"with NOTIFY"`)})
	}))
	c.hello()
	c.wantData(`"first"`, `"with NOTIFY"`)
}

// A stream can be disconnected while its head is written.
func TestDisconnectedWhileTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, serveAlice(t, f, func() { f.hub.Disconnect("alice") }))
	c.hello()
	c.want("rowcast.bye")
	c.wantEnd()
}

// Heartbeats of a stream can be due while its head is written.
func TestHeartbeatsWhileTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat = 50 * time.Millisecond })
	bob := listen(t, f.site, "bob")
	bob.hello()
	everySlot := make(chan struct{})
	conn, err := dial(serveAlice(t, f, func() {
		select {
		case <-everySlot:
		case <-t.Context().Done(): // the test has failed
		}
	}).url, request{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "alice is live", func() bool { return f.hub.Stats.Opened.Load() == 2 })
	for range 3 {
		bob.want("rowcast.beat")
	}
	close(everySlot)
	begin(t, conn).hello()
}
