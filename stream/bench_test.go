package stream_test

import (
	"fmt"
	"io"
	"math"
	"net"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream"
)

// BenchmarkEncode measures publishing without streams: encoding an event and adding it to the memory.
func BenchmarkEncode(b *testing.B) {
	f := newFeed(b)
	e := f.event(start.Xmax, "alice", "notify", `{"msg": "Bob liked your post", "post": 1234567}`)
	e.CreatedAt = time.Now()
	b.ReportAllocs()
	for b.Loop() {
		f.hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: e.Cursor})
	}
	if f.hub.Stats.Sent.Load() != 0 {
		b.Error("an event was sent, want none because there are no streams")
	}
}

// BenchmarkBroadcast measures sending an event to a thousand streams whose clients read it.
func BenchmarkBroadcast(b *testing.B) {
	f := serveFeed(b)
	readers := openReaders(b, f, 1000)
	e := f.event(start.Xmax, everyone, "notify", `{"msg": "maintenance at 22:00"}`)
	before := mallocs()
	b.ReportAllocs()
	for b.Loop() {
		f.hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: e.Cursor})
	}
	if each := float64(mallocs()-before) / float64(b.N) / 1000; each > 0.1 {
		b.Errorf("got %v allocations for each delivery, want at most 0.1", each)
	}
	readers.close()
	if want := int64(b.N) * 1000; f.hub.Stats.Sent.Load() != want {
		b.Errorf("sent %d events, want %d", f.hub.Stats.Sent.Load(), want)
	}
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/1000, "ns/delivery")
	b.ReportMetric(float64(readers.bytes)/float64(b.N)/1000, "B/delivery")
}

// Sending an event to many streams allocates about as much as sending it to one stream. Not parallel: the test counts
// the allocations of the process.
func TestSendingAllocatesNothingPerStream(t *testing.T) {
	if raceDetector {
		t.Skip("with the race detector, a sync.Pool drops some of its values, so there are more allocations")
	}
	defer debug.SetGCPercent(debug.SetGCPercent(-1))
	allocations := func(streams int) float64 {
		f := serveFeed(t, func(s *site) { s.hub.Memory = 1; s.hub.Heartbeat = time.Hour })
		readers := openReaders(t, f, streams)
		defer readers.close()
		e := f.event(start.Xmax, everyone, "notify", `{"msg": "maintenance at 22:00"}`)
		// The result is the fewest of several counts, because other goroutines of the process sometimes allocate, too.
		fewest := math.Inf(1)
		for range 5 {
			fewest = min(fewest, testing.AllocsPerRun(20, func() {
				f.hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: e.Cursor})
			}))
		}
		return fewest
	}
	one, many := allocations(1), allocations(201)
	t.Logf("%v allocations with one stream, %v with 201", one, many)
	if each := (many - one) / 200; each > 0.05 {
		t.Errorf("got %v allocations for each further stream, want at most 0.05", each)
	}
}

func mallocs() uint64 {
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return stats.Mallocs
}

// readers are clients that read and ignore what they receive.
type readers struct {
	conns []net.Conn
	all   sync.WaitGroup
	mu    sync.Mutex
	bytes int64
}

// openReaders opens n streams and waits until all of them are live.
func openReaders(t testing.TB, f *fakeFeed, n int) *readers {
	t.Helper()
	c := &readers{}
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

// discard is like io.Discard but has no pool of buffers. The tests would count the allocations of the pool.
type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

// close closes the connections and waits until all clients have ended.
func (c *readers) close() {
	for _, conn := range c.conns {
		_ = conn.Close()
	}
	c.all.Wait()
}

// manyFrames returns a memory with n events, and the cursor after each event. Event i is for recipientOf(i).
func manyFrames(n int) (m *stream.Memory, cursors []cursor.Cursor) {
	m = stream.NewMemory(1<<30, start)
	f := &fakeFeed{now: start}
	for i := range n {
		e := f.event(f.now.Xmax, recipientOf(i), "notify", `{"msg": "Bob liked your post"}`)
		f.now = e.Cursor.Reached(cursor.Cursor{Xmax: e.Xid + 1, Epoch: f.now.Epoch})
		m.Add(e)
		cursors = append(cursors, f.now)
	}
	return m, cursors
}

// recipientOf returns everyone for every tenth event, and one of 45 users for the others.
func recipientOf(i int) string {
	if i%10 == 0 {
		return everyone
	}
	return fmt.Sprintf("user %d", i%50)
}

// BenchmarkUnseen measures the search for the events that a client has missed. The memory has 100,000 events. The
// client's cursor has seen all of them except the last 0, 100, 1,000 or 99,999.
func BenchmarkUnseen(b *testing.B) {
	const kept = 100_000
	recipients := []string{"user 1", "user 2", everyone} // a stream is always also for everyone
	m, cursors := manyFrames(kept)
	for _, missed := range []int{0, 100, 1000, kept - 1} {
		b.Run(fmt.Sprintf("missed %d", missed), func(b *testing.B) {
			c, found, want := cursors[kept-1-missed], 0, 0
			for i := kept - missed; i < kept; i++ {
				if slices.Contains(recipients, recipientOf(i)) {
					want++
				}
			}
			for b.Loop() {
				found = m.Unseen(c, recipients...)
			}
			if found != want {
				b.Errorf("found %d events, want %d", found, want)
			}
			b.ReportMetric(float64(found), "found")
		})
	}
}
