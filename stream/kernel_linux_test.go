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

// The kernel holds little for clients that do not read, however large the events are and however fast the clients were before.
func TestTheKernelHoldsLittle(t *testing.T) {
	t.Parallel()
	const clients, size, most = 20, 4 << 20, 256 << 10
	k := &kept{}
	f := serveFeed(t, func(s *site) {
		s.hub.Heartbeat, s.hub.Backlog = time.Hour, 64<<20
		s.listen = func(l net.Listener) net.Listener { k.Listener = l; return k }
	})
	var all sync.WaitGroup
	for range clients {
		c := open(t, f.site, request{recipients: []string{"alice"}, buffer: 1 << 20})
		c.hello()
		all.Go(func() { // after this, the kernel takes the client for a fast one
			for range 3 {
				c.told()
			}
		})
	}
	for range 3 {
		f.tell("alice", "message", text(size))
	}
	dbtest.Wait(t, all.Wait, "every client to be told three events")
	f.tell("alice", "message", text(size))
	held := k.held(t)
	eventually(t, "the kernel takes no more", func() bool {
		before := held
		<-time.After(100 * time.Millisecond)
		held = k.held(t)
		return held > 0 && held == before
	})
	// With the system's own buffers it is 2.2 MB for each.
	t.Logf("%d bytes are held for each", held/clients)
	if held/clients > most {
		t.Errorf("want at most %d", most)
	}
}

// held returns how many bytes the kernel holds that the clients have not acknowledged.
func (k *kept) held(t testing.TB) (bytes int) {
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

// BenchmarkLargeEvent sends an event of 16 MB to clients that read as fast as they can.
func BenchmarkLargeEvent(b *testing.B) {
	const size = 16 << 20
	for _, clients := range []int{1, 10} {
		b.Run(fmt.Sprint(clients), func(b *testing.B) {
			f := serveFeed(b, func(s *site) { s.hub.Heartbeat, s.hub.Memory = time.Hour, 1 })
			startCrowd(b, f, clients)
			data := text(size)
			b.SetBytes(int64(clients * size))
			for b.Loop() {
				f.tell("alice", "message", data)
				eventually(b, "all have taken it", func() bool { return f.hub.Held() == 0 })
			}
			if overflows := f.hub.Stats.Overflows.Load(); overflows > 0 {
				b.Errorf("%d overflows", overflows)
			}
		})
	}
}
