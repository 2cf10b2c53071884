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

// When too many bytes are pending for all streams together, the hub closes the stream with the most pending bytes. No
// other stream is closed if this is enough. The client of the closed stream resumes without a loss.
func TestTheSlowestStreamIsClosedFirst(t *testing.T) {
	t.Parallel()
	const limit, modest, size = 4 << 20, 10, 100 << 10
	var log strings.Builder // Publish writes the log in this goroutine
	f := serveFeed(t, smallSendBuffers, func(s *site) {
		s.hub.Pending, s.hub.Backlog, s.hub.Heartbeat = limit, 64<<20, time.Hour
		s.hub.Logger = slog.New(slog.NewTextHandler(&log, nil))
	})
	reading := listen(t, f.site, "mallory")
	reading.hello()
	var others []*client
	for i := range modest {
		c := openStalled(t, f.site, fmt.Sprint("user ", i))
		c.hello()
		others = append(others, c)
		f.publish(fmt.Sprint("user ", i), "message", text(size))
		f.publish(fmt.Sprint("user ", i), "message", text(size+i))
	}
	greedy := openStalled(t, f.site, "mallory")
	greedy.hello()
	sent := 0
	more := func() {
		f.publish("mallory", "message", text(size+sent))
		reading.wantData(text(size + sent))
		sent++
	}
	for f.hub.Stats.Evicted.Load() == 0 {
		if more(); f.hub.Held() > limit {
			t.Fatalf("%d bytes are held, want at most %d", f.hub.Held(), limit)
		}
	}
	var closed, held int
	if _, line, _ := strings.Cut(log.String(), "closed="); line == "" {
		t.Errorf("the log is %q, want a line with closed=", log.String())
	} else if _, err := fmt.Sscanf(line, "%d held=%d", &closed, &held); err != nil || closed != 1 || held <= limit {
		t.Errorf("the log has closed=%s (error: %v), want closed=1 and held above %d", line, err, limit)
	}
	eventually(t, "the stream is closed", func() bool { return f.hub.Stats.Streams.Load() == modest+1 })
	for i, c := range others {
		c.wantData(text(size), text(size+i))
	}
	got := 0
	for _, err, ok := greedy.next(); ok && err == nil; _, err, ok = greedy.next() {
		got++
	}
	again := resume(t, f.site, greedy.decoder.LastID, "mallory")
	again.hello()
	for ; got < sent; got++ {
		again.wantData(text(size + got))
	}
	if evicted, overflows := f.hub.Stats.Evicted.Load(), f.hub.Stats.Overflows.Load(); evicted != 1 || overflows != 0 {
		t.Errorf("%d streams were closed because of Pending, %d because of Backlog; want 1 and 0", evicted, overflows)
	}
	eventually(t, "nothing is held", func() bool { return f.hub.Held() == 0 })
}

// An event that is pending for many streams counts only once toward Hub.Pending.
func TestSharedEventsCountOnce(t *testing.T) {
	t.Parallel()
	const clients, size = 30, 1 << 20
	f := serveFeed(t, smallSendBuffers, func(s *site) { s.hub.Pending, s.hub.Backlog, s.hub.Heartbeat = 8*size, 4*size, time.Hour })
	var all []*client
	for range clients {
		c := openStalled(t, f.site, "alice")
		c.hello()
		all = append(all, c)
	}
	f.publish("alice", "message", text(size))
	f.publish("alice", "message", text(size+1))
	if held := f.hub.Held(); held < 2*size || held > 3*size { // the capacity of a slice may exceed its length
		t.Errorf("%d bytes are held for %d clients, want from %d to %d", held, clients, 2*size, 3*size)
	}
	for _, c := range all {
		c.wantData(text(size), text(size+1))
	}
	eventually(t, "nothing is held", func() bool { return f.hub.Held() == 0 })
	if got := f.hub.Stats.Evicted.Load(); got != 0 {
		t.Errorf("%d streams were closed, want none", got)
	}
}

// Streams that resume wait for memory before they read a page, so the memory of pages is limited, too. All clients
// receive everything.
func TestStreamsThatResumeWaitForMemory(t *testing.T) {
	t.Parallel()
	const clients, size, most = 20, 1 << 20, 4
	var pages atomic.Int64
	f, before := feedOfPages(t, size, &pages, func(s *site) {
		s.hub.Pending, s.hub.Page, s.hub.Heartbeat = most*size, size+4096, time.Hour
	})
	var all []*client
	for range clients {
		all = append(all, open(t, f.site, request{recipients: []string{"alice"}, header: before, buffer: 8 << 10}))
	}
	eventually(t, "three streams have read a page", func() bool { return pages.Load() == most-1 })
	for range 20 {
		if held := f.hub.Held(); held > most*size || pages.Load() > most {
			t.Fatalf("%d bytes are held and %d pages were read, want at most %d bytes and 4 pages", held, pages.Load(), most*size)
		}
		<-time.After(5 * time.Millisecond) // without the limit, more streams would have read by now
	}
	// All clients must read at the same time: some of them receive the event only after others have read theirs.
	done := make(chan struct{})
	for _, c := range all {
		go func() {
			c.hello()
			c.wantData(text(size))
			done <- struct{}{}
		}()
	}
	for range all {
		select {
		case <-done:
		case <-time.After(patience):
			t.Fatalf("some clients have not received the event within %v, want all; %d pages were read, %d bytes are held", patience, pages.Load(), f.hub.Held())
		}
	}
	eventually(t, "nothing is held", func() bool { return f.hub.Held() == 0 })
	if got := f.hub.Stats.Evicted.Load(); got != 0 {
		t.Errorf("%d streams were closed, want none", got)
	}
}

