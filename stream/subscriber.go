package stream

import (
	"context"
	"slices"
	"sync/atomic"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/listener/guard"
	"rowcast/stream/wire"
)

// A subscriber is one stream. Code that needs both the lock of the Hub's state and the lock of a subscriber's output
// locks the state first.
type subscriber struct {
	seat   seat // guarded by the lock of the Hub's state
	output guard.Value[output]
	left   atomic.Int64 // bytes of the current write that the connection has not accepted

	// These fields never change.
	hub        *Hub
	user       string
	recipients []string // sorted: the user, the groups, feed.Everyone, and perhaps their feed.InboxOf (see newSubscriber)
	owner      *owner   // nil if the Hub has no limits by user or address
}

// An output is the state that the lock of a subscriber guards.
type output struct {
	// Sending an event to an idle stream reads most of the next fields. They come first so that they share a cache line.

	direct  wire.Direct
	joining bool // the stream is not live yet, and only the function join or poll writes to it
	busy    bool // a goroutine is writing, the stream has not begun, or it is a poll; new events go to the backlog
	ending  bool // the stream closes when the backlog is empty
	closed  bool
	backlog *backlog // nil while nothing is pending

	of    *subscriber
	conn  wire.Conn          // nil until attach
	leave context.CancelFunc // ends join or poll; nil before beginJoin, and once the stream is live or abandoned
	poll  chan struct{}      // receives a value when a poll must end soon; nil if the stream is not a poll
	idle  chan struct{}      // closed when the stream is no longer busy; nil unless finish waits
}

func newSubscriber(h *Hub, grant Grant, owner *owner) *subscriber {
	recipients := append(grant.Recipients(), feed.Everyone)
	if h.Inbox && grant.User != "" {
		for _, r := range slices.Clip(recipients) {
			recipients = append(recipients, feed.InboxOf(r))
		}
	}
	slices.Sort(recipients)
	s := &subscriber{hub: h, user: grant.User, recipients: slices.Compact(recipients), owner: owner}
	o := s.output.Lock()
	defer s.output.Unlock()
	o.of, o.joining, o.busy = s, true, true
	return s
}

// send sends a run to a live stream. It never waits. The stream is closed if the write fails, or if the client
// does not accept the whole run and no more bytes may become pending (see queue and closeIfFull).
func (s *subscriber) send(r *run) {
	o := s.output.Lock()
	defer s.output.Unlock()
	if o.closed || o.ending {
		return
	}
	if o.busy {
		o.queue(r.frames)
		return
	}
	n, err := o.direct.Try(r.bytes)
	if err != nil {
		o.abort()
		return
	}
	if n == len(r.bytes) && r.large == nil || o.closeIfFull() {
		return
	}
	o.busy = true
	b := o.needBacklog()
	b.beginWrite(r.shared())
	b.count()
	rest := chunk{r.bytes[n:], r.large, r.end}
	s.left.Store(int64(rest.length()))
	go s.drain(rest)
}

// queue adds frames to the backlog. If the backlog would exceed its limit, queue closes the stream, or ends a poll. The
// first event of a backlog does not count for the limit, so an event of any size can be sent.
func (o *output) queue(frames []*frame) {
	if o.closeIfFull() {
		return
	}
	o.arrive()
	b := o.needBacklog()
	for _, f := range frames {
		if !b.empty() && b.lengthAfterFirst()+f.length() > o.of.hub.Backlog {
			if o.poll != nil { // the answer is long enough, and the client resumes after it
				o.ending = true
				return
			}
			o.abort()
			o.of.hub.Stats.Overflows.Add(1)
			return
		}
		b.add(f)
	}
	b.count()
}

// closeIfFull closes the stream if too many bytes are held for all streams together, and reports whether it did. send
// and queue call it before they create or extend the backlog.
func (o *output) closeIfFull() bool {
	h := o.of.hub
	if !h.pending.full() {
		return false
	}
	o.abort()
	h.countEvicted(1, h.pending.used.Load())
	return true
}

// needBacklog returns the backlog and creates it if there is none.
func (o *output) needBacklog() *backlog {
	if o.backlog == nil {
		o.backlog = &backlog{pending: &o.of.hub.pending}
	}
	return o.backlog
}

