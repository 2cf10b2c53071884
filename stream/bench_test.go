package stream_test

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"runtime/debug"
	"sync"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream"
)

// BenchmarkEncode is publishing to nobody: encoding and remembering.
func BenchmarkEncode(b *testing.B) {
	f := newFeed(b)
	e := f.event(start.Xmax, "alice", "notify", `{"msg": "Bob liked your post", "post": 1234567}`)
	b.ReportAllocs()
	for b.Loop() {
		f.hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: e.Cursor})
	}
	if f.hub.Stats.Sent.Load() != 0 {
		b.Error("somebody was told")
	}
}

// BenchmarkBroadcast is telling an event to a thousand sockets, whose clients read it.
func BenchmarkBroadcast(b *testing.B) {
	f := serveFeed(b)
	crowd := gather(b, f, 1000)
	e := f.event(start.Xmax, "", "notify", `{"msg": "maintenance at 22:00"}`)
	before := mallocs()
	b.ReportAllocs()
	for b.Loop() {
		f.hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: e.Cursor})
	}
	if each := float64(mallocs()-before) / float64(b.N) / 1000; each > 0.1 {
		b.Errorf("%v allocations a delivery", each)
	}
	crowd.disperse()
	if want := int64(b.N) * 1000; f.hub.Stats.Sent.Load() != want {
		b.Errorf("told %d, want %d", f.hub.Stats.Sent.Load(), want)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/delivery")
	b.ReportMetric(float64(crowd.bytes)/float64(b.N)/1000, "B/delivery")
}

// Telling an event to many subscribers allocates as much as telling it to one. Not parallel: it counts allocations.
func TestTellingAllocatesNothingPerSubscriber(t *testing.T) {
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	allocations := func(subscribers int) float64 {
		f := serveFeed(t, func(s *site) { s.hub.Memory = 1; s.hub.Heartbeat = time.Hour })
		crowd := gather(t, f, subscribers)
		defer crowd.disperse()
		e := f.event(start.Xmax, "", "notify", `{"msg": "maintenance at 22:00"}`)
		return testing.AllocsPerRun(20, func() {
			f.hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: e.Cursor})
		})
	}
	one, many := allocations(1), allocations(201)
	t.Logf("%v allocations with one subscriber, %v with 201", one, many)
	if each := (many - one) / 200; each > 0.01 {
		t.Errorf("%v allocations a subscriber", each)
	}
}

func mallocs() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.Mallocs
}

// A crowd is many clients that read and look at nothing.
type crowd struct {
	conns []net.Conn
	all   sync.WaitGroup
	mu    sync.Mutex
	bytes int64
}

// gather waits until the clients are live.
func gather(t testing.TB, f *fakeFeed, n int) *crowd {
	t.Helper()
	c := &crowd{}
	for range n {
		conn, err := dial(f.url, request{recipients: []string{"alice"}})
		if err != nil {
			t.Fatal(err)
		}
		_ = conn.SetDeadline(time.Time{})
		c.conns = append(c.conns, conn)
		c.all.Go(func() {
			read, _ := io.Copy(discard{}, conn)
			c.mu.Lock()
			defer c.mu.Unlock()
			c.bytes += read
		})
	}
	f.allLive(t, n)
	return c
}

// discard is io.Discard without its pool, whose buffers would be counted.
type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// disperse ends the clients.
func (c *crowd) disperse() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.all.Wait()
}

// manyFrames fills a memory: of 50 users, and one in ten for everyone.
func manyFrames(n int) (m *stream.Memory, cursors []cursor.Cursor) {
	m = stream.NewMemory(1<<30, start)
	f := &fakeFeed{now: start}
	for i := range n {
		recipient := fmt.Sprintf("user %d", i%50)
		if i%10 == 0 {
			recipient = ""
		}
		e := f.event(f.now.Xmax, recipient, "notify", `{"msg": "Bob liked your post"}`)
		f.now = e.Cursor.Reached(cursor.Cursor{Xmax: e.Xid + 1, Epoch: f.now.Epoch})
		m.Add(e)
		cursors = append(cursors, f.now)
	}
	return m, cursors
}

// BenchmarkUnseen is what is done under the hub's lock when a client resumes, with 100,000 events remembered: one who has seen
// nearly all, and one who has seen none.
func BenchmarkUnseen(b *testing.B) {
	const remembered = 100_000
	m, cursors := manyFrames(remembered)
	for _, missed := range []int{0, 100, 1000, remembered - 1} {
		b.Run(fmt.Sprintf("missed %d", missed), func(b *testing.B) {
			c, found := cursors[remembered-1-missed], 0
			for b.Loop() {
				found = m.Unseen(c, "user 1", "user 2")
			}
			if want := missed * 14 / 100; found < want-10 || found > want+10 {
				b.Errorf("found %d, want %d", found, want)
			}
			b.ReportMetric(float64(found), "found")
		})
	}
}

// Memory is bounded in bytes, forgets the oldest first, and says from where on it is complete.
func TestMemoryIsBounded(t *testing.T) {
	t.Parallel()
	const limit = 10_000
	m := stream.NewMemory(limit, start)
	f := &fakeFeed{now: start}
	var told []cursor.Cursor
	for i := range 1000 {
		e := f.event(f.now.Xmax, "alice", "notify", fmt.Sprint(i))
		f.now = e.Cursor.Reached(cursor.Cursor{Xmax: e.Xid + 1, Epoch: f.now.Epoch})
		size := m.Add(e)
		told = append(told, e.Cursor)
		frames, bytes := m.Size()
		if bytes > limit || i > 100 && bytes < limit-2*size {
			t.Fatalf("%d bytes in %d frames, want nearly %d", bytes, frames, limit)
		}
		if forgotten := len(told) - frames; forgotten > 0 && m.From().String() != told[forgotten-1].String() {
			t.Fatalf("complete from %s, want %s", m.From(), told[forgotten-1])
		}
		if got := m.Unseen(m.From(), "alice"); got != frames {
			t.Fatalf("%d are unseen from where memory begins, want %d", got, frames)
		}
	}
	e := f.event(f.now.Xmax, "alice", "notify", text(2*limit))
	m.Add(e)
	if frames, bytes := m.Size(); frames != 0 || bytes != 0 || m.From().String() != e.Cursor.String() {
		t.Errorf("after an event larger than memory: %d frames, %d bytes, from %s", frames, bytes, m.From())
	}
}
