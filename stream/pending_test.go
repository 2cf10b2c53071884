package stream_test

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream"
)

// When too much is held for all streams together, the one that is owed most is closed, and no other. It resumes with nothing lost.
func TestTheStreamThatIsOwedMostIsClosedFirst(t *testing.T) {
	t.Parallel()
	const limit, modest, size = 4 << 20, 10, 100 << 10
	var log strings.Builder // written by Publish, in this goroutine
	f := serveFeed(t, little, func(s *site) {
		s.hub.Pending, s.hub.Backlog = limit, 64<<20
		s.hub.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	reading := listen(t, f.site, "mallory")
	reading.hello()
	var others []*client
	for i := range modest {
		c := deaf(t, f.site, fmt.Sprint("user ", i))
		c.hello()
		others = append(others, c)
		f.tell(fmt.Sprint("user ", i), "message", text(size))
		f.tell(fmt.Sprint("user ", i), "message", text(size+i))
	}
	greedy := deaf(t, f.site, "mallory")
	greedy.hello()
	told := 0
	more := func() {
		f.tell("mallory", "message", text(size+told))
		reading.wantTold(text(size + told))
		told++
	}
	for f.hub.Stats.Evicted.Load() == 0 {
		if more(); f.hub.Held() > limit {
			t.Fatalf("%d bytes are held, the limit is %d", f.hub.Held(), limit)
		}
	}
	var closed, held int
	if _, line, _ := strings.Cut(log.String(), "closed="); line == "" {
		t.Errorf("the log says %q", log.String())
	} else if _, err := fmt.Sscanf(line, "%d held=%d", &closed, &held); err != nil || closed != 1 || held <= limit {
		t.Errorf("the log says %s (%v), want one stream, and that more than %d bytes were held", line, err, limit)
	}
	eventually(t, "the stream is closed", func() bool { return f.hub.Stats.Streams.Load() == modest+1 })
	for i, c := range others {
		c.wantTold(text(size), text(size+i))
	}
	got := 0
	for _, err, ok := greedy.next(); ok && err == nil; _, err, ok = greedy.next() {
		got++
	}
	again := resume(t, f.site, greedy.decoder.LastID, "mallory")
	again.hello()
	for ; got < told; got++ {
		again.wantTold(text(size + got))
	}
	if evicted, overflows := f.hub.Stats.Evicted.Load(), f.hub.Stats.Overflows.Load(); evicted != 1 || overflows != 0 {
		t.Errorf("%d streams were closed for all, %d for their own backlog; want 1 and 0", evicted, overflows)
	}
	eventually(t, "nothing is held any more", func() bool { return f.hub.Held() == 0 })
}

// An event that many streams wait for counts once.
func TestSharedEventsCountOnce(t *testing.T) {
	t.Parallel()
	const clients, size = 30, 1 << 20
	f := serveFeed(t, little, func(s *site) { s.hub.Pending, s.hub.Backlog = 8*size, 4*size })
	var all []*client
	for range clients {
		c := deaf(t, f.site, "alice")
		c.hello()
		all = append(all, c)
	}
	f.tell("alice", "message", text(size))
	f.tell("alice", "message", text(size+1))
	if held := f.hub.Held(); held < 2*size || held > 3*size { // the data has no room for its end, and is copied with some to spare
		t.Errorf("%d bytes are held for %d clients, want somewhat more than %d", held, clients, 2*size)
	}
	for _, c := range all {
		c.wantTold(text(size), text(size+1))
	}
	eventually(t, "nothing is held any more", func() bool { return f.hub.Held() == 0 })
	if got := f.hub.Stats.Evicted.Load(); got != 0 {
		t.Errorf("%d streams were closed", got)
	}
}

// Streams that resume wait for room before they read a page. What they read is bounded as well, and all are told everything.
func TestStreamsThatResumeWaitForRoom(t *testing.T) {
	t.Parallel()
	const clients, size, room = 20, 1 << 20, 4
	var pages atomic.Int64
	f, before := feedOfPages(t, size, &pages, func(s *site) {
		s.hub.Pending, s.hub.Page, s.hub.Heartbeat = room*size, size+4096, time.Hour
	})
	var all []*client
	for range clients {
		all = append(all, open(t, f.site, request{recipients: []string{"alice"}, header: before, buffer: 8 << 10}))
	}
	eventually(t, "some have read a page", func() bool { return pages.Load() == room-1 })
	for range 20 {
		if held := f.hub.Held(); held > room*size || pages.Load() > room {
			t.Fatalf("%d bytes are held, of %d pages", held, pages.Load())
		}
		<-time.After(5 * time.Millisecond) // whoever does not wait has come by now
	}
	// They have to be read together: a stream that waits has not sent its hello, or no more than that.
	done := make(chan struct{})
	for _, c := range all {
		go func() {
			c.hello()
			c.wantTold(text(size))
			done <- struct{}{}
		}()
	}
	for range all {
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatalf("not all have been told; %d pages were read, %d bytes are held", pages.Load(), f.hub.Held())
		}
	}
	eventually(t, "nothing is held any more", func() bool { return f.hub.Held() == 0 })
	if got := f.hub.Stats.Evicted.Load(); got != 0 {
		t.Errorf("%d streams were closed", got)
	}
}

// Clients that resume and do not read do not keep others out: after a heartbeat, some of them are closed.
func TestStreamsThatWaitForRoomGetIt(t *testing.T) {
	t.Parallel()
	const size, room = 1 << 20, 4
	var pages atomic.Int64
	f, before := feedOfPages(t, size, &pages, func(s *site) {
		s.hub.Pending, s.hub.Page, s.hub.Heartbeat = room*size, size+4096, 400*time.Millisecond
	})
	for range 3 * room {
		open(t, f.site, request{recipients: []string{"mallory"}, header: before, buffer: 8 << 10})
	}
	eventually(t, "there is no more room", func() bool { return pages.Load() == room-1 })
	c := resume(t, f.site, before, "alice")
	c.hello()
	c.wantTold(text(size))
	if got := f.hub.Stats.Evicted.Load(); got == 0 {
		t.Error("no stream was closed")
	}
}

// feedOfPages makes a feed that remembers nothing, and whose source has one event of a size for everybody. It returns a cursor from
// before that, and counts the pages that are read.
func feedOfPages(t *testing.T, size int, pages *atomic.Int64, configure ...func(*site)) (f *fakeFeed, before string) {
	f = serveFeed(t, append([]func(*site){little, func(s *site) { s.hub.Memory = 1 }}, configure...)...)
	before = f.now.String()
	e := f.tell("alice", "message", text(size))
	f.hub.Source.(*source).page = func(_ context.Context, _, to cursor.Cursor) ([]feed.Row, cursor.Cursor, uint64, error) {
		pages.Add(1)
		e := e
		e.Data = []byte(text(size))
		return []feed.Row{e}, to, 0, nil
	}
	return f, before
}

// A user with many streams keeps no other user waiting: the users take turns.
func TestUsersTakeTurnsForRoom(t *testing.T) {
	t.Parallel()
	turnstile := stream.NewReservations(20)
	turnstile.Reserve("nobody", 10) // so that there is room for one at a time
	type place struct {
		user     string
		granted  <-chan struct{}
		giveBack func()
	}
	var places []place
	for _, user := range []string{"mallory", "mallory", "mallory", "mallory", "mallory", "alice", "bob", "bob"} {
		granted, giveBack := turnstile.Reserve(user, 10)
		places = append(places, place{user, granted, giveBack})
	}
	var order []string
	for len(places) > 0 {
		at := slices.IndexFunc(places, func(p place) bool {
			select {
			case <-p.granted:
				return true
			default:
				return false
			}
		})
		if at < 0 {
			t.Fatalf("nobody is let in after %v", order)
		}
		order = append(order, places[at].user)
		places[at].giveBack()
		places = slices.Delete(places, at, at+1)
	}
	if got, want := fmt.Sprint(order), "[mallory mallory alice bob mallory bob mallory mallory]"; got != want {
		t.Errorf("they were let in in the order %s, want %s", got, want)
	}
}