// pendingBytes returns the number of bytes of the backlog and of the current write that the client has not accepted. It
// returns 0 if there is no backlog.
func (s *subscriber) pendingBytes() int64 {
	o := s.output.Lock()
	defer s.output.Unlock()
	if o.backlog == nil {
		return 0
	}
	return int64(o.backlog.bytes) + s.left.Load()
}

// drain writes a chunk and then the backlog, until the backlog is empty.
func (s *subscriber) drain(c chunk) { s.flush(nil, s.write(c.parts()...)) }

// flush writes the buffer and then the backlog, until the backlog is empty. err is the error of the previous
// write, or nil.
func (s *subscriber) flush(buffer []byte, err error) {
	for {
		next, ok := s.next(buffer, err)
		if !ok {
			return
		}
		err = s.write(next.parts()...)
		buffer = next.bytes[:0]
	}
}

// pieceSize is the largest number of bytes that write gives to the connection at a time. After each piece, write
// updates the field left.
const pieceSize = 256 << 10

func (s *subscriber) write(parts ...[]byte) error {
	left := 0
	for _, b := range parts {
		left += len(b)
	}
	s.left.Store(int64(left))
	conn := s.conn()
	for _, b := range parts {
		for len(b) > 0 {
			n := min(len(b), pieceSize)
			if err := conn.Write(b[:n]); err != nil {
				return err
			}
			s.left.Add(int64(-n))
			b = b[n:]
		}
	}
	return nil
}

// conn returns the connection, which is nil until attach.
func (s *subscriber) conn() wire.Conn {
	o := s.output.Lock()
	defer s.output.Unlock()
	return o.conn
}

// next returns what to write next: the bytes of the buffer and events of the backlog. ok is false if there is nothing
// to write, or if the stream is closed. next closes the stream if the last write returned an error, and when a stream
// that is ending has nothing more to write.
func (s *subscriber) next(buffer []byte, err error) (_ chunk, ok bool) {
	o := s.output.Lock()
	defer s.output.Unlock()
	if err != nil {
		o.abort()
	}
	if o.backlog != nil {
		o.backlog.endWrite()
	}
	done := len(buffer) == 0 && o.backlog.empty()
	if done && o.ending {
		o.close(wire.Conn.Shutdown)
	}
	if done || o.closed {
		o.dropBacklog()
		if !o.joining {
			o.becomeIdle()
		}
		return chunk{}, false
	}
	b := o.needBacklog()
	c := b.take(buffer)
	b.count()
	s.left.Store(int64(c.length()))
	return c, true
}

func (o *output) dropBacklog() {
	if o.backlog != nil {
		o.backlog.drop()
		o.backlog = nil
	}
}

// becomeIdle marks the stream as not busy, so that new events are written directly, and wakes finish if it waits.
func (o *output) becomeIdle() {
	o.busy = false
	if o.idle != nil {
		close(o.idle)
		o.idle = nil
	}
}

// isIdle reports whether the stream is not busy. An event for an idle stream is written at once and does not go to the
// backlog.
func (s *subscriber) isIdle() bool {
	o := s.output.Lock()
	defer s.output.Unlock()
	return !o.busy
}

// isClosed reports whether the stream is closed, for example because a write has failed.
func (s *subscriber) isClosed() bool {
	o := s.output.Lock()
	defer s.output.Unlock()
	return o.closed
}

// stalled reports whether the client has accepted nothing for two heartbeat intervals, although something was sent. It
// is called once each heartbeat interval. Through net/http, and on systems other than Linux, stalled always returns
// false, and a write fails instead.
func (s *subscriber) stalled() bool {
	conn := s.conn()
	return conn != nil && conn.Stalled() // a stream may be live before attach
}

// goLive makes the stream live and gives it the frames that its client has missed. Only state.goLive calls it.
func (s *subscriber) goLive(missed []*frame, steps *cursor.Steps) {
	o := s.output.Lock()
	defer s.output.Unlock()
	o.joining, o.leave = false, nil
	o.load(missed, steps)
}

