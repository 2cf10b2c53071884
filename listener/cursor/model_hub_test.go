package cursor_test

import (
	"slices"

	"rowcast/listener/cursor"
)

// A hub models a hub as far as it matters for cursors. It fetches at any time. A fetch reads the rows that a new
// snapshot shows and the hub's cursor has not seen, in the order of delivery, and in pages of the same snapshot. The
// hub keeps the last rows in memory.
type hub struct {
	*world
	at   cursor.Cursor // a whole cursor; it moves only where a transaction ends
	live cursor.Cursor // the cursor after the last delivered row, perhaps in the middle of a transaction
	seen map[int]bool  // the serials of the rows that the hub has read

	page int // the largest number of rows of a page
	lag  int // the percentage of its actions that the hub skips

	from, snapshot cursor.Cursor // the beginning and the end of the present batch
	more           bool          // the batch has more rows
	half           bool          // the last page ended in the middle of a transaction
	pages          int           // the number of pages read so far

	window  []event       // the last rows delivered
	memory  int           // the largest length of window
	start   cursor.Cursor // the cursor before the first row of window
	streams []*stream

	delivered    []cursor.Row // the anchor with which the hub began, and then the delivered rows; only the last maxDelivered are kept
	maxDelivered int          // the largest length of delivered
	floor        uint64       // the highest transaction among the first anchor and the rows that were removed from delivered
	recoveries   []recovery
}

// A recovery records which delivered rows survived a crash recovery.
type recovery struct {
	by   cursor.Cursor // the hub's cursor before the recovery
	left *cursor.Row   // the highest delivered row that still exists; nil if the hub's cursor is still valid
	next cursor.Tag    // the epoch that began
}

// An event is a row as the hub sends it to live streams and keeps it in memory.
type event struct {
	*row
	live cursor.Cursor
}

func (w *world) newHub(lag, page int) *hub {
	h := &hub{world: w, page: page, memory: w.IntN(25), lag: lag, maxDelivered: 1000}
	if !w.alone {
		h.maxDelivered = 2 + w.IntN(30)
	}
	h.boot()
	return h
}

// boot closes the streams and begins with an empty memory, as a restarted process does.
func (h *hub) boot() {
	for len(h.streams) > 0 {
		h.streams[0].close()
	}
	h.begin()
}

// begin starts at the present snapshot, with an empty memory.
func (h *hub) begin() {
	h.at, h.seen = h.db.start(h.db.snapshot())
	h.live, h.start, h.window, h.more, h.half = h.at, h.at, nil, false, false
	h.delivered, h.floor, h.recoveries = []cursor.Row{anchor(h.at)}, h.at.AnchorXid(), nil
	h.begun++
}

// work reads a page. It is the next page of the batch, or the first page of a new batch.
func (h *hub) work() {
	if !h.more {
		h.from, h.snapshot = h.live, h.db.snapshot().Cursor
	}
	h.deliverSome(h.page)
}

// settle reads on until no transaction is half-delivered.
func (h *hub) settle() {
	for h.half {
		h.deliverSome(1)
	}
}

// catchUp reads all rows that are visible now.
func (h *hub) catchUp() {
	for h.more {
		h.work()
	}
	for h.work(); h.more; {
		h.work()
	}
}

// deliverSome delivers up to n rows of the batch.
func (h *hub) deliverSome(n int) {
	if h.pages++; h.pages > 10_000 {
		h.report("the hub has read more than 10,000 pages", nil)
		h.more, h.half = false, false
		return
	}
	rest, steps := h.rest()
	n = min(n, len(rest))
	for _, r := range rest[:n] {
		h.live = steps(r.Row)
		h.deliver(event{r, h.live})
	}
	h.more = n < len(rest)
	h.half = h.more && rest[n].Xid == rest[n-1].Xid
	switch {
	case h.half && h.omit == batchEndsBetween:
		h.at, h.more, h.half = h.live, false, false
	case h.half:
	case h.more:
		h.at = h.live.Reached(h.live)
	default:
		h.at = h.reached()
		h.live = h.at
	}
}

// rest returns the rest of the batch, and a function for the cursors of its rows.
func (h *hub) rest() ([]*row, func(cursor.Row) cursor.Cursor) {
	rest := h.db.unseen(h.live, h.snapshot, nil)
	switch h.omit {
	case batchEndsBetween:
		slices.SortFunc(rest, func(a, b *row) int { return a.Compare(b.Row) })
	case oneSnapshot:
		h.snapshot = h.db.snapshot().Cursor
		last := cursor.Row{Xid: h.live.Xid, ID: h.live.ID}
		rest = slices.DeleteFunc(h.db.unseen(h.from, h.snapshot, nil), func(r *row) bool { return r.Compare(last) <= 0 })
		return rest, h.formula(h.from, h.snapshot)
	}
	return rest, h.formula(h.live, h.snapshot)
}

// reached returns the hub's cursor at the end of a batch.
func (h *hub) reached() cursor.Cursor {
	c := h.live.Reached(h.snapshot)
	switch h.omit {
	case listsInFlight:
		c.Xip = nil
	case claimsWhatWasRead:
		c.Xmax, c.Xip = h.snapshot.Xmax, h.snapshot.Xip
	}
	return c
}

// deliver sends an event to the live streams of its recipient, and keeps it in memory.
func (h *hub) deliver(e event) {
	h.seen[e.serial] = true
	h.note(e.Row)
	h.keepInMemory(e)
	for _, s := range h.streams {
		if s.isLive && s.client.concerns(e.row) {
			s.enqueue(e.live, e.row)
		}
	}
}

// keepInMemory keeps an event in memory. The memory has all rows that the hub has delivered and start has not seen.
func (h *hub) keepInMemory(e event) {
	h.window = append(h.window, e)
	for len(h.window) > h.memory {
		h.start, h.window = h.window[0].live, h.window[1:]
	}
}

// beat sends the hub's cursor to a live stream for which no event is pending.
func (h *hub) beat(s *stream) {
	id := h.live
	if h.omit == beatAfterLastRow {
		id = h.at
	}
	if s.isLive && len(s.pending) == 0 || h.omit == beatWithoutPending {
		s.pending = slices.Insert(s.pending, 0, frame{id: text(id)})
	}
}
