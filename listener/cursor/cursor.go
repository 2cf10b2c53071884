package cursor

import (
	"fmt"
	"slices"
)

// First is the first transaction number that PostgreSQL assigns (FirstNormalTransactionId). Every cursor has seen
// everything below it.
const First = 3

// A Cursor is what a reader has seen. It has not seen
//
//   - the rows of Xid whose id is above ID, if Xid is not 0, and
//   - all rows of every other transaction that is at or above Xmax or in Xip.
//
// In the cursor of a reader, Xmax is at most one above the highest transaction of which a row was read (rule 17), or at
// the horizon, below which retention has deleted rows, or First if nothing was read. It is not higher, because the
// server may assign the numbers of aborted and empty transactions again after a crash. The cursor of a snapshot, which
// is the end of a batch, has the xmax of the snapshot. A Cursor is immutable, so cursors may share Xip.
type Cursor struct {
	Xmax uint64
	Xip  []uint64 // the transactions in flight, ascending; each is below Xmax and is not Xid

	Xid uint64 // the half-delivered transaction, at most Xmax; 0 if there is none
	ID  int64  // the id of the last row of Xid that was delivered; 0 if there is none

	Epoch  Tag // the epoch in which the rows were read
	Anchor Anchor
}

// An Anchor is a row of the highest transaction that a cursor claims ([Cursor.AnchorXid]). As long as the row exists,
// the commit of that transaction has survived, and a server that has the commit does not assign any number again that
// the cursor claims. The server may still have lost lower transactions that committed later.
type Anchor struct {
	ID int64 // 0 if there is no such row
	// Tag is the tag of the row. Without a row, it is the tag of the database in the cursor of a client, and 0 in the
	// cursor of a snapshot.
	Tag Tag
}

// Whole reports whether the cursor is between two transactions, and not in the middle of one.
func (c Cursor) Whole() bool { return c.Xid == 0 }

// Lowest returns the lowest transaction that a whole cursor has not seen.
func (c Cursor) Lowest() uint64 {
	if len(c.Xip) > 0 {
		return c.Xip[0]
	}
	return c.Xmax
}

// Seen reports whether the cursor has seen the row with the given id in the transaction xid.
func (c Cursor) Seen(xid uint64, id int64) bool {
	if c.Xid != 0 && xid == c.Xid {
		return id <= c.ID
	}
	return c.seenAll(xid)
}

// seenAll reports whether the cursor has seen all rows of a transaction.
func (c Cursor) seenAll(xid uint64) bool {
	if xid >= c.Xmax || xid == c.Xid && c.Xid != 0 {
		return false
	}
	_, inFlight := slices.BinarySearch(c.Xip, xid)
	return !inFlight
}

// SeenBelow reports whether the cursor has seen every transaction below the horizon. If it has not, retention may
// have deleted unseen rows.
func (c Cursor) SeenBelow(horizon uint64) bool {
	return c.Xmax >= horizon && (len(c.Xip) == 0 || c.Xip[0] >= horizon) && (c.Xid == 0 || c.Xid >= horizon)
}

// Covers reports whether c has seen everything that other has seen. If c has the lower Xmax, Covers returns false.
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

// AnchorXid returns the transaction of the anchor's row.
func (c Cursor) AnchorXid() uint64 {
	if c.Xid != 0 && c.Xid == c.Xmax {
		return c.Xid
	}
	return c.Xmax - 1
}

// A Row identifies a row of the table.
type Row struct {
	Xid uint64
	ID  int64
	Tag Tag // the tag of the row as an anchor, see [AnchorTag]
}

// Compare orders rows by transaction, and then by id.
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

// After returns the cursor of a reader that stopped in the middle of a batch, after row. The reader began at c. The
// batch consists of the rows that the cursor end has seen and c has not seen, in the order of [Cursor.Compare]. The
// cursor end must cover c and must be whole.
//
// [Steps] does the same for all rows of a batch.
func (c Cursor) After(row Row, end Cursor) Cursor {
	return NewSteps(c, end).After(row)
}

