package stream_test

import (
	"context"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
	"rowcast/stream"
	"rowcast/stream/sse"
)

// A cursor that cannot be honoured is told so and goes on live: it is never guessed and never refused.
func TestReset(t *testing.T) {
	t.Parallel()
	dsn, otherDSN := dbtest.Database(t), dbtest.Database(t)
	s, other := serve(t, dsn), serve(t, otherDSN)
	db, otherDB := connect(t, dsn), connect(t, otherDSN)
	insert(t, db, "alice", "0")
	empty := listen(t, other, "alice").hello()
	insert(t, otherDB, "alice", "of another database")
	s.caughtUp(t)
	other.caughtUp(t)
	mine := listen(t, s, "alice").hello()
	forged := func(change func(*cursor.Cursor)) string {
		c := parse(t, mine)
		change(&c)
		return c.String()
	}
	long := strings.Repeat("A", 1<<20)
	tests := []struct{ name, id, reason string }{
		{"no cursor", "x", "malformed"},
		{"a bare id", "77", "malformed"},
		{"an escape", "%00%0a", "malformed"},
		{"another encoding", "\xff\xfe", "malformed"},
		{"cut off", mine[:len(mine)-1], "malformed"},
		{"a million bytes", long, "malformed"},
		{"six million transactions in flight", "1-0-9999999999-A" + long + "-00000000-00000000", "malformed"},
		{"another database's", listen(t, other, "alice").hello(), "history"},
		{"another database's, of no row", empty, "history"},
		{"another epoch, with an anchor that is not there", forged(func(c *cursor.Cursor) { c.Epoch++; c.Anchor.Tag++ }), "history"},
		{"ahead", forged(func(c *cursor.Cursor) { c.Xmax += 1 << 30 }), "ahead"},
		{"ahead by half a transaction", forged(func(c *cursor.Cursor) { c.Xmax += 1 << 30; c.Xid, c.ID = c.Xmax, 1 }), "ahead"},
	}
	for _, tt := range tests {
		c := resume(t, s, tt.id, "alice")
		wantReset(c, tt.name, tt.reason, mine)
		insert(t, db, "alice", tt.name)
		c.wantTold(fmt.Sprintf("%q", tt.name))
		mine = c.decoder.LastID
		s.caughtUp(t)
		mine = listen(t, s, "alice").hello()
	}
	if got := s.hub.Stats.Resets.Load(); got != int64(len(tests)) {
		t.Errorf("counted %d resets, want %d", got, len(tests))
	}
}

// wantReset reads the beginning of a stream whose cursor was not honoured; now is about the hub's.
func wantReset(c *client, name, reason, now string) {
	c.Helper()
	if c.response.StatusCode != http.StatusOK {
		c.Errorf("%s: status %d", name, c.response.StatusCode)
	}
	// No id comes before the reset: a client that is cut off in between would never hear of it.
	if hello := c.hello(); hello != "" {
		c.Errorf("%s: hello with %s before the reset", name, hello)
	}
	got := c.event()
	if want := (sse.Event{LastID: got.LastID, Name: "rowcast.reset", Data: fmt.Sprintf(`{"reason": %q}`, reason)}); got != want {
		c.Errorf("%s: got %v, want %v", name, got, want)
	}
	if !parse(c, got.LastID).Covers(parse(c, now)) {
		c.Errorf("%s: reset with %s, want %s", name, got.LastID, now)
	}
}

