package stream_test

import (
	"context"
	"fmt"
	"log/slog"
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

// peakVariable makes this test binary a hub at its worst, see TestPeakMemory.
const peakVariable = "ROWCAST_TEST_PEAK"

// What the worst hub of TestPeakMemory is given.
const (
	peakMemory  = 16 << 20
	peakPending = 64 << 20
	peakEvent   = 16 << 20
	peakReplays = 2
	peakClients = 60
)

// A hub at its worst stays within the formula of the README: what it remembers and holds, three events for each reader of the
// database, garbage of half of that, and what an empty process takes. Clients that do not read resume over rows of 16 MB, while as
// large rows are published for clients that do not read either. Each page is read with a copy, as a driver does.
func TestPeakMemory(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells what a process takes")
	}
	if raceDetector {
		t.Skip("the race detector takes memory of its own")
	}
	hub := osexec.Command(os.Args[0])
	hub.Env = append(os.Environ(), peakVariable+"=1")
	out, err := hub.Output()
	if err != nil {
		t.Fatalf("the hub: %v, %s", err, out)
	}
	var empty, peak, evicted int
	if _, err := fmt.Sscan(string(out), &empty, &peak, &evicted); err != nil {
		t.Fatalf("the hub says %q: %v", out, err)
	}
	const live = peakMemory*12/10 + peakPending*9/8 + 3*peakEvent*(1+peakReplays)
	most := empty + live*3/2
	t.Logf("peak %d MiB, of it %d empty; at most %d; %d streams were closed", peak>>20, empty>>20, most>>20, evicted)
	if peak > most {
		t.Errorf("the peak is %d MiB, more than %d", peak>>20, most>>20)
	}
	if evicted == 0 {
		t.Error("no stream was closed: this was not the worst")
	}
}

// bePeak is the worst hub, with its clients. It prints what the process took before, its peak, and how many streams were closed.
func bePeak() error {
	debug.SetGCPercent(50)
	t := &testing.B{}
	readers := make(chan struct{}, peakReplays)
	var before string
	f := &fakeFeed{now: start, last: cursor.Row{Xid: start.Xmax - 1, ID: 77}, site: &site{hub: &stream.Hub{
		Logger: slog.New(slog.DiscardHandler), Memory: peakMemory, Pending: peakPending, Page: peakEvent + 1<<20, Heartbeat: time.Second,
	}}}
	little(f.site)
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
	f.hub.Source = &source{page: func(_ context.Context, from, to cursor.Cursor) ([]feed.Row, cursor.Cursor, uint64, error) {
		readers <- struct{}{}
		defer func() { <-readers }()
		row := cursor.Row{Xid: from.Xmax, ID: from.Anchor.ID + 1}
		read := make([]byte, peakEvent) // as a driver
		data := append(make([]byte, 0, peakEvent+2), read...)
		e := feed.Row{Row: row, Recipient: "alice", Event: "message", Data: data}
		e.Cursor = from.After(row, to)
		return []feed.Row{e}, to, 0, nil
	}}
	f.hub.Publish(feed.Batch{Cursor: start})
	before = f.now.String()
	f.open(t)
	empty := resident("VmRSS:")
	for i := range peakClients {
		go keepComing(f.url, before, fmt.Sprint("user ", i%10))
	}
	for i := range 40 {
		e := event(fmt.Sprint("user ", i%10), byte(i))
		f.now = e.Cursor.Reached(cursor.Cursor{Xmax: e.Xid + 1, Epoch: f.now.Epoch})
		f.hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: f.now})
		<-time.After(50 * time.Millisecond) // for the clients to come back
	}
	fmt.Println(empty, resident("VmHWM:"), f.hub.Stats.Evicted.Load())
	return nil
}

// keepComing is a client that does not read, and resumes from the beginning whenever it is closed.
func keepComing(url, id, user string) {
	for {
		conn, err := dial(url, request{recipients: []string{user}, header: id, buffer: 8 << 10})
		if err != nil {
			return
		}
		_ = conn.SetDeadline(time.Time{})
		for { // a little now and then
			if n, err := conn.Read(make([]byte, 64)); n == 0 || err != nil {
				break
			}
			<-time.After(100 * time.Millisecond)
		}
		_ = conn.Close()
	}
}

// resident reads a line of what the kernel says of this process's memory.
func resident(name string) int {
	status, _ := os.ReadFile("/proc/self/status")
	_, after, _ := strings.Cut(string(status), name)
	kilobytes, _ := strconv.Atoi(strings.Fields(after)[0])
	return kilobytes << 10
}
