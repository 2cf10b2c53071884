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

// Ten thousand clients that are killed at any time leave nothing behind: no goroutine, no descriptor and no memory. Not parallel: it
// counts them.
func TestConnectAndKill(t *testing.T) {
	const clients, atATime = 10_000, 8
	f := serveFeed(t, func(s *site) { s.hub.Memory = 4 << 10 })
	for range 20 {
		f.tell("alice", "message", text(1000)) // what some of them miss, more than is remembered
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
	round(clients / 20) // what is kept for the next has grown
	goroutines, files, bytes := runtime.NumGoroutine(), descriptors(t), heap()
	round(clients)
	eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	eventually(t, "no descriptor is left", func() bool { return descriptors(t) <= files })
	grown := heap() - bytes
	t.Logf("%d streams were opened; the heap has grown by %d bytes", f.hub.Stats.Opened.Load(), grown)
	if grown > 1<<20 { // 100 bytes a client
		t.Errorf("%d bytes are left", grown)
	}
	if f.hub.Stats.Opened.Load() < clients/4 {
		t.Errorf("%d streams were opened", f.hub.Stats.Opened.Load())
	}
	c := listen(t, f.site, "alice")
	c.hello()
	f.tell("alice", "message", "2")
	c.wantTold("2")
}

// A killer is clients that do not live long.
type killer struct {
	f               *fakeFeed
	address, oldest string

	mu sync.Mutex // of the feed
}

// connectAndKill is one client: its request is cut off or not, and it reads some of the stream or nothing.
func (k *killer) connectAndKill(t *testing.T) {
	k.mu.Lock()
	k.f.tell("alice", "message", "1")
	cursor := []string{"x", k.oldest, k.f.now.String()}[rand.IntN(3)]
	k.mu.Unlock()
	conn, err := net.DialTimeout("tcp", k.address, patience)
	if err != nil {
		t.Error(err)
		return
	}
	_ = conn.SetDeadline(time.Now().Add(patience)) // of each client, so that all end
	request := "GET /?recipient=alice HTTP/1.1\r\nHost: x\r\nLast-Event-ID: " + cursor + "\r\n\r\n"
	cut := rand.IntN(2) * rand.IntN(len(request))
	_, err = io.WriteString(conn, request[:len(request)-cut])
	if err == nil && cut == 0 && rand.IntN(2) == 0 {
		_ = conn.SetReadDeadline(time.Now().Add(time.Duration(rand.IntN(2000)) * time.Microsecond))
		_, _ = io.CopyN(io.Discard, conn, rand.Int64N(2000))
	}
	if rand.IntN(2) == 0 {
		_ = conn.(*net.TCPConn).SetLinger(0) // a reset
	}
	_ = conn.Close()
}

// descriptors counts this process's, where the system tells.
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

// heap is how many bytes are in use.
func heap() int64 {
	var stats runtime.MemStats
	runtime.GC()
	runtime.GC() // what the first has put into pools' second place
	runtime.ReadMemStats(&stats)
	return int64(stats.HeapAlloc)
}
