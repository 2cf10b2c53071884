package cursor_test

import (
	"maps"
	"slices"

	"rowcast/listener/cursor"
)

// A client is an EventSource. From one stream to the next, it keeps only the last id that it received.
type client struct {
	*world
	recipients []string
	last       string // the last id
	stream     *stream

	asleep   int          // how many of its next actions the client skips
	baseline map[int]bool // the serials of the rows already seen at the first id or the last reset; nil before the first id
	received []*row       // the rows received after that
}

// A frame is an event that is queued for a client: a row, a beat or a hello. The hello of a new or reset stream has a
// baseline.
type frame struct {
	id       string
	row      *row
	baseline map[int]bool
}

// A stream is a client's connection to a hub, as the hub sees it.
type stream struct {
	*hub
	client  *client
	at      cursor.Cursor  // the cursor of a client that has received all frames so far; unused once the stream is live
	to      *cursor.Cursor // the end of the present replay; nil if there is none
	isLive  bool
	pending []frame
}

func (w *world) newClient() *client {
	c := &client{world: w}
	for _, recipient := range recipients {
		if recipient == everyone || w.IntN(2) == 0 {
			c.recipients = append(c.recipients, recipient)
		}
	}
	w.clients = append(w.clients, c)
	return c
}

// carry adds a client with the last id of c, as if the id were copied to another page. The new client connects at any
// later time.
func (w *world) carry(c *client) {
	w.clients = append(w.clients, &client{
		world: w, recipients: c.recipients, last: c.last, asleep: w.IntN(80), baseline: c.baseline, received: slices.Clone(c.received),
	})
}

func (c *client) concerns(r *row) bool { return slices.Contains(c.recipients, r.recipient) }

// receive takes up to n frames. If the stream closes, the frames that are still pending are lost.
func (c *client) receive(n int) {
	for range min(n, len(c.stream.pending)) {
		f := c.stream.pending[0]
		c.stream.pending = c.stream.pending[1:]
		c.last = f.id
		if f.baseline != nil {
			c.baseline, c.received = f.baseline, nil
		}
		if f.row != nil {
			c.received = append(c.received, f.row)
		}
		c.check(f.id)
	}
}

// check checks that an id is parsed as it was written, and that it can be validated after a crash. For this, its anchor
// must be, or have been, a row of the highest transaction that the id claims. It can also be the anchor of a reader
// that has seen no row.
func (c *client) check(id string) {
	at, err := cursor.Parse(id)
	switch {
	case err != nil:
		c.report("received a malformed id", c)
	case !c.db.anchored(at):
		c.report("received an id whose anchor was never in the table", c)
	case at.String() != id:
		c.report("received an id that is parsed as another cursor", c)
	}
}

// connect opens a stream, with the last id if there is one.
func (c *client) connect(h *hub) {
	s := &stream{hub: h, client: c}
	c.stream, h.streams = s, append(h.streams, s)
	at, err := cursor.Parse(c.last)
	if err != nil {
		s.hello()
	} else if s.validate(at) {
		s.enqueue(s.at, nil)
	}
}

func (s *stream) close() {
	s.hub.streams = slices.DeleteFunc(s.hub.streams, func(other *stream) bool { return other == s })
	s.client.stream = nil
}

func (s *stream) enqueue(id cursor.Cursor, r *row) {
	s.pending = append(s.pending, frame{id: text(id), row: r})
}

// text returns the text of a cursor, or "malformed". A cursor can be malformed if the model leaves out a rule.
func text(c cursor.Cursor) string {
	if !wellFormed(c) {
		return "malformed"
	}
	return c.String()
}

// hello begins a stream at the hub's cursor. It counts a reset if the client already has a baseline.
func (s *stream) hello() {
	if s.client.baseline != nil {
		s.resets++
	}
	s.settle()
	s.isLive = true
	s.pending = append(s.pending, frame{id: text(s.hub.at), baseline: maps.Clone(s.seen)})
}

// join does one step of a stream that is not live yet. First the hub catches up with a client that comes from a faster
// hub. Then the stream gets the rows that are not in memory from the table, page by page. Then it gets the rows in
// memory, at a moment when no transaction is half-delivered.
func (s *stream) join() {
	if s.at.Epoch != s.db.epoch && !s.validate(s.at) { // the server has crashed since the last step
		return
	}
	if s.omit != clientAhead && !s.hub.at.Covers(s.at) {
		if s.catchUp(); !s.hub.at.Covers(s.at) {
			s.hello()
			return
		}
	}
	if s.omit != liveBetween {
		s.settle()
	}
	if s.at.Covers(s.start) {
		s.goLive()
	} else {
		s.replay()
	}
}

// goLive makes the stream live. It adds the rows in memory that the client has not seen to the pending frames.
func (s *stream) goLive() {
	steps := s.formula(s.at, *s.target())
	for _, e := range s.unseen() {
		id := e.live
		if s.omit != ownIDs {
			id = steps(e.Row)
		}
		s.enqueue(id, e.row)
	}
	s.isLive = true
}

// target returns the cursor that the stream must reach to become live. This is the cursor of its hub.
func (s *stream) target() *cursor.Cursor {
	to := s.hub.at
	if s.omit == liveBetween {
		to = s.live
	}
	return &to
}

// unseen returns the rows in memory that the client has not seen, in the order of delivery.
func (s *stream) unseen() (events []event) {
	for _, e := range s.window {
		if s.client.concerns(e.row) && !s.at.Seen(e.Xid, e.ID) {
			events = append(events, e)
		}
	}
	slices.SortFunc(events, func(a, b event) int { return s.order(a.row, b.row) })
	return events
}

// order compares two rows in the order of delivery to the client. The half-delivered transaction of the client comes
// first.
func (s *stream) order(a, b *row) int {
	if s.omit == halfDeliveredFirst {
		return a.Compare(b.Row)
	}
	return s.at.Compare(a.Row, b.Row)
}

// replay reads a page from the table, up to the cursor that the hub had when the replay began.
func (s *stream) replay() {
	if s.to == nil {
		s.to = s.target()
	}
	rows := s.db.unseen(s.at, *s.to, s.client.concerns)
	if s.omit == halfDeliveredFirst {
		slices.SortFunc(rows, s.order)
	}
	steps := s.formula(s.at, *s.to)
	for _, r := range rows[:min(s.page, len(rows))] {
		s.at = steps(r.Row)
		s.enqueue(s.at, r)
	}
	if len(rows) <= s.page {
		s.at, s.to = *s.to, nil
		s.isLive = s.omit == liveWithMemory
	}
}
