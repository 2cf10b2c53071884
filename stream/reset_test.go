package stream_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql"
	"rowcast/sql/dbtest"
	"rowcast/stream"
	"rowcast/stream/sse"
)

// If a stream cannot continue from the client's cursor, it begins with rowcast.hello and rowcast.reset, and continues
// live. The status is 200.
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
	current := listen(t, s, "alice").hello()
	forged := func(change func(*cursor.Cursor)) string {
		c := parse(t, current)
		change(&c)
		return c.String()
	}
	long := strings.Repeat("A", 1<<20)
	tests := []struct{ name, id, reason string }{
		{"not a cursor", "x", "malformed"},
		{"a bare id", "77", "malformed"},
		{"an escape", "%00%0a", "malformed"},
		{"another encoding", "\xff\xfe", "malformed"},
		{"cut off", current[:len(current)-1], "malformed"},
		{"a million bytes", long, "malformed"},
		{"five thousand transactions in flight", "1-0-9999999999-~" + strings.Repeat("A", 5000) + "-00000000-00000000", "malformed"},
		{"a cursor of another database", listen(t, other, "alice").hello(), "history"},
		{"a cursor of another database that was empty", empty, "history"},
		{"another epoch, with an anchor that does not exist", forged(func(c *cursor.Cursor) { c.Epoch++; c.Anchor.Tag++ }), "history"},
		{"ahead", forged(func(c *cursor.Cursor) { c.Xmax += 1 << 30 }), "ahead"},
		{"ahead, in the middle of a transaction", forged(func(c *cursor.Cursor) { c.Xmax += 1 << 30; c.Xid, c.ID = c.Xmax, 1 }), "ahead"},
	}
	for _, tt := range tests {
		c := resume(t, s, tt.id, "alice")
		wantReset(c, tt.name, tt.reason, current)
		insert(t, db, "alice", tt.name)
		c.wantData(fmt.Sprintf("%q", tt.name))
		current = c.decoder.LastID
		s.caughtUp(t)
		current = listen(t, s, "alice").hello()
	}
	if got := s.hub.Stats.Resets.Load(); got != int64(len(tests)) {
		t.Errorf("counted %d resets, want %d", got, len(tests))
	}
}

// wantReset checks the beginning of a stream that cannot continue from the client's cursor: rowcast.hello without an
// id, and rowcast.reset with the reason and with a cursor that covers now.
func wantReset(c *client, name, reason, now string) {
	c.Helper()
	if c.response.StatusCode != http.StatusOK {
		c.Errorf("%s: got the status %d, want 200", name, c.response.StatusCode)
	}
	// A client that loses its connection before the reset must not resume from a new id, because it would never receive
	// the reset.
	if hello := c.hello(); hello != "" {
		c.Errorf("%s: rowcast.hello has the id %s before the reset, want none", name, hello)
	}
	got := c.event()
	if want := (sse.Event{LastID: got.LastID, Name: "rowcast.reset", Data: fmt.Sprintf(`{"reason": %q}`, reason)}); got != want {
		c.Errorf("%s: got %v, want %v", name, got, want)
	}
	if !parse(c, got.LastID).Covers(parse(c, now)) {
		c.Errorf("%s: the reset has the cursor %s, want one that covers %s", name, got.LastID, now)
	}
}

