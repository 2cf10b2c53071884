package cursor_test

import "rowcast/listener/cursor"

// reopen does what a hub does in a new epoch, before it fetches again. The hub continues from its cursor if the cursor
// is still valid, or else from the highest delivered row that still exists. If the hub knows no such row, it restarts.
// Its streams stay open.
func (h *hub) reopen() {
	if !h.half {
		h.live = h.at // no cursor that the hub has sent claims more
	}
	last := recovery{by: h.live, next: h.db.epoch}
	if !h.db.isValid(h.live) {
		if last.left = h.left(); last.left == nil {
			h.restart()
			return
		}
	}
	h.recoveries = append(h.recoveries, last)
	h.live, h.at = last.after(h.omit, h.live), last.after(h.omit, h.at)
	if h.half = h.half && !h.live.Whole(); !h.half {
		h.at = h.live
	}
	h.from, h.snapshot, h.more = h.live, h.db.snapshot().Cursor, true
	if h.omit != memoryEnds {
		h.start, h.window = h.live, nil
	}
	for _, s := range h.streams {
		if s.isLive && last.left != nil {
			s.enqueue(h.live, nil) // a beat with the clamped cursor, so that no client resumes from a lost row
		}
	}
}

// note keeps a row that was delivered.
func (h *hub) note(row cursor.Row) {
	if h.delivered = append(h.delivered, row); len(h.delivered) > h.maxDelivered {
		h.floor, h.delivered = max(h.floor, h.delivered[0].Xid), h.delivered[1:]
	}
}

// left returns the highest delivered row that still exists. It returns nil if there is none, or if a delivered row that
// is not kept could be above it.
func (h *hub) left() (left *cursor.Row) {
	for _, row := range h.delivered {
		if h.db.holds(row) && (row.Xid >= h.floor || h.omit == floor) && (left == nil || left.Compare(row) < 0) {
			left = &row
		}
	}
	return left
}

func (h *hub) restart() {
	if !h.db.hasLost(h.live) {
		h.report("the hub restarts, though the anchor of its cursor was not lost", nil)
	}
	h.begin()
	for _, s := range h.streams {
		if s.isLive {
			s.hello()
		}
	}
}

// after converts a cursor of the ended epoch to the new epoch. It clamps the cursor if delivered rows are lost.
func (e recovery) after(omit rule, c cursor.Cursor) cursor.Cursor {
	if e.left != nil && omit != clamped {
		return c.Clamp(*e.left, e.next)
	}
	c.Epoch = e.next
	return c
}

// forward converts a client's cursor of an earlier epoch to the present epoch. known reports whether that is possible:
// the hub must have a record of each recovery since that epoch, and must have delivered what the client has seen.
func (h *hub) forward(c cursor.Cursor) (left cursor.Cursor, known bool) {
	recoveries := h.recoveries
	if h.omit == everyRecovery && len(recoveries) > 0 {
		recoveries = recoveries[len(recoveries)-1:]
		recoveries[0].by.Epoch = c.Epoch
	}
	for _, e := range recoveries {
		if c.Epoch != e.by.Epoch {
			continue
		}
		if h.omit != onlyDelivered && !e.by.Covers(c) {
			return c, false
		}
		c, known = e.after(h.omit, c), true
	}
	return c, known
}

// validate decides from which cursor a stream continues: from the client's cursor if it is valid, or from the cursor
// that forward returns. If forward cannot convert the cursor, validate resets the client.
func (s *stream) validate(at cursor.Cursor) (accepted bool) {
	s.to = nil
	claimed := at
	if at.Epoch != s.db.epoch {
		if s.db.isValid(at) {
			at.Epoch = s.db.epoch
		} else if at, accepted = s.forward(at); !accepted {
			if !s.db.hasLost(claimed) {
				s.report("reset, though the anchor of its cursor was not lost", s.client)
			}
			s.hello()
			return false
		}
	}
	s.at = at
	return true
}
