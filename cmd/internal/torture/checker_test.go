package torture_test

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"time"

	"rowcast/listener/cursor"
)

// A fault is a promise that was not kept.
type fault struct {
	kind string
	at   int // the delivery that shows it; of a loss there is none: -1
	row  key // that is lost
	text string
}

const (
	loss        = "loss"
	repetition  = "repetition"
	idOrder     = "order of ids"
	causalOrder = "causal order"
	stranger    = "somebody else's row"
	uncommitted = "uncommitted row"
	wrongID     = "wrong id"
	unexcused   = "reset"
)

// A delivery is an event as a client got it.
type delivery struct {
	key    key
	id     int64 // as its id: begins
	at     time.Duration
	visit  int    // the connection's number, of this client
	cursor string // the whole id:
}

// A discontinuity is a rowcast.reset that a client got.
type discontinuity struct {
	at     time.Duration
	after  int // how many deliveries it had got
	hub    int
	reason string // as the hub gave it
	cursor string // with which the client had come, or which it had got last
}

// A record is all that a client was told.
type record struct {
	uid        string
	hello      cursor.Cursor // the first one's id
	helloAt    time.Duration
	deliveries []delivery
	resets     []discontinuity
}

// judge says what is wrong with what a client was told.
func (t *truth) judge(r *record) []fault {
	j := judgment{truth: t, record: r, got: map[key]bool{}, ids: map[int]int64{}}
	for i, d := range r.deliveries {
		j.delivery(i, d)
	}
	for _, reset := range r.resets {
		if reason := t.excuse(reset); reason != "" {
			j.fault(unexcused, reset.after, "%q, %s; came from %s", reset.reason, reason, reset.cursor)
		}
	}
	j.losses()
	return j.faults
}

// judgment is the state of judge.
type judgment struct {
	*truth
	*record
	got    map[key]bool
	ids    map[int]int64 // the last one told of each transaction
	latest int           // of the transactions told, the one that began last
	faults []fault
}

func (j *judgment) fault(kind string, at int, format string, args ...any) {
	j.faults = append(j.faults, fault{kind: kind, at: at, text: fmt.Sprintf(format, args...)})
}

// delivery judges a row by itself and by what was told before it.
func (j *judgment) delivery(i int, d delivery) {
	row, stands := j.rows[d.key]
	switch {
	case !stands && j.takenBack[d.key.tx]: // it was committed when it was told
		return
	case !stands:
		j.fault(uncommitted, i, "row %v", d.key)
		return
	case row.recipient != "" && row.recipient != j.uid:
		j.fault(stranger, i, "row %v is for %q", d.key, row.recipient)
	case row.ID != d.id:
		j.fault(wrongID, i, "row %v has id %d, was told as %d", d.key, row.ID, d.id)
	}
	tx := j.transactions[d.key.tx]
	forgiven := j.resetAfter(tx.ended)
	if j.got[d.key] && !forgiven {
		j.fault(repetition, i, "row %v, xid %d, id %d", d.key, row.Xid, row.ID)
	} else if !j.got[d.key] && !j.owed(row, tx) && j.stands(j.hello) && !forgiven {
		j.fault(repetition, i, "row %v, xid %d, id %d: the first hello had seen it", d.key, row.Xid, row.ID)
	} else if last := j.ids[d.key.tx]; d.id < last && !forgiven {
		j.fault(idOrder, i, "row %v, id %d came after id %d of its transaction", d.key, d.id, last)
	}
	j.got[d.key] = true
	j.ids[d.key.tx] = d.id
	if latest := j.transactions[j.latest]; latest.began > tx.ended && !forgiven {
		j.fault(causalOrder, i, "row %v, of a transaction that had ended at %v, came after one of transaction %d, which began at %v",
			d.key, tx.ended, latest.number, latest.began)
	}
	if tx.began > j.transactions[j.latest].began {
		j.latest = tx.number
	}
}

// owed tells whether a row came after the client's first hello. That can have seen only what began before it.
func (j *judgment) owed(row stored, tx *transaction) bool {
	return tx.began > j.helloAt || !j.hello.Seen(row.Xid, row.ID)
}

// resetAfter tells whether the client was reset after a time: what was committed before that is the page's to read anew.
func (j *judgment) resetAfter(at time.Duration) bool {
	return len(j.resets) > 0 && j.resets[len(j.resets)-1].at > at
}

// losses finds what should have come.
func (j *judgment) losses() {
	inOrder := func(a, b key) int { return cmp.Or(cmp.Compare(a.tx, b.tx), cmp.Compare(a.row, b.row)) }
	for _, k := range slices.SortedFunc(maps.Keys(j.rows), inOrder) {
		row, tx := j.rows[k], j.transactions[k.tx]
		if j.got[k] || row.recipient != "" && row.recipient != j.uid || !j.owed(row, tx) {
			continue
		}
		// Around a reset, who was told what is not to be known from outside.
		if len(j.resets) > 0 && j.resets[len(j.resets)-1].at > tx.began {
			continue
		}
		j.fault(loss, -1, "row %v, xid %d, id %d, for %q, of a transaction from %v to %v (async %t)",
			k, row.Xid, row.ID, row.recipient, tx.began, tx.ended, tx.async)
		j.faults[len(j.faults)-1].row = k
	}
}

// excuse says why there was no reason for a reset; it is empty if there was one: the server has taken back what the cursor claims.
func (t *truth) excuse(reset discontinuity) string {
	if len(t.takenBack) == 0 {
		return "though the server has taken nothing back"
	}
	c, err := cursor.Parse(reset.cursor)
	if err != nil {
		return "for a cursor that a hub had given"
	}
	if t.stands(c) {
		return fmt.Sprintf("though all stands that the cursor claims (up to xid %d)", c.AnchorXid())
	}
	return ""
}

// stands tells whether the server has taken back nothing that a cursor claims. Of what it has taken back, others have drawn the
// numbers again, which the cursor then seems to claim.
func (t *truth) stands(c cursor.Cursor) bool {
	if len(t.takenBack) == 0 || c.Anchor.ID == 0 {
		return true
	}
	for _, row := range t.rows {
		if row.Xid == c.AnchorXid() && row.ID == c.Anchor.ID && row.Tag == c.Anchor.Tag {
			return true
		}
	}
	return false
}