// A client whose missed rows may have been deleted by retention is reset.
func TestResetOfCursorsBelowTheHorizon(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	s := serve(t, dsn)
	late := serve(t, dsn, fetchRarely, func(s *site) { s.hub.Memory = 1 })
	db := connect(t, dsn)
	hello := listen(t, s, "alice").hello()
	insert(t, db, "alice", "1")
	insert(t, db, "alice", "2")
	s.caughtUp(t)
	late.caughtUp(t)
	c := resume(t, s, hello, "alice")
	c.hello()
	half, whole := c.notification().LastID, c.notification().LastID

	last := parse(t, whole)
	// As with retention, both hubs must have seen the end of all transactions below a horizon.
	for _, s := range []*site{s, late} {
		eventually(t, "the hub has seen all transactions up to the last row", func() bool {
			s.caughtUp(t)
			return parse(t, listen(t, s, "alice").hello()).SeenBelow(last.Xid + 1)
		})
	}
	// The cursor of the last row has seen all transactions below this horizon, so it is still valid.
	exec(t, db, `UPDATE rowcast.history SET horizon = $1::text::xid8`, fmt.Sprint(slices.Min(append(last.Xip, last.Xid))))
	s.caughtUp(t)
	c = resume(t, s, whole, "alice")
	if got := c.hello(); got != whole {
		t.Errorf("rowcast.hello has the id %s, want %s", got, whole)
	}
	wantReset(resume(t, s, hello, "alice"), "before the horizon", "expired", whole)

	exec(t, db, `UPDATE rowcast.history SET horizon = (SELECT xid FROM rowcast.notifications ORDER BY xid DESC LIMIT 1)`)
	exec(t, db, `DELETE FROM rowcast.notifications WHERE xid < (SELECT horizon FROM rowcast.history)`)
	s.caughtUp(t)
	wantReset(resume(t, s, half, "alice"), "in the middle of a transaction below the horizon", "expired", whole)
	// A hub that does not know the new horizon reads it with the page. By then, the hub has sent rowcast.hello.
	c = resume(t, late, hello, "alice")
	if got := c.hello(); got != hello {
		t.Errorf("rowcast.hello has the id %s, want %s", got, hello)
	}
	if e := c.want("rowcast.reset"); e.Data != `{"reason": "expired"}` || parse(t, e.LastID).Xmax <= last.Xid {
		t.Errorf("got %v, want the reason expired and a cursor after transaction %d", e, last.Xid)
	}
	insert(t, db, "alice", "3")
	late.caughtUp(t)
	c.wantData(`"3"`)
}

// When the listener reports that the database's history has changed, live streams receive rowcast.reset, and new
// streams begin at the new cursor.
func TestResetOfAllStreams(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, f.site)
	c.hello()
	f.publish(everyone, "message", "1")
	c.wantData("1")
	changed := cursor.Cursor{Xmax: 500, Epoch: 7}
	f.hub.Publish(feed.Batch{Cursor: changed, Reset: "history"})
	if e := c.want("rowcast.reset"); e.Data != `{"reason": "history"}` || e.LastID != changed.String() {
		t.Errorf("got %v, want rowcast.reset with the reason history and the id %s", e, changed)
	}
	if got := listen(t, f.site).hello(); got != changed.String() {
		t.Errorf("rowcast.hello has the id %s, want %s", got, changed)
	}
}

// When a crash has lost the last rows that were sent, live streams and streams that resume continue after the rows that
// survived. A client whose cursor has seen rows that this hub has not sent is reset, because the hub does not know
// which of these rows survived. A client with a cursor of an unknown epoch is reset, too.
func TestClampingAfterACrash(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat = time.Hour })
	f.hub.Source.(*source).valid = func(context.Context) (bool, error) { return false, nil }
	c := listen(t, f.site, "alice")
	c.hello()
	first := f.publish("alice", "message", "1")
	f.publish("alice", "message", "lost")
	c.wantData("1", "lost")
	before, beyond := c.decoder.LastID, f.event(f.now.Xmax, "alice", "message", "of another hub").Cursor.String()

	f.now = f.now.Clamp(first.Row, start.Epoch+1)
	f.hub.Publish(feed.Batch{Cursor: f.now, Clamp: &first.Row})
	if e := c.want("rowcast.beat"); e.LastID != f.now.String() {
		t.Errorf("got %v, want the id %s", e, f.now)
	}
	f.publish("alice", "message", "with the number of a lost row")
	c.wantData("with the number of a lost row")
	again := resume(t, f.site, before, "alice")
	again.hello()
	again.wantData("with the number of a lost row")
	wantReset(resume(t, f.site, beyond, "alice"), "of another hub", "history", f.now.String())
	wantReset(resume(t, f.site, "1-0-1043--00000000-00000000", "alice"), "of another epoch", "history", f.now.String())
}

