package stream_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math"
	"os"
	osexec "os/exec"
	"runtime"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream"
)

// peakVariable names an environment variable. If the variable is set, this test binary runs the hub of TestPeakMemory.
// The value has two numbers: Hub.Pending, and the number of bytes of memory at which the hub ends. The memory of an
// empty process does not count.
const peakVariable = "ROWCAST_TEST_PEAK"

// The settings of the hub of TestPeakMemory. Hub.Pending is small compared with the backlogs of all clients. Without
// this limit, the backlogs would use much more memory than the formula in cmd/rowcast/README.md allows.
const (
	peakMemory  = 4 << 20
	peakPending = 16 << 20
	peakEvent   = 4 << 20
	peakReplays = 2
	peakClients = 60
	peakEvicted = 300 // the number of closed streams after which the test ends
)

// In the worst case, a hub uses no more memory than the formula in cmd/rowcast/README.md allows. The test uses the
// parts of the formula for events, for garbage and for an empty process, and leaves out the memory for each stream.
// Clients that read very slowly have missed a row of 4 MiB and resume. Meanwhile, rows of the same size are published
// for other clients that read very slowly. The Source copies each page, as a database driver does. Without the limit
// Hub.Pending, the same clients make the hub use more.
func TestPeakMemory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("the test reads the peak memory of a process from /proc, which only Linux has")
	}
	if raceDetector {
		t.Skip("the race detector itself uses memory")
	}
	const live = peakMemory*12/10 + peakPending*9/8 + 3*peakEvent*(1+peakReplays)
	for _, tt := range []struct {
		name    string
		pending int
		exceeds bool
	}{
		{"with the limit", peakPending, false},
		{"without the limit", math.MaxInt32, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			empty, peak, evicted := runPeak(t, tt.pending, live*3/2)
			most := empty + live*3/2
			t.Logf("the peak is %d MiB, %d MiB of it for the empty process; the formula in cmd/rowcast/README.md allows %d MiB; %d streams were closed", peak>>20, empty>>20, most>>20, evicted)
			if exceeds := peak > most; exceeds != tt.exceeds {
				t.Errorf("the peak is %d MiB, and the formula in cmd/rowcast/README.md allows %d MiB; exceeded: %t, want %t", peak>>20, most>>20, exceeds, tt.exceeds)
			}
			if !tt.exceeds && evicted < peakEvicted {
				t.Errorf("%d streams were closed, want at least %d: this was not the worst case", evicted, peakEvicted)
			}
		})
	}
}

// runPeak runs the hub in a separate process and returns the numbers that bePeak prints.
func runPeak(t *testing.T, pending, most int) (empty, peak, evicted int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	hub := osexec.CommandContext(ctx, os.Args[0])
	hub.Env = append(os.Environ(), fmt.Sprintf("%s=%d %d", peakVariable, pending, most))
	out, err := hub.Output()
	if err != nil {
		t.Fatalf("the process of the hub failed: %v (context: %v); it printed %q", err, ctx.Err(), out)
	}
	if _, err := fmt.Sscan(string(out), &empty, &peak, &evicted); err != nil {
		t.Fatalf("the process of the hub printed %q, want three numbers: %v", out, err)
	}
	return empty, peak, evicted
}

// bePeak runs the hub and its clients until the hub has closed enough streams or uses too much memory. It prints the
// memory of the process in bytes before the clients connect and at the peak, and the number of streams that were
// closed.
func bePeak() error {
	var pending, most int
	if _, err := fmt.Sscan(os.Getenv(peakVariable), &pending, &most); err != nil {
		return err
	}
	debug.SetMemoryLimit(int64(most))
	t := &testing.B{}
	readers := make(chan struct{}, peakReplays)
	var before string
	f := &fakeFeed{now: start, last: cursor.Row{Xid: start.Xmax - 1, ID: 77}, site: &site{hub: &stream.Hub{
		Logger: slog.New(slog.DiscardHandler), Memory: peakMemory, Pending: pending, Page: peakEvent + 1<<20, Heartbeat: time.Second,
	}}}
	smallSendBuffers(f.site)
	event := func(recipient string, seed byte) feed.Row {
		data := make([]byte, peakEvent, peakEvent+2)
		for i := range data {
			data[i] = 'a' + (seed+byte(i))%26
		}
		data[0], data[peakEvent-1] = '"', '"'
		e := f.event(f.now.Xmax, recipient, "message", "")
		e.Data = data
		return e
	}
	f.hub.Source = &source{page: func(_ context.Context, c, end cursor.Cursor) ([]feed.Row, cursor.Cursor, uint64, error) {
		readers <- struct{}{}
		defer func() { <-readers }()
		row := cursor.Row{Xid: c.Xmax, ID: c.Anchor.ID + 1}
		read := bytes.Repeat([]byte("1"), peakEvent) // copied below, as a driver does
		data := append(make([]byte, 0, peakEvent+2), read...)
		e := feed.Row{Row: row, Recipient: "alice", Event: "message", Data: data}
		e.Cursor = c.After(row, end)
		return []feed.Row{e}, end, 0, nil
	}}
	f.hub.Publish(feed.Batch{Cursor: start})
	before = f.now.String()
	f.open(t)
	empty := resident("VmRSS:")
	for i := range peakClients {
		go keepReconnecting(f.url, before, fmt.Sprint("user ", i%10))
		go keepReconnecting(f.url, "", fmt.Sprint("user ", i%10))
	}
	ticker := time.NewTicker(50 * time.Millisecond) // gives the clients time to reconnect
	defer ticker.Stop()
	for i := 0; f.hub.Stats.Evicted.Load() < peakEvicted && resident("VmHWM:") <= empty+most; i++ {
		e := event(fmt.Sprint("user ", i%10), byte(i))
		f.now = e.Cursor.Reached(cursor.Cursor{Xmax: e.Xid + 1, Epoch: f.now.Epoch})
		f.hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: f.now})
		<-ticker.C
	}
	fmt.Println(empty, resident("VmHWM:"), f.hub.Stats.Evicted.Load())
	return nil
}

// keepReconnecting is a client that reads slowly. When its stream is closed, it reconnects with the same cursor, or
// without one if id is empty.
func keepReconnecting(url, id, user string) {
	for {
		conn, err := dial(url, request{recipients: []string{user}, header: id, buffer: 8 << 10})
		if err != nil {
			return
		}
		_ = conn.SetDeadline(time.Time{})
		for { // reads at most 64 bytes every 100 ms
			if n, err := conn.Read(make([]byte, 64)); n == 0 || err != nil {
				break
			}
			<-time.After(100 * time.Millisecond)
		}
		_ = conn.Close()
	}
}

// resident returns a value of /proc/self/status in bytes.
func resident(name string) int {
	status, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(status), name)
	kilobytes, _ := strconv.Atoi(strings.Fields(after)[0])
	return kilobytes << 10
}
