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

func slowHeartbeat(s *site) { s.hub.Heartbeat = heartbeat }

// inBubble runs a test with a running hub in a synctest bubble.
func inBubble(t *testing.T, test func(t *testing.T, f *fakeFeed), configure ...func(*site)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, append(configure, slowHeartbeat)...)
		f.stop = run(t, f.hub.Run)
		test(t, f)
		f.stop()
	})
}

func TestIdleStreamsReceiveHeartbeats(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		r := record(t, f.site, "")
		time.Sleep(100 * heartbeat)
		beats := r.times("rowcast.beat")
		if len(beats) < 99 || len(beats) > 100 {
			t.Errorf("got %d heartbeats in 100 intervals, want 99 or 100", len(beats))
		}
		if beats[0] < heartbeat/2 || beats[0] > 3*heartbeat/2 {
			t.Errorf("the first heartbeat came after %v, want from half to one and a half times %v", beats[0], heartbeat)
		}
		for i, at := range beats[1:] {
			if gap := at - beats[i]; gap != heartbeat {
				t.Errorf("got %v between two heartbeats, want %v", gap, heartbeat)
			}
		}
	})
}

// A stream that receives a row or a NOTIFY message every third of a heartbeat interval receives no heartbeats.
func TestBusyStreamsReceiveNoHeartbeats(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		busy, idle := record(t, f.site, "", "alice"), record(t, f.site, "", "bob")
		for i := range 100 {
			time.Sleep(heartbeat / 3)
			if i%2 == 0 {
				f.publish("alice", "message", "1")
			} else {
				f.hub.Send(feed.Message{Recipient: "alice", Data: []byte("2")})
			}
		}
		synctest.Wait()
		if got := len(busy.times("rowcast.beat")); got != 0 {
			t.Errorf("got %d heartbeats on a busy stream, want none", got)
		}
		if got := len(idle.times("rowcast.beat")); got < 30 {
			t.Errorf("got %d heartbeats on an idle stream, want at least 30", got)
		}
		if got := busy.events(); len(got) != 100 {
			t.Errorf("received %d events, want 100", len(got))
		}
	})
}

// A heartbeat has the hub's cursor and the time since the last batch, even if the last events were for other
// recipients.
func TestContentsOfAHeartbeat(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		opened := time.Now()
		r := record(t, f.site, "", "alice")
		time.Sleep(heartbeat / 3)
		f.publish("bob", "message", "1")
		published := time.Now()
		time.Sleep(10 * heartbeat)
		for i, at := range r.times("rowcast.beat") {
			want := sse.Event{
				LastID: f.now.String(),
				Name:   "rowcast.beat",
				Data:   fmt.Sprintf(`{"behind": %d}`, int(opened.Add(at).Sub(published).Seconds())),
			}
			if got := r.events()[i]; got != want {
				t.Errorf("got %v, want %v", got, want)
			}
		}
		const want = "event: rowcast.beat\ndata: {\"behind\": "
		end := "}\nid: " + f.now.String() + "\n\n"
		if got := r.writes[len(r.writes)-1].text; !strings.HasPrefix(got, want) || !strings.HasSuffix(got, end) {
			t.Errorf("the last write is %q, want one that begins with %q and ends with %q", got, want, end)
		}
		if got := f.hub.Behind(); got != time.Since(published) {
			t.Errorf("Behind is %v, want %v", got, time.Since(published))
		}
		f.hub.Publish(feed.Batch{Cursor: f.now}) // an empty batch
		if got := f.hub.Behind(); got != 0 {
			t.Errorf("Behind is %v, want 0", got)
		}
	})
}

// The heartbeats of the streams are spread over the heartbeat interval, so that a hub with ten thousand streams does
// not send them all at once.
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
				t.Errorf("got %d heartbeats at %v, want at most 60", n, when)
			}
		}
		if len(at) < 32 {
			t.Errorf("got heartbeats at %d different times, want at least 32", len(at))
		}
	})
}

