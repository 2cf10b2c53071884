package stream_test

import (
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rowcast/sql/dbtest"
)

// The kernel holds few bytes for clients that do not read, even if the events are large and the clients were fast
// before.
func TestTheKernelHoldsFewBytes(t *testing.T) {
	t.Parallel()
	const clients, size, most = 20, 4 << 20, 256 << 10
	k := &recordingListener{}
	f := serveFeed(t, func(s *site) {
		s.hub.Heartbeat, s.hub.Backlog = time.Hour, 64<<20
		s.listen = func(l net.Listener) net.Listener { k.Listener = l; return k }
	})
	var all sync.WaitGroup
	for range clients {
		c := open(t, f.site, request{recipients: []string{"alice"}, buffer: 1 << 20})
		c.hello()
		all.Go(func() { // the kernel regards a client that reads three events as fast
			for range 3 {
				c.notification()
			}
		})
	}
	for range 3 {
		f.publish("alice", "message", text(size))
	}
	dbtest.Wait(t, all.Wait, "three events at every client")
	f.publish("alice", "message", text(size))
	held := k.held(t)
	eventually(t, "the kernel accepts no more bytes", func() bool {
		before := held
		<-time.After(100 * time.Millisecond)
		held = k.held(t)
		return held > 0 && held == before
	})
	// With the default buffers, the kernel holds about 2 MB for each client.
	t.Logf("the kernel holds %d bytes for each client", held/clients)
	if held/clients > most {
		t.Errorf("the kernel holds %d bytes for each client, want at most %d", held/clients, most)
	}
}

// held returns the number of bytes in the kernel that the clients have not acknowledged.
func (k *recordingListener) held(t testing.TB) (bytes int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, raw := range k.conns {
		_ = raw.Control(func(fd uintptr) {
			n, err := unix.IoctlGetInt(int(fd), unix.SIOCOUTQ)
			if err != nil {
				t.Error(err)
			}
			bytes += n
		})
	}
	return bytes
}

// BenchmarkLargeEvent sends an event of 16 MiB to clients that read without pauses.
func BenchmarkLargeEvent(b *testing.B) {
	const size = 16 << 20
	for _, clients := range []int{1, 10} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			f := serveFeed(b, func(s *site) { s.hub.Heartbeat, s.hub.Memory = time.Hour, 1 })
			startClients(b, f, clients)
			data := text(size)
			b.SetBytes(int64(clients * size))
			for b.Loop() {
				f.publish("alice", "message", data)
				eventually(b, "the event has been written to all clients", func() bool { return f.hub.Held() == 0 })
			}
			if overflows := f.hub.Stats.Overflows.Load(); overflows > 0 {
				b.Errorf("got %d overflows, want 0", overflows)
			}
		})
	}
}
