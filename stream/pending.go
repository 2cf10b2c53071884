package stream

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// pending is the account of the memory that is held because clients have not taken it yet: backlogs, what is being written, and
// pages that were read for streams that resume. Memory that several streams share is counted once.
type pending struct {
	limit int64
	used  atomic.Int64

	waiting atomic.Int32 // tickets

	mu    sync.Mutex
	turns list.List // of *line: the users that wait for room, the next one first
	lines map[string]*list.Element
	moved time.Time // when a ticket was last granted, or the first one began to wait
}

// A line is the tickets of one user.
type line struct {
	user    string
	tickets list.List
}

// A ticket is for bytes that a stream will need. The stream waits until they are granted.
type ticket struct {
	user    string
	bytes   int64
	granted chan struct{}
	at      *list.Element // in its line; nil once it is granted
}

// add counts n more bytes, or with a negative n fewer.
func (p *pending) add(n int) {
	p.used.Add(int64(n))
	if n < 0 && p.waiting.Load() > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.grant()
	}
}

// hold counts memory for one more holder.
func (p *pending) hold(holders *atomic.Int32, bytes int) {
	if holders.Add(1) == 1 {
		p.add(bytes)
	}
}

// release ends what hold began.
func (p *pending) release(holders *atomic.Int32, bytes int) {
	if holders.Add(-1) == 0 {
		p.add(-bytes)
	}
}

// full reports whether so much is held that no stream may fall behind any more, not even until the streams that are owed most have
// been closed.
func (p *pending) full() bool { return p.used.Load() > p.limit+p.limit/8 }

// reserve asks for room. The users that wait take turns, and so no user keeps others out by opening many streams.
func (p *pending) reserve(user string, bytes int) *ticket {
	t := &ticket{user: user, bytes: min(int64(bytes), p.limit/2), granted: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.lines[user]
	if at == nil {
		if p.lines == nil {
			p.lines = make(map[string]*list.Element)
		}
		at = p.turns.PushBack(&line{user: user})
		p.lines[user] = at
	}
	t.at = at.Value.(*line).tickets.PushBack(t)
	if p.waiting.Add(1) == 1 {
		p.moved = time.Now()
	}
	p.grant()
	return t
}

// first returns the ticket whose turn it is, or nil.
func (p *pending) first() *ticket {
	if front := p.turns.Front(); front != nil {
		return front.Value.(*line).tickets.Front().Value.(*ticket)
	}
	return nil
}

// grant lets in as many as there is room for.
func (p *pending) grant() {
	for t := p.first(); t != nil && p.used.Load()+t.bytes <= p.limit; t = p.first() {
		p.used.Add(t.bytes)
		p.moved = time.Now()
		p.remove(t)
		close(t.granted)
	}
}

// remove takes a ticket out of its line. Its user's next one has to wait until the others have had their turn.
func (p *pending) remove(t *ticket) {
	at := p.lines[t.user]
	of := at.Value.(*line)
	of.tickets.Remove(t.at)
	t.at = nil
	p.waiting.Add(-1)
	if of.tickets.Len() > 0 {
		p.turns.MoveToBack(at)
		return
	}
	p.turns.Remove(at)
	delete(p.lines, t.user)
}

// giveBack ends a reservation, granted or not.
func (p *pending) giveBack(t *ticket) {
	p.mu.Lock()
	if t.at != nil {
		p.remove(t)
		p.grant()
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	p.add(-int(t.bytes))
}

// overdue reports whether streams have waited for so long and none of them was let in. Then no more than most bytes may be held for the
// next one to be let in.
func (p *pending) overdue(after time.Duration) (most int64, waited bool) {
	if p.waiting.Load() == 0 {
		return 0, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t := p.first()
	if t == nil || time.Since(p.moved) < after {
		return 0, false
	}
	p.moved = time.Now()
	return p.limit - t.bytes, true
}

// relieve closes the streams that are owed most if more is held than the limit. The hub must be locked.
func (h *Hub) relieve() {
	if h.pending.used.Load() > h.pending.limit {
		h.closeOwed(h.pending.limit - h.pending.limit/8)
	}
}

// closeOwed closes the streams that are owed most until no more than so many bytes are held for all. Their clients resume. The hub
// must be locked.
func (h *Hub) closeOwed(most int64) {
	type debtor struct {
		s    *subscriber
		owed int64
	}
	var debtors []debtor
	for _, s := range h.roster.all() {
		if owed := s.owed(); owed > 0 {
			debtors = append(debtors, debtor{s, owed})
		}
	}
	slices.SortFunc(debtors, func(a, b debtor) int { return cmp.Compare(b.owed, a.owed) })
	closed, held := 0, h.pending.used.Load()
	for _, d := range debtors {
		if h.pending.used.Load() <= most {
			break
		}
		d.s.close()
		closed++
	}
	h.tooMuch(closed, held)
}

// tooMuch counts streams that were closed because so many bytes were held for all streams together.
func (h *Hub) tooMuch(closed int, held int64) {
	if closed == 0 {
		return
	}
	h.Stats.Evicted.Add(int64(closed))
	if logger, ok := h.evictions.Allow(h.Logger); ok {
		logger.Warn("closed the slowest streams because too many bytes were held for slow streams; their clients resume",
			"closed", closed, "held", held, "limit", h.pending.limit)
	}
}
