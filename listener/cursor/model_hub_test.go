package cursor_test

import (
	"slices"

	"rowcast/listener/cursor"
)

// hub is a hub as far as cursors go. It fetches when it likes: what a new snapshot N shows and its own cursor has not seen, in
// the cursor's order and in pages of bounded rows, with N fixed. The last rows told stay in memory.
type hub struct {
	*world
	at   cursor.Cursor // whole: moves only where a transaction ends
	live cursor.Cursor // after the last row told, perhaps in the middle of a transaction
	told map[int]bool  // what it has read, by serial: the truth behind live

	page int // rows
	lag  int // percent of its turns that it misses

	from, snapshot cursor.Cursor // the batch's: from where, and N
	more           bool          // of the batch is still to be told
	half           bool          // of a transaction is still to be told
	pages          int           // read in all

	window  []event       // the last rows told
	memory  int           // how many they may be
	start   cursor.Cursor // what the window's first row came after
	streams []*stream

	tellings []cursor.Row // the last rows told since it began, and the one from which it did
	tellable int          // how many they may be
	floor    uint64       // above it the cursor claims no transaction that is not in tellings
	epochs   []ending
}

// An ending of an epoch is what became then of what a hub had told.
type ending struct {
	by   cursor.Cursor
	left *cursor.Row // all told of higher transactions was taken back; nil: nothing that a cursor claims was
	next cursor.Tag
}

// event is a row as all live streams get it, and as memory keeps it.
type event struct {
	*row
	live cursor.Cursor
}

func (w *world) newHub(lag, page int) *hub {
	h := &hub{world: w, page: page, memory: w.IntN(25), lag: lag, tellable: 1000}
	if !w.alone {
		h.tellable = 2 + w.IntN(30)
	}
	h.boot()
	return h
}

// boot is being killed and started again.
func (h *hub) boot() {
	for len(h.streams) > 0 {
		h.streams[0].close()
	}
	h.begin()
}

// begin starts with an empty memory at the present snapshot.
func (h *hub) begin() {
	h.at, h.told = h.db.start(h.db.snapshot())
	h.live, h.start, h.window, h.more, h.half = h.at, h.at, nil, false, false
	h.tellings, h.floor, h.epochs = []cursor.Row{anchor(h.at)}, h.at.AnchorXid(), nil
	h.begun++
}

// work reads a page: the next one of a batch, or the first of a new one.
func (h *hub) work() {
	if !h.more {
		h.from, h.snapshot = h.live, h.db.snapshot().Cursor
	}
	h.tell(h.page)
}

// settle reads on to where a transaction ends.
func (h *hub) settle() {
	for h.half {
		h.tell(1)
	}
}

// catchUp reads all that is visible now.
func (h *hub) catchUp() {
	for h.more {
		h.work()
	}
	for h.work(); h.more; {
		h.work()
	}
}

// tell tells up to n rows of the batch.
func (h *hub) tell(n int) {
	if h.pages++; h.pages > 10_000 {
		h.report("the hub never comes to an end", nil)
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
	case h.half && h.omit == cursorMovesBetween:
		h.at, h.more, h.half = h.live, false, false
	case h.half:
	case h.more:
		h.at = h.live.Reached(h.live)
	default:
		h.at = h.reached()
		h.live = h.at
	}
}

// rest is what remains of the batch, and the cursors along it.
func (h *hub) rest() ([]*row, func(cursor.Row) cursor.Cursor) {
	rest := h.db.unseen(h.live, h.snapshot, nil)
	switch h.omit {
	case cursorMovesBetween:
		slices.SortFunc(rest, func(a, b *row) int { return a.Compare(b.Row) })
	case snapshotFixed:
		h.snapshot = h.db.snapshot().Cursor
		last := cursor.Row{Xid: h.live.Xid, ID: h.live.ID}
		rest = slices.DeleteFunc(h.db.unseen(h.from, h.snapshot, nil), func(r *row) bool { return r.Compare(last) <= 0 })
		return rest, h.formula(h.from, h.snapshot)
	}
	return rest, h.formula(h.live, h.snapshot)
}

// reached is the hub's cursor at the end of a batch.
func (h *hub) reached() cursor.Cursor {
	c := h.live.Reached(h.snapshot)
	switch h.omit {
	case inFlight:
		c.Xip = nil
	case claimsWhatWasRead:
		c.Xmax, c.Xip = h.snapshot.Xmax, h.snapshot.Xip
	}
	return c
}

// deliver sends an event to the live streams that it concerns, and remembers it.
func (h *hub) deliver(e event) {
	h.told[e.serial] = true
	h.note(e.Row)
	h.remember(e)
	for _, s := range h.streams {
		if s.registered && s.client.concerns(e.row) {
			s.owe(e.live, e.row)
		}
	}
}

// remember keeps an event. What the hub has told and start has not seen is in memory.
func (h *hub) remember(e event) {
	h.window = append(h.window, e)
	for len(h.window) > h.memory {
		h.start, h.window = h.window[0].live, h.window[1:]
	}
}

// beat sends the hub's cursor to a stream that is owed nothing.
func (h *hub) beat(s *stream) {
	id := h.live
	if h.omit == beatAfterLastRow {
		id = h.at
	}
	if s.registered && len(s.owed) == 0 || h.omit == beatOwesNothing {
		s.owed = slices.Insert(s.owed, 0, frame{id: text(id)})
	}
}
