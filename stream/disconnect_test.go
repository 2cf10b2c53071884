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

	"rowcast/listener/feed"
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
	for _, grant := range []stream.Grant{{User: "alice", Known: before}, {User: "bob", Groups: []string{"alice"}, Known: before}} {
		if got := greeting(t, f, grant); !strings.HasPrefix(got, "retry: ") || strings.Contains(got, "hello") {
			t.Errorf("%+v: got %q, want only to come back", grant, got)
		}
	}
	for _, grant := range []stream.Grant{{User: "alice", Known: time.Now().Add(1)}, {User: "alice"}, {User: "bob", Known: before}} {
		if got := greeting(t, f, grant); !strings.Contains(got, "rowcast.hello") {
			t.Errorf("%+v: got %q, want a stream", grant, got)
		}
	}
}

// greeting asks for a stream and leaves it after its hello. It returns what was sent.
func greeting(t *testing.T, f *fakeFeed, grant stream.Grant) string {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	r.ProtoMajor = 2 // not to be hijacked
	w := &greeted{header: http.Header{}, leave: leave}
	f.hub.Serve(w, r, grant)
	return w.body.String()
}

// A disconnect is forgotten after a while, without another one.
func TestDisconnectIsForgotten(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t)
		grant := stream.Grant{User: "alice", Known: time.Now()}
		f.hub.Disconnect("alice")
		time.Sleep(time.Minute)
		if got := greeting(t, f, grant); strings.Contains(got, "hello") {
			t.Errorf("after a minute: got %q, want only to come back", got)
		}
		time.Sleep(time.Nanosecond)
		if got := greeting(t, f, grant); !strings.Contains(got, "hello") {
			t.Errorf("after more than a minute: got %q, want a stream", got)
		}
	})
}

// A stream that is still being brought forward is ended, too.
func TestDisconnectWhileJoining(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t)
		f.hub.Publish(feed.Batch{Cursor: f.event(f.now.Xmax, "bob", "message", "half a transaction").Cursor})
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

// Any role of the database can disconnect a million recipients that need not exist. That costs the hub little time and no memory,
// and no stream is opened by what was known before: not even of somebody who is lost in the crowd. Not parallel:
// it measures the heap.
func TestAttackManyDisconnects(t *testing.T) {
	const many = 1_000_000
	f := newFeed(t)
	began := time.Now()
	before := heap()
	f.hub.Disconnect("alice")
	long := strings.Repeat("x", 200)
	for i := range many {
		f.hub.Disconnect(long + strconv.Itoa(i))
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("%d took %v", i+1, took)
		}
	}
	grown := heap() - before
	t.Logf("%d disconnects took %v; the heap has grown by %d bytes", many, time.Since(began), grown)
	if grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes, want at most 4 MiB", grown)
	}
	if got := greeting(t, f, stream.Grant{User: "alice", Known: began}); strings.Contains(got, "hello") {
		t.Errorf("known before: got %q, want only to come back", got)
	}
	if got := greeting(t, f, stream.Grant{User: "alice", Known: time.Now().Add(1)}); !strings.Contains(got, "hello") {
		t.Errorf("known after: got %q, want a stream", got)
	}
}

// A large group that is disconnected again and again is gone through once. Its streams need a while to go.
func TestAttackDisconnectTheSameGroupAgainAndAgain(t *testing.T) {
	t.Parallel()
	const streams, times = 20_000, 100_000
	f := newFeed(t)
	for i := range streams {
		f.hub.Connect(true, "team:7", "user "+strconv.Itoa(i))
	}
	if got := f.hub.Disconnect("team:7"); got != streams {
		t.Errorf("the first time: ended %d streams, want %d", got, streams)
	}
	began := time.Now()
	for i := range times {
		if got := f.hub.Disconnect("team:7"); got != 0 {
			t.Fatalf("again: ended %d streams, want none", got)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("%d times took %v", i+1, took)
		}
	}
	f.hub.Connect(true, "team:7")
	if got := f.hub.Disconnect("team:7"); got != 1 {
		t.Errorf("after one more had come: ended %d streams, want 1", got)
	}
}
