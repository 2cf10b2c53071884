package stream_test

import (
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"rowcast/listener/feed"
	"rowcast/stream/wire"
)

// The stream of a client that accepts no byte for two heartbeat intervals is closed, over plain HTTP/1.1, over TLS and
// over HTTP/2. Over plain HTTP/1.1 on Linux, this holds even if the kernel's buffers have space for everything, as with
// a client that has vanished.
func TestAStalledStreamIsClosed(t *testing.T) {
	t.Parallel()
	const heartbeat = 250 * time.Millisecond
	large := 24 << 20 // more than the kernel's buffers and the window of HTTP/2 hold
	tests := map[string]struct {
		size int
		open func(t *testing.T, f *fakeFeed) *client
	}{
		"plain":             {large, func(t *testing.T, f *fakeFeed) *client { return openStalled(t, f.site, "alice") }},
		"plain, few bytes":  {150 << 10, func(t *testing.T, f *fakeFeed) *client { return openStalled(t, f.site, "alice") }},
		"HTTP/1.1 over TLS": {large, func(t *testing.T, f *fakeFeed) *client { return listenTLS(t, f, false, "alice") }},
		"HTTP/2":            {large, func(t *testing.T, f *fakeFeed) *client { return listenTLS(t, f, true, "alice") }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.size < large && runtime.GOOS != "linux" {
				t.Skip("only on Linux, the hub knows what a client has acknowledged")
			}
			f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.buffer = heartbeat, 200<<10 })
			tt.open(t, f).hello()
			began := time.Now()
			f.publish("alice", "message", text(tt.size))
			eventually(t, "the stream is closed", func() bool { return f.hub.Stats.Streams.Load() == 0 })
			if took := time.Since(began); took < 2*heartbeat {
				t.Errorf("closed after %v, want %v or more", took, 2*heartbeat)
			}
		})
	}
}

// The stream of a client that accepts some bytes in each heartbeat interval is not closed, however long an event takes.
// This holds for small and large buffers of the kernel. With large buffers, it takes long until the kernel reports free
// space. The client must read in time on a loaded machine, too. So the heartbeat interval is long, and the test
// allocates nothing large between two reads.
func TestASlowStreamIsNotClosed(t *testing.T) {
	t.Parallel()
	const heartbeat = 3 * time.Second
	for name, buffer := range map[string]int{"small": 4 << 10, "large": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.buffer = heartbeat, buffer })
			c := open(t, f.site, request{recipients: []string{"alice"}, buffer: 16 << 10})
			c.hello()
			e := f.publish("alice", "message", text(largeSize))
			c.skipBeats()
			c.readSlowly(heartbeat/2, 24<<10, e, func() {
				if f.hub.Stats.Streams.Load() != 1 {
					t.Fatal("the stream was closed, want it open, because the client accepts bytes")
				}
			})
			f.publish("alice", "message", "1")
			c.wantData("1")
		})
	}
}

// The same holds for the answer to a poll, which is written through net/http, if the server limits the unsent bytes of
// its connections. Otherwise the kernel accepts nothing until a third of its buffer is free.
func TestASlowPollIsNotClosed(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("on other systems, LimitUnsent does nothing")
	}
	const heartbeat = 2 * time.Second
	f := serveFeed(t, func(s *site) {
		s.hub.Heartbeat, s.buffer = heartbeat, 1<<20
		s.listen = func(socket net.Listener) net.Listener { return limitingUnsent{socket} }
	})
	e := f.publish("alice", "message", text(largeSize))
	c := open(t, f.site, request{recipients: []string{"alice"}, header: start.String(), poll: true, buffer: 16 << 10})
	c.expect(void(start.String()))
	for c.line() != "\n" { // rowcast.hello
	}
	c.readSlowly(heartbeat, 96<<10, e, func() {})
}

// largeSize is the size of the event that readSlowly reads.
const largeSize = 10_000_000

// readSlowly reads a part of the event e at each of seven ticks, calls check after each part, and then reads the rest.
func (c *client) readSlowly(tick time.Duration, part int, e feed.Row, check func()) {
	const times = 7
	c.expect("data: \"")
	ticker := time.NewTicker(tick)
	defer ticker.Stop()
	for range times {
		<-ticker.C
		c.expectRun('x', part)
		check()
	}
	c.expectRun('x', largeSize-2-times*part)
	c.expect("\"\nid: " + e.Cursor.String() + "\n\n")
}

// A limitingUnsent is a listening socket that limits the unsent bytes of its connections.
type limitingUnsent struct{ net.Listener }

func (l limitingUnsent) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err == nil {
		wire.LimitUnsent(conn)
	}
	return conn, err
}

func TestAnIdleTLSStreamStaysOpen(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2: %v", http2), func(t *testing.T) {
			t.Parallel()
			const heartbeat = 200 * time.Millisecond
			f := newFeed(t, func(s *site) { s.hub.Heartbeat = heartbeat }) // sends no heartbeats, because Run is not called
			c := listenTLS(t, f, http2, "alice")
			c.hello()
			<-time.After(6 * heartbeat)
			f.publish("alice", "message", "1")
			c.wantData("1")
		})
	}
}

// The hub ignores data that a client sends after its request. A client that sends without end is disconnected.
func TestDataAfterTheRequest(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c, other := listen(t, f.site, "alice"), listen(t, f.site, "alice")
	c.hello()
	other.hello()
	for _, data := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x00\xff", strings.Repeat("x", 10000)} {
		if _, err := io.WriteString(c.conn, data); err != nil {
			t.Fatal(err)
		}
		f.publish("alice", "message", "1")
		c.wantData("1")
		other.wantData("1")
	}
	for f.hub.Stats.Streams.Load() == 2 {
		if _, err := io.WriteString(c.conn, strings.Repeat("x", 1<<10)); err != nil {
			break
		}
	}
	eventually(t, "the stream is closed", func() bool { return f.hub.Stats.Streams.Load() == 1 })
	f.publish("alice", "message", "2")
	other.wantData("2")
}
