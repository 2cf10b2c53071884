package stream_test

import (
	"fmt"
	"log/slog"
	"runtime"
	"strings"
	"testing"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream"
)

// The memory uses about as much of the heap as its limit says, for small and large events, for few and many recipients,
// and whether cursors list no transactions in flight or many. Not parallel: it measures the heap.
func TestMemoryCountsTheHeap(t *testing.T) {
	const limit, slack = 8 << 20, 256 << 10
	for _, tt := range []struct {
		inFlight, data, recipients int
		steady                     bool // all events have the same transactions in flight
	}{
		{0, 30, 1000, false},
		{0, 0, 10_000_000, false},
		{0, 30, 10_000_000, false},
		{0, 5000, 10, false},
		{100, 30, 1000, false},
		{300, 30, 1000, false},
		{300, 30, 1000, true},
		{1000, 30, 10_000_000, false},
		{1000, 30, 1000, true},
		{4000, 30, 1000, false},
	} {
		t.Run(fmt.Sprintf("%+v", tt), func(t *testing.T) {
			hub := &stream.Hub{Source: &source{}, Logger: slog.New(slog.DiscardHandler), Memory: limit}
			flow := &flow{inFlight: tt.inFlight, steady: tt.steady, now: cursor.Cursor{Xmax: 1_000_000, Epoch: 1}}
			hub.Publish(feed.Batch{Cursor: flow.now})
			before := heap()
			data := `"` + strings.Repeat("x", tt.data) + `"`
			for bytes := 0; bytes < 2*limit; {
				e := flow.event(fmt.Sprint("user", flow.rows%tt.recipients), data)
				bytes += 256 + tt.data + tt.inFlight
				hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: flow.now})
			}
			grown := heap() - before
			t.Logf("the limit is %.1f MiB, the heap has grown by %.2f MiB after %d events", float64(limit)/(1<<20), float64(grown)/(1<<20), flow.rows)
			if grown > limit*12/10+slack {
				t.Errorf("the heap has grown by %d bytes, want at most %d: 1.2 times the limit, and 256 KiB", grown, limit*12/10+slack)
			}
			if grown < limit*6/10 {
				t.Errorf("the heap has grown by %d bytes, want at least %d: 0.6 times the limit", grown, limit*6/10)
			}
			runtime.KeepAlive(hub)
		})
	}
}

// A flow is a sequence of transactions. Each one ends while inFlight other transactions are in flight.
type flow struct {
	inFlight, rows int
	steady         bool
	now            cursor.Cursor
}

// event returns the only row of the next transaction.
func (f *flow) event(recipient, data string) feed.Row {
	f.rows++
	row := cursor.Row{Xid: f.now.Xmax + 1, ID: int64(f.rows)}
	end := cursor.Cursor{Xmax: row.Xid + 1, Epoch: 1}
	for i := range f.inFlight {
		xid := uint64(1000 + i)
		if !f.steady {
			xid = row.Xid - uint64(2*(f.inFlight-i)) - 1
		}
		end.Xip = append(end.Xip, xid) // append gives each event a new array, with spare capacity
	}
	e := feed.Row{Row: row, Recipient: recipient, Event: "notify", Data: []byte(data), Size: int64(len(data))}
	e.Cursor = f.now.After(row, end)
	f.now = e.Cursor.Reached(end)
	return e
}

// The memory does not exceed its limit, removes the oldest events first, and knows the cursor after which it is
// complete.
func TestMemoryIsLimited(t *testing.T) {
	t.Parallel()
	const limit = 10_000
	m := stream.NewMemory(limit, start)
	f := &fakeFeed{now: start}
	var added []cursor.Cursor
	for i := range 1000 {
		e := f.event(f.now.Xmax, "alice", "notify", fmt.Sprint(i))
		f.now = e.Cursor.Reached(cursor.Cursor{Xmax: e.Xid + 1, Epoch: f.now.Epoch})
		size := m.Add(e)
		added = append(added, e.Cursor)
		frames, bytes := m.Size()
		if bytes > limit || i > 100 && bytes < limit-2*size {
			t.Fatalf("the memory uses %d bytes for %d events, want at most %d bytes, and at least %d bytes after 100 events", bytes, frames, limit, limit-2*size)
		}
		if removed := len(added) - frames; removed > 0 && m.From().String() != added[removed-1].String() {
			t.Fatalf("the memory is complete from %s, want %s", m.From(), added[removed-1])
		}
		if got := m.Unseen(m.From(), "alice"); got != frames {
			t.Fatalf("a client at the beginning of the memory has missed %d events, want %d", got, frames)
		}
	}
	e := f.event(f.now.Xmax, "alice", "notify", text(2*limit))
	m.Add(e)
	if frames, bytes := m.Size(); frames != 0 || bytes != 0 || m.From().String() != e.Cursor.String() {
		t.Errorf("after an event larger than the memory: %d events, %d bytes, complete from %s, want no events, no bytes, complete from %s", frames, bytes, m.From(), e.Cursor)
	}
}
