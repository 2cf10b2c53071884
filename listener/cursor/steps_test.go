package cursor_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"rowcast/listener/cursor"
)

// A reader had seen snapshot P, in which 103 and 105 were in flight. In the next snapshot, N, transactions 105 and 108
// have committed, and 103 and 107 are in flight.
func ExampleCursor_After() {
	p := cursor.Cursor{Xmax: 107, Xip: []uint64{103, 105}, Anchor: cursor.Anchor{ID: 6}}
	n := cursor.Cursor{Xmax: 110, Xip: []uint64{103, 107}}
	for _, row := range []cursor.Row{{Xid: 105, ID: 4}, {Xid: 105, ID: 9}, {Xid: 108, ID: 8}} {
		c := p.After(row, n)
		fmt.Printf("row %d: xmax %d, in flight %d, rows of %d up to %d, anchor %d\n", row.ID, c.Xmax, c.Xip, c.Xid, c.ID, c.Anchor.ID)
	}
	end := p.After(cursor.Row{Xid: 108, ID: 8}, n).Reached(n)
	fmt.Printf("end: xmax %d, in flight %d, anchor %d\n", end.Xmax, end.Xip, end.Anchor.ID)
	// Output:
	// row 4: xmax 107, in flight [103], rows of 105 up to 4, anchor 6
	// row 9: xmax 107, in flight [103], rows of 105 up to 9, anchor 6
	// row 8: xmax 108, in flight [103 107], rows of 108 up to 8, anchor 8
	// end: xmax 109, in flight [103 107], anchor 8
}

// A universe has the rows of some transactions, and two cursors. The second cursor, to, covers the first, from.
type universe struct {
	from, to cursor.Cursor
	rows     []cursor.Row // in the order of xid and id
}

const (
	xids = 9 // universe.from.Xmax is below cursor.First+xids
	ids  = 3 // the ids of each transaction are from 1 to ids
)

func randomUniverse(rng *rand.Rand) (u universe) {
	u.from = randomWhole(rng, cursor.First+rng.Uint64N(xids), func(uint64) bool { return true })
	if unseen := slices.Concat(u.from.Xip, []uint64{u.from.Xmax}); rng.IntN(2) == 0 {
		u.from.Xid, u.from.ID = unseen[rng.IntN(len(unseen))], 1+rng.Int64N(ids)
		u.from.Xip = keep(u.from.Xip, func(xid uint64) bool { return xid != u.from.Xid })
		if u.from.Xid == u.from.Xmax {
			u.from.Anchor = cursor.Anchor{ID: u.from.ID, Tag: tag(u.from.Xid, u.from.ID)}
		}
	}
	xmax := max(u.from.Xmax, u.from.Xid+1) + rng.Uint64N(4)
	u.to = randomWhole(rng, xmax, func(xid uint64) bool { return !u.from.Seen(xid, 1) })
	u.from.Epoch, u.to.Epoch = 1, 2
	for xid := range uint64(xids + 4) {
		for id := range int64(ids) {
			row := cursor.Row{Xid: cursor.First + xid, ID: id + 1, Tag: tag(cursor.First+xid, id+1)}
			if rng.IntN(3) != 0 || row.Tag == u.from.Anchor.Tag || row.Xid == u.from.Xid && row.ID == u.from.ID {
				u.rows = append(u.rows, row)
			}
		}
	}
	return u
}

// randomWhole returns a whole cursor that has not seen about half of the transactions that it may miss. It has seen
// the transaction below its xmax.
func randomWhole(rng *rand.Rand, xmax uint64, mayMiss func(xid uint64) bool) cursor.Cursor {
	c := cursor.Cursor{Xmax: xmax}
	for xid := uint64(cursor.First); xid+1 < xmax; xid++ {
		if mayMiss(xid) && rng.IntN(2) == 0 {
			c.Xip = append(c.Xip, xid)
		}
	}
	if xmax > cursor.First {
		c.Anchor = cursor.Anchor{ID: 1 + rng.Int64N(ids)}
		c.Anchor.Tag = tag(xmax-1, c.Anchor.ID)
	}
	return c
}

func tag(xid uint64, id int64) cursor.Tag { return cursor.Tag(xid*100 + uint64(id)) }

// batch returns the rows that u.to has seen and u.from has not seen, in the order of delivery.
func (u universe) batch() []cursor.Row {
	batch := slices.DeleteFunc(slices.Clone(u.rows), func(r cursor.Row) bool {
		return u.from.Seen(r.Xid, r.ID) || !u.to.Seen(r.Xid, r.ID)
	})
	slices.SortFunc(batch, u.from.Compare)
	return batch
}

// everywhere runs a test in many universes.
func everywhere(t *testing.T, test func(t *testing.T, u universe)) {
	t.Helper()
	t.Parallel()
	rng := rand.New(rand.NewPCG(1, 2))
	for range 5_000 {
		u := randomUniverse(rng)
		if test(t, u); t.Failed() {
			t.Fatalf("from %+v\nto %+v\nrows %v", fields(u.from), fields(u.to), u.rows)
		}
	}
}

// After a row of a batch, the cursor has seen the rows before the batch and the rows of the batch up to that row, and
// nothing else. After the batch, the cursor has also seen what the cursor u.to has seen.
func TestSeen(t *testing.T) {
	everywhere(t, func(t *testing.T, u universe) {
		batch := u.batch()
		steps := cursor.NewSteps(u.from, u.to)
		at, received := u.from, map[cursor.Row]bool{}
		for _, row := range batch {
			at, received[row] = steps.After(row), true
			if one := u.from.After(row, u.to); !equal(one, at) {
				t.Errorf("after row %v: Steps.After returns %+v, Cursor.After %+v, want the same", row, fields(at), fields(one))
			}
			u.sees(t, at, func(r cursor.Row) bool { return u.from.Seen(r.Xid, r.ID) || received[r] })
		}
		u.sees(t, at.Reached(u.to), func(r cursor.Row) bool { return u.from.Seen(r.Xid, r.ID) || u.to.Seen(r.Xid, r.ID) })
	})
}

