package torture_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
)

// A fault is a violation of a promise of rowcast, such as a lost row.
type fault struct {
	kind string
	at   int // the index of the delivery; -1 for a loss; the number of earlier deliveries for a reset
	row  key // the lost row, for a loss
	text string
}

const (
	loss           = "loss"
	repetition     = "repetition"
	idOrder        = "order of ids"
	causalOrder    = "causal order"
	wrongRecipient = "row of another recipient"
	uncommitted    = "uncommitted row"
	wrongID        = "wrong id"
	unjustified    = "unjustified reset"
)

// A delivery is a row that a client has received.
type delivery struct {
	key    key
	id     int64 // the number at the beginning of the event's id
	at     time.Duration
	visit  int    // the index of the connection in client.visits
	cursor string // the event's id
}

// A discontinuity is an event rowcast.reset that a client has received.
type discontinuity struct {
	at     time.Duration
	after  int // the number of deliveries before the reset
	hub    int
	reason string
	cursor string // client.sent before the reset
}

// A record has the rows, the resets and the first rowcast.hello that a client has received.
type record struct {
	uid        string
	hello      cursor.Cursor // the id of the first hello
	helloAt    time.Duration
	deliveries []delivery
	resets     []discontinuity
}

// check returns the faults of a record.
func (t *truth) check(r *record) []fault {
	c := checker{truth: t, record: r, got: map[key]bool{}, ids: map[int]int64{}}
	for i, d := range r.deliveries {
		c.delivery(i, d)
	}
	for _, reset := range r.resets {
		if reason := t.unjustifiedBecause(reset); reason != "" {
			c.fault(unjustified, reset.after, "reset with the reason %q: %s; the cursor was %q", reset.reason, reason, reset.cursor)
		}
	}
	c.losses()
	return c.faults
}

// A checker checks one record.
type checker struct {
	*truth
	*record
	got    map[key]bool
	ids    map[int]int64 // the last received id of each transaction
	latest int           // the number of the received transaction that began last
	faults []fault
}

func (c *checker) fault(kind string, at int, format string, args ...any) {
	c.faults = append(c.faults, fault{kind: kind, at: at, text: fmt.Sprintf(format, args...)})
}

// delivery checks a row and its place after earlier deliveries.
func (c *checker) delivery(i int, d delivery) {
	row, stored := c.rows[d.key]
	switch {
	case !stored && c.lost[d.key.tx]: // the client received the row before the crash that lost it
		return
	case !stored:
		c.fault(uncommitted, i, "row %v", d.key)
		return
	case row.recipient != feed.Everyone && row.recipient != c.uid:
		c.fault(wrongRecipient, i, "row %v is for %q", d.key, row.recipient)
	case row.ID != d.id:
		c.fault(wrongID, i, "row %v has id %d, but was received with id %d", d.key, row.ID, d.id)
	}
	tx := c.transactions[d.key.tx]
	afterReset := c.resetAfter(tx.ended)
	if c.got[d.key] && !afterReset {
		c.fault(repetition, i, "row %v, xid %d, id %d", d.key, row.Xid, row.ID)
	} else if !c.got[d.key] && !c.isExpected(row, tx) && c.isValid(c.hello) && !afterReset {
		c.fault(repetition, i, "row %v, xid %d, id %d: the cursor of the first hello contains it", d.key, row.Xid, row.ID)
	} else if last := c.ids[d.key.tx]; d.id < last && !afterReset {
		c.fault(idOrder, i, "row %v, id %d came after id %d of its transaction", d.key, d.id, last)
	}
	c.got[d.key] = true
	c.ids[d.key.tx] = d.id
	if latest := c.transactions[c.latest]; latest.began > tx.ended && !afterReset {
		c.fault(causalOrder, i, "row %v, of a transaction that had ended at %v, came after a row of transaction %d, which began at %v",
			d.key, tx.ended, latest.number, latest.began)
	}
	if tx.began > c.transactions[c.latest].began {
		c.latest = tx.number
	}
}

// isExpected reports whether the client must receive a row, because the cursor of its first hello does not contain it.
// That cursor contains only rows of transactions that began before the hello.
func (c *checker) isExpected(row stored, tx *transaction) bool {
	return tx.began > c.helloAt || !c.hello.Seen(row.Xid, row.ID)
}

// resetAfter reports whether the last reset of the client came after a time. After a reset, a web page loads the rows
// that exist, so the checker ignores repetitions and the order of rows from before the reset.
func (c *checker) resetAfter(at time.Duration) bool {
	return len(c.resets) > 0 && c.resets[len(c.resets)-1].at > at
}

// losses reports a fault for each expected row that the client has not received.
func (c *checker) losses() {
	inOrder := func(a, b key) int { return cmp.Or(cmp.Compare(a.tx, b.tx), cmp.Compare(a.row, b.row)) }
	for _, k := range slices.SortedFunc(maps.Keys(c.rows), inOrder) {
		row, tx := c.rows[k], c.transactions[k.tx]
		if c.got[k] || row.recipient != feed.Everyone && row.recipient != c.uid || !c.isExpected(row, tx) {
			continue
		}
		// After a reset, the page loads some rows, and the stream sends the others. The rows of a transaction that
		// began before the reset can be among the rows that the page loads.
		if len(c.resets) > 0 && c.resets[len(c.resets)-1].at > tx.began {
			continue
		}
		c.fault(loss, -1, "row %v, xid %d, id %d, for %q, of a transaction from %v to %v (async %t)",
			k, row.Xid, row.ID, row.recipient, tx.began, tx.ended, tx.async)
		c.faults[len(c.faults)-1].row = k
	}
}

// unjustifiedBecause returns why a reset was not justified, or "" if it was. A reset is justified if the server has
// lost the row that anchors the cursor.
func (t *truth) unjustifiedBecause(reset discontinuity) string {
	if len(t.lost) == 0 {
		return "the server has lost no row"
	}
	c, err := cursor.Parse(reset.cursor)
	if err != nil {
		return "the cursor came from a hub, but it cannot be parsed"
	}
	if t.isValid(c) {
		return fmt.Sprintf("no row anchors the cursor, or the server has the row that anchors it (xid %d)", c.AnchorXid())
	}
	return ""
}

// isValid reports whether the table has the row that anchors a cursor. It also returns true if no row anchors the
// cursor, or if the server has lost nothing. isValid compares the tag too, because another row may get the xid and the
// id of a row that was lost in a crash.
func (t *truth) isValid(c cursor.Cursor) bool {
	if len(t.lost) == 0 || c.Anchor.ID == 0 {
		return true
	}
	for _, row := range t.rows {
		if row.Xid == c.AnchorXid() && row.ID == c.Anchor.ID && row.Tag == c.Anchor.Tag {
			return true
		}
	}
	return false
}
