package stream_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/stream"
)

// Who is disconnected is first told what it is owed, then that, from where and when to come back; nobody else notices.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Retry = time.Hour }) // of so many milliseconds no two are the same
	tabs := []*client{listen(t, f.site, "alice", "team:7"), listen(t, f.site, "alice")}
	bob, carol := listen(t, f.site, "bob", "team:7"), listen(t, f.site, "carol")
	for _, c := range append(tabs, bob, carol) {
		c.hello()
	}
	e := f.tell("", "message", "1")
	if got := f.hub.Disconnect("alice"); got != len(tabs) {
		t.Errorf("ended %d streams, want %d", got, len(tabs))
	}
	waits := tabs[0].decoder.Retry
	for _, c := range tabs {
		c.wantTold("1")
		if bye := c.want("rowcast.bye"); bye.Data != `{"reason": "disconnected", "expires_in": 0}` || bye.LastID != f.now.String() {
			t.Errorf("got %s with %s, want it with %s", bye.Data, bye.LastID, f.now)
		}
		c.wantEnd()
	}
	if tabs[0].decoder.Retry == waits {
		t.Errorf("it is told the same time to wait, %v, as at the beginning: all would come back at once", waits)
	}
	f.tell("", "message", "2")
	bob.wantTold("1", "2")
	carol.wantTold("1", "2")
	if got := f.hub.Disconnect("alice"); got != 0 {
		t.Errorf("a second time: ended %d", got)
	}
	if got := f.hub.Disconnect("team:7"); got != 1 {
		t.Errorf("of a group: ended %d, want 1", got)
	}
	bob.want("rowcast.bye")
	bob.wantEnd()
	if got := f.hub.Disconnect("nobody"); got != 0 {
		t.Errorf("of nobody: ended %d", got)
	}
	c := resume(t, f.site, e.Cursor.String(), "alice")
	c.hello()
	c.wantTold("2")
	if got := f.hub.Stats.Disconnected.Load(); got != 3 {
		t.Errorf("counted %d, want 3", got)
	}
}

// What was found out before somebody was disconnected opens no stream after: it may come from a cache, or have been long on its way.
func TestDisconnectOutlastsWhatWasKnownBefore(t *testing.T) {
	t.Parallel()
	f := newFeed(t)
	before := time.Now()
	f.hub.Disconnect("alice")
	open := func(grant stream.Grant) string {
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		r.ProtoMajor = 2 // not to be hijacked
		w := &greeted{header: http.Header{}, leave: leave}
		f.hub.Serve(w, r, grant)
		return w.body.String()
	}
	for _, grant := range []stream.Grant{{User: "alice", Known: before}, {User: "bob", Groups: []string{"alice"}, Known: before}} {
		if got := open(grant); !strings.HasPrefix(got, "retry: ") || strings.Contains(got, "hello") {
			t.Errorf("%+v: got %q, want only to come back", grant, got)
		}
	}
	for _, grant := range []stream.Grant{{User: "alice", Known: time.Now().Add(1)}, {User: "alice"}, {User: "bob", Known: before}} {
		if got := open(grant); !strings.Contains(got, "rowcast.hello") {
			t.Errorf("%+v: got %q, want a stream", grant, got)
		}
	}
}

// A stream that is still being brought forward is ended, too.
func TestDisconnectWhileJoining(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t)
		f.hub.Publish(stream.Batch{Cursor: f.event(f.now.Xmax, "bob", "message", "half a transaction").Cursor})
		r := record(t, f.site, "", "alice")
		synctest.Wait()
		if got := f.hub.Disconnect("alice"); got != 1 {
			t.Errorf("ended %d streams, want 1", got)
		}
		synctest.Wait()
		if got := f.hub.Stats.Streams.Load(); got != 0 || r.text() != ":\n" {
			t.Errorf("%d streams are left; it was told %q", got, r.text())
		}
	})
}

// Whoever disconnects thousands, who need not exist, does not hold up the hub more and more.
func TestAttackManyDisconnects(t *testing.T) {
	t.Parallel()
	f := newFeed(t)
	began := time.Now()
	for i := range 100_000 {
		f.hub.Disconnect(strconv.Itoa(i))
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("%d took %v", i+1, took)
		}
	}
}
