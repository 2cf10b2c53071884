// Package cursor says exactly which rows a reader has been told, in a form small enough to be a Server-Sent Event's id.
//
// Ids are drawn at INSERT but transactions commit in any order, so "id > last" loses rows. What a reader has seen is instead
// a PostgreSQL snapshot: an xmax, from which on every transaction is unseen, and the transactions below it that were in
// flight. A [Cursor] is such a snapshot, plus the one transaction in whose middle the reader may have stopped.
//
// The package is arithmetic only. It knows rows by their transaction number (xid) and id, and never touches a database.
package cursor

import (
	"fmt"
	"slices"
)

// First is the first transaction number that PostgreSQL gives (FirstNormalTransactionId); every cursor has seen what is below.
const First = 3

// A Cursor is what a reader has seen. It has not seen
//
//   - the rows of Xid whose id is above ID, if Xid is not 0, and
//   - all rows of every other transaction that is at or above Xmax or in Xip.
//
// Its xmax claims no more than was read: it is at most one above the highest transaction of which a row was read, because the
// numbers of aborted and empty transactions may be drawn again after a crash. A Cursor is immutable: Xip may be shared.
type Cursor struct {
	Xmax uint64
	Xip  []uint64 // ascending, each below Xmax and not Xid

	Xid uint64 // the half-told transaction, at most Xmax; 0: none
	ID  int64  // the last row of it that was told

	Epoch  Tag // which unbroken stretch of the server's history this was read in
	Anchor Anchor
}

// An Anchor is a row of the highest transaction that a cursor claims ([Cursor.AnchorXid]). As long as it stands, that
// transaction's commit has survived, and no server that knows of it draws a number again that the cursor claims. Lower ones that
// were committed later may be gone all the same.
type Anchor struct {
	ID  int64 // 0 if the cursor has seen no row; the tag is then that of the database
	Tag Tag
}

// Whole tells whether the cursor is between transactions, not in the middle of one.
func (c Cursor) Whole() bool { return c.Xid == 0 }

// Seen tells whether a row, of transaction xid, has been seen.
func (c Cursor) Seen(xid uint64, id int64) bool {
	if c.Xid != 0 && xid == c.Xid {
		return id <= c.ID
	}
	return c.seenAll(xid)
}

// seenAll tells whether a transaction has been seen to its end.
func (c Cursor) seenAll(xid uint64) bool {
	if xid >= c.Xmax || xid == c.Xid && c.Xid != 0 {
		return false
	}
	_, inFlight := slices.BinarySearch(c.Xip, xid)
	return !inFlight
}

// SeenBelow tells whether every transaction below the horizon has been seen. If not, retention may have deleted unseen rows.
func (c Cursor) SeenBelow(horizon uint64) bool {
	return c.Xmax >= horizon && (len(c.Xip) == 0 || c.Xip[0] >= horizon) && (c.Xid == 0 || c.Xid >= horizon)
}

// Covers tells whether everything that other has seen, c has seen too.
func (c Cursor) Covers(other Cursor) bool {
	if c.Xmax < other.Xmax {
		return false
	}
	if slices.ContainsFunc(c.Xip, other.seenAll) {
		return false
	}
	if c.Xid != 0 && other.seenAll(c.Xid) {
		return false
	}
	return other.Xid == 0 || c.Seen(other.Xid, other.ID)
}

// AnchorXid is the transaction of the anchor's row.
func (c Cursor) AnchorXid() uint64 {
	if c.Xid != 0 && c.Xid == c.Xmax {
		return c.Xid
	}
	return c.Xmax - 1
}

// A Row is what the arithmetic needs to know of a row.
type Row struct {
	Xid uint64
	ID  int64
	Tag Tag // of the row as an anchor, see [AnchorTag]
}

// Compare orders rows by transaction, then id: the order in which a batch is told.
func (r Row) Compare(other Row) int {
	switch {
	case r.Xid < other.Xid:
		return -1
	case r.Xid > other.Xid:
		return 1
	case r.ID < other.ID:
		return -1
	case r.ID > other.ID:
		return 1
	}
	return 0
}

// After is the cursor of a reader that came from c, was told the batch of what to has seen and c has not, and stopped after
// row. The batch must be told in the order of [Cursor.Compare], and to must cover c and be whole.
//
// [Steps] does the same for a whole batch.
func (c Cursor) After(row Row, to Cursor) Cursor {
	return NewSteps(c, to).After(row)
}