// Retention has deleted what the client has not seen.
func TestResetOfWhatIsOlderThanTheHorizon(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	s := serve(t, dsn)
	late := serve(t, dsn, seldom, func(s *site) { s.hub.Memory = 1 })
	db := connect(t, dsn)
	hello := listen(t, s, "alice").hello()
	insert(t, db, "alice", "1")
	insert(t, db, "alice", "2")
	s.caughtUp(t)
	late.caughtUp(t)
	c := resume(t, s, hello, "alice")
	c.hello()
	half, whole := c.told().LastID, c.told().LastID

	// As far as it may be for the last cursor: up to the first transaction that it has not seen.
	last := parse(t, whole)
	exec(t, db, `UPDATE rowcast.history SET horizon = $1::text::xid8`, fmt.Sprint(slices.Min(append(last.Xip, last.Xid))))
	s.caughtUp(t)
	c = resume(t, s, whole, "alice")
	if got := c.hello(); got != whole {
		t.Errorf("hello with %s, want %s", got, whole)
	}
	wantReset(resume(t, s, hello, "alice"), "before the horizon", "expired", whole)

	exec(t, db, `UPDATE rowcast.history SET horizon = (SELECT xid FROM rowcast.notifications ORDER BY xid DESC LIMIT 1)`)
	exec(t, db, `DELETE FROM rowcast.notifications WHERE xid < (SELECT horizon FROM rowcast.history)`)
	s.caughtUp(t)
	wantReset(resume(t, s, half, "alice"), "in the middle of a transaction below it", "expired", whole)
	// A hub that has not heard of it yet reads the horizon with the page: then hello has come.
	c = resume(t, late, hello, "alice")
	if got := c.hello(); got != hello {
		t.Errorf("hello with %s, want %s", got, hello)
	}
	if e := c.want("rowcast.reset"); e.Data != `{"reason": "expired"}` || parse(t, e.LastID).Xmax <= last.Xid {
		t.Errorf("got %v, want expired and %s", e, whole)
	}
	insert(t, db, "alice", "3")
	late.caughtUp(t)
	c.wantTold(`"3"`)
}

// When the server has taken back what was told, every stream that is live is told.
func TestResetOfTheHub(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, f.site)
	c.hello()
	f.tell("", "message", "1")
	c.wantTold("1")
	anew := cursor.Cursor{Xmax: 500, Epoch: 7}
	f.hub.Publish(feed.Batch{Cursor: anew, Reset: "history"})
	if e := c.want("rowcast.reset"); e.Data != `{"reason": "history"}` || e.LastID != anew.String() {
		t.Errorf("got %v", e)
	}
	if got := listen(t, f.site).hello(); got != anew.String() {
		t.Errorf("got %s, want %s", got, anew)
	}
}

// When a crash has taken back the last of what was told, what is left is gone on from: by those who are there, and by those who
// come with a cursor from before. One that another hub gave may have seen more than this hub knows the fate of.
func TestClampingAfterACrash(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat = time.Hour })
	f.hub.Source.(*source).stands = func(context.Context) (bool, error) { return false, nil }
	c := listen(t, f.site, "alice")
	c.hello()
	first := f.tell("alice", "message", "1")
	f.tell("alice", "message", "taken back")
	c.wantTold("1", "taken back")
	before, further := c.decoder.LastID, f.event(f.now.Xmax, "alice", "message", "of another hub").Cursor.String()

	f.now = f.now.Clamp(first.Row, start.Epoch+1)
	f.hub.Publish(feed.Batch{Cursor: f.now, Clamp: &first.Row})
	if e := c.want("rowcast.beat"); e.LastID != f.now.String() {
		t.Errorf("got %v, want the cursor %s", e, f.now)
	}
	f.tell("alice", "message", "of the same number")
	c.wantTold("of the same number")
	again := resume(t, f.site, before, "alice")
	again.hello()
	again.wantTold("of the same number")
	wantReset(resume(t, f.site, further, "alice"), "of another hub", "history", f.now.String())
	wantReset(resume(t, f.site, "1-0-1043--00000000-00000000", "alice"), "of another epoch", "history", f.now.String())
}

// A hub that begins with what was told before it serves nobody until it has all of that, and then who resumes from there.
func TestWarmStart(t *testing.T) {
	t.Parallel()
	f := &fakeFeed{site: &site{hub: &stream.Hub{Source: &source{}}}, now: start}
	f.open(t)
	f.hub.Publish(feed.Batch{Cursor: start, Warming: true})
	first, second := f.event(start.Xmax, "alice", "message", "1"), f.event(start.Xmax, "alice", "message", "2")
	f.hub.Publish(feed.Batch{Rows: []feed.Row{first}, Cursor: first.Cursor, Warming: true})
	if f.hub.Ready() {
		t.Error("it is ready")
	}
	wantComeBackLater(t, listen(t, f.site, "alice"))
	f.now = second.Cursor.Reached(cursor.Cursor{Xmax: start.Xmax + 1, Epoch: start.Epoch})
	f.hub.Publish(feed.Batch{Rows: []feed.Row{second}, Cursor: f.now})
	c := resume(t, f.site, first.Cursor.String(), "alice")
	c.hello()
	c.wantTold("2")
	if got := f.hub.Stats.Pages.Load(); got != 0 {
		t.Errorf("%d pages were read", got)
	}
}
