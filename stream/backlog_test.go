package stream_test

import (
	"fmt"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/sql/dbtest"
)

// little makes connections hold so little in the kernel that who does not read is soon noticed.
func little(s *site) { s.buffer = 4 << 10 }

// deaf opens a stream that is not read.
func deaf(t *testing.T, s *site, recipients ...string) *client {
	t.Helper()
	return open(t, s, request{recipients: recipients, buffer: 8 << 10})
}

// text is data of so many bytes.
func text(size int) string { return `"` + strings.Repeat("x", size-2) + `"` }

// Others are told at once, as if those who do not read were not there, and these are told everything when they do.
func TestWhoDoesNotReadHoldsUpNobody(t *testing.T) {
	t.Parallel()
	const stuck, large = 50, 300 << 10
	f := serveFeed(t, little)
	var readers, stalled []*client
	for range 10 {
		c := listen(t, f.site, "alice")
		c.hello()
		readers = append(readers, c)
	}
	rounds := 0
	median := func() time.Duration {
		var took []time.Duration
		for range 100 {
			rounds++
			began := time.Now()
			f.tell("alice", "message", fmt.Sprint(rounds))
			for _, c := range readers {
				c.wantTold(fmt.Sprint(rounds))
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	alone := median()
	for range stuck {
		stalled = append(stalled, deaf(t, f.site, "alice", "bob"))
	}
	eventually(t, "they are live", func() bool { return f.hub.Stats.Streams.Load() == 10+stuck })
	for _, c := range stalled {
		c.hello()
	}
	f.tell("bob", "message", text(large)) // now each is owed something
	beside := median()
	t.Logf("median of telling 10 clients: %v alone, %v beside %d that do not read", alone, beside, stuck)
	if beside > 5*alone+100*time.Millisecond { // one write that waits for a stuck client takes seconds
		t.Error("clients that read are delayed by those that do not")
	}
	for _, c := range stalled {
		c.wantTold(text(large))
		for n := range 100 {
			c.wantTold(fmt.Sprint(101 + n))
		}
	}
	if got := f.hub.Stats.Overflows.Load(); got != 0 {
		t.Errorf("%d overflows", got)
	}
}

// What a client is owed is bounded; beyond that its stream is closed, and no other's. It resumes with nothing lost.
func TestOverflow(t *testing.T) {
	t.Parallel()
	const backlog, size = 64 << 10, 1000
	f := serveFeed(t, little, func(s *site) { s.hub.Backlog = backlog })
	reading, stalled := listen(t, f.site, "alice"), deaf(t, f.site, "alice")
	reading.hello()
	stalled.hello()
	told := 0
	more := func() {
		f.tell("alice", "message", text(size+told))
		reading.wantTold(text(size + told))
		told++
	}
	for f.hub.Stats.Overflows.Load() == 0 {
		more()
	}
	owed := told * (size + told/2)
	t.Logf("overflows after %d events of %d bytes", told, owed)
	const id = 100 // bytes of each event besides its data, at most
	if owed+told*id < backlog || owed > backlog+128<<10 {
		t.Errorf("want about %d, and what the kernel takes", backlog)
	}
	eventually(t, "it is closed", func() bool { return f.hub.Stats.Streams.Load() == 1 })
	more()

	got := 0
	for e, err, ok := stalled.next(); ok && err == nil; e, err, ok = stalled.next() {
		if want := size + got; len(e.Data) != want {
			t.Fatalf("event %d has %d bytes, want %d", got, len(e.Data), want)
		}
		got++
	}
	if got == told { // none, if the hub had no time to write
		t.Errorf("was told %d of %d before it was closed", got, told)
	}
	again := resume(t, f.site, stalled.decoder.LastID, "alice")
	again.hello()
	for ; got < told; got++ {
		again.wantTold(text(size + got))
	}
	more()
	again.wantTold(text(size + told - 1))
	if got := f.hub.Stats.Overflows.Load(); got != 1 {
		t.Errorf("%d overflows, want 1", got)
	}
}

// The event that is being written is not counted: one of any size goes through, live and replayed, from memory and from the table.
func TestAnEventLargerThanTheBacklog(t *testing.T) {
	t.Parallel()
	const size = 10_000_000
	dsn := dbtest.Database(t)
	small := func(s *site) { s.hub.Backlog = 4 << 10 }
	remembers, forgets := serve(t, dsn, small), serve(t, dsn, small, func(s *site) { s.hub.Memory = 1 })
	slow, fast := deaf(t, remembers, "alice"), listen(t, remembers, "alice")
	id := slow.hello()
	fast.hello()
	db := connect(t, dsn)
	exec(t, db, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', to_jsonb(repeat('x', $1))), ('alice', '1')`, size-2)
	fast.wantTold(text(size), "1")
	remembers.caughtUp(t)
	forgets.caughtUp(t)
	for _, c := range []*client{slow, resume(t, remembers, id, "alice"), resume(t, forgets, id, "alice")} {
		if c != slow {
			c.hello()
		}
		c.wantTold(text(size), "1")
	}
	if got := remembers.hub.Stats.Overflows.Load() + forgets.hub.Stats.Overflows.Load(); got != 0 {
		t.Errorf("%d overflows", got)
	}
}

// What is being written and the first event after it do not count; what has been written no longer does.
func TestWhatCountsAsOwed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		r := record(t, f.site, "", "alice")
		synctest.Wait()
		told := 0
		tell := func(size int) {
			f.tell("alice", "message", text(size))
			told++
		}
		for range 10 {
			goOn := r.stall()
			tell(5000) // is being written
			synctest.Wait()
			tell(5000)
			for range 3 {
				tell(200)
			}
			goOn()
			synctest.Wait()
		}
		if got := len(r.events()); got != told || f.hub.Stats.Overflows.Load() != 0 {
			t.Fatalf("told %d of %d, %d overflows", got, told, f.hub.Stats.Overflows.Load())
		}
		goOn := r.stall()
		tell(100)
		synctest.Wait()
		tell(100)
		tell(1000)
		if got := f.hub.Stats.Overflows.Load(); got != 1 {
			t.Errorf("%d overflows, want 1", got)
		}
		goOn()
		r.awaitEnd(t)
	}, func(s *site) { s.hub.Backlog = 1000 })
}

// The same for what comes the moment that a client has become live and is still owed a large event.
func TestResumingWithAnEventLargerThanTheBacklog(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Backlog = 128 << 10 })
	for range 100 {
		before, replayed := f.now.String(), f.hub.Stats.Replayed.Load()
		f.tell("alice", "message", text(200<<10))
		var next sync.WaitGroup
		next.Go(func() {
			for f.hub.Stats.Replayed.Load() == replayed && !t.Failed() {
				runtime.Gosched()
			}
			f.tell("alice", "message", "1")
		})
		c := resume(t, f.site, before, "alice")
		c.hello()
		c.wantTold(text(200<<10), "1")
		dbtest.Wait(t, next.Wait, "the second event to be told")
		c.close()
		eventually(t, "its stream ends", func() bool { return f.hub.Stats.Streams.Load() == 0 })
	}
	if got := f.hub.Stats.Overflows.Load(); got != 0 {
		t.Errorf("%d overflows", got)
	}
}
