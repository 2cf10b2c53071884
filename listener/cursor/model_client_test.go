package cursor_test

import (
	"maps"
	"slices"

	"rowcast/listener/cursor"
)

// client is an EventSource: it keeps the last id that it received, and nothing else, from stream to stream.
type client struct {
	*world
	recipients []string
	last       string // the id
	stream     *stream

	asleep   int          // turns that it still lets pass
	baseline map[int]bool // what had been seen before its first id, by serial; nil before that
	told     []*row       // since then
}

// frame is an event on its way: a row's, a beat's or a hello's, which brings a new client its baseline.
type frame struct {
	id       string
	row      *row
	baseline map[int]bool
}

// stream is a client's connection to a hub, at the hub's side.
type stream struct {
	*hub
	client     *client
	at         cursor.Cursor  // what has been told or is owed, until it is registered
	to         *cursor.Cursor // to where the replay that it is in reads
	registered bool
	owed       []frame
}

func (w *world) newClient() *client {
	c := &client{world: w}
	for _, recipient := range recipients {
		if recipient == "" || w.IntN(2) == 0 {
			c.recipients = append(c.recipients, recipient)
		}
	}
	w.clients = append(w.clients, c)
	return c
}

// carry takes a client's cursor along as another client's, to come back with it at any time.
func (w *world) carry(c *client) {
	w.clients = append(w.clients, &client{
		world: w, recipients: c.recipients, last: c.last, asleep: w.IntN(80), baseline: c.baseline, told: slices.Clone(c.told),
	})
}

func (c *client) concerns(r *row) bool { return slices.Contains(c.recipients, r.recipient) }

// receive takes up to n frames. What it does not take is lost when it stops.
func (c *client) receive(n int) {
	for range min(n, len(c.stream.owed)) {
		f := c.stream.owed[0]
		c.stream.owed = c.stream.owed[1:]
		c.last = f.id
		if f.baseline != nil {
			c.baseline, c.told = f.baseline, nil
		}
		if f.row != nil {
			c.told = append(c.told, f.row)
		}
		c.check(f.id)
	}
}

// check is that an id is read as it was written, and that what it claims can be proved after a crash: its anchor is a row of
// the highest transaction that it claims, so that it claims none beyond what was read.
func (c *client) check(id string) {
	at, err := cursor.Parse(id)
	switch {
	case err != nil:
		c.report("malformed", c)
	case !c.db.anchored(at):
		c.report("unanchored", c)
	case at.String() != id:
		c.report("reprinted", c)
	}
}

// connect opens a stream with the last id, if there is one.
func (c *client) connect(h *hub) {
	s := &stream{hub: h, client: c}
	c.stream, h.streams = s, append(h.streams, s)
	at, err := cursor.Parse(c.last)
	if err != nil {
		s.hello()
	} else if s.judge(at) {
		s.owe(s.at, nil)
	}
}

func (s *stream) close() {
	s.hub.streams = slices.DeleteFunc(s.hub.streams, func(other *stream) bool { return other == s })
	s.client.stream = nil
}

func (s *stream) owe(id cursor.Cursor, r *row) {
	s.owed = append(s.owed, frame{id: text(id), row: r})
}

// text is a cursor's, if it is one: wrong formulas make others, too.
func text(c cursor.Cursor) string {
	if !wellFormed(c) {
		return "malformed"
	}
	return c.String()
}

// hello begins a client's history, or begins it anew if its cursor cannot be honoured, with the hub's cursor.
func (s *stream) hello() {
	if s.client.baseline != nil {
		s.resets++
	}
	s.settle()
	s.registered = true
	s.owed = append(s.owed, frame{id: text(s.hub.at), baseline: maps.Clone(s.told)})
}

// join does one step towards being registered: this hub catches up with a client that comes from a faster one; then what is
// not in memory is read from the table, page by page; from memory follows the rest, at a moment at which nothing is half told.
func (s *stream) join() {
	if s.at.Epoch != s.db.epoch && !s.judge(s.at) { // a crash has come since the last step
		return
	}
	if s.omit != clientAhead && !s.hub.at.Covers(s.at) {
		if s.catchUp(); !s.hub.at.Covers(s.at) {
			s.hello()
			return
		}
	}
	if s.omit != registeredBetween {
		s.settle()
	}
	if s.at.Covers(s.start) {
		s.register()
	} else {
		s.replay()
	}
}

// register makes what memory holds and the client has not seen its backlog, and the stream a live one.
func (s *stream) register() {
	steps := s.formula(s.at, *s.target())
	for _, e := range s.unseen() {
		id := e.live
		if s.omit != ownIDs {
			id = steps(e.Row)
		}
		s.owe(id, e.row)
	}
	s.registered = true
}

// target is what a client has seen when it has been told all that its hub has.
func (s *stream) target() *cursor.Cursor {
	to := s.hub.at
	if s.omit == registeredBetween {
		to = s.live
	}
	return &to
}

// unseen is what memory holds for the client, in the order in which it is told.
func (s *stream) unseen() (events []event) {
	for _, e := range s.window {
		if s.client.concerns(e.row) && !s.at.Seen(e.Xid, e.ID) {
			events = append(events, e)
		}
	}
	slices.SortFunc(events, func(a, b event) int { return s.order(a.row, b.row) })
	return events
}

// order is the client's own, in which its half-told transaction comes first.
func (s *stream) order(a, b *row) int {
	if s.omit == halfToldFirst {
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
	if s.omit == halfToldFirst {
		slices.SortFunc(rows, s.order)
	}
	steps := s.formula(s.at, *s.to)
	for _, r := range rows[:min(s.page, len(rows))] {
		s.at = steps(r.Row)
		s.owe(s.at, r)
	}
	if len(rows) <= s.page {
		s.at, s.to = *s.to, nil
		s.registered = s.omit == registeredFromMemory
	}
}
