package stream_test

import (
	"fmt"
	"io"
	"runtime"
	"strings"
	"testing"
	"time"
)

// A client whose socket takes no byte for two heartbeats is closed, over every protocol; over plain HTTP also if all that it is
// sent fits in the kernel, as with a client that has vanished.
func TestASocketThatTakesNothingIsClosed(t *testing.T) {
	t.Parallel()
	const heartbeat = 250 * time.Millisecond
	large := 24 << 20 // more than any kernel and HTTP/2's window hold
	tests := map[string]struct {
		size int
		open func(t *testing.T, f *fakeFeed) *client
	}{
		"plain":             {large, func(t *testing.T, f *fakeFeed) *client { return deaf(t, f.site, "alice") }},
		"plain, little":     {150 << 10, func(t *testing.T, f *fakeFeed) *client { return deaf(t, f.site, "alice") }},
		"HTTP/1.1 over TLS": {large, func(t *testing.T, f *fakeFeed) *client { return listenTLS(t, f, false, "alice") }},
		"HTTP/2":            {large, func(t *testing.T, f *fakeFeed) *client { return listenTLS(t, f, true, "alice") }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if tt.size < large && runtime.GOOS != "linux" {
				t.Skip("only Linux tells what a client has acknowledged")
			}
			f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.buffer = heartbeat, 200<<10 })
			tt.open(t, f).hello()
			began := time.Now()
			f.tell("alice", "message", text(tt.size))
			eventually(t, "it is closed", func() bool { return f.hub.Stats.Streams.Load() == 0 })
			if took := time.Since(began); took < 2*heartbeat {
				t.Errorf("closed after %v, want %v or more", took, 2*heartbeat)
			}
		})
	}
}

// One that takes some now and then is not, however long that takes: with small buffers in the kernel, and with large ones, of
// which it takes long until the kernel says that there is room again. The client must itself read in time on a loaded machine, so
// the heartbeats are long and nothing large is allocated between two reads.
func TestASocketThatTakesSomeIsNotClosed(t *testing.T) {
	t.Parallel()
	const heartbeat = time.Second
	for name, buffer := range map[string]int{"small": 4 << 10, "large": 1 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.buffer = heartbeat, buffer })
			c := open(t, f.site, request{recipients: []string{"alice"}, buffer: 16 << 10})
			c.hello()
			const size = 10_000_000
			e := f.tell("alice", "message", text(size))
			for c.line() != "id: "+e.Cursor.String()+"\n" { // a heartbeat may come first
			}
			c.expect("data: \"")
			const some, times = 24 << 10, 7
			ticker := time.NewTicker(heartbeat)
			defer ticker.Stop()
			for range times {
				<-ticker.C
				c.expectRun('x', some)
				if f.hub.Stats.Streams.Load() != 1 {
					t.Fatal("it was closed")
				}
			}
			c.expectRun('x', size-2-times*some)
			c.expect("\"\n\n")
			f.tell("alice", "message", "1")
			c.wantTold("1")
		})
	}
}

// A stream over TLS that is silent for long, as when the hub is held up in its heartbeats, stays open.
func TestASilentStreamStaysOpen(t *testing.T) {
	t.Parallel()
	for _, http2 := range []bool{false, true} {
		t.Run(fmt.Sprintf("HTTP/2: %v", http2), func(t *testing.T) {
			t.Parallel()
			const heartbeat = 50 * time.Millisecond
			f := newFeed(t, func(s *site) { s.hub.Heartbeat = heartbeat }) // it does not run, so that it has none
			c := listenTLS(t, f, http2, "alice")
			c.hello()
			<-time.After(6 * heartbeat)
			f.tell("alice", "message", "1")
			c.wantTold("1")
		})
	}
}

// What a client sends on a stream means nothing, unless it goes on and on.
func TestGarbageAfterTheRequest(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c, other := listen(t, f.site, "alice"), listen(t, f.site, "alice")
	c.hello()
	other.hello()
	for _, garbage := range []string{"GET / HTTP/1.1\r\nHost: x\r\n\r\n", "\x00\xff", strings.Repeat("x", 10000)} {
		if _, err := io.WriteString(c.conn, garbage); err != nil {
			t.Fatal(err)
		}
		f.tell("alice", "message", "1")
		c.wantTold("1")
		other.wantTold("1")
	}
	for f.hub.Stats.Streams.Load() == 2 {
		if _, err := io.WriteString(c.conn, strings.Repeat("x", 1<<10)); err != nil {
			break
		}
	}
	eventually(t, "it is closed", func() bool { return f.hub.Stats.Streams.Load() == 1 })
	f.tell("alice", "message", "2")
	other.wantTold("2")
}
