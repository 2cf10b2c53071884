package stream_test

import (
	"io"
	"math/rand/v2"
	"net"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// Ten thousand clients that disconnect at random times leave no goroutine, no file descriptor and hardly any memory.
// Not parallel: it counts the goroutines, descriptors and heap of the process.
func TestConnectAndKill(t *testing.T) {
	const clients, atATime = 10_000, 8
	f := serveFeed(t, func(s *site) { s.hub.Memory = 4 << 10 })
	for range 20 {
		f.publish("alice", "message", text(1000)) // all events together exceed the hub's memory
	}
	k := killer{f: f, address: strings.TrimPrefix(f.url, "http://"), oldest: start.String()}
	round := func(clients int) {
		var all sync.WaitGroup
		for range atATime {
			all.Go(func() {
				for range clients / atATime {
					k.connectAndKill(t)
				}
			})
		}
		all.Wait()
		eventually(t, "no stream is left", func() bool { return f.hub.Stats.Streams.Load() == 0 })
	}
	round(clients / 20) // a warm-up: what is allocated only once does not count
	goroutines, files, bytes := runtime.NumGoroutine(), descriptors(t), heap()
	round(clients)
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= files })
	grown := heap() - bytes
	t.Logf("%d streams were opened; the heap has grown by %d bytes", f.hub.Stats.Opened.Load(), grown)
	if grown > 1<<20 { // about 100 bytes for each client
		t.Errorf("the heap has grown by %d bytes, want at most 1 MiB", grown)
	}
	if f.hub.Stats.Opened.Load() < clients/4 {
		t.Errorf("%d streams were opened, want at least %d", f.hub.Stats.Opened.Load(), clients/4)
	}
	c := listen(t, f.site, "alice")
	c.hello()
	f.publish("alice", "message", "2")
	c.wantData("2")
}

// A killer opens connections and closes each of them at a random time.
type killer struct {
	f               *fakeFeed
	address, oldest string

	mu sync.Mutex // guards f
}

// connectAndKill publishes an event and runs one client. The client's request may be incomplete. If it is complete, the
// client may read a part of the stream.
func (k *killer) connectAndKill(t *testing.T) {
	k.mu.Lock()
	k.f.publish("alice", "message", "1")
	cursor := []string{"x", k.oldest, k.f.now.String()}[rand.IntN(3)]
	k.mu.Unlock()
	conn, err := net.DialTimeout("tcp", k.address, patience)
	if err != nil {
		t.Error(err)
		return
	}
	_ = conn.SetDeadline(time.Now().Add(patience)) // no client may wait forever
	request := "GET /?recipient=alice HTTP/1.1\r\nHost: x\r\nLast-Event-ID: " + cursor + "\r\n\r\n"
	cut := rand.IntN(2) * rand.IntN(len(request))
	_, err = io.WriteString(conn, request[:len(request)-cut])
	if err == nil && cut == 0 && rand.IntN(2) == 0 {
		_ = conn.SetReadDeadline(time.Now().Add(time.Duration(rand.IntN(2000)) * time.Microsecond))
		_, _ = io.CopyN(io.Discard, conn, rand.Int64N(2000))
	}
	if rand.IntN(2) == 0 {
		_ = conn.(*net.TCPConn).SetLinger(0) // Close then resets the connection
	}
	_ = conn.Close()
}

// descriptors returns the number of open file descriptors of this process. On systems other than Linux it returns 0.
func descriptors(t *testing.T) int {
	t.Helper()
	if runtime.GOOS != "linux" {
		return 0
	}
	all, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(all)
}

// heap returns the bytes of the heap that are in use.
func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC() // the second collection empties each sync.Pool
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
