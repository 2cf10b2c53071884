package stream

import (
	"os"
	"sync"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream/wire"
)

// A Memory is the memory of a Hub, without the Hub.
type Memory struct{ m memory }

// NewMemory returns a memory that begins at a cursor and holds up to limit bytes.
func NewMemory(limit int, from cursor.Cursor) *Memory {
	m := &Memory{memory{limit: limit}}
	m.m.begin(from)
	return m
}

// Add encodes and adds an event. It returns the bytes of memory that the event uses.
func (m *Memory) Add(e feed.Row) int {
	f := encode(&e).trim()
	m.m.add(f)
	return f.size()
}

// Unseen returns the number of events that a client has not seen.
func (m *Memory) Unseen(c cursor.Cursor, recipients ...string) int {
	return len(unseen(c, m.m.since(c, recipients)))
}

// Since returns the number of events that a client may have missed.
func (m *Memory) Since(c cursor.Cursor, recipients ...string) int {
	return len(m.m.since(c, recipients))
}

// Size returns the number of events in the memory and the bytes that they use.
func (m *Memory) Size() (frames, bytes int) { return len(m.m.all.frames), m.m.bytes }

// From returns the cursor after which the memory has all events.
func (m *Memory) From() cursor.Cursor { return m.m.from }

// MaxRecoveries is the largest number of recoveries that a Hub keeps.
const MaxRecoveries = maxRecoveries

// Leases returns the number of open streams whose grant expires and is not being renewed at the moment.
func (h *Hub) Leases() int {
	st := h.state.Lock()
	defer h.state.Unlock()
	return len(st.leases)
}

// Connect opens a stream over a connection that accepts everything at once. If live is false, the stream never becomes
// live. leave closes the stream.
func (h *Hub) Connect(live bool, recipients ...string) (leave func()) {
	grant := Grant{Groups: recipients}
	s := newSubscriber(h, grant, nil)
	if refused, _ := h.admit(s, grant, true, false); refused != nil {
		panic("refused")
	}
	if live {
		h.beginAtOnce(s, clientCursor{})
	}
	s.attach(discard{})
	s.begin()
	return func() { h.gone(s) }
}

// discard is a connection that accepts everything.
type discard struct{}

func (discard) Direct() wire.Direct { return toNull() }
func (discard) Write([]byte) error  { return nil }
func (discard) Stalled() bool       { return false }
func (discard) Shutdown()           {}
func (discard) Abort()              {}
func (discard) Close()              {}

// toNull returns a Direct that writes to the null device.
var toNull = sync.OnceValue(func() wire.Direct {
	file, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		panic(err)
	}
	raw, err := file.SyscallConn()
	if err != nil {
		panic(err)
	}
	return wire.DirectTo(raw)
})

// Reservations is the queue for memory of streams that resume, without a Hub.
type Reservations struct{ p pending }

// NewReservations returns a queue with a limit in bytes.
func NewReservations(limit int) *Reservations { return &Reservations{pending{limit: int64(limit)}} }

// Reserve requests memory for a user. granted is closed when the memory is granted, and giveBack gives the memory back.
func (r *Reservations) Reserve(user string, bytes int) (granted <-chan struct{}, giveBack func()) {
	of := r.p.reserve(user, bytes)
	return of.granted, func() { r.p.giveBack(of) }
}

// WaitingCalls returns the number of calls of the Source that wait in the fair queue.
func (h *Hub) WaitingCalls() int { return h.calls.Waiting() }

// Readers returns the number of users and addresses with a running or waiting call of the Source.
func (h *Hub) Readers() int { return h.calls.Keys() }

// EndWhileBegun resumes a stream for a user, and ends it before its first bytes are taken, as Disconnect can. It returns
// the first bytes, and a channel that is closed when the connection has been closed.
func (h *Hub) EndWhileBegun(user string, from cursor.Cursor) (first []byte, closed <-chan struct{}) {
	grant := Grant{User: user}
	s := newSubscriber(h, grant, nil)
	if refused, _ := h.admit(s, grant, true, false); refused != nil {
		panic("refused")
	}
	if _, missed, ok := h.goLiveAtOnce(s, clientCursor{cursor: from, given: true}); !ok || missed == 0 {
		panic("the stream is not live, or has missed nothing")
	}
	s.end(note(eventBye, nil, nil))
	next, _ := s.next(nil, nil)
	conn := &closing{closed: make(chan struct{})}
	s.attach(conn)
	s.begin()
	return next.bytes, conn.closed
}

// closing is a connection that closes a channel when it is shut down.
type closing struct {
	discard
	closed chan struct{}
}

func (c *closing) Shutdown() { close(c.closed) }
