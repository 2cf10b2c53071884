package stream_test

import (
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"testing"
	"time"
)

// When the stream of a client that does not read is closed for one of the reasons below, the connection is reset and
// the kernel keeps nothing for the client.
func TestTheKernelKeepsNothingForAClosedStream(t *testing.T) {
	t.Parallel()
	const small, large = 40 << 10, 24 << 20 // the kernel can buffer small, but not large
	tests := map[string]struct {
		heartbeat time.Duration
		size      int
		closed    func(t *testing.T, f *fakeFeed, c *client) // closes the stream; nil if the hub closes it at a heartbeat
	}{
		"the client is stalled":                  {250 * time.Millisecond, small, nil},
		"the client is stalled in an event":      {250 * time.Millisecond, large, nil},
		"the backlog overflows":                  {time.Hour, large, func(_ *testing.T, f *fakeFeed, _ *client) { overflow(f) }},
		"the hub stops":                          {time.Hour, large, func(_ *testing.T, f *fakeFeed, _ *client) { f.stop() }},
		"the client closes its side":             {time.Hour, small, func(t *testing.T, _ *fakeFeed, c *client) { closeWrite(t, c) }},
		"the client closes its side in an event": {time.Hour, large, func(t *testing.T, _ *fakeFeed, c *client) { closeWrite(t, c) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.hub.Backlog, s.buffer = tt.heartbeat, 64<<10, 200<<10 })
			c := openStalled(t, f.site, "alice")
			c.hello()
			f.publish("alice", "message", text(tt.size))
			if tt.closed != nil {
				tt.closed(t, f, c)
			}
			eventually(t, "the stream is closed", func() bool { return f.hub.Stats.Streams.Load() == 0 })
			port := portOf(c)
			eventually(t, "the kernel keeps nothing for the client", func() bool { return len(held(t, port)) == 0 })
			if still := heldBy(t, port, remotePort); len(still) > 0 {
				t.Errorf("the client still has the connections %v, want none, because a connection that was reset is removed", still)
			}
		})
	}
}

func overflow(f *fakeFeed) {
	for f.hub.Stats.Overflows.Load() == 0 {
		f.publish("alice", "message", text(10_000))
	}
}

func closeWrite(t *testing.T, c *client) {
	t.Helper()
	if err := c.conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// A client that reads late still receives the rest of a stream that has ended, and a regular end.
func TestAClientThatReadsLateReceivesTheEnd(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.buffer = time.Hour, 200<<10 })
	c := openStalled(t, f.site, "alice")
	c.hello()
	f.publish("alice", "message", text(40<<10))
	f.hub.Disconnect("alice")
	port := portOf(c)
	eventually(t, "the connection is closed and has unacknowledged bytes", func() bool {
		rows := held(t, port)
		return len(rows) == 1 && rows[0].state == finWait1 && rows[0].unacknowledged > 0
	})
	c.wantData(text(40 << 10))
	c.want("rowcast.bye")
	c.wantEnd()
}

// If the client does not read the rest of a stream that has ended, the kernel drops the rest after about two heartbeat
// intervals, and the connection has no regular end.
func TestTheEndOfAStreamIsNotKeptForLong(t *testing.T) {
	t.Parallel()
	const heartbeat = 500 * time.Millisecond
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.buffer = heartbeat, 200<<10 })
	c := openStalled(t, f.site, "alice")
	c.hello()
	f.publish("alice", "message", text(40<<10))
	began := time.Now()
	f.hub.Disconnect("alice")
	port := portOf(c)
	eventually(t, "the kernel keeps nothing for the connection", func() bool { return len(held(t, port)) == 0 })
	took := time.Since(began)
	t.Logf("dropped after %v", took)
	if took < heartbeat || took > 40*heartbeat { // without a limit, the kernel would try for minutes
		t.Errorf("dropped after %v, want from 1 to 40 heartbeat intervals of %v", took, heartbeat)
	}
	if n, err := io.Copy(io.Discard, c.body); err == nil {
		t.Errorf("the connection had a regular end after %d bytes, want an error", n)
	}
}

// A row describes a connection, as the kernel lists it.
type row struct {
	state          string
	unacknowledged int // bytes that the other side of the connection has not acknowledged
}

func (r row) String() string {
	return fmt.Sprintf("state %s, %d bytes unacknowledged", r.state, r.unacknowledged)
}

// States of connections in the kernel's table. In TIME-WAIT, the kernel holds no data.
const (
	finWait1 = "04"
	timeWait = "06"
	listens  = "0A"
)

// The columns of the addresses in the kernel's table of connections.
const (
	localPort  = 1
	remotePort = 2
)

// held returns the connections that the kernel holds for the server with the given port.
func held(t *testing.T, port int) []row {
	t.Helper()
	return heldBy(t, port, localPort)
}

// heldBy returns the connections with the given port in the given column, except listening sockets and connections in
// TIME-WAIT. It reads the table of the calling thread's network namespace. /proc/net would show the namespace of the
// process's first thread, which TestAClientThatVanishes may have changed.
func heldBy(t *testing.T, port, column int) (rows []row) {
	t.Helper()
	table, err := os.ReadFile("/proc/thread-self/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if !strings.HasSuffix(fields[column], fmt.Sprintf(":%04X", port)) || fields[3] == listens || fields[3] == timeWait {
			continue
		}
		queued, _, _ := strings.Cut(fields[4], ":")
		n, err := strconv.ParseInt(queued, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row{fields[3], int(n)})
	}
	return rows
}

// portOf returns the port of the server to which a client is connected.
func portOf(c *client) int { return c.conn.RemoteAddr().(*net.TCPAddr).Port }
