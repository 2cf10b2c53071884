package stream

import (
	"context"
	"sync"

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

	backlog []item
	owed    int // bytes in the backlog

	hub        *Hub
	out        sink
	recipients []string           // sorted
	places     []uint32           // its indexes in the groups of its recipients; the hub's, under its lock
	holder     *holder            // nil if nobody counts
	lease      *lease             // the hub's, under its lock
	quiet      sync.Cond          // on mu: no longer busy
	leave      context.CancelFunc // ends the joining; nil once that is over

	// replay computes the ids of what was remembered, as they are this client's own; nil if it was told nothing of that.
	replay *cursor.Steps
}

// An item is what a subscriber is owed: a frame, with the id that it has live, or as replayed to this client.
type item struct {
	frame    *frame
	replayed bool
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

// send gives the subscriber frames and never waits. It returns false if the stream had to be closed.
func (s *subscriber) send(r *run) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.ending {
		return true
	}
	if s.busy {
		return s.owe(r.frames)
	}
	n, err := s.socket.try(r.bytes)
	if err != nil {
		s.closeLocked()
		return true
	}
	if n < len(r.bytes) || r.rest != nil {
		s.busy = true
		go s.drain(r.bytes[n:], r.rest)
	}
	return true
}

// owe adds to the backlog, whose first event does not count: so one of any size goes through.
func (s *subscriber) owe(frames []*frame) bool {
	for _, f := range frames {
		if len(s.backlog) > 0 && s.owed-s.backlog[0].frame.length()+f.length() > s.hub.Backlog {
			s.closeLocked()
			return false
		}
		s.owed += f.length()
		s.backlog = append(s.backlog, item{frame: f})
	}
	return true
}

// drain writes first, then what is after it, and then the backlog, until there is none.
func (s *subscriber) drain(first, then []byte) {
	var buffer []byte
	for {
		err := s.write(first, then)
		if first, then = s.next(buffer[:0], err); len(first)+len(then) == 0 {
			return
		}
		buffer = first
	}
}

func (s *subscriber) write(parts ...[]byte) error {
	for _, b := range parts {
		if len(b) == 0 {
			continue
		}
		if err := s.out.write(b); err != nil {
			return err
		}
	}
	return nil
}

// writeAtOnce is about how much is written in one go, in bytes.
const writeAtOnce = 32 << 10

// next takes what is to be written next out of the backlog; nothing means that the drain has ended.
func (s *subscriber) next(buffer []byte, err error) (first, then []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case err != nil:
		s.closeLocked()
	case s.ending && len(s.backlog) == 0:
		s.endLocked(sink.shut)
	}
	if len(s.backlog) == 0 {
		s.replay = nil
		s.stopWriting()
		return nil, nil
	}
	taken := 0
	for _, i := range s.backlog {
		if taken > 0 && len(buffer)+i.frame.length() > writeAtOnce {
			break
		}
		if i.replayed {
			buffer, then = i.frame.replayed(buffer, s.replay.After(i.frame.row))
		} else {
			buffer, then = append(buffer, i.frame.live...), i.frame.rest
		}
		s.owed -= i.frame.length()
		s.backlog[taken] = item{}
		taken++
		if then != nil {
			break
		}
	}
	if s.backlog = s.backlog[taken:]; len(s.backlog) == 0 {
		s.backlog = nil
	}
	return buffer, then
}

// idle tells whether the subscriber is owed nothing.
func (s *subscriber) idle() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return !s.busy
}

// resume makes the subscriber live, with what it is still owed from memory behind the first event, which join writes.
func (s *subscriber) resume(frames []*frame, steps *cursor.Steps) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.joining, s.leave = false, nil
	if len(frames) < 2 || s.closed {
		return
	}
	s.replay = steps
	s.backlog = make([]item, len(frames)-1)
	for i, f := range frames[1:] {
		s.backlog[i] = item{f, true}
		s.owed += f.length()
	}
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
	if len(s.backlog) == 0 {
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
	s.owed += words.length()
	s.backlog = append(s.backlog, item{frame: words})
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
	s.backlog = nil
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
