package cursor_test

import (
	"iter"
	"math/rand/v2"
	"slices"

	"rowcast/listener/cursor"
)

// A database models PostgreSQL as far as it matters for cursors:
//
//   - A transaction is assigned its number (xid) at its first write, not when it begins. Transactions end in any order.
//   - Ids come from one sequence at INSERT. The ids of open transactions interleave, and rolled-back transactions leave
//     gaps.
//   - A snapshot is an xmax, one above the highest transaction that has ended, and the transactions in flight below it.
//     Transactions in flight at or above xmax are not listed.
//   - A row may have the number of another transaction (from a dump, a subscription or a forger), even a number that is
//     not assigned yet.
type database struct {
	*rand.Rand
	omit     rule
	clock    int64 // advances with each action; also the created_at of rows
	nextXid  uint64
	nextID   int64
	highest  uint64 // the highest xid that has ended
	running  []*transaction
	log      []*transaction // the commits in their order; a crash may lose the last ones
	table    []*row         // the committed rows, ordered by xid and id
	epoch    cursor.Tag
	inserted int                 // the number of rows, committed or not
	ever     map[cursor.Row]*row // all rows that were ever committed, except foreign rows
	peak     uint64              // one above the highest xid ever assigned
	again    int                 // the number of assignments of an xid that had been assigned before a crash
}

// A transaction is a transaction of the database, from its beginning on.
type transaction struct {
	xid          uint64 // 0 before the first write
	began, ended int64
	rows         []*row
	delays       int      // how many more attempts to end the transaction are skipped
	snapshot     snapshot // its first snapshot, which REPEATABLE READ keeps
	page         *page    // the last page that was rendered in the transaction; nil if there is none
	committed    bool
	lost         bool // committed, then lost in a crash
}

// A row is a row of rowcast.notifications.
type row struct {
	cursor.Row
	serial    int // identifies the row, even if a crash makes the server assign its xid and id again
	recipient string
	of        *transaction
	foreign   bool // its xid is not the number of its transaction
}

// disownedXid is the xid that the trigger gives a row whose xid is not the number of its transaction.
const disownedXid = 1

// A snapshot has the cursor of a database snapshot, and the time at which the snapshot was taken. The model uses this
// time to compute what the snapshot shows (see visible).
type snapshot struct {
	cursor.Cursor
	at int64
}

// A page is a web page that was rendered in a transaction, with its cursor and the rows that it shows.
type page struct {
	cursor cursor.Cursor
	shows  map[int]bool // the serials of the rows
}

// everyone is the recipient whose rows every client receives.
const everyone = "*"

// recipients lists all recipients.
var recipients = []string{"alice", "bob", "team:7", everyone}

// beginning is the cursor of a reader that has seen no row.
var beginning = cursor.Cursor{Xmax: cursor.First, Anchor: cursor.Anchor{Tag: cursor.NewTag("database")}}

func newDatabase(rng *rand.Rand, omit rule) *database {
	first := uint64(cursor.First + rng.IntN(3)*rng.IntN(1000))
	return &database{
		Rand: rng, omit: omit, nextXid: first, highest: first - 1, nextID: 1 + rng.Int64N(100),
		epoch: cursor.Tag(rng.Uint32()), ever: map[cursor.Row]*row{},
	}
}

// step performs one action, in one of the transactions or in a new one. It returns the transaction that has ended, if
// one has.
func (d *database) step() (ended *transaction) {
	d.clock++
	if d.IntN(12) == 0 {
		d.assignXid() // a transaction that writes to another table and ends at once
		d.highest = d.nextXid - 1
	}
	if len(d.running) == 0 || len(d.running) < 6 && d.IntN(4) == 0 {
		d.begin()
		return nil
	}
	t := d.running[d.IntN(len(d.running))]
	switch d.IntN(8) {
	case 0, 1, 2, 3:
		for range 1 + d.IntN(3) {
			d.insert(t)
		}
	case 4:
		d.assign(t) // writes to another table
		if d.IntN(3) == 0 {
			d.forge(t)
		}
	case 5:
		d.render(t)
	default:
		if t.delays--; t.delays < 0 {
			d.end(t, d.IntN(5) != 0)
			return t
		}
	}
	return nil
}