// sees checks a cursor against the rows that it should have seen. The cursor must not have seen any row of a
// transaction that the cursor u.to has not seen, not even a row that is inserted later.
func (u universe) sees(t *testing.T, c cursor.Cursor, want func(cursor.Row) bool) {
	t.Helper()
	for _, r := range u.rows {
		if got := c.Seen(r.Xid, r.ID); got != want(r) {
			t.Errorf("%+v has seen row %v: got %t, want %t", fields(c), r, got, want(r))
		}
	}
	for xid := range uint64(xids + 8) {
		if xid += cursor.First; !u.to.Seen(xid, 1) && c.Seen(xid, 1) {
			t.Errorf("%+v has seen transaction %d, want it not seen", fields(c), xid)
		}
	}
}

// The cursors of a batch are well-formed and of the new epoch. A row of the batch becomes the anchor if its transaction
// is the highest of which a row was seen. Otherwise the anchor stays.
func TestShape(t *testing.T) {
	everywhere(t, func(t *testing.T, u universe) {
		at := u.from
		for _, row := range u.batch() {
			at = u.from.After(row, u.to)
			sound(t, at)
			if at.Whole() || at.Xid != row.Xid || at.ID != row.ID {
				t.Errorf("after row %v: got %+v, want the row's xid and id", row, fields(at))
			}
			if row.Xid >= u.from.Xmax && (at.Xmax != row.Xid || at.Anchor.ID != row.ID) {
				t.Errorf("after row %v: got %+v, want the row as the anchor and its transaction as the xmax", row, fields(at))
			}
			if row.Xid < u.from.Xmax && at.Anchor != u.from.Anchor {
				t.Errorf("after row %v: got anchor %+v, want the anchor from before the batch, %+v", row, at.Anchor, u.from.Anchor)
			}
		}
		end := at.Reached(u.to)
		sound(t, end)
		if !end.Whole() || end.ID != 0 || end.Anchor != at.Anchor || end.AnchorXid() != at.AnchorXid() {
			t.Errorf("Reached from %+v: got %+v, want a whole cursor with the same anchor", fields(at), fields(end))
		}
		if want := keep(u.to.Xip, func(xid uint64) bool { return xid < end.Xmax }); !slices.Equal(end.Xip, want) {
			t.Errorf("in flight at the end: got %v, want %v", end.Xip, want)
		}
	})
}

// Cursors share their lists of transactions in flight. Appending to the list of a cursor does not change the lists of
// the two cursors from which it was computed.
func TestSharing(t *testing.T) {
	everywhere(t, func(t *testing.T, u universe) {
		from, to := slices.Clone(u.from.Xip), slices.Clone(u.to.Xip)
		for _, c := range u.stops()[1:] {
			_ = append(c.Xip, 1)
		}
		if !slices.Equal(u.from.Xip, from) || !slices.Equal(u.to.Xip, to) {
			t.Errorf("in flight after appending: got %v and %v, want %v and %v", u.from.Xip, u.to.Xip, from, to)
		}
	})
}

// sound checks a cursor after a row or after a batch: its form, its text, its anchor and its epoch.
func sound(t *testing.T, c cursor.Cursor) {
	t.Helper()
	if !wellFormed(c) {
		t.Errorf("the cursor is malformed: %+v", fields(c))
	} else if parsed, err := cursor.Parse(c.String()); err != nil || !equal(parsed, c) {
		t.Errorf("the text of %+v is parsed as %+v, with error %v, want the same cursor", fields(c), fields(parsed), err)
	}
	if c.Anchor.ID != 0 && c.Anchor.Tag != tag(c.AnchorXid(), c.Anchor.ID) {
		t.Errorf("%+v: the anchor is not a row of transaction %d, want it to be one", fields(c), c.AnchorXid())
	}
	if c.Epoch != 2 {
		t.Errorf("got epoch %d, want 2", c.Epoch)
	}
}

// wellFormed reports whether the fields of a cursor are as their comments say.
func wellFormed(c cursor.Cursor) bool {
	for i, xid := range c.Xip {
		if xid < cursor.First || xid >= c.Xmax || xid == c.Xid || i > 0 && xid <= c.Xip[i-1] {
			return false
		}
	}
	return c.Xmax >= cursor.First && c.Xid <= c.Xmax && (c.Xid == 0) == (c.ID == 0)
}

func equal(a, b cursor.Cursor) bool {
	return a.Xmax == b.Xmax && slices.Equal(a.Xip, b.Xip) && a.Xid == b.Xid && a.ID == b.ID &&
		a.Epoch == b.Epoch && a.Anchor == b.Anchor
}

// fields is a cursor that %+v prints as its fields, because fields has no method String.
type fields cursor.Cursor

func TestNewStepsRefusesATransactionThatIsNotComplete(t *testing.T) {
	t.Parallel()
	defer func() {
		if recover() == nil {
			t.Error("NewSteps accepts a cursor in the middle of a transaction, want a panic")
		}
	}()
	cursor.NewSteps(cursor.Cursor{Xmax: 5}, cursor.Cursor{Xmax: 9, Xid: 7, ID: 1})
}
