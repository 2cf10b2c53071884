package stream

import (
	"context"
	"sync"
	"sync/atomic"

	"rowcast/listener/cursor"
)

// A subscriber is one stream.
type subscriber struct {
	// All that telling an event to an idle subscriber looks at comes first, so that it lies together: there are thousands, and
	// finding each in memory costs more than the work itself.

	mu      sync.Mutex
	socket  descriptor // to try without waiting; none where the sink cannot
	joining bool       // join is writing, and the subscriber is not live yet
	busy    bool       // somebody is writing: the backlog must wait
	ending  bool       // closes when the backlog is empty
	closed  bool
	slot    uint32 // its part of the roster; this and the next are the hub's, under its lock
	place   uint32 // its index in that part
	active  uint64 // the tick at which it was last sent something

	debt *debt        // nil when nobody writes
	left atomic.Int64 // bytes of what is being written that the client has not taken yet

	hub        *Hub
	user       string
	out        sink
	recipients []string           // sorted
	places     []uint32           // its indexes in the groups of its recipients; the hub's, under its lock
	holder     *holder            // nil if nobody counts
	lease      *lease             // the hub's, under its lock
	quiet      sync.Cond          // on mu: no longer busy
	leave      context.CancelFunc // ends the joining; nil once that is over
}

// A sink is the way to a client.
type sink interface {
	// write writes all of b, for as long as the client takes some of it now and then.
	write(b []byte) error
	// stuck is asked once a heartbeat: has the client taken nothing for two of them, though there was something to take?
	stuck() bool
	// shut ends the stream in order: the client still gets what was written, if it takes it within two heartbeats. It may be called
	// at any time.
	shut()
	// cut ends the stream at once, and what was written and has not been taken is dropped. It may be called at any time.
	cut()
	// wait returns when the client has gone or the stream has been ended.
	wait()
	// close gives back what the sink has, once nobody uses it any more.
	close()
}

// send gives the subscriber frames and never waits. A subscriber that cannot be given them is closed.
func (s *subscriber) send(r *run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.ending {
		return
	}
	if s.busy {
		s.owe(r.frames)
		return
	}
	n, err := s.socket.try(r.bytes)
	if err != nil {
		s.closeLocked()
		return
	}
	if n == len(r.bytes) && r.rest == nil || s.tooMuch() {
		return
	}
	s.busy = true
	d := s.owing()
	d.write(r.shared())
	d.count()
	s.left.Store(int64(len(r.bytes) - n + len(r.rest)))
	go s.drain(r.bytes[n:], r.rest)
}

// owe adds to the backlog, whose first event does not count: so one of any size goes through.
func (s *subscriber) owe(frames []*frame) {
	if s.tooMuch() {
		return
	}
	d := s.owing()
	for _, f := range frames {
		if len(d.backlog) > 0 && d.bytes-d.length(0)+f.length() > s.hub.Backlog {
			s.closeLocked()
			s.hub.Stats.Overflows.Add(1)
			return
		}
		d.add(f)
	}
	d.count()
}

// tooMuch closes the subscriber if it must not fall behind, since too much is held for others already.
func (s *subscriber) tooMuch() bool {
	if !s.hub.pending.full() {
		return false
	}
	s.closeLocked()
	s.hub.tooMuch(1, s.hub.pending.used.Load())
	return true
}

// owing returns the subscriber's debt.
func (s *subscriber) owing() *debt {
	if s.debt == nil {
		s.debt = &debt{pending: &s.hub.pending}
	}
	return s.debt
}

// owed returns how many bytes the client has to take.
func (s *subscriber) owed() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.debt == nil {
		return 0
	}
	return int64(s.debt.bytes) + s.left.Load()
}

// drain writes first, then what is after it, and then the backlog, until there is none.
func (s *subscriber) drain(first, then []byte) {
	s.flush(nil, s.write(first, then))
}

// flush writes what is in the buffer and then the backlog, until there is none. err is that of the write before.
func (s *subscriber) flush(buffer []byte, err error) {
	for {
		first, then := s.next(buffer, err)
		if len(first)+len(then) == 0 {
			return
		}
		err = s.write(first, then)
		buffer = first[:0]
	}
}

// piece is how much the sink is given at a time, in bytes: so the hub knows how much of a large event a client still has to take.
const piece = 256 << 10

func (s *subscriber) write(parts ...[]byte) error {
	left := 0
	for _, b := range parts {
		left += len(b)
	}
	s.left.Store(int64(left))
	for _, b := range parts {
		for len(b) > 0 {
			n := min(len(b), piece)
			if err := s.out.write(b[:n]); err != nil {
				return err
			}
			s.left.Add(int64(-n))
			b = b[n:]
		}
	}
	return nil
}

