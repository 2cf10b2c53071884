package stream

import (
	"cmp"
	"container/list"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rowcast/listener/cursor"
)

// A backlog holds the events that are still to be written to a stream, and counts the memory that they use. A stream
// has a backlog only while its output is busy. The backlog belongs to the stream's output.
type backlog struct {
	pending *pending
	frames  []*frame
	bytes   int // the sum of the lengths of frames

	// When a stream resumes from the Hub's memory, its first frames are sent with ids that are for this stream only.
	// replay computes these ids.
	replay      *cursor.Steps
	replayed    int // the number of frames whose ids replay computes
	maxIDLength int // an upper limit for the length of the id fields that replay computes

	buffer  []byte // the buffer of the goroutine that writes
	writing shared // the memory of the current write that other streams may hold, too; zero if there is none
	own     int    // the bytes of memory that are counted for this stream alone
}

// shared is memory that several streams may hold. It is counted once.
type shared struct {
	holders *atomic.Int32
	bytes   int
}

// goroutineSize is roughly the number of bytes that a goroutine needs to write to a client.
const goroutineSize = 8 << 10

// writeSize is roughly the largest number of bytes that are written in one step, except for large events.
const writeSize = 32 << 10

// length returns the number of bytes that the client receives for frame i, or an upper limit if the frame is sent with
// an id that is for this stream only.
func (b *backlog) length(i int) int {
	f := b.frames[i]
	if i < b.replayed {
		return f.lengthWithID(b.maxIDLength)
	}
	return f.length()
}

// lengthAfterFirst returns the sum of the lengths of all frames except the first.
func (b *backlog) lengthAfterFirst() int {
	if len(b.frames) == 0 {
		return 0
	}
	return b.bytes - b.length(0)
}

// empty reports whether there are no frames. It may be called on nil.
func (b *backlog) empty() bool { return b == nil || len(b.frames) == 0 }

func (b *backlog) add(f *frame) {
	b.frames = append(b.frames, f)
	b.bytes += b.length(len(b.frames) - 1)
	b.pending.hold(&f.holders, f.held())
}

// beginWrite counts shared memory that is being written. The memory is counted until endWrite is called.
func (b *backlog) beginWrite(s shared) {
	b.pending.hold(s.holders, s.bytes)
	b.writing = s
}

// endWrite releases the memory that beginWrite counted, if there is any.
func (b *backlog) endWrite() {
	if b.writing.holders != nil {
		b.pending.release(b.writing.holders, b.writing.bytes)
		b.writing = shared{}
	}
}

// take removes the first frames and appends them to buffer, up to about writeSize bytes in all. A large event ends the
// chunk.
func (b *backlog) take(buffer []byte) chunk {
	next, taken := chunk{bytes: buffer}, 0
	for i, f := range b.frames {
		if len(next.bytes) > 0 && len(next.bytes)+b.length(i) > writeSize {
			break
		}
		b.bytes -= b.length(i)
		if i < b.replayed {
			next = f.appendWithID(next.bytes, b.replay.After(f.row))
		} else {
			next = f.appendLive(next.bytes)
		}
		taken++
		if next.large != nil {
			b.beginWrite(shared{&f.holders, f.held()})
		}
		b.pending.release(&f.holders, f.held())
		b.frames[i] = nil
		if next.large != nil {
			break
		}
	}
	b.replayed = max(0, b.replayed-taken)
	if b.frames = b.frames[taken:]; len(b.frames) == 0 {
		b.frames, b.replay = nil, nil
	}
	b.buffer = next.bytes
	return next
}

// count updates the memory that is counted for this stream alone.
func (b *backlog) count() {
	own := goroutineSize + cap(b.buffer) + 8*cap(b.frames)
	if b.replay != nil {
		own += 8 * (len(b.replay.From().Xip) + len(b.replay.To().Xip))
	}
	b.pending.add(own - b.own)
	b.own = own
}

// drop removes all frames and releases all memory that is counted.
func (b *backlog) drop() {
	for _, f := range b.frames {
		b.pending.release(&f.holders, f.held())
	}
	b.endWrite()
	b.pending.add(-b.own)
	*b = backlog{pending: b.pending}
}

// A pending counts the memory that is held because clients have not accepted it yet: backlogs, and what is being
// written. It also counts the memory that is reserved for pages of the Source. Memory that several streams share is
// counted once.
type pending struct {
	limit int64
	used  atomic.Int64

	waiting atomic.Int32 // the number of waiting reservations

	mu    sync.Mutex
	turns list.List // the users with waiting reservations, in the order of their turns, each as a *userQueue
	users map[string]*list.Element
	moved time.Time // when a reservation was last granted, the queue was last empty, or overdue last returned true
}

// A userQueue holds the waiting reservations of one user.
type userQueue struct {
	user    string
	waiting list.List // of *reservation
}

// A reservation is a request for memory that a stream is about to need. The stream waits until the reservation is
// granted.
type reservation struct {
	user    string
	bytes   int64
	granted chan struct{}
	at      *list.Element // the place in the userQueue; nil once the reservation is granted
}

