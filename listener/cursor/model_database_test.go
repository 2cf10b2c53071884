package cursor_test

import (
	"iter"
	"math/rand/v2"
	"slices"

	"rowcast/listener/cursor"
)

// database is PostgreSQL as far as a cursor can tell:
//
//   - a transaction draws its number (xid) at its first write, not when it begins, and ends in any order;
//   - ids come from one sequence at INSERT, so that those of open transactions interleave, and rolled-back ones leave holes;
//   - a snapshot is an xmax, one above the highest transaction that has ended (not begun), and those in flight below it. What
//     is in flight at or above xmax is in no list;
//   - a row may come with another transaction's number, from a dump, a subscription or a forger, also one that is not drawn yet.
type database struct {
	*rand.Rand
	omit     corner
	clock    int64 // ticks once for each thing that happens; a row's created_at, too
	nextXid  uint64
	nextID   int64
	highest  uint64 // the highest xid that has ended
	running  []*transaction
	log      []*transaction // the commits in their order, of which a crash may cut off the end
	table    []*row         // what is committed, by xid and id
	epoch    cursor.Tag
	inserted int                 // rows, committed or not
	ever     map[cursor.Row]*row // what has once been committed
	peak     uint64              // the highest xid drawn
	again    int                 // how many were drawn for a second time, after a crash
}

// transaction is one that has begun.
type transaction struct {
	xid          uint64 // 0 before the first write
	began, ended int64
	rows         []*row
	patience     int      // how many chances to end it lets pass
	snapshot     snapshot // its first, which "repeatable read" keeps
	page         *page    // what rowcast.cursor() returned in it, if it was called
	committed    bool
	takenBack    bool // committed, then lost in a crash
}

// row is a row of rowcast.notifications.
type row struct {
	cursor.Row
	serial    int    // tells it from all others, also where a crash makes xid and id be drawn again
	recipient string // "" is everyone
	of        *transaction
	foreign   bool // it came with another number than its transaction's
}

// disownedXid is what the column xid says of a row that came with another number than its transaction's.
const disownedXid = 1

// snapshot is a snapshot as a cursor, and the time at which it was taken: the truth that does not need cursors.
type snapshot struct {
	cursor.Cursor
	at int64
}

// page is what a page rendered in a transaction takes along: the cursor, and which rows it shows.
type page struct {
	cursor cursor.Cursor
	shows  map[int]bool // by serial
}

// recipients are all there are; everyone is the empty one.
var recipients = []string{"alice", "bob", "team:7", ""}

// beginning is the cursor of a reader that has seen no row.
var beginning = cursor.Cursor{Xmax: cursor.First, Anchor: cursor.Anchor{Tag: cursor.NewTag("database")}}

func newDatabase(rng *rand.Rand, omit corner) *database {
	first := uint64(cursor.First + rng.IntN(3)*rng.IntN(1000))
	return &database{
		Rand: rng, omit: omit, nextXid: first, highest: first - 1, nextID: 1 + rng.Int64N(100),
		epoch: cursor.Tag(rng.Uint32()), ever: map[cursor.Row]*row{},
	}
}

// step lets one thing happen, in one of the transactions or with a new one.
func (d *database) step() (ended *transaction) {
	d.clock++
	if d.IntN(12) == 0 {
		d.drawXid() // of a transaction that has nothing to do with us, and is over at once
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
		d.draw(t) // writes elsewhere
		if d.IntN(3) == 0 {
			d.bring(t)
		}
	case 5:
		d.render(t)
	default:
		if t.patience--; t.patience < 0 {
			d.end(t, d.IntN(5) != 0)
			return t
		}
	}
	return nil
}

func (d *database) begin() *transaction {
	t := &transaction{began: d.clock, snapshot: d.snapshot()}
	if d.IntN(3) == 0 {
		t.patience = 1 + d.IntN(6)
	}
	d.running = append(d.running, t)
	if d.IntN(3) != 0 {
		d.insert(t)
	}
	return t
}

func (d *database) drawXid() uint64 {
	if d.nextXid++; d.nextXid <= d.peak {
		d.again++
	}
	d.peak = max(d.peak, d.nextXid)
	return d.nextXid - 1
}