// writeAtOnce is about how much is written in one go, in bytes.
const writeAtOnce = 32 << 10

// next appends what is to be written next to the buffer; nothing means that there is no more.
func (s *subscriber) next(buffer []byte, err error) (first, then []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.closeLocked()
	}
	if s.debt != nil {
		s.debt.written()
	}
	if s.ending && len(buffer) == 0 && (s.debt == nil || len(s.debt.backlog) == 0) {
		s.endLocked(sink.shut)
	}
	if s.closed || len(buffer) == 0 && (s.debt == nil || len(s.debt.backlog) == 0) {
		s.forgive()
		if !s.joining {
			s.stopWriting()
		}
		return nil, nil
	}
	d := s.owing()
	first, then = d.take(buffer)
	d.count()
	s.left.Store(int64(len(first) + len(then)))
	return first, then
}

// forgive ends the debt.
func (s *subscriber) forgive() {
	if s.debt != nil {
		s.debt.forgive()
		s.debt = nil
	}
}

// idle tells whether the subscriber is owed nothing.
func (s *subscriber) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.busy
}

// resume makes the subscriber live, with what it is still owed from memory.
func (s *subscriber) resume(frames []*frame, steps *cursor.Steps) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joining, s.leave = false, nil
	s.load(frames, steps)
}

// replay gives a subscriber that is joining what it is to be told first.
func (s *subscriber) replay(frames []*frame, steps *cursor.Steps) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.load(frames, steps)
}

// load fills the backlog, without a bound. The frames have the ids of the steps, or without steps their own.
func (s *subscriber) load(frames []*frame, steps *cursor.Steps) {
	if s.closed || len(frames) == 0 {
		return
	}
	d := s.owing()
	if steps != nil {
		d.replay, d.replayed, d.longest = steps, len(frames), longestID(steps)
	}
	for _, f := range frames {
		d.add(f)
	}
	d.count()
}

// attach gives the subscriber its way to the client; it may have been closed before that.
func (s *subscriber) attach(out sink, socket descriptor) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.out, s.socket = out, socket
	if s.closed {
		out.shut()
	}
}

// leaveBy says how the joining is ended early, as it may have been already.
func (s *subscriber) leaveBy(leave context.CancelFunc) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leave = leave; s.closed {
		leave()
	}
}

// goOn ends the writing of what a stream begins with. What has come meanwhile is written by a goroutine.
func (s *subscriber) goOn() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.debt == nil {
		s.stopWriting()
	} else {
		go s.drain(nil, nil)
	}
}

// stuck tells whether the client has taken nothing for long.
func (s *subscriber) stuck() bool {
	s.mu.Lock()
	out := s.out
	s.mu.Unlock()
	return out != nil && out.stuck() // it may be live before it has its way to the client
}

// giveUp ends the joining of a subscriber that has not become live.
func (s *subscriber) giveUp() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joining, s.leave = false, nil
	s.closeLocked()
	s.stopWriting()
}

func (s *subscriber) stopWriting() {
	s.busy = false
	s.quiet.Broadcast()
}

// end closes the stream after some last words, once it is owed nothing. Who is still joining hears none. It returns false if the
// stream was ending anyhow.
func (s *subscriber) end(words *frame) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.ending {
		return false
	}
	s.ending = true
	if s.joining {
		s.endLocked(sink.shut)
		return true
	}
	d := s.owing()
	d.add(words)
	d.count()
	if !s.busy {
		s.busy = true
		go s.drain(nil, nil)
	}
	return true
}

// close ends the stream. What holds it is given back by [Hub.gone], which hears of it as of a client that goes.
func (s *subscriber) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeLocked()
}

// closeLocked ends the stream of a client that does not take what it is sent, or has gone. What the kernel still holds for it is
// dropped: it would stay there for minutes, counted by no limit, and whoever comes back again and again without reading would fill
// the machine's memory. A client that comes back resumes from its cursor.
func (s *subscriber) closeLocked() { s.endLocked(sink.cut) }

// endLocked ends the stream in one of the ways that its sink has.
func (s *subscriber) endLocked(by func(sink)) {
	if s.closed {
		return
	}
	s.closed = true
	s.forgive()
	if s.leave != nil {
		s.leave()
	}
	if s.out != nil {
		by(s.out)
	}
}

// finish closes the stream and waits until nobody writes to it.
func (s *subscriber) finish() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closeLocked()
	for s.busy {
		s.quiet.Wait()
	}
}
