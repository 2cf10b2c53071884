package stream

import (
	"sync"

	"golang.org/x/sys/unix"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
)

// A Memory is what a hub remembers, by itself.
type Memory struct{ m memory }

// NewMemory makes a memory of so many bytes that begins at a cursor.
func NewMemory(limit int, from cursor.Cursor) *Memory {
	m := &Memory{memory{limit: limit}}
	m.m.begin(from)
	return m
}

// Remember encodes an event and remembers it. It returns how many bytes that takes.
func (m *Memory) Remember(e feed.Row) int {
	before := encode(&e).fit()
	m.m.remember(before)
	return before.size()
}

// Unseen counts what a client has not seen.
func (m *Memory) Unseen(c cursor.Cursor, recipients ...string) int {
	return len(unseen(c, m.m.since(c, recipients)))
}

// Since counts what a client can have missed.
func (m *Memory) Since(c cursor.Cursor, recipients ...string) int {
	return len(m.m.since(c, recipients))
}

// Remembered counts what is remembered, and tells the bytes that it takes.
func (m *Memory) Remembered() (frames, bytes int) { return len(m.m.all.frames), m.m.bytes }

// From is the cursor from which memory is complete.
func (m *Memory) From() cursor.Cursor { return m.m.from }

// RememberedEpochs is how many endings of epochs a hub remembers.
const RememberedEpochs = rememberedEpochs

// Leases is how many grants of open streams end.
func (h *Hub) Leases() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	return len(h.leases)
}

// Connect makes a stream without a socket, whose client takes everything at once. If it is not live, it stays joining.
func (h *Hub) Connect(live bool, recipients ...string) (leave func()) {
	grant := Grant{Groups: recipients}
	s := h.newSubscriber(grant)
	if refused, _ := h.admit(s, grant); refused != nil {
		panic("refused")
	}
	if live {
		h.welcome(s, claim{})
	}
	s.attach(nothing{}, nowhereToWrite())
	s.goOn()
	return func() { h.gone(s) }
}

// nowhereToWrite is a descriptor that takes everything.
var nowhereToWrite = sync.OnceValue(func() descriptor {
	fd, err := unix.Open("/dev/null", unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		panic(err)
	}
	return descriptor(fd)
})

// nothing is a sink that takes everything.
type nothing struct{}

func (nothing) write([]byte) error { return nil }
func (nothing) stuck() bool        { return false }
func (nothing) shut()              {}
func (nothing) cut()               {}
func (nothing) wait()              {}
func (nothing) close()             {}

// A Turnstile is where streams that resume wait for room, by itself.
type Turnstile struct{ p pending }

// NewTurnstile makes one with room for so many bytes.
func NewTurnstile(limit int) *Turnstile { return &Turnstile{pending{limit: int64(limit)}} }

// Reserve asks for room for a user. It returns a channel that is closed when there is room, and gives it back by what it returns.
func (t *Turnstile) Reserve(user string, bytes int) (granted <-chan struct{}, giveBack func()) {
	of := t.p.reserve(user, bytes)
	return of.granted, func() { t.p.giveBack(of) }
}

// Waiting counts the clients that wait for their turn to read from the Source.
func (h *Hub) Waiting() (n int) {
	h.turns.mu.Lock()
	defer h.turns.mu.Unlock()
	for _, q := range h.turns.readers {
		n += q.calls.Len()
	}
	return n
}

// Readers counts the users who read from the Source or wait to.
func (h *Hub) Readers() int {
	h.turns.mu.Lock()
	defer h.turns.mu.Unlock()
	return len(h.turns.readers)
}