// While the hub receives rows that are older than its start, it accepts no streams. Afterwards, clients resume from
// these rows without a query.
func TestWarmStart(t *testing.T) {
	t.Parallel()
	f := &fakeFeed{site: &site{hub: &stream.Hub{Source: &source{}}}, now: start}
	f.open(t)
	f.hub.Publish(feed.Batch{Cursor: start, Warming: true})
	first, second := f.event(start.Xmax, "alice", "message", "1"), f.event(start.Xmax, "alice", "message", "2")
	f.hub.Publish(feed.Batch{Rows: []feed.Row{first}, Cursor: first.Cursor, Warming: true})
	if f.hub.Ready() {
		t.Error("the hub is ready before it has begun, want not ready")
	}
	select {
	case <-f.hub.Begun():
		t.Error("Begun is closed before the hub has begun, want it open")
	default:
	}
	wantRetryLater(t, listen(t, f.site, "alice"))
	f.now = second.Cursor.Reached(cursor.Cursor{Xmax: start.Xmax + 1, Epoch: start.Epoch})
	f.hub.Publish(feed.Batch{Rows: []feed.Row{second}, Cursor: f.now})
	<-f.hub.Begun() // closed by Publish
	c := resume(t, f.site, first.Cursor.String(), "alice")
	c.hello()
	c.wantData("2")
	if got := f.hub.Stats.Pages.Load(); got != 0 {
		t.Errorf("%d pages were read, want none", got)
	}
}

// A pausedSource is a Source that calls a function between the first and the second page.
type pausedSource struct {
	stream.Source
	between func()
	pages   int
}

func (b *pausedSource) Page(ctx context.Context, c, end cursor.Cursor, recipients []string) ([]feed.Row, cursor.Cursor, uint64, error) {
	if b.pages++; b.pages == 2 {
		b.between()
	}
	return b.Source.Page(ctx, c, end, recipients)
}

// Rows are deleted while a client resumes. If the hub knows that the client has seen all deleted rows, the stream
// continues. Otherwise the stream receives rowcast.reset. A cursor after a row does not say whether that row was the
// last one of its transaction, so the hub regards the transaction as not seen.
func TestRetentionWhileAClientResumes(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		old   int // how many of the seven rows that the client has missed are deleted
		want  []string
		reset bool
	}{
		{old: 1, want: []string{"3", "4", "5", "6", "7"}},
		{old: 2, reset: true},
		{old: 3, reset: true},
		{old: 6, reset: true},
	} {
		t.Run(fmt.Sprintf("%d missed rows are deleted", tt.old), func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Cluster(t).DSN("postgres") // on a shared server, transactions of other tests would delay the deletion
			if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
				t.Fatal(err)
			}
			db := connect(t, dsn)
			insert(t, db, "alice", "0")
			s := serve(t, dsn, fetchRarely, func(s *site) { s.hub.Memory, s.listener.PageRows = 1, 2 })
			hello := listen(t, s, "alice").hello()
			for n := range 7 {
				exec(t, db, `INSERT INTO rowcast.notifications (recipient, data, created_at) VALUES ('alice', to_jsonb($1::int),
					now() - interval '1 hour' * ($1::int <= $2)::int)`, n+1, tt.old)
			}
			exec(t, db, "UPDATE rowcast.notifications SET created_at = now() - interval '1 hour' WHERE data = '\"0\"'")
			s.caughtUp(t)
			s.hub.Source = &pausedSource{Source: s.hub.Source, between: func() { retain(t, s, int64(tt.old)+1) }}

			c := resume(t, s, hello, "alice")
			c.hello()
			c.wantData("1", "2")
			if tt.reset {
				if e := c.event(); e.Name != "rowcast.reset" || e.Data != `{"reason": "expired"}` {
					t.Errorf("got %v, want rowcast.reset with the reason expired", e)
				}
			}
			insert(t, db, "alice", "8")
			s.caughtUp(t)
			c.wantData(append(tt.want, `"8"`)...)
		})
	}
}

// retain deletes the rows that are older than half an hour, and checks their number.
func retain(t *testing.T, s *site, rows int64) {
	r := listener.Retention{Listener: s.listener, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Keep: 30 * time.Minute, MinAge: -1}
	stop := run(t, r.Run)
	eventually(t, "the old rows are deleted", func() bool { return r.Deleted.Load() == rows })
	stop()
}
