package stream_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream"
	"rowcast/stream/sse"
)

// tick is how late something about a grant's end may be.
const tick = 500 * time.Millisecond

// ended tells whether the stream has.
func (r *recorder) ended() bool {
	synctest.Wait()
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// wantBye checks that a stream was told of its end once, in time, and without an id: of those that are nobody's to claim there is none.
func wantBye(t *testing.T, r *recorder, reason string, at time.Duration, in int) {
	t.Helper()
	times := r.times("rowcast.bye")
	if len(times) != 1 || times[0] < at || times[0] > at+tick {
		t.Fatalf("byes at %v, want one at %v", times, at)
	}
	want := fmt.Sprintf("event: rowcast.bye\ndata: {\"reason\": %q, \"expires_in\": %d}\n\n", reason, in)
	if text := r.text(); !strings.Contains(text, want) {
		t.Errorf("got %q, want %q in it", text, want)
	}
}

// wantEnd checks that a stream ends after a time at the latest by a tick too late, with its last words: when to come back, and from where.
func wantEnd(t *testing.T, f *fakeFeed, r *recorder, at time.Duration) {
	t.Helper()
	if r.ended() {
		t.Fatalf("the stream has ended, before %v", at)
	}
	time.Sleep(2 * tick) // of which one is where the test itself stands
	if !r.ended() {
		t.Fatalf("the stream goes on after %v", at)
	}
	words := r.writes[len(r.writes)-1].text
	want := "id: " + f.now.String() + "\nevent: rowcast.beat\ndata: {\"behind\": "
	if !strings.HasPrefix(words, "retry: ") || !strings.Contains(words, want) {
		t.Errorf("the last words are %q, want %q in them", words, want)
	}
	if got := f.hub.Stats.Streams.Load(); got != 0 {
		t.Errorf("%d streams are left", got)
	}
}

// until sleeps until just before a time since the test's beginning.
func until(began time.Time, at time.Duration) {
	time.Sleep(time.Until(began.Add(at - time.Millisecond)))
}

func TestAGrantEndsAfterABye(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ expires, leeway, bye time.Duration }{
		{10 * time.Minute, 0, 10*time.Minute - 30*time.Second},
		{40 * time.Second, 0, 20 * time.Second}, // half of it
		{8 * time.Second, 0, 4 * time.Second},
		{10 * time.Minute, 20 * time.Second, 10*time.Minute - 30*time.Second}, // the leeway delays the end and not the bye
		{2 * time.Second, time.Minute, time.Second},
		{-4 * time.Second, 20 * time.Second, 8 * time.Second}, // half of what is left of the leeway
	} {
		inBubble(t, func(t *testing.T, f *fakeFeed) {
			began := time.Now()
			r := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: began.Add(tt.expires), Leeway: tt.leeway})
			said, end := tt.expires, tt.expires+tt.leeway
			if said < 0 {
				said = end
			}
			until(began, end)
			f.tell("alice", "message", `"the last"`)
			wantBye(t, r, "expired", tt.bye, int((said - tt.bye).Seconds()))
			wantEnd(t, f, r, end)
			if !strings.Contains(r.text(), "the last") {
				t.Errorf("an event that came before the end was lost: %q", r.text())
			}
			f.tell("alice", "message", `"too late"`)
			if strings.Contains(r.text(), "too late") {
				t.Error("an event came after the end")
			}
		})
	}
}

// Whoever has a grant that has already ended hears nothing.
func TestAnEndedGrant(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		r := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: time.Now().Add(-time.Hour), Leeway: time.Minute})
		time.Sleep(tick)
		if !r.ended() || len(r.times("rowcast.bye")) != 0 {
			t.Errorf("got %q", r.text())
		}
	})
}

// The bye waits behind the events that a slow client is still owed, and moves no cursor: an id that overtook an event would lose it.
func TestNoByeOvertakesAnEvent(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		began := time.Now()
		r := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: began.Add(20 * time.Second)})
		synctest.Wait()
		goOn := r.stall()
		var want []sse.Event
		for i := range 3 {
			e := f.tell("alice", "message", fmt.Sprint(i))
			want = append(want, sse.Event{LastID: e.Cursor.String(), Name: "message", Data: fmt.Sprint(i)})
			f.tell("bob", "message", "for another")
		}
		bye := sse.Event{LastID: want[2].LastID, Name: "rowcast.bye", Data: `{"reason": "expired", "expires_in": 10}`}
		until(began, 10*time.Second+2*tick)
		goOn()
		synctest.Wait()
		if got := r.events(); fmt.Sprint(got) != fmt.Sprint(append(want, bye)) {
			t.Errorf("got %v, want %v", got, append(want, bye))
		}
	})
}

