package stream_test

import (
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"rowcast/listener/feed"
	"rowcast/stream"
)

// A flushing is a response that does something at the moment when its head is written.
type flushing struct {
	http.ResponseWriter
	do func()
}

func (w flushing) FlushError() error {
	w.do()
	return http.NewResponseController(w.ResponseWriter).Flush()
}

func (w flushing) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serveAlice serves a feed to alice, where something happens while the head of her stream is written.
func serveAlice(t *testing.T, f *fakeFeed, do func()) *site {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.hub.Serve(flushing{w, do}, r, stream.Grant{User: "alice"})
	}))
	t.Cleanup(server.Close)
	return &site{url: server.URL}
}

// A client without a cursor is live before its hello is written: what comes meanwhile comes after it.
func TestToldWhileTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, serveAlice(t, f, func() {
		f.tell("alice", "", `"first"`)
		f.hub.Send(feed.Message{Recipient: "alice", Data: []byte(`"by hand"`)})
	}))
	c.hello()
	c.wantTold(`"first"`, `"by hand"`)
}

// It can also be sent away meanwhile.
func TestDisconnectedWhileTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, serveAlice(t, f, func() { f.hub.Disconnect("alice") }))
	c.hello()
	c.want("rowcast.bye")
	c.wantEnd()
}

// Its turn among the heartbeats can come before it can be written to.
func TestHeartbeatsWhileTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat = 50 * time.Millisecond })
	bob := listen(t, f.site, "bob")
	bob.hello()
	everyTurn := make(chan struct{})
	conn, err := dial(serveAlice(t, f, func() {
		select {
		case <-everyTurn:
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
	close(everyTurn)
	begin(t, conn).hello()
}