// Compare orders the rows that c has not seen for delivery. The rest of the half-delivered transaction comes first
// (rule 7), because a cursor cannot represent two half-delivered transactions. The other rows are ordered by
// transaction and id.
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

// finished returns the cursor of a reader that has stopped at c and then received the rest of the half-delivered
// transaction (rule 6). It returns c if no transaction is half-delivered.
func (c Cursor) finished() Cursor {
	if c.Xid != 0 && c.Xid == c.Xmax {
		c.Xmax++
	}
	c.Xid, c.ID = 0, 0
	return c
}

// Steps computes the cursors after the rows of a batch. The cursors of one transaction share their Xip.
type Steps struct {
	start, end Cursor

	xid uint64 // the transaction for which xip was computed
	xip []uint64
}

// NewSteps returns the Steps of a batch: the rows that the cursor end has seen and the cursor start has not seen. The
// cursor end must cover start. NewSteps panics if end is not whole, because the cursors would then claim rows that end
// has not seen, and these rows would be lost.
func NewSteps(start, end Cursor) *Steps {
	if !end.Whole() {
		panic(fmt.Sprintf("cursor: NewSteps: end %v is in the middle of a transaction", end))
	}
	return &Steps{start: start, end: end}
}

// From returns the cursor before the batch.
func (s *Steps) From() Cursor { return s.start }

// To returns the cursor after the batch.
func (s *Steps) To() Cursor { return s.end }

// After returns the cursor after a row of the batch. It must be called for the rows in the order of [Cursor.Compare].
func (s *Steps) After(row Row) Cursor {
	c := s.start
	if c.Xid != 0 && row.Xid == c.Xid {
		c.ID, c.Epoch = row.ID, s.end.Epoch
		if c.Xid == c.Xmax {
			c.Anchor = Anchor{row.ID, row.Tag}
		}
		return c
	}
	c = c.finished()
	if s.xid != row.Xid {
		s.xid, s.xip = row.Xid, inFlight(row.Xid, c.Xip, s.end.Xip)
	}
	if row.Xid >= c.Xmax { // rules 4 and 5
		c.Xmax, c.Anchor = row.Xid, Anchor{row.ID, row.Tag}
	}
	c.Xip, c.Xid, c.ID, c.Epoch = s.xip, row.Xid, row.ID, s.end.Epoch
	return c
}

// inFlight returns the Xip of a reader in the middle of transaction xid. before is the Xip of the old cursor, and after
// is the Xip of the new snapshot. Below xid, the result has the transactions of after, because all other transactions
// below xid have been delivered (rule 2). Above xid, it has the transactions of before, because none of them has been
// delivered (rule 3).
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

// Reached returns the cursor of a reader at the end of a batch. The reader stopped at c, after the last row of the
// batch, and has seen what the cursor end has seen. The xmax stays just above the highest transaction of which a row
// was read, because the xmax of a snapshot would claim transactions that left no row (rule 17).
func (c Cursor) Reached(end Cursor) Cursor {
	c = c.finished()
	below, _ := slices.BinarySearch(end.Xip, c.Xmax)
	c.Xip, c.Epoch = end.Xip[:below:below], end.Epoch
	return c
}

// Before returns the cursor of a reader that has seen what c has seen of the transactions below xid, and nothing of the
// transactions from xid on. The cursor c must be whole. The returned cursor has no anchor.
func (c Cursor) Before(xid uint64) Cursor {
	below, _ := slices.BinarySearch(c.Xip, xid)
	c.Xmax, c.Xip = min(c.Xmax, xid), c.Xip[:below:below]
	c.Xid, c.ID, c.Anchor = 0, 0, Anchor{}
	return c
}

// Clamp returns the cursor in the new epoch, without the transactions above the transaction of row. The argument row is
// the highest delivered row that the server still has after a crash or failover. The server has lost the transactions
// above it, and can assign their numbers again, so the cursor must no longer claim them (rule 20). The server does not
// assign the numbers up to the transaction of row again.
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
