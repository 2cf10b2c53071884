package stream_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

const heartbeat = 10 * time.Second

// slowly makes heartbeats that are easy to count with.
func slowly(s *site) { s.hub.Heartbeat = heartbeat }

// inBubble runs a test in a bubble of time, with a hub that runs.
func inBubble(t *testing.T, test func(t *testing.T, f *fakeFeed), configure ...func(*site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, append(configure, slowly)...)
		f.stop = run(t, f.hub.Run)
		test(t, f)
		f.stop()
	})
}

func TestSilentStreamsHaveAHeartbeat(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		r := record(t, f.site, "")
		time.Sleep(100 * heartbeat)
		beats := r.times("rowcast.beat")
		if len(beats) < 99 || len(beats) > 100 {
			t.Errorf("%d beats in 100 heartbeats", len(beats))
		}
		if beats[0] < heartbeat/2 || beats[0] > 3*heartbeat/2 {
			t.Errorf("the first came after %v", beats[0])
		}
		for i, at := range beats[1:] {
			if gap := at - beats[i]; gap != heartbeat {
				t.Errorf("%v between two", gap)
			}
		}
	})
}

// Who is told events, of whatever kind, needs no heartbeat.
func TestBusyStreamsHaveNone(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		busy, silent := record(t, f.site, "", "alice"), record(t, f.site, "", "bob")
		for i := range 100 {
			time.Sleep(heartbeat / 3)
			if i%2 == 0 {
				f.tell("alice", "message", "1")
			} else {
				f.hub.Send(feed.Message{Recipient: "alice", Data: []byte("2")})
			}
		}
		synctest.Wait()
		if got := len(busy.times("rowcast.beat")); got != 0 {
			t.Errorf("%d beats to a busy stream", got)
		}
		if got := len(silent.times("rowcast.beat")); got < 30 {
			t.Errorf("%d beats to a silent stream", got)
		}
		if got := busy.events(); len(got) != 100 {
			t.Errorf("%d events, want 100", len(got))
		}
	})
}

// A heartbeat brings the hub's cursor, though what moved it was for others, and the time since the database was last heard from.
func TestWhatAHeartbeatSays(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		opened := time.Now()
		r := record(t, f.site, "", "alice")
		time.Sleep(heartbeat / 3)
		f.tell("bob", "message", "1")
		told := time.Now()
		time.Sleep(10 * heartbeat)
		for i, at := range r.times("rowcast.beat") {
			want := sse.Event{
				LastID: f.now.String(),
				Name:   "rowcast.beat",
				Data:   fmt.Sprintf(`{"behind": %d}`, int(opened.Add(at).Sub(told).Seconds())),
			}
			if got := r.events()[i]; got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		want := "id: " + f.now.String() + "\nevent: rowcast.beat\ndata: {\"behind\": "
		if got := r.writes[len(r.writes)-1].text; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, "}\n\n") {
			t.Errorf("got %q, want %q", got, want)
		}
		if got := f.hub.Behind(); got != time.Since(told) {
			t.Errorf("behind %v, want %v", got, time.Since(told))
		}
		f.hub.Publish(feed.Batch{Cursor: f.now}) // nothing new, but it was heard from
		if got := f.hub.Behind(); got != 0 {
			t.Errorf("behind %v, want none", got)
		}
	})
}

// Ten thousand streams must not be written to at the same instant.
func TestHeartbeatsAreSpread(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		var all []*recorder
		for range 500 {
			all = append(all, record(t, f.site, ""))
		}
		time.Sleep(2 * heartbeat)
		at := map[time.Duration]int{}
		for _, r := range all {
			for _, beat := range r.times("rowcast.beat") {
				at[beat]++
			}
		}
		for when, n := range at {
			if n > 60 {
				t.Errorf("%d beats after %v", n, when)
			}
		}
		if len(at) < 32 {
			t.Errorf("%d instants", len(at))
		}
	})
}

