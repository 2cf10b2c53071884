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

// Who does not read what it is sent leaves nothing in the kernel when its stream is closed, for whatever reason: its connection is reset.
func TestNothingIsLeftOfAClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	const some, large = 40 << 10, 24 << 20 // fits in the kernel, and does not
	tests := map[string]struct {
		heartbeat time.Duration
		size      int
		closed    func(t *testing.T, f *fakeFeed, c *client) // what it is closed by; nil: the heartbeat
	}{
		"it is stuck":                 {250 * time.Millisecond, some, nil},
		"it is stuck in an event":     {250 * time.Millisecond, large, nil},
		"it overflows":                {time.Hour, large, func(_ *testing.T, f *fakeFeed, _ *client) { overflow(f) }},
		"the hub stops":               {time.Hour, large, func(_ *testing.T, f *fakeFeed, _ *client) { f.stop() }},
		"it says that it has gone":    {time.Hour, some, func(t *testing.T, _ *fakeFeed, c *client) { closeWrite(t, c) }},
		"it says so in a large event": {time.Hour, large, func(t *testing.T, _ *fakeFeed, c *client) { closeWrite(t, c) }},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.hub.Backlog, s.buffer = tt.heartbeat, 64<<10, 200<<10 })
			c := deaf(t, f.site, "alice")
			c.hello()
			f.tell("alice", "message", text(tt.size))
			if tt.closed != nil {
				tt.closed(t, f, c)
			}
			eventually(t, "it is closed", func() bool { return f.hub.Stats.Streams.Load() == 0 })
			port := portOf(c)
			eventually(t, "the kernel has forgotten it", func() bool { return len(held(t, port)) == 0 })
			if still := heldBy(t, port, remotePort); len(still) > 0 {
				t.Errorf("the client has not been told so: %v", still)
			}
		})
	}
}

func overflow(f *fakeFeed) {
	for f.hub.Stats.Overflows.Load() == 0 {
		f.tell("alice", "message", text(10_000))
	}
}

func closeWrite(t *testing.T, c *client) {
	t.Helper()
	if err := c.conn.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
}

// A stream that ends in order is ended so for the client, too, however late it reads the rest.
func TestTheLastWordsReachWhoReadsThemLate(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.buffer = time.Hour, 200<<10 })
	c := deaf(t, f.site, "alice")
	c.hello()
	f.tell("alice", "message", text(40<<10))
	f.hub.Disconnect("alice")
	port := portOf(c)
	eventually(t, "only the kernel still knows it", func() bool {
		rows := held(t, port)
		return len(rows) == 1 && rows[0].state == finWait1 && rows[0].unsent > 0
	})
	c.wantTold(text(40 << 10))
	c.want("rowcast.bye")
	c.wantEnd()
}

// If it does not read the rest, the kernel keeps that for about as long as a stream would have been kept, and not for minutes. It gives up
// in silence, as it cannot be heard.
func TestTheLastWordsAreNotKeptForEver(t *testing.T) {
	t.Parallel()
	const heartbeat = 500 * time.Millisecond
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.buffer = heartbeat, 200<<10 })
	c := deaf(t, f.site, "alice")
	c.hello()
	f.tell("alice", "message", text(40<<10))
	f.hub.Disconnect("alice")
	began := time.Now()
	port := portOf(c)
	eventually(t, "the kernel has forgotten it", func() bool { return len(held(t, port)) == 0 })
	took := time.Since(began)
	t.Logf("forgotten after %v", took)
	if took < heartbeat || took > 10*heartbeat {
		t.Errorf("forgotten after %v, want about %v", took, 2*heartbeat)
	}
	if _, err := io.Copy(io.Discard, c.body); err == nil {
		t.Error("the stream ended as if it were complete")
	}
}

// A row is what the kernel says of a connection.
type row struct {
	state  string
	unsent int
}

func (r row) String() string { return fmt.Sprintf("state %s, %d bytes unsent", r.state, r.unsent) }

// States as /proc/net/tcp has them. What is in TIME-WAIT holds nothing.
const (
	finWait1 = "04"
	timeWait = "06"
	listens  = "0A"
)

// The columns of /proc/net/tcp with the addresses.
const (
	localPort  = 1
	remotePort = 2
)

// held is what the kernel holds for a server's clients.
func held(t *testing.T, port int) []row {
	t.Helper()
	return heldBy(t, port, localPort)
}

func heldBy(t *testing.T, port, column int) (rows []row) {
	t.Helper()
	table, err := os.ReadFile("/proc/net/tcp")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(table)) {
		fields := strings.Fields(line)
		if !strings.HasSuffix(fields[column], fmt.Sprintf(":%04X", port)) || fields[3] == listens || fields[3] == timeWait {
			continue
		}
		unsent, _, _ := strings.Cut(fields[4], ":")
		n, err := strconv.ParseInt(unsent, 16, 64)
		if err != nil {
			t.Fatal(err)
		}
		rows = append(rows, row{fields[3], int(n)})
	}
	return rows
}

// portOf is the port of a client's server.
func portOf(c *client) int { return c.conn.RemoteAddr().(*net.TCPAddr).Port }
