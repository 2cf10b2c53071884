package cursor_test

import "rowcast/listener/cursor"

// reopen is what a hub does at a new epoch, before it fetches again: it goes on from what is left of its cursor, or if it remembers
// nothing that is left, anew. Its streams stay open.
func (h *hub) reopen() {
	if !h.half {
		h.live = h.at // what clients may have been given
	}
	last := ending{by: h.live, next: h.db.epoch}
	if !h.db.stands(h.live) {
		if last.left = h.left(); last.left == nil {
			h.beginAnew()
			return
		}
	}
	h.epochs = append(h.epochs, last)
	h.live, h.at = last.after(h.omit, h.live), last.after(h.omit, h.at)
	if h.half = h.half && !h.live.Whole(); !h.half {
		h.at = h.live
	}
	h.from, h.snapshot, h.more = h.live, h.db.snapshot().Cursor, true
	if h.omit != memoryEnds {
		h.start, h.window = h.live, nil
	}
	for _, s := range h.streams {
		if s.registered && last.left != nil {
			s.owe(h.live, nil) // so that nobody goes on from what is gone
		}
	}
}

// note remembers that a row was told.
func (h *hub) note(told cursor.Row) {
	if h.tellings = append(h.tellings, told); len(h.tellings) > h.tellable {
		h.floor, h.tellings = max(h.floor, h.tellings[0].Xid), h.tellings[1:]
	}
}

// left is the highest of the rows told that still stands, if none that is not remembered could be above it.
func (h *hub) left() (left *cursor.Row) {
	for _, told := range h.tellings {
		if h.db.holds(told) && (told.Xid >= h.floor || h.omit == floor) && (left == nil || left.Compare(told) < 0) {
			left = &told
		}
	}
	return left
}

func (h *hub) beginAnew() {
	if !h.db.tookBack(h.live) {
		h.report("the hub begins anew, though nothing that it told was taken back", nil)
	}
	h.begin()
	for _, s := range h.streams {
		if s.registered {
			s.hello()
		}
	}
}

// after is what is left of a cursor of the epoch that has ended.
func (e ending) after(omit corner, c cursor.Cursor) cursor.Cursor {
	if e.left != nil && omit != clamped {
		return c.Clamp(*e.left, e.next)
	}
	c.Epoch = e.next
	return c
}

// forward is what is left of a client's cursor of an earlier epoch, if this hub knows.
func (h *hub) forward(c cursor.Cursor) (left cursor.Cursor, known bool) {
	epochs := h.epochs
	if h.omit == everyCrash && len(epochs) > 0 {
		epochs = epochs[len(epochs)-1:]
		epochs[0].by.Epoch = c.Epoch
	}
	for _, e := range epochs {
		if c.Epoch != e.by.Epoch {
			continue
		}
		if h.omit != onlyWhatItTold && !e.by.Covers(c) {
			return c, false
		}
		c, known = e.after(h.omit, c), true
	}
	return c, known
}

// judge decides from where a stream goes on: from the client's cursor if that still holds or this hub knows what is left of it,
// else anew from the present.
func (s *stream) judge(at cursor.Cursor) (honoured bool) {
	s.to = nil
	claimed := at
	if at.Epoch != s.db.epoch {
		if s.db.stands(at) {
			at.Epoch = s.db.epoch
		} else if at, honoured = s.forward(at); !honoured {
			if !s.db.tookBack(claimed) {
				s.report("reset, though nothing that it had seen was taken back", s.client)
			}
			s.hello()
			return false
		}
	}
	s.at = at
	return true
}
