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

// tick is the longest time by which rowcast.bye or the end of a stream may be late.
const tick = 500 * time.Millisecond

// ended reports whether the stream has ended.
func (r *recorder) ended() bool {
	synctest.Wait()
	select {
	case <-r.done:
		return true
	default:
		return false
	}
}

// wantBye checks that a stream received rowcast.bye once, in time, without an id, and with the given data.
func wantBye(t *testing.T, r *recorder, reason string, at time.Duration, in int) {
	t.Helper()
	times := r.times("rowcast.bye")
	if len(times) != 1 || times[0] < at || times[0] > at+tick {
		t.Fatalf("rowcast.bye was sent at %v, want once, from %v to %v", times, at, at+tick)
	}
	want := fmt.Sprintf("event: rowcast.bye\ndata: {\"reason\": %q, \"expires_in\": %d}\n\n", reason, in)
	before, _, found := strings.Cut(r.text(), want)
	if !found || !strings.HasSuffix(before, "\n\n") && !strings.HasSuffix(before, ":\n") { // rowcast.bye follows a block or a comment, not an id
		t.Errorf("got %q, want the block %q without an id", r.text(), want)
	}
}

// wantEnd must be called just before the time at (see sleepUntil). It checks that the stream is still open then, and
// has ended two ticks later. The last write must have a retry time, and a heartbeat with the cursor.
func wantEnd(t *testing.T, f *fakeFeed, r *recorder, at time.Duration) {
	t.Helper()
	if r.ended() {
		t.Fatalf("the stream has ended before %v, want it open", at)
	}
	time.Sleep(2 * tick) // the stream ends at most one tick late
	if !r.ended() {
		t.Fatalf("the stream is still open two ticks after %v, want its end", at)
	}
	last := r.writes[len(r.writes)-1].text
	const want = "event: rowcast.beat\ndata: {\"behind\": "
	end := "}\nid: " + f.now.String() + "\n\n"
	if !strings.HasPrefix(last, "retry: ") || !strings.Contains(last, want) || !strings.HasSuffix(last, end) {
		t.Errorf("the last write is %q, want one that begins with a retry field, contains %q and ends with %q", last, want, end)
	}
	if got := f.hub.Stats.Streams.Load(); got != 0 {
		t.Errorf("%d streams are left, want none", got)
	}
}

// sleepUntil sleeps until just before a time, which is given as the duration since the test began.
func sleepUntil(began time.Time, at time.Duration) {
	time.Sleep(time.Until(began.Add(at - time.Millisecond)))
}

func TestAGrantEndsAfterABye(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ expires, leeway, bye time.Duration }{
		{10 * time.Minute, 0, 10*time.Minute - 30*time.Second},
		{40 * time.Second, 0, 20 * time.Second}, // rowcast.bye comes after half of the 40 s
		{8 * time.Second, 0, 4 * time.Second},
		{10 * time.Minute, 20 * time.Second, 10*time.Minute - 30*time.Second}, // the leeway delays only the end
		{2 * time.Second, time.Minute, time.Second},
		{-4 * time.Second, 20 * time.Second, 8 * time.Second}, // rowcast.bye comes after half of the 16 s that are left
	} {
		inBubble(t, func(t *testing.T, f *fakeFeed) {
			began := time.Now()
			r := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: began.Add(tt.expires), Leeway: tt.leeway})
			announced, end := tt.expires, tt.expires+tt.leeway
			if announced < 0 {
				announced = end
			}
			sleepUntil(began, end)
			f.publish("alice", "message", `"the last"`)
			wantBye(t, r, "expired", tt.bye, int((announced - tt.bye).Seconds()))
			wantEnd(t, f, r, end)
			if !strings.Contains(r.text(), "the last") {
				t.Errorf("got %q, want the event that was published before the end", r.text())
			}
			f.publish("alice", "message", `"too late"`)
			if strings.Contains(r.text(), "too late") {
				t.Errorf("got %q, want no event that was published after the end", r.text())
			}
		})
	}
}

// A stream whose grant and leeway have already expired ends within one tick, without rowcast.bye.
func TestAnExpiredGrant(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		r := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: time.Now().Add(-time.Hour), Leeway: time.Minute})
		time.Sleep(tick)
		if !r.ended() || len(r.times("rowcast.bye")) != 0 {
			t.Errorf("got %q, want a stream that has ended without rowcast.bye", r.text())
		}
	})
}