// replay adds frames to the backlog of a stream that is joining.
func (s *subscriber) replay(frames []*frame, steps *cursor.Steps) {
	o := s.output.Lock()
	defer s.output.Unlock()
	o.load(frames, steps)
}

// load fills the backlog, without a limit. The frames are sent with the ids of the steps, or with their own ids if
// steps is nil.
func (o *output) load(frames []*frame, steps *cursor.Steps) {
	if o.closed || len(frames) == 0 {
		return
	}
	b := o.needBacklog()
	if steps != nil {
		b.replay, b.replayed, b.maxIDLength = steps, len(frames), maxIDLength(steps)
	}
	for _, f := range frames {
		b.add(f)
	}
	b.count()
}

// attach sets the connection. If the stream has been closed already, attach ends the connection.
func (s *subscriber) attach(conn wire.Conn) {
	o := s.output.Lock()
	defer s.output.Unlock()
	o.conn, o.direct = conn, conn.Direct()
	if o.closed {
		conn.Shutdown()
	}
}

// beginJoin sets the function that ends join or poll, and calls it if the stream has been closed already.
func (s *subscriber) beginJoin(leave context.CancelFunc) {
	o := s.output.Lock()
	defer s.output.Unlock()
	if o.leave = leave; o.closed {
		leave()
	}
}

// abandonJoin closes a stream that has not become live or whose response could not be opened. It is also called for each
// poll, live or not, before the end of the poll's answer is sent.
func (s *subscriber) abandonJoin() {
	o := s.output.Lock()
	defer s.output.Unlock()
	o.joining, o.leave = false, nil
	o.abort()
	o.becomeIdle()
}

// begin ends the opening of a stream that was live before its first bytes were written. Serve calls it after that
// write. If events have arrived in the meantime, or the stream must end, begin starts a goroutine that writes the events
// and closes the stream.
func (s *subscriber) begin() {
	o := s.output.Lock()
	defer s.output.Unlock()
	if !o.backlog.empty() || o.ending {
		go s.drain(chunk{})
		return
	}
	o.dropBacklog()
	o.becomeIdle()
}

// end closes the stream once the backlog and the last frame have been sent. A stream that is joining is closed at once,
// without the last frame. end returns false if the stream was ending or closed already.
func (s *subscriber) end(last *frame) bool {
	o := s.output.Lock()
	defer s.output.Unlock()
	if o.closed || o.ending {
		return false
	}
	o.ending = true
	o.arrive()
	if o.joining {
		o.close(wire.Conn.Shutdown)
		return true
	}
	b := o.needBacklog()
	b.add(last)
	b.count()
	if !o.busy {
		o.busy = true
		go s.drain(chunk{})
	}
	return true
}

// close closes the stream at once. Hub.gone releases its resources, as for a client that disconnects.
func (s *subscriber) close() {
	o := s.output.Lock()
	defer s.output.Unlock()
	o.abort()
}

// abort closes the stream at once. On a connection that was taken over from net/http, it also drops the data that the
// kernel holds for the client. Otherwise the data would stay in the kernel for minutes, where no limit counts it. A
// client that reconnects again and again without reading could then fill the machine's memory.
func (o *output) abort() { o.close(wire.Conn.Abort) }

// close closes the stream and ends its connection by a call of endConn.
func (o *output) close(endConn func(wire.Conn)) {
	if o.closed {
		return
	}
	o.closed = true
	o.arrive()
	o.dropBacklog()
	if o.leave != nil {
		o.leave()
	}
	if o.conn != nil {
		endConn(o.conn)
	}
}

// finish closes the stream, waits until no goroutine writes to it, and returns its connection.
func (s *subscriber) finish() wire.Conn {
	conn, idle := s.stop()
	if idle != nil {
		<-idle
	}
	return conn
}

// stop closes the stream. It returns a channel that is closed when the last write has ended, or nil if no goroutine is
// writing.
func (s *subscriber) stop() (conn wire.Conn, idle <-chan struct{}) {
	o := s.output.Lock()
	defer s.output.Unlock()
	o.abort()
	if o.busy && o.idle == nil {
		o.idle = make(chan struct{})
	}
	return o.conn, o.idle
}
