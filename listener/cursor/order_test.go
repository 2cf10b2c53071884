package cursor_test

import (
	"math/rand/v2"
	"slices"
	"testing"

	"rowcast/listener/cursor"
)

// stops returns all cursors that a reader of the universe can have, from the first to the last.
func (u universe) stops() []cursor.Cursor {
	stops := []cursor.Cursor{u.from}
	for _, row := range u.batch() {
		stops = append(stops, u.from.After(row, u.to))
	}
	return append(stops, stops[len(stops)-1].Reached(u.to))
}

// A reader that stopped in a batch and continues receives the rest of the batch, in the same order and with the same
// cursors. Only the anchors may differ: they may be different rows of the same transaction.
func TestStops(t *testing.T) {
	everywhere(t, func(t *testing.T, u universe) {
		batch := u.batch()
		for i, stop := range u.stops() {
			rest := universe{stop, u.to, u.rows}.batch()
			if want := batch[min(i, len(batch)):]; !slices.Equal(rest, want) {
				t.Fatalf("stopped at %+v: got the rest %v, want %v", fields(stop), rest, want)
			}
			for _, row := range rest {
				got, want := stop.After(row, u.to), u.from.After(row, u.to)
				if got.AnchorXid() != want.AnchorXid() {
					t.Errorf("got an anchor in transaction %d, want %d", got.AnchorXid(), want.AnchorXid())
				}
				if got.Anchor = want.Anchor; !equal(got, want) {
					t.Errorf("stopped at %+v: after row %v: got %+v, want %+v", fields(stop), row, fields(got), fields(want))
				}
			}
		}
	})
}

// A cursor of a universe covers a second one if, and only if, it has seen everything that the second has seen.
func TestCovers(t *testing.T) {
	covers := map[bool]int{}
	before := randomUniverse(rand.New(rand.NewPCG(3, 4)))
	everywhere(t, func(t *testing.T, u universe) {
		stops := u.stops()
		for _, a := range []cursor.Cursor{u.from, u.to, stops[len(stops)/2], before.from} {
			for _, b := range []cursor.Cursor{before.from, before.to, u.from, stops[len(stops)/3]} {
				want := true
				for _, row := range allRows() {
					want = want && (a.Seen(row.Xid, row.ID) || !b.Seen(row.Xid, row.ID))
				}
				if got := a.Covers(b); got != want {
					t.Errorf("%+v covers %+v: got %t, want %t", fields(a), fields(b), got, want)
				}
				covers[want]++
			}
		}
		before = u
	})
	if covers[true] < 1000 || covers[false] < 1000 {
		t.Errorf("got %d pairs that cover and %d that do not, want at least 1000 of each", covers[true], covers[false])
	}
}

// SeenBelow returns true if, and only if, the cursor has seen all rows of each transaction below the horizon.
func TestSeenBelow(t *testing.T) {
	everywhere(t, func(t *testing.T, u universe) {
		for _, c := range u.stops() {
			want := true
			for horizon := range uint64(cursor.First + xids + 5) {
				if got := c.SeenBelow(horizon); got != want {
					t.Errorf("SeenBelow(%d) of %+v: got %t, want %t", horizon, fields(c), got, want)
				}
				want = want && c.Seen(horizon, ids+1)
			}
		}
	})
}

// allRows returns every row that a universe can have. It also returns rows whose id or transaction number is too high
// for any universe.
func allRows() (rows []cursor.Row) {
	for xid := uint64(cursor.First); xid < cursor.First+xids+5; xid++ {
		for id := range int64(ids + 1) {
			rows = append(rows, cursor.Row{Xid: xid, ID: id + 1})
		}
	}
	return rows
}

// Rows are ordered by the number of their transaction and then by id, but the half-delivered transaction comes first.
func TestCompare(t *testing.T) {
	t.Parallel()
	rows := []cursor.Row{{Xid: 7, ID: 2}, {Xid: 5, ID: 9}, {Xid: 6, ID: 4}, {Xid: 5, ID: 3}, {Xid: 6, ID: 8}, {Xid: 7, ID: 1}}
	for _, test := range []struct {
		c    cursor.Cursor
		want []int64
	}{
		{cursor.Cursor{Xmax: 5}, []int64{3, 9, 4, 8, 1, 2}},
		{cursor.Cursor{Xmax: 5, Xid: 5, ID: 1}, []int64{3, 9, 4, 8, 1, 2}},
		{cursor.Cursor{Xmax: 7, Xid: 6, ID: 1, Xip: []uint64{5}}, []int64{4, 8, 3, 9, 1, 2}},
		{cursor.Cursor{Xmax: 8, Xid: 7, ID: 0, Xip: []uint64{5, 6}}, []int64{1, 2, 3, 9, 4, 8}},
	} {
		var got []int64
		for _, row := range slices.SortedFunc(slices.Values(rows), test.c.Compare) {
			got = append(got, row.ID)
		}
		if !slices.Equal(got, test.want) {
			t.Errorf("%+v: got the order %v, want %v", fields(test.c), got, test.want)
		}
		for _, a := range rows {
			for _, b := range rows {
				got, back := test.c.Compare(a, b), test.c.Compare(b, a)
				if got != -back || (got == 0) != (a == b) {
					t.Errorf("%+v: Compare(%v, %v) returns %d, and %d with the arguments exchanged; want opposite results, and 0 only for equal rows", fields(test.c), a, b, got, back)
				}
			}
		}
	}
}
