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

// When Disconnect ends a stream, the stream first receives its pending events. Then it receives a new retry time, and
// rowcast.bye with the hub's cursor. Other streams continue.
func TestDisconnect(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Retry = time.Hour }) // with an hour, two random times are hardly ever equal
	tabs := []*client{listen(t, f.site, "alice", "team:7"), listen(t, f.site, "alice")}
	bob, carol := listen(t, f.site, "bob", "team:7"), listen(t, f.site, "carol")
	for _, c := range append(tabs, bob, carol) {
		c.hello()
	}
	e := f.publish(everyone, "message", "1")
	if got := f.hub.Disconnect("alice"); got != len(tabs) {
		t.Errorf("ended %d streams, want %d", got, len(tabs))
	}
	first := tabs[0].decoder.Retry
	for _, c := range tabs {
		c.wantData("1")
		const data = `{"reason": "disconnected", "expires_in": 0}`
		if bye := c.want("rowcast.bye"); bye.Data != data || bye.LastID != f.now.String() {
			t.Errorf("got the data %s and the id %s, want %s and %s", bye.Data, bye.LastID, data, f.now)
		}
		c.wantEnd()
	}
	if tabs[0].decoder.Retry == first {
		t.Errorf("the retry time is still %v, want a new random time", first)
	}
	f.publish(everyone, "message", "2")
	bob.wantData("1", "2")
	carol.wantData("1", "2")
	if got := f.hub.Disconnect("alice"); got != 0 {
		t.Errorf("the second call ended %d streams, want none", got)
	}
	if got := f.hub.Disconnect("team:7"); got != 1 {
		t.Errorf("Disconnect of a group ended %d streams, want 1", got)
	}
	bob.want("rowcast.bye")
	bob.wantEnd()
	if got := f.hub.Disconnect("nobody"); got != 0 {
		t.Errorf("Disconnect of a recipient without streams ended %d streams, want none", got)
	}
	c := resume(t, f.site, e.Cursor.String(), "alice")
	c.hello()
	c.wantData("2")
	if got := f.hub.Stats.Disconnected.Load(); got != 3 {
		t.Errorf("counted %d disconnected streams, want 3", got)
	}
}

// A grant opens no stream if one of its recipients was disconnected after Grant.Known. Such a grant may come from a
// cache or a slow request.
func TestDisconnectInvalidatesOlderGrants(t *testing.T) {
	t.Parallel()
	f := newFeed(t)
	before := time.Now()
	f.hub.Disconnect("alice")
	for _, grant := range []stream.Grant{{User: "alice", Known: before}, {User: "bob", Groups: []string{"alice"}, Known: before}} {
		if got := firstBytes(t, f, grant); !strings.HasPrefix(got, "retry: ") || strings.Contains(got, "hello") {
			t.Errorf("%+v: got %q, want a retry field and no rowcast.hello", grant, got)
		}
	}
	for _, grant := range []stream.Grant{{User: "alice", Known: time.Now().Add(1)}, {User: "alice"}, {User: "bob", Known: before}} {
		if got := firstBytes(t, f, grant); !strings.Contains(got, "rowcast.hello") {
			t.Errorf("%+v: got %q, want rowcast.hello", grant, got)
		}
	}
}

// firstBytes requests a stream and disconnects after rowcast.hello. It returns what was sent to the client.
func firstBytes(t *testing.T, f *fakeFeed, grant stream.Grant) string {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	r.ProtoMajor = 2 // over HTTP/2, Serve writes through w
	w := &helloOnly{header: http.Header{}, leave: leave}
	f.hub.Serve(w, r, grant)
	return w.body.String()
}

// After more than a minute, a disconnect no longer keeps older grants from opening a stream.
func TestDisconnectExpires(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t)
		grant := stream.Grant{User: "alice", Known: time.Now()}
		f.hub.Disconnect("alice")
		time.Sleep(time.Minute)
		if got := firstBytes(t, f, grant); strings.Contains(got, "hello") {
			t.Errorf("after a minute: got %q, want no rowcast.hello", got)
		}
		time.Sleep(time.Nanosecond)
		if got := firstBytes(t, f, grant); !strings.Contains(got, "hello") {
			t.Errorf("after more than a minute: got %q, want rowcast.hello", got)
		}
	})
}

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
			t.Errorf("%d streams are left, want none; the stream received %q, want only a comment", got, r.text())
		}
	})
}

// Any role of the database can disconnect a million recipients that do not exist. That takes the hub little time and
// little memory. A grant from before the disconnects opens no stream, even if its recipient was the first to be
// disconnected. Not parallel: it measures the heap and the CPU time of the process.
func TestAttackManyDisconnects(t *testing.T) {
	const many = 1_000_000
	f := newFeed(t)
	began := time.Now()
	before, usedBefore := heap(), used()
	f.hub.Disconnect("alice")
	long := strings.Repeat("x", 200)
	for i := range many {
		f.hub.Disconnect(long + strconv.Itoa(i))
		if took := used() - usedBefore; i%1000 == 0 && took > 10*time.Second {
			t.Fatalf("%d disconnects took %v of CPU time, want at most 10 s for all", i+1, took)
		}
	}
	grown := heap() - before
	t.Logf("%d disconnects took %v of CPU time; the heap has grown by %d bytes", many, used()-usedBefore, grown)
	if grown > 4<<20 {
		t.Errorf("the heap has grown by %d bytes, want at most 4 MiB", grown)
	}
	if got := firstBytes(t, f, stream.Grant{User: "alice", Known: began}); strings.Contains(got, "hello") {
		t.Errorf("a grant from before the disconnects: got %q, want no rowcast.hello", got)
	}
	if got := firstBytes(t, f, stream.Grant{User: "alice", Known: time.Now().Add(1)}); !strings.Contains(got, "hello") {
		t.Errorf("a grant from after the disconnects: got %q, want rowcast.hello", got)
	}
}

// When a large group is disconnected many times in a row, only the first call goes through the streams of the group,
// even if the streams need a while to close.
func TestAttackDisconnectTheSameGroupManyTimes(t *testing.T) {
	t.Parallel()
	const streams, times = 20_000, 100_000
	f := newFeed(t)
	for i := range streams {
		f.hub.Connect(true, "team:7", "user "+strconv.Itoa(i))
	}
	if got := f.hub.Disconnect("team:7"); got != streams {
		t.Errorf("the first call ended %d streams, want %d", got, streams)
	}
	began := time.Now()
	for i := range times {
		if got := f.hub.Disconnect("team:7"); got != 0 {
			t.Fatalf("a further call ended %d streams, want none", got)
		}
		if took := time.Since(began); took > 10*time.Second {
			t.Fatalf("%d calls took %v, want at most 10 s", i+1, took)
		}
	}
	f.hub.Connect(true, "team:7")
	if got := f.hub.Disconnect("team:7"); got != 1 {
		t.Errorf("after a new stream was opened, the call ended %d streams, want 1", got)
	}
}