// add counts n more bytes, or fewer if n is negative.
func (p *pending) add(n int) {
	p.used.Add(int64(n))
	if n < 0 && p.waiting.Load() > 0 {
		p.mu.Lock()
		defer p.mu.Unlock()
		p.grant()
	}
}

// hold adds a holder of shared memory. The memory is counted when the first holder is added.
func (p *pending) hold(holders *atomic.Int32, bytes int) {
	if holders.Add(1) == 1 {
		p.add(bytes)
	}
}

// release removes a holder of shared memory. The memory is no longer counted when the last holder is removed.
func (p *pending) release(holders *atomic.Int32, bytes int) {
	if holders.Add(-1) == 0 {
		p.add(-bytes)
	}
}

// full reports whether the memory exceeds the limit by more than an eighth. In that case, a live stream that would
// begin or extend a backlog is closed, even before limitPending has closed the slowest streams.
func (p *pending) full() bool { return p.used.Load()-p.limit/8 > p.limit }

// reserve requests memory. Waiting users take turns, so a user with many streams does not keep others waiting.
func (p *pending) reserve(user string, bytes int) *reservation {
	r := &reservation{user: user, bytes: min(int64(bytes), p.limit/2), granted: make(chan struct{})}
	p.mu.Lock()
	defer p.mu.Unlock()
	at := p.users[user]
	if at == nil {
		if p.users == nil {
			p.users = make(map[string]*list.Element)
		}
		at = p.turns.PushBack(&userQueue{user: user})
		p.users[user] = at
	}
	r.at = at.Value.(*userQueue).waiting.PushBack(r)
	if p.waiting.Add(1) == 1 {
		p.moved = time.Now()
	}
	p.grant()
	return r
}

// first returns the reservation whose turn it is, or nil.
func (p *pending) first() *reservation {
	if front := p.turns.Front(); front != nil {
		return front.Value.(*userQueue).waiting.Front().Value.(*reservation)
	}
	return nil
}

// grant grants reservations in the order of the turns, until the next one does not fit into the limit.
func (p *pending) grant() {
	for r := p.first(); r != nil && p.used.Load()+r.bytes <= p.limit; r = p.first() {
		p.used.Add(r.bytes)
		p.moved = time.Now()
		p.remove(r)
		close(r.granted)
	}
}

// remove removes a waiting reservation. The user's next reservation waits until the other users have had their turns.
func (p *pending) remove(r *reservation) {
	at := p.users[r.user]
	q := at.Value.(*userQueue)
	q.waiting.Remove(r.at)
	r.at = nil
	p.waiting.Add(-1)
	if q.waiting.Len() > 0 {
		p.turns.MoveToBack(at)
		return
	}
	p.turns.Remove(at)
	delete(p.users, r.user)
}

// giveBack ends a reservation, granted or not.
func (p *pending) giveBack(r *reservation) {
	p.mu.Lock()
	if r.at != nil {
		p.remove(r)
		p.grant()
		p.mu.Unlock()
		return
	}
	p.mu.Unlock()
	p.add(-int(r.bytes))
}

// overdue reports whether reservations wait and none was granted for the given time. target is the largest number of
// held bytes with which the next reservation is granted. After overdue has reported true, it reports false for the
// given time.
func (p *pending) overdue(after time.Duration) (target int64, overdue bool) {
	if p.waiting.Load() == 0 {
		return 0, false
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	r := p.first()
	if r == nil || time.Since(p.moved) < after {
		return 0, false
	}
	p.moved = time.Now()
	return p.limit - r.bytes, true
}

// limitPending closes the slowest streams if more memory is held than the limit allows.
func (st *state) limitPending() {
	if p := &st.hub.pending; p.used.Load() > p.limit {
		st.closeSlowest(p.limit - p.limit/8)
	}
}

// closeSlowest closes the streams with the most pending bytes until at most target bytes are held, or no stream
// with pending bytes is left. Their clients resume.
func (st *state) closeSlowest(target int64) {
	type slow struct {
		s     *subscriber
		bytes int64
	}
	var all []slow
	for _, s := range st.roster.all() {
		if bytes := s.pendingBytes(); bytes > 0 {
			all = append(all, slow{s, bytes})
		}
	}
	slices.SortFunc(all, func(a, b slow) int { return cmp.Compare(b.bytes, a.bytes) })
	p := &st.hub.pending
	closed, held := 0, p.used.Load()
	for _, slow := range all {
		if p.used.Load() <= target {
			break
		}
		slow.s.close()
		closed++
	}
	st.hub.countEvicted(closed, held)
}

// countEvicted counts and logs streams that were closed while the given number of bytes was held for all streams.
func (h *Hub) countEvicted(closed int, held int64) {
	if closed == 0 {
		return
	}
	h.Stats.Evicted.Add(int64(closed))
	if logger, ok := h.evictions.Allow(h.Logger); ok {
		logger.Warn("closed slow streams to free the memory that all streams share; their clients resume",
			"closed", closed, "held", held, "limit", h.pending.limit)
	}
}
