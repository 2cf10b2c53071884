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

// smallSendBuffers makes the kernel's send buffers so small that a client that does not read is soon noticed.
func smallSendBuffers(s *site) { s.buffer = 4 << 10 }

// openStalled opens a stream with a small receive buffer. While the test does not read from it, the client is stalled.
func openStalled(t *testing.T, s *site, recipients ...string) *client {
	t.Helper()
	return open(t, s, request{recipients: recipients, buffer: 8 << 10})
}

// text returns a JSON string of the given size in bytes.
func text(size int) string { return `"` + strings.Repeat("x", size-2) + `"` }

// Clients that do not read delay no other clients, and receive everything once they read.
func TestStalledClientsDelayNoOthers(t *testing.T) {
	t.Parallel()
	const stalledClients, large = 50, 300 << 10
	f := serveFeed(t, smallSendBuffers, func(s *site) { s.hub.Heartbeat = time.Hour })
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
			f.publish("alice", "message", fmt.Sprint(rounds))
			for _, c := range readers {
				c.wantData(fmt.Sprint(rounds))
			}
			took = append(took, time.Since(began))
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	alone := median()
	for range stalledClients {
		stalled = append(stalled, openStalled(t, f.site, "alice", "bob"))
	}
	eventually(t, "the streams of all clients are open", func() bool { return f.hub.Stats.Streams.Load() == 10+stalledClients })
	for _, c := range stalled {
		c.hello()
	}
	f.publish("bob", "message", text(large)) // now each stalled client has pending events
	beside := median()
	t.Logf("median time of an event to 10 clients: %v alone, %v beside %d clients that do not read", alone, beside, stalledClients)
	if beside > 5*alone+100*time.Millisecond { // a write that waits for a stalled client takes seconds
		t.Errorf("the median beside stalled clients is %v, want at most 100 ms more than five times the median alone, which is %v", beside, alone)
	}
	for _, c := range stalled {
		c.wantData(text(large))
		for n := range 100 {
			c.wantData(fmt.Sprint(101 + n))
		}
	}
	if got := f.hub.Stats.Overflows.Load(); got != 0 {
		t.Errorf("got %d overflows, want 0", got)
	}
}

// When the backlog of a client reaches its limit, the hub closes the stream of this client and no other stream. The
// client resumes and misses no event.
func TestOverflow(t *testing.T) {
	t.Parallel()
	const backlog, size = 64 << 10, 1000
	f := serveFeed(t, smallSendBuffers, func(s *site) { s.hub.Backlog, s.hub.Heartbeat = backlog, time.Hour })
	reading, stalled := listen(t, f.site, "alice"), openStalled(t, f.site, "alice")
	reading.hello()
	stalled.hello()
	sent, bytes := 0, 0
	more := func() {
		f.publish("alice", "message", text(size+sent))
		reading.wantData(text(size + sent))
		bytes += size + sent
		sent++
	}
	for f.hub.Stats.Overflows.Load() == 0 {
		more()
	}
	t.Logf("the backlog overflows after %d events with %d bytes of data together", sent, bytes)
	const overhead = 100     // an upper bound for the bytes of an event besides its data
	const kernel = 128 << 10 // an upper bound for the bytes that the kernel buffers
	if least, most := backlog-sent*overhead, backlog+kernel; bytes < least || bytes > most {
		t.Errorf("the backlog overflows after %d bytes of data, want from %d to %d bytes", bytes, least, most)
	}
	eventually(t, "the stream is closed", func() bool { return f.hub.Stats.Streams.Load() == 1 })
	more()

	got := 0
	for e, err, ok := stalled.next(); ok && err == nil; e, err, ok = stalled.next() {
		if want := size + got; len(e.Data) != want {
			t.Fatalf("event %d has %d bytes, want %d", got, len(e.Data), want)
		}
		got++
	}
	if got == sent { // the client has missed no event, so resuming would show nothing
		t.Errorf("received %d of %d events before the stream was closed, want fewer", got, sent)
	}
	again := resume(t, f.site, stalled.decoder.LastID, "alice")
	again.hello()
	for ; got < sent; got++ {
		again.wantData(text(size + got))
	}
	more()
	again.wantData(text(size + sent - 1))
	if got := f.hub.Stats.Overflows.Load(); got != 1 {
		t.Errorf("got %d overflows, want 1", got)
	}
}