// An id that overtakes an event loses it. A stream that is owed something is sent nothing but that.
func TestNoHeartbeatOvertakesAnEvent(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		r := record(t, f.site, "", "alice")
		synctest.Wait()
		goOn := r.stall()
		var want []sse.Event
		for i := range 3 {
			e := f.tell("alice", "message", fmt.Sprint(i))
			want = append(want, sse.Event{LastID: e.Cursor.String(), Name: "message", Data: fmt.Sprint(i)})
			f.tell("bob", "message", "for another")
			time.Sleep(3*heartbeat + time.Millisecond) // not when its turn comes
		}
		goOn()
		synctest.Wait()
		if got := r.events(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
		time.Sleep(2 * heartbeat)
		if got := r.events()[len(want)]; got.Name != "rowcast.beat" || got.LastID != f.now.String() {
			t.Errorf("got %v, want a beat with %s", got, f.now)
		}
	})
}

// While a stream waits for the database it is sent comments, which have no id, lest a proxy takes it for dead.
func TestWaitingStreamsAreSentComments(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	fail := func(context.Context) error { return errors.New("the database is away") }
	ahead, before, elsewhere := start, start, start
	ahead.Xmax += 100
	before.Xmax -= 100
	elsewhere.Epoch++
	for name, away := range map[string]func(context.Context) error{"does not answer": hang, "fails at once": fail} {
		s := &source{catchUp: away}
		s.page = func(ctx context.Context, _, _ cursor.Cursor) ([]feed.Row, cursor.Cursor, uint64, error) {
			return nil, start, 0, away(ctx)
		}
		s.stands = func(ctx context.Context) (bool, error) { return true, away(ctx) }
		for where, from := range map[string]cursor.Cursor{"catching up": ahead, "reading a page": before, "checking the cursor": elsewhere} {
			t.Run(where+" "+name, func(t *testing.T) {
				t.Parallel()
				inBubble(t, func(t *testing.T, f *fakeFeed) {
					r := record(t, f.site, from.String())
					time.Sleep(20 * heartbeat)
					wantComments(t, r, 20)
				}, func(site *site) { site.hub.Source = s })
			})
		}
	}
	t.Run("for the end of a large transaction", func(t *testing.T) {
		t.Parallel()
		inBubble(t, func(t *testing.T, f *fakeFeed) {
			large := f.event(start.Xmax, "bob", "message", "1")
			f.hub.Publish(feed.Batch{Rows: []feed.Row{large}, Cursor: large.Cursor})
			r := record(t, f.site, "")
			for range 200 {
				time.Sleep(heartbeat / 10)
				more := f.event(start.Xmax, "bob", "message", "1")
				f.hub.Publish(feed.Batch{Rows: []feed.Row{more}, Cursor: more.Cursor})
			}
			wantComments(t, r, 20)
		})
	})
}

// wantComments checks that a stream was sent a comment at its beginning and then one every heartbeat, and no more ids.
func wantComments(t *testing.T, r *recorder, n int) {
	t.Helper()
	last := time.Duration(0)
	for _, at := range append(r.times(":\n"), time.Duration(n)*heartbeat) {
		if at-last > 3*heartbeat/2 {
			t.Errorf("nothing was sent between %v and %v", last, at)
		}
		last = at
	}
	text, _, _ := strings.Cut(r.text(), "event: rowcast.void")
	if got := strings.Count(text, ":\n"); got > n+1 {
		t.Errorf("%d comments in %d heartbeats", got, n)
	}
	if got := r.events(); len(got) > 0 {
		t.Errorf("got %v", got)
	}
}

// The same with a database: what it says is how long it has not been heard from.
func TestBehindGrowsWhileTheDatabaseIsAway(t *testing.T) {
	t.Parallel()
	s := serve(t, dbtest.Database(t), func(s *site) { s.hub.Heartbeat = 100 * time.Millisecond })
	c := listen(t, s)
	c.hello()
	for _, want := range []string{`{"behind": 0}`, `{"behind": 1}`} {
		for c.want("rowcast.beat").Data != want {
		}
	}
	s.caughtUp(t)
	for c.want("rowcast.beat").Data != `{"behind": 0}` {
	}
}