// On a slow client's stream, rowcast.bye comes after the pending events and has no id. If an id came before an event, a
// client that resumes from this id would miss the event.
func TestNoByeBeforePendingEvents(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		began := time.Now()
		r := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: began.Add(20 * time.Second)})
		synctest.Wait()
		resumeWrites := r.stall()
		var want []sse.Event
		for i := range 3 {
			e := f.publish("alice", "message", fmt.Sprint(i))
			want = append(want, sse.Event{LastID: e.Cursor.String(), Name: "message", Data: fmt.Sprint(i)})
			f.publish("bob", "message", "for another recipient")
		}
		bye := sse.Event{LastID: want[2].LastID, Name: "rowcast.bye", Data: `{"reason": "expired", "expires_in": 10}`}
		sleepUntil(began, 10*time.Second+2*tick)
		resumeWrites()
		synctest.Wait()
		if got := r.events(); fmt.Sprint(got) != fmt.Sprint(append(want, bye)) {
			t.Errorf("got %v, want %v", got, append(want, bye))
		}
	})
}

// A stream that waits for the database also ends at the end of its grant and leeway. If the stream becomes live after
// rowcast.bye was due, it receives rowcast.bye within one tick.
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
			f := newFeed(t, slowHeartbeat, func(site *site) { site.hub.Source = s })
			stop := run(t, f.hub.Run)
			began := time.Now()
			r := recordGrant(t, f.site, before.String(), stream.Grant{User: "alice", Expires: began.Add(time.Minute), Leeway: end - time.Minute})
			if back < end {
				sleepUntil(began, back)
				close(isBack)
				time.Sleep(2 * tick)
				wantBye(t, r, "expired", back-time.Millisecond, in)
			}
			sleepUntil(began, end)
			if r.ended() {
				t.Error("the stream has ended before the end of its grant and leeway, want it open")
			}
			time.Sleep(2 * tick)
			if !r.ended() {
				t.Errorf("the stream is open after the end of its grant and leeway, want its end; it received %q", r.text())
			}
			stop()
		})
	}
}

// If Renew renews a grant, the stream continues without an event. If Renew refuses, the stream ends with rowcast.bye.
func TestRenewal(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		began, calls := time.Now(), 0
		renew := func(context.Context) (time.Time, bool) {
			time.Sleep(time.Second) // the stream continues during the call
			calls++
			return time.Now().Add(time.Minute), calls < 3
		}
		r := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: began.Add(time.Minute), Renew: renew})
		end := 3*time.Minute + 3*time.Second
		sleepUntil(began, end-tick)
		f.publish("alice", "message", `"before the end"`)
		synctest.Wait()
		if len(r.times("rowcast.bye")) != 0 || len(r.times(`"before the end"`)) != 1 || r.ended() {
			t.Fatalf("during the last call of Renew: got %q, want the event on an open stream without rowcast.bye", r.text())
		}
		time.Sleep(4 * tick)
		synctest.Wait()
		if !r.ended() || calls != 3 {
			t.Errorf("called Renew %d times, want 3; ended: %t, want true; the stream received %q", calls, r.ended(), r.text())
		}
		wantBye(t, r, "revoked", end, 0)
	})
}

// If Renew returns a zero time, the stream has no end and Renew is not called again.
func TestRenewalWithoutAnEnd(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		calls := 0
		r := recordGrant(t, f.site, "", stream.Grant{User: "alice", Expires: time.Now().Add(time.Minute), Renew: func(context.Context) (time.Time, bool) {
			calls++
			return time.Time{}, true
		}})
		time.Sleep(24 * time.Hour)
		synctest.Wait()
		if calls != 1 || r.ended() || f.hub.Leases() != 0 {
			t.Errorf("called Renew %d times, want once; ended: %t, want false; %d leases, want none", calls, r.ended(), f.hub.Leases())
		}
		r.leave()
		if !r.ended() {
			t.Error("the stream is open after its client has disconnected, want its end")
		}
	})
}

// The result of Renew has no effect after the stream has ended, or when the hub is stopping.
func TestRenewalReturnsTooLate(t *testing.T) {
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
			t.Errorf("got %d leases, want none: one stream has ended, and the grant of the other stream is being renewed", got)
		}
		f.stop()
		stays.awaitEnd(t)
		if text := stays.text(); strings.Contains(text, "rowcast.bye") {
			t.Errorf("after the hub has stopped: got %q, want no rowcast.bye", text)
		}
	})
}

// Each stream ends when its grant ends, in whatever order streams are opened and closed.
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
					t.Errorf("a stream ended %v after its grant, want from 0 to 500 ms", late)
				}
			}()
		}
		time.Sleep(11 * time.Minute)
		synctest.Wait()
		if streams, leases := f.hub.Stats.Streams.Load(), f.hub.Leases(); streams != 0 || leases != 0 {
			t.Errorf("%d streams and %d leases are left, want none", streams, leases)
		}
	})
}