// An event may be larger than the limit of the backlog. It can be sent live, from the hub's memory, and from the table.
func TestAnEventLargerThanTheBacklog(t *testing.T) {
	t.Parallel()
	const size = 10_000_000
	dsn := dbtest.Database(t)
	small := func(s *site) { s.hub.Backlog = 4 << 10 }
	keeps, reads := serve(t, dsn, small), serve(t, dsn, small, func(s *site) { s.hub.Memory = 1 })
	slow, fast := openStalled(t, keeps, "alice"), listen(t, keeps, "alice")
	id := slow.hello()
	fast.hello()
	db := connect(t, dsn)
	exec(t, db, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', to_jsonb(repeat('x', $1))), ('alice', '1')`, size-2)
	fast.wantData(text(size), "1")
	keeps.caughtUp(t)
	reads.caughtUp(t)
	for _, c := range []*client{slow, resume(t, keeps, id, "alice"), resume(t, reads, id, "alice")} {
		if c != slow {
			c.hello()
		}
		c.wantData(text(size), "1")
	}
	if got := keeps.hub.Stats.Overflows.Load() + reads.hub.Stats.Overflows.Load(); got != 0 {
		t.Errorf("got %d overflows, want 0", got)
	}
}

// The event that is being written and the first event of the backlog do not count toward the limit of the backlog.
// Events that have been written do not count any more.
func TestWhatCountsForTheBacklog(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		r := record(t, f.site, "", "alice")
		synctest.Wait()
		sent := 0
		publish := func(size int) {
			f.publish("alice", "message", text(size))
			sent++
		}
		for range 10 {
			resumeWrites := r.stall()
			publish(5000) // this event is being written
			synctest.Wait()
			publish(5000)
			for range 3 {
				publish(200)
			}
			resumeWrites()
			synctest.Wait()
		}
		if got := len(r.events()); got != sent || f.hub.Stats.Overflows.Load() != 0 {
			t.Fatalf("received %d of %d events, want all; %d overflows, want none", got, sent, f.hub.Stats.Overflows.Load())
		}
		resumeWrites := r.stall()
		publish(100)
		synctest.Wait()
		publish(100)
		publish(1000)
		if got := f.hub.Stats.Overflows.Load(); got != 1 {
			t.Errorf("got %d overflows, want 1", got)
		}
		resumeWrites()
		r.awaitEnd(t)
	}, func(s *site) { s.hub.Backlog = 1000 })
}

// A large event that is still pending when the stream becomes live does not count toward the limit of the backlog, so
// the next event does not close the stream.
func TestResumingWithAnEventLargerThanTheBacklog(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Backlog = 128 << 10 })
	for range 100 {
		before, replayed := f.now.String(), f.hub.Stats.Replayed.Load()
		f.publish("alice", "message", text(200<<10))
		var next sync.WaitGroup
		next.Go(func() {
			for f.hub.Stats.Replayed.Load() == replayed && !t.Failed() {
				runtime.Gosched()
			}
			f.publish("alice", "message", "1")
		})
		c := resume(t, f.site, before, "alice")
		c.hello()
		c.wantData(text(200<<10), "1")
		dbtest.Wait(t, next.Wait, "the publication of the second event")
		c.close()
		eventually(t, "the stream ends", func() bool { return f.hub.Stats.Streams.Load() == 0 })
	}
	if got := f.hub.Stats.Overflows.Load(); got != 0 {
		t.Errorf("got %d overflows, want 0", got)
	}
}