// A stream with pending events receives no heartbeat. If the id of a heartbeat came before an event, a client that
// resumes from this id would miss the event.
func TestNoHeartbeatBeforePendingEvents(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		r := record(t, f.site, "", "alice")
		synctest.Wait()
		resumeWrites := r.stall()
		var want []sse.Event
		for i := range 3 {
			e := f.publish("alice", "message", fmt.Sprint(i))
			want = append(want, sse.Event{LastID: e.Cursor.String(), Name: "message", Data: fmt.Sprint(i)})
			f.publish("bob", "message", "for another recipient")
			time.Sleep(3*heartbeat + time.Millisecond) // the next event is not published at the time of a heartbeat
		}
		resumeWrites()
		synctest.Wait()
		if got := r.events(); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Errorf("got %v, want %v", got, want)
		}
		time.Sleep(2 * heartbeat)
		if got := r.events()[len(want)]; got.Name != "rowcast.beat" || got.LastID != f.now.String() {
			t.Errorf("got %v, want a heartbeat with the id %s", got, f.now)
		}
	})
}

// While a stream waits for the database or for the end of a large transaction, it receives comments, so that no proxy
// closes the connection. Comments have no id.
func TestWaitingStreamsAreSentComments(t *testing.T) {
	t.Parallel()
	hang := func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
	fail := func(context.Context) error { return errors.New("the database is unreachable") }
	ahead, before, elsewhere := start, start, start
	ahead.Xmax += 100
	before.Xmax -= 100
	elsewhere.Epoch++
	for name, fails := range map[string]func(context.Context) error{"does not answer": hang, "fails at once": fail} {
		s := &source{catchUp: fails}
		s.page = func(ctx context.Context, _, _ cursor.Cursor) ([]feed.Row, cursor.Cursor, uint64, error) {
			return nil, start, 0, fails(ctx)
		}
		s.valid = func(ctx context.Context) (bool, error) { return true, fails(ctx) }
		for where, c := range map[string]cursor.Cursor{"catching up": ahead, "reading a page": before, "checking the cursor": elsewhere} {
			t.Run(where+" "+name, func(t *testing.T) {
				t.Parallel()
				inBubble(t, func(t *testing.T, f *fakeFeed) {
					r := record(t, f.site, c.String())
					time.Sleep(20 * heartbeat)
					wantComments(t, r, 20)
				}, func(site *site) { site.hub.Source = s })
			})
		}
	}
	t.Run("waiting for the end of a large transaction", func(t *testing.T) {
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

// wantComments checks what a stream received in n heartbeat intervals: comments, with at most one and a half intervals
// between two of them, at most n+1 of them, and no event besides rowcast.void and rowcast.hello.
func wantComments(t *testing.T, r *recorder, n int) {
	t.Helper()
	last := time.Duration(0)
	for _, at := range append(r.times(":\n"), time.Duration(n)*heartbeat) {
		if at-last > 3*heartbeat/2 {
			t.Errorf("no comment was sent between %v and %v, want at most %v without a comment", last, at, 3*heartbeat/2)
		}
		last = at
	}
	if got := strings.Count(r.text(), ":\n"); got > n+1 {
		t.Errorf("got %d comments in %d heartbeat intervals, want at most %d", got, n, n+1)
	}
	if got := r.events(); len(got) > 0 {
		t.Errorf("got the events %v, want none", got)
	}
}

// Heartbeats of a hub with a database contain the time since the last batch of its listener.
func TestBehindGrowsBetweenBatches(t *testing.T) {
	t.Parallel()
	s := serve(t, dbtest.Database(t), func(s *site) { s.hub.Heartbeat = 100 * time.Millisecond })
	c := listen(t, s)
	c.hello()
	for c.want("rowcast.beat").Data != `{"behind": 0}` {
	}
	for c.want("rowcast.beat").Data == `{"behind": 0}` {
	}
	s.caughtUp(t)
	for c.want("rowcast.beat").Data != `{"behind": 0}` {
	}
}
