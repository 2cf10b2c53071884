package cursor_test

import (
	"fmt"
	"testing"

	"rowcast/listener/cursor"
)

// busy returns a cursor with the given number of transactions in flight. They are among the newest transactions, where
// about one in four is in flight.
func busy(inFlight int) cursor.Cursor {
	c := cursor.Cursor{Xmax: 123_456_789, Xid: 123_456_789, ID: 12345678, Epoch: 1, Anchor: cursor.Anchor{ID: 12345678, Tag: 2}}
	for i := range inFlight {
		c.Xip = append(c.Xip, c.Xmax-uint64(4*(inFlight-i))+uint64(i%3))
	}
	return c
}

func forSizes(b *testing.B, run func(b *testing.B, c cursor.Cursor)) {
	b.Helper()
	for _, inFlight := range []int{0, 30, 300} {
		b.Run(fmt.Sprintf("inflight=%d", inFlight), func(b *testing.B) {
			b.ReportAllocs()
			run(b, busy(inFlight))
		})
	}
}

func BenchmarkParse(b *testing.B) {
	forSizes(b, func(b *testing.B, want cursor.Cursor) {
		text := want.String()
		var got cursor.Cursor
		for b.Loop() {
			got, _ = cursor.Parse(text)
		}
		if !equal(got, want) {
			b.Errorf("got %v, want %v", got, want)
		}
		b.ReportMetric(float64(len(text)), "bytes")
	})
}

func BenchmarkAppend(b *testing.B) {
	forSizes(b, func(b *testing.B, c cursor.Cursor) {
		want := c.String()
		var got []byte
		for b.Loop() {
			got = c.Append(got[:0])
		}
		if string(got) != want {
			b.Errorf("got %s, want %s", got, want)
		}
	})
}

// BenchmarkAfter computes the cursors of a batch of a hundred rows. Each transaction has two rows, and was in flight
// before or is new.
func BenchmarkAfter(b *testing.B) {
	forSizes(b, func(b *testing.B, from cursor.Cursor) {
		from.Xid, from.ID = 0, 0
		to := from
		to.Xmax, to.Xip = from.Xmax+100, nil
		var rows []cursor.Row
		for i, xid := range from.Xip {
			if i%2 == 0 && len(rows) < 50 {
				rows = append(rows, cursor.Row{Xid: xid, ID: int64(i)}, cursor.Row{Xid: xid, ID: int64(i + 1)})
			} else {
				to.Xip = append(to.Xip, xid)
			}
		}
		for i := int64(0); len(rows) < 100; i++ {
			rows = append(rows, cursor.Row{Xid: from.Xmax + uint64(i/2), ID: 1000 + i})
		}
		var got cursor.Cursor
		for b.Loop() {
			steps := cursor.NewSteps(from, to)
			for _, row := range rows {
				got = steps.After(row)
			}
		}
		if last := rows[99]; got.Xid != last.Xid || got.ID != last.ID || len(got.Xip) != len(to.Xip) {
			b.Errorf("the last cursor is %+v, want the cursor after %v, with %d transactions in flight", got, last, len(to.Xip))
		}
	})
}