func (d *database) draw(t *transaction) {
	if t.xid == 0 {
		t.xid = d.drawXid()
	}
}

func (d *database) insert(t *transaction) {
	d.draw(t)
	r := cursor.Row{Xid: t.xid, ID: d.nextID, Tag: cursor.AnchorTag(d.nextID, d.clock)}
	t.rows = append(t.rows, &row{r, d.inserted, recipients[d.IntN(len(recipients))], t, false})
	d.nextID += 1 + d.Int64N(2)
	d.inserted++
}

// bring inserts a row with another number: one that has been drawn or one that has not, if the trigger is there, and with disabled
// triggers one that has not.
func (d *database) bring(t *transaction) {
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

// rows are those that count.
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

// visible is what the snapshot shows, by the clock and without any arithmetic of cursors.
func (d *database) visible(s snapshot) (rows []*row) {
	for r := range d.rows() {
		if r.of.ended <= s.at && (!r.foreign || s.Seen(r.Xid, r.ID)) {
			rows = append(rows, r)
		}
	}
	return rows
}

// unseen is what one cursor has not seen and another has, in the order in which the first is told it.
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

// start is the cursor of a reader that begins at a snapshot, and what it has then seen.
func (d *database) start(s snapshot) (cursor.Cursor, map[int]bool) {
	c, seen := beginning, map[int]bool{}
	for _, r := range d.visible(s) {
		c, seen[r.serial] = beginning.After(r.Row, s.Cursor), true
	}
	return c.Reached(s.Cursor), seen
}

// render calls rowcast.cursor() in a transaction: the page shows what its snapshot sees and what it has itself written.
func (d *database) render(t *transaction) {
	s := d.snapshot()
	if d.IntN(2) == 0 {
		s = t.snapshot // "repeatable read"
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

// missed is what a snapshot does not see below an xid, which may lie beyond its xmax: what began since is in no list.
func (d *database) missed(s cursor.Cursor, xid uint64) []uint64 {
	below, _ := slices.BinarySearch(s.Xip, xid)
	xip := slices.Clone(s.Xip[:below])
	for x := s.Xmax; x < xid && d.omit != pageGap; x++ {
		xip = append(xip, x)
	}
	return xip
}

// crash takes back what is in flight and some of the last commits. Numbers and ids above those of what is left in the log may
// be drawn again.
func (d *database) crash(lost int) {
	kept, next, nextID := len(d.log)-lost, uint64(cursor.First), int64(1)
	for _, t := range d.log[kept:] {
		t.takenBack = true
	}
	d.log, d.running = d.log[:kept], nil
	d.table = slices.DeleteFunc(d.table, func(r *row) bool { return r.of.takenBack })
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

// anchor is the row that a cursor says it is anchored in.
func anchor(c cursor.Cursor) cursor.Row {
	return cursor.Row{Xid: c.AnchorXid(), ID: c.Anchor.ID, Tag: c.Anchor.Tag}
}

// anchored tells whether the cursor's anchor is, or was, a row of exactly the transaction that it should be of.
func (d *database) anchored(c cursor.Cursor) bool {
	return d.ever[anchor(c)] != nil || c.Xmax == cursor.First && c.Anchor == beginning.Anchor
}

// holds tells whether the table has a row; that of the beginning it has always.
func (d *database) holds(told cursor.Row) bool {
	return told.ID == 0 || slices.ContainsFunc(slices.Collect(d.rows()), func(r *row) bool { return r.Row == told })
}

// stands tells whether it still is, which a cursor of another epoch must show.
func (d *database) stands(c cursor.Cursor) bool {
	if c.Anchor.ID == 0 || d.omit == anchorChecked {
		return true
	}
	return slices.ContainsFunc(slices.Collect(d.rows()), func(r *row) bool {
		return r.Row == anchor(c) || d.omit == claimsWhatWasRead && r.ID == c.Anchor.ID && r.Tag == c.Anchor.Tag
	})
}

// tookBack tells whether the row in which a cursor is anchored was committed, and lost in a crash.
func (d *database) tookBack(c cursor.Cursor) bool {
	r := d.ever[anchor(c)]
	return r != nil && r.of.takenBack
}