// Compare orders the rows that c has not seen for telling: the rest of its half-told transaction first, because two
// transactions that are half told at once are more than a cursor can say; then by transaction and id.
func (c Cursor) Compare(a, b Row) int {
	if a.Xid != b.Xid && c.Xid != 0 {
		switch c.Xid {
		case a.Xid:
			return -1
		case b.Xid:
			return 1
		}
	}
	return a.Compare(b)
}

// finished is c once its half-told transaction has been told to the end.
func (c Cursor) finished() Cursor {
	if c.Xid != 0 && c.Xid == c.Xmax {
		c.Xmax++
	}
	c.Xid, c.ID = 0, 0
	return c
}

// Steps computes the cursors along one batch. All cursors of a transaction share their Xip.
type Steps struct {
	from, to Cursor

	xid uint64 // the transaction to which xip belongs
	xip []uint64
}

// NewSteps returns the steps along the batch of the rows that to has seen and from has not. It panics if to is not whole: the cursors would
// claim rows of a transaction that to has seen only in part, and rows would be lost. to must cover from.
func NewSteps(from, to Cursor) *Steps {
	if !to.Whole() {
		panic(fmt.Sprintf("cursor: steps to %v, which is in the middle of a transaction", to))
	}
	return &Steps{from: from, to: to}
}

// From returns the cursor before the batch.
func (s *Steps) From() Cursor { return s.from }

// To returns the cursor that has seen the batch.
func (s *Steps) To() Cursor { return s.to }

// After returns the cursor after a row of the batch. The rows must come in the order of [Cursor.Compare].
func (s *Steps) After(row Row) Cursor {
	from := s.from
	if from.Xid != 0 && row.Xid == from.Xid {
		from.ID, from.Epoch = row.ID, s.to.Epoch
		if from.Xid == from.Xmax {
			from.Anchor = Anchor{row.ID, row.Tag}
		}
		return from
	}
	from = from.finished()
	if s.xid != row.Xid {
		s.xid, s.xip = row.Xid, inFlight(row.Xid, from.Xip, s.to.Xip)
	}
	if row.Xid >= from.Xmax {
		from.Xmax, from.Anchor = row.Xid, Anchor{row.ID, row.Tag}
	}
	from.Xip, from.Xid, from.ID, from.Epoch = s.xip, row.Xid, row.ID, s.to.Epoch
	return from
}

// inFlight is what a reader still misses in the middle of transaction xid: below it what the new snapshot misses, as all
// else there has been told; above it what the old one missed, as nothing there has been.
func inFlight(xid uint64, before, after []uint64) []uint64 {
	below, _ := slices.BinarySearch(after, xid)
	above, found := slices.BinarySearch(before, xid)
	if found {
		above++
	}
	if above == len(before) {
		return after[:below:below]
	}
	return slices.Concat(after[:below], before[above:])
}

// Reached is the cursor of a reader that stopped at c after the last row of the batch that ends at to, and so has seen what to
// has. Its xmax stays where the highest row put it: a snapshot's own xmax would claim transactions that left no row.
func (c Cursor) Reached(to Cursor) Cursor {
	c = c.finished()
	below, _ := slices.BinarySearch(to.Xip, c.Xmax)
	c.Xip, c.Epoch = to.Xip[:below:below], to.Epoch
	return c
}

// Before is what a reader had seen that has not seen transaction xid nor any above it, and apart from that what c has seen.
func (c Cursor) Before(xid uint64) Cursor {
	below, _ := slices.BinarySearch(c.Xip, xid)
	c.Xmax, c.Xip = min(c.Xmax, xid), c.Xip[:below:below]
	c.Xid, c.ID, c.Anchor = 0, 0, Anchor{}
	return c
}

// Clamp is what is left of a cursor when the server has taken back every transaction above row that it had seen, but not row's
// own: their numbers will be drawn again, and are no longer claimed. Those below were drawn before row's, and will not be.
func (c Cursor) Clamp(row Row, epoch Tag) Cursor {
	c.Epoch = epoch
	if c.Xmax <= row.Xid {
		return c
	}
	if c.Xid > row.Xid {
		c.Xid, c.ID = 0, 0
	}
	c.Xmax, c.Anchor = row.Xid+1, Anchor{row.ID, row.Tag}
	below, _ := slices.BinarySearch(c.Xip, c.Xmax)
	c.Xip = c.Xip[:below:below]
	return c
}