// A stream that still waits for the database ends in time as well; if it becomes live before, it is told then.
func TestAGrantEndsWhileJoining(t *testing.T) {
	t.Parallel()
	before := start
	before.Xmax -= 100
	const end = 80 * time.Second
	for back, in := range map[time.Duration]int{50 * time.Second: 10, 70 * time.Second: 0, time.Hour: 0} {
		isBack := make(chan struct{})
		s := &source{}
		s.page = func(ctx context.Context, _, to cursor.Cursor) ([]feed.Row, cursor.Cursor, uint64, error) {
			select {
			case <-isBack:
			case <-ctx.Done():
			}
			return nil, to, 0, ctx.Err()
		}
		synctest.Test(t, func(t *testing.T) {
			isBack = make(chan struct{})
			f := newFeed(t, slowly, func(site *site) { site.hub.Source = s })
			stop := run(t, f.hub.Run)
			began := time.Now()
			r := recordGrant(t, f.site, before.String(), stream.Grant{User: "alice", Expires: began.Add(time.Minute), Leeway: end - time.Minute})
			if back < end {
				until(began, back)
				close(isBack)
				time.Sleep(2 * tick)
				wantBye(t, r, "expired", back-time.Millisecond, in)
			}
			until(began, end)
			if r.ended() {
				t.Error("it ended too early")
			}
			time.Sleep(2 * tick)
			if !r.ended() {
				t.Errorf("it goes on: %q", r.text())
			}
			stop()
		})
	}
}

// A grant that can be renewed goes on without a word, or ends with one.
func TestRenewal(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		began, asked := time.Now(), 0
		renew := func(context.Context) (time.Time, bool) {
			time.Sleep(time.Second) // while it is asked the stream goes on
			asked++
			return time.Now().Add(time.Minute), asked < 3
		}
		r := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: began.Add(time.Minute), Renew: renew})
		end := 3*time.Minute + 3*time.Second
		until(began, end-tick)
		f.tell("alice", "message", `"heard"`)
		synctest.Wait()
		if len(r.times("rowcast.bye")) != 0 || len(r.times(`"heard"`)) != 1 || r.ended() {
			t.Fatalf("before the last renewal: got %q", r.text())
		}
		time.Sleep(4 * tick)
		synctest.Wait()
		if !r.ended() || asked != 3 {
			t.Errorf("asked %d times, want 3; got %q", asked, r.text())
		}
		wantBye(t, r, "revoked", end, 0)
	})
}

// A renewal without an end holds for ever, as a grant without an end does, and nothing is asked again.
func TestRenewalForEver(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		asked := 0
		r := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: time.Now().Add(time.Minute), Renew: func(context.Context) (time.Time, bool) {
			asked++
			return time.Time{}, true
		}})
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if asked != 1 || r.ended() || f.hub.Leases() != 0 {
			t.Errorf("asked %d times, want once; ended: %t; %d grants end", asked, r.ended(), f.hub.Leases())
		}
		r.leave()
		if !r.ended() {
			t.Error("the stream outlives its client")
		}
	})
}

// An answer that comes when the stream has ended, or when the hub ends, counts no more.
func TestRenewalComesTooLate(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		expires, answer := time.Now().Add(time.Second), make(chan struct{})
		yes := func(context.Context) (time.Time, bool) { <-answer; return expires.Add(time.Hour), true }
		no := func(ctx context.Context) (time.Time, bool) { <-ctx.Done(); return time.Time{}, false }
		left := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: expires, Renew: yes})
		stays := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: expires, Renew: no})
		time.Sleep(2 * time.Second)
		left.leave()
		left.awaitEnd(t)
		close(answer)
		synctest.Wait()
		if got := f.hub.Leases(); got != 0 {
			t.Errorf("%d leases, want none: one stream has ended, the other is being asked about", got)
		}
		f.stop()
		stays.awaitEnd(t)
		if text := stays.text(); strings.Contains(text, "rowcast.bye") {
			t.Errorf("the hub's end was told as that of a grant: %q", text)
		}
	})
}

// Whatever the order in which streams come and go, each ends at its own time.
func TestEachGrantEndsAtItsOwnTime(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		for i := range 200 {
			expires := time.Now().Add(rand.N(10 * time.Minute))
			r := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: expires})
			if i%3 == 0 {
				time.Sleep(rand.N(time.Second))
				r.leave()
				continue
			}
			go func() {
				r.awaitEnd(t)
				if late := time.Since(expires); late < 0 || late > tick {
					t.Errorf("a stream ended %v late", late)
				}
			}()
		}
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if streams, leases := f.hub.Stats.Streams.Load(), f.hub.Leases(); streams != 0 || leases != 0 {
			t.Errorf("%d streams and %d leases are left", streams, leases)
		}
	})
}
