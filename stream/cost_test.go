package stream_test

import (
	"net"
	"net/http/httptest"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"rowcast/listener/feed"
)

// An idle stream uses little memory, even if its grant has an end. Not parallel: it measures the memory of the process.
func TestAnIdleStreamIsSmall(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("on systems other than Linux, an idle stream has a goroutine, which uses more memory")
	}
	const streams, most = 1000, 2 << 10
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.lasts = time.Hour, time.Hour })
	before := inUse()
	startClients(t, f, streams)
	each := (inUse() - before) / streams
	t.Logf("%d bytes for each stream", each)
	if each > most {
		t.Errorf("an idle stream has %d bytes of heap and stack, want at most %d", each, most)
	}
}

// inUse returns the bytes of the heap and the stacks after a garbage collection.
func inUse() int64 {
	debug.FreeOSMemory()
	debug.FreeOSMemory() // the second call empties each sync.Pool
	var stats runtime.MemStats
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc + stats.StackInuse)
}

// A recordingListener records the connections that it accepts.
type recordingListener struct {
	net.Listener
	mu    sync.Mutex
	conns []syscall.RawConn
}

func (k *recordingListener) Accept() (net.Conn, error) {
	conn, err := k.Listener.Accept()
	if err != nil {
		return nil, err
	}
	raw, err := conn.(*net.TCPConn).SyscallConn()
	k.mu.Lock()
	defer k.mu.Unlock()
	k.conns = append(k.conns, raw)
	return conn, err
}

// BenchmarkDelivery measures the CPU time of a broadcast to 5,000 streams, and of a plain loop of write(2) calls that
// writes the same bytes to the same sockets. Each round has 20 broadcasts and 20 loops. The benchmark reports the
// median ratio of the two, and the median CPU time of a delivery, in user mode and in total.
func BenchmarkDelivery(b *testing.B) {
	const clients, broadcasts, turns = 5000, 20, 5
	k := &recordingListener{}
	f := serveFeed(b, func(s *site) {
		s.hub.Heartbeat = time.Hour
		s.listen = func(l net.Listener) net.Listener { k.Listener = l; return k }
	})
	startClients(b, f, clients)
	e := f.event(start.Xmax, everyone, "notify", `{"msg": "maintenance at 22:00"}`)
	batch := feed.Batch{Rows: []feed.Row{e}, Cursor: e.Cursor}
	frame := []byte("event: notify\ndata: {\"msg\": \"maintenance at 22:00\"}\nid: " + e.Cursor.String() + "\n\n")
	var descriptors []int
	for _, raw := range k.conns {
		_ = raw.Control(func(fd uintptr) { descriptors = append(descriptors, int(fd)) })
	}
	floor := func() {
		for _, fd := range descriptors {
			if n, err := writeTo(fd, frame); n != len(frame) || err != nil {
				b.Fatalf("wrote %d bytes, %v, want %d bytes", n, err, len(frame))
			}
		}
	}
	cost := func(send func()) (user, all float64) {
		userBefore, allBefore := cpu()
		for range broadcasts {
			send()
			<-time.After(20 * time.Millisecond) // gives the clients time to read
		}
		userAfter, allAfter := cpu()
		const each = clients * broadcasts * float64(time.Microsecond)
		return float64(userAfter-userBefore) / each, float64(allAfter-allBefore) / each
	}
	var ratios, users, alls []float64
	for b.Loop() {
		for range turns {
			user, all := cost(func() { f.hub.Publish(batch) })
			floorUser, floorAll := cost(floor)
			b.Logf("CPU time (in user mode): %.2f µs (%.2f µs) for a delivery, %.2f µs (%.2f µs) for a write of the plain loop", all, user, floorAll, floorUser)
			ratios, users, alls = append(ratios, all/floorAll), append(users, user), append(alls, all)
		}
	}
	if want := int64(b.N * clients * broadcasts * turns); f.hub.Stats.Sent.Load() != want {
		b.Errorf("sent %d events, want %d", f.hub.Stats.Sent.Load(), want)
	}
	b.ReportMetric(0, "ns/op")
	b.ReportMetric(median(ratios), "ratio")
	b.ReportMetric(median(users), "user-µs/delivery")
	b.ReportMetric(median(alls), "µs/delivery")
}

// BenchmarkProtocol measures the memory and CPU time of streams over each protocol. Over plain HTTP, the hub writes
// directly to sockets. Over the other two protocols, it writes through net/http.
func BenchmarkProtocol(b *testing.B) {
	const clients, broadcasts = 1000, 20
	for _, protocol := range []string{"HTTP", "HTTPS", "HTTP/2"} {
		b.Run(protocol, func(b *testing.B) {
			f := serveFeed(b, func(s *site) { s.hub.Heartbeat = time.Hour })
			if protocol != "HTTP" {
				server := httptest.NewUnstartedServer(f.site)
				server.EnableHTTP2 = protocol == "HTTP/2"
				server.StartTLS()
				b.Cleanup(server.Close)
				f.url = server.URL
			}
			before := inUse()
			startClients(b, f, clients)
			memory := float64(inUse()-before) / clients
			e := f.event(start.Xmax, everyone, "notify", `{"msg": "maintenance at 22:00"}`)
			_, began := cpu()
			for b.Loop() {
				for range broadcasts {
					f.hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: e.Cursor})
					<-time.After(50 * time.Millisecond) // gives the clients time to read
				}
			}
			_, ended := cpu()
			if want := int64(b.N * clients * broadcasts); f.hub.Stats.Sent.Load() != want {
				b.Errorf("sent %d events, want %d", f.hub.Stats.Sent.Load(), want)
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(memory, "B/stream")
			b.ReportMetric(float64(ended-began)/float64(b.N*clients*broadcasts)/1e3, "µs/delivery")
		})
	}
}

func median(of []float64) float64 {
	slices.Sort(of)
	return of[len(of)/2]
}

// used returns the CPU time that this process has used.
func used() time.Duration {
	_, all := cpu()
	return all
}