func (d *database) begin() *transaction {
	t := &transaction{began: d.clock, snapshot: d.snapshot()}
	if d.IntN(3) == 0 {
		t.delays = 1 + d.IntN(6)
	}
	d.running = append(d.running, t)
	if d.IntN(3) != 0 {
		d.insert(t)
	}
	return t
}

func (d *database) assignXid() uint64 {
	if d.nextXid++; d.nextXid <= d.peak {
		d.again++
	}
	d.peak = max(d.peak, d.nextXid)
	return d.nextXid - 1
}

func (d *database) assign(t *transaction) {
	if t.xid == 0 {
		t.xid = d.assignXid()
	}
}

func (d *database) insert(t *transaction) {
	d.assign(t)
	r := cursor.Row{Xid: t.xid, ID: d.nextID, Tag: cursor.AnchorTag(d.nextID, d.clock)}
	t.rows = append(t.rows, &row{r, d.inserted, recipients[d.IntN(len(recipients))], t, false})
	d.nextID += 1 + d.Int64N(2)
	d.inserted++
}

// forge inserts a row whose xid is not the number of its transaction. At random, it models one of two cases. In the
// first, the trigger is disabled, and the row keeps an xid that is not assigned yet. In the second, the trigger is
// enabled, and replaces the xid by disownedXid, whether the xid was assigned or not.
func (d *database) forge(t *transaction) {
	d.insert(t)
	r := t.rows[len(t.rows)-1]
	r.foreign = true
	if d.IntN(2) == 0 {
		r.Xid = d.nextXid + d.Uint64N(40)
		return
	}
	if r.Xid = max(cursor.First, d.nextXid+d.Uint64N(40)-min(20, d.nextXid)); d.omit != disowned {
		r.Xid = disownedXid
	}
}

// rows returns the rows that may be delivered.
func (d *database) rows() iter.Seq[*row] {
	return func(yield func(*row) bool) {
		for _, r := range d.table {
			assigned := r.Xid <= r.of.xid || d.omit == numbersAssigned
			if assigned && r.Xid >= cursor.First && !yield(r) {
				return
			}
		}
	}
}

func (d *database) end(t *transaction, commit bool) {
	d.clock++
	t.ended = d.clock
	d.running = slices.DeleteFunc(d.running, func(r *transaction) bool { return r == t })
	d.highest = max(d.highest, t.xid)
	if t.committed = commit; commit {
		d.log = append(d.log, t)
		d.table = append(d.table, t.rows...)
		slices.SortFunc(d.table, func(a, b *row) int { return a.Compare(b.Row) })
		for _, r := range t.rows {
			if !r.foreign {
				d.ever[r.Row] = r
			}
		}
	}
}

func (d *database) snapshot() snapshot {
	s := snapshot{cursor.Cursor{Xmax: d.highest + 1, Epoch: d.epoch}, d.clock}
	for _, t := range d.running {
		if t.xid != 0 && t.xid < s.Xmax {
			s.Xip = append(s.Xip, t.xid)
		}
	}
	slices.Sort(s.Xip)
	return s
}

// visible returns the rows that a snapshot shows. It uses the time and not the cursor of the snapshot, except for rows
// whose xid is not the number of their transaction.
func (d *database) visible(s snapshot) (rows []*row) {
	for r := range d.rows() {
		if r.of.ended <= s.at && (!r.foreign || s.Seen(r.Xid, r.ID)) {
			rows = append(rows, r)
		}
	}
	return rows
}

// unseen returns the rows that from has not seen and to has seen, in the order of delivery. If concerns is not nil,
// only rows for which it returns true are returned.
func (d *database) unseen(from, to cursor.Cursor, concerns func(*row) bool) (rows []*row) {
	for r := range d.rows() {
		if !from.Seen(r.Xid, r.ID) && to.Seen(r.Xid, r.ID) && (concerns == nil || concerns(r)) {
			rows = append(rows, r)
		}
	}
	if !from.Whole() {
		slices.SortFunc(rows, func(a, b *row) int { return from.Compare(a.Row, b.Row) })
	}
	return rows
}

// start returns the cursor of a reader that begins at a snapshot, and the serials of the rows that this cursor has
// seen.
func (d *database) start(s snapshot) (cursor.Cursor, map[int]bool) {
	c, seen := beginning, map[int]bool{}
	for _, r := range d.visible(s) {
		c, seen[r.serial] = beginning.After(r.Row, s.Cursor), true
	}
	return c.Reached(s.Cursor), seen
}