// Clients that resume but do not read keep no other client waiting for long. When no stream has been granted memory for
// a heartbeat interval, the hub closes some of the streams that do not read.
func TestStreamsThatWaitForMemoryGetIt(t *testing.T) {
	t.Parallel()
	const size, most = 1 << 20, 4
	var pages atomic.Int64
	f, before := feedOfPages(t, size, &pages, func(s *site) {
		s.hub.Pending, s.hub.Page, s.hub.Heartbeat = most*size, size+4096, 400*time.Millisecond
	})
	for range 3 * most {
		open(t, f.site, request{recipients: []string{"mallory"}, header: before, buffer: 8 << 10})
	}
	eventually(t, "three streams have read a page", func() bool { return pages.Load() >= most-1 })
	c := resume(t, f.site, before, "alice")
	c.hello()
	c.wantData(text(size))
	if got := f.hub.Stats.Evicted.Load(); got == 0 {
		t.Error("no stream was closed, want at least one")
	}
}

// feedOfPages serves a feed that keeps no event in memory. The Source has one event of the given size. feedOfPages
// returns a cursor from before the event. pages counts the pages that are read.
func feedOfPages(t *testing.T, size int, pages *atomic.Int64, configure ...func(*site)) (f *fakeFeed, before string) {
	f = serveFeed(t, append([]func(*site){smallSendBuffers, func(s *site) { s.hub.Memory = 1 }}, configure...)...)
	before = f.now.String()
	e := f.publish("alice", "message", text(size))
	f.hub.Source.(*source).page = func(_ context.Context, _, end cursor.Cursor) ([]feed.Row, cursor.Cursor, uint64, error) {
		pages.Add(1)
		e := e
		e.Data = []byte(text(size))
		return []feed.Row{e}, end, 0, nil
	}
	return f, before
}

// The queue for memory is fair to users, so a user with many streams does not keep other users waiting.
func TestUsersTakeTurnsForMemory(t *testing.T) {
	t.Parallel()
	reservations := stream.NewReservations(20)
	reservations.Reserve("nobody", 10) // leaves memory for one reservation at a time
	type reservation struct {
		user     string
		granted  <-chan struct{}
		giveBack func()
	}
	var waiting []reservation
	for _, user := range []string{"mallory", "mallory", "mallory", "mallory", "mallory", "alice", "bob", "bob"} {
		granted, giveBack := reservations.Reserve(user, 10)
		waiting = append(waiting, reservation{user, granted, giveBack})
	}
	var order []string
	for len(waiting) > 0 {
		at := slices.IndexFunc(waiting, func(r reservation) bool {
			select {
			case <-r.granted:
				return true
			default:
				return false
			}
		})
		if at < 0 {
			t.Fatalf("after reservations of %v, no further reservation is granted, want one", order)
		}
		order = append(order, waiting[at].user)
		waiting[at].giveBack()
		waiting = slices.Delete(waiting, at, at+1)
	}
	if got, want := fmt.Sprint(order), "[mallory mallory alice bob mallory bob mallory mallory]"; got != want {
		t.Errorf("reservations were granted in the order %s, want %s", got, want)
	}
}

// Streams whose clients do not read share the memory of large pending events. This holds for live streams and for
// streams that resume. Not parallel: it measures the heap.
func TestStalledClientsSharePendingEvents(t *testing.T) {
	const stalled, size = 50, 1 << 20
	f := serveFeed(t, smallSendBuffers, func(s *site) { s.hub.Backlog, s.hub.Heartbeat = 2*size, time.Hour })
	before := f.now.String()
	var clients []*client
	for range stalled / 2 {
		c := openStalled(t, f.site, "alice")
		c.hello()
		clients = append(clients, c)
	}
	empty := heap()
	f.publish("alice", "message", text(size))
	f.publish("alice", "message", text(size+1))
	for range stalled / 2 {
		c := open(t, f.site, request{recipients: []string{"alice"}, header: before, buffer: 8 << 10})
		for c.line() != "event: rowcast.hello\n" {
		}
		c.line() // the data of rowcast.hello
		c.line() // its id
		c.expect("\n")
		clients = append(clients, c)
	}
	begin := func(size int) {
		for _, c := range clients {
			c.expect("data: " + text(size)[:100])
		}
	}
	check := func(when string) {
		grown := heap() - empty
		t.Logf("%s: %d bytes in use for %d stalled clients", when, grown, stalled)
		if each := (grown - 2*size) / stalled; each > 128<<10 {
			t.Errorf("%s: %d bytes for each client besides the shared events, want at most 128 KiB", when, each)
		}
	}
	begin(size)
	check("while the first event is written")
	for _, c := range clients {
		c.expect(text(size)[100:] + "\nid: ")
		c.line()
		c.expect("\n")
	}
	begin(size + 1)
	check("while the second event is written")
	if got := f.hub.Stats.Overflows.Load(); got != 0 {
		t.Errorf("got %d overflows, want 0", got)
	}
}