// render models a page that is rendered in a transaction, and its call of rowcast.cursor(). The page shows the rows of
// the snapshot, and the rows that the transaction has inserted with its own xid.
func (d *database) render(t *transaction) {
	s := d.snapshot()
	if d.IntN(2) == 0 {
		s = t.snapshot // REPEATABLE READ
	}
	c, shows := d.start(s)
	t.page = &page{c, shows}
	own := slices.DeleteFunc(slices.Clone(t.rows), func(r *row) bool { return r.foreign })
	if len(own) == 0 {
		return
	}
	for _, r := range own {
		shows[r.serial] = true
	}
	last := own[len(own)-1]
	if t.xid >= c.Xmax {
		c.Xmax, c.Anchor = t.xid, cursor.Anchor{ID: last.ID, Tag: last.Tag}
		c.Xip = d.missed(s.Cursor, t.xid)
	}
	c.Xid, c.ID = t.xid, last.ID
	c.Xip = slices.DeleteFunc(slices.Clone(c.Xip), func(xid uint64) bool { return xid == t.xid })
	t.page.cursor = c
}

// missed returns the transactions below an xid that a snapshot does not show. If the xid is above the xmax of the
// snapshot, these include the transactions from xmax on, which the snapshot does not list.
func (d *database) missed(s cursor.Cursor, xid uint64) []uint64 {
	below, _ := slices.BinarySearch(s.Xip, xid)
	xip := slices.Clone(s.Xip[:below])
	for x := s.Xmax; x < xid && d.omit != pageGap; x++ {
		xip = append(xip, x)
	}
	return xip
}

// crash loses the transactions in flight and the last commits. The parameter lost is the number of these commits. The
// server may assign the transaction numbers and ids above the remaining commits again.
func (d *database) crash(lost int) {
	kept, next, nextID := len(d.log)-lost, uint64(cursor.First), int64(1)
	for _, t := range d.log[kept:] {
		t.lost = true
	}
	d.log, d.running = d.log[:kept], nil
	d.table = slices.DeleteFunc(d.table, func(r *row) bool { return r.of.lost })
	for _, t := range d.log {
		next = max(next, t.xid+1)
	}
	for _, r := range d.table {
		nextID = max(nextID, r.ID+1)
	}
	d.nextXid -= d.Uint64N(d.nextXid - next + 1)
	d.nextID -= d.Int64N(d.nextID - nextID + 1)
	if d.highest = d.nextXid - 1; d.omit != epochBegins {
		d.epoch = cursor.Tag(d.Uint32())
	}
}

// anchor returns the row of a cursor's anchor.
func anchor(c cursor.Cursor) cursor.Row {
	return cursor.Row{Xid: c.AnchorXid(), ID: c.Anchor.ID, Tag: c.Anchor.Tag}
}

// anchored reports whether the cursor's anchor is, or once was, a row of the transaction AnchorXid. It also returns
// true for the anchor of beginning, the cursor of a reader that has seen no row. That anchor is not a row.
func (d *database) anchored(c cursor.Cursor) bool {
	return d.ever[anchor(c)] != nil || c.Xmax == cursor.First && c.Anchor == beginning.Anchor
}

// holds reports whether the table has the wanted row. It also returns true if the wanted id is 0, as in the anchor of a
// cursor that has seen no row.
func (d *database) holds(wanted cursor.Row) bool {
	return wanted.ID == 0 || slices.ContainsFunc(slices.Collect(d.rows()), func(r *row) bool { return r.Row == wanted })
}

// isValid reports whether the hub accepts a cursor of another epoch. The hub accepts it if its anchor exists or if it
// has seen no row. If the model leaves out a rule, the hub may accept other cursors too.
func (d *database) isValid(c cursor.Cursor) bool {
	if c.Anchor.ID == 0 || d.omit == anchorChecked {
		return true
	}
	return slices.ContainsFunc(slices.Collect(d.rows()), func(r *row) bool {
		return r.Row == anchor(c) || d.omit == claimsWhatWasRead && r.ID == c.Anchor.ID && r.Tag == c.Anchor.Tag
	})
}

// hasLost reports whether the anchor of a cursor was committed and then lost in a crash.
func (d *database) hasLost(c cursor.Cursor) bool {
	r := d.ever[anchor(c)]
	return r != nil && r.of.lost
}
