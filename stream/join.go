package stream

import (
	"context"
	"slices"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/failures"
	"rowcast/listener/feed"
)

// opening is what a stream begins with.
const opening = ":\n"

// welcome makes a subscriber live whose client comes without a cursor, and so has missed nothing. It returns what its stream begins
// with, which then goes with the response's head; nil if there is more to do, which join does.
func (h *Hub) welcome(s *subscriber, claim claim) []byte {
	if claim.given {
		return nil
	}
	h.mu.Lock()
	now := h.cursor
	if !now.Whole() {
		h.mu.Unlock()
		return nil
	}
	h.roster.register(s)
	s.resume(nil, nil)
	h.mu.Unlock()
	return append([]byte(opening), h.hello(&now, s.recipients)...)
}

// join brings a subscriber from its client's cursor to the present and makes it live. It alone writes to the stream until then.
// It returns early when the stream has ended.
func (h *Hub) join(s *subscriber, claim claim) {
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	s.leaveBy(leave)
	j := joining{Hub: h, s: s, by: claim.by, ctx: ctx, opening: []byte(opening)}
	defer func() {
		if j.comments != nil {
			j.comments.Stop()
		}
		if !j.live {
			s.giveUp()
		}
	}()
	c, reason := j.judge(claim)
	begin := &c
	if reason != "" {
		begin = nil
	}
	j.greeting = h.hello(begin, s.recipients)
	if reason != "" {
		j.Stats.Resets.Add(1)
		j.greeting = append(j.greeting, resetNote(reason, c).live...)
	}
	for !j.live && ctx.Err() == nil {
		var err error
		if c, err = j.advance(c); err != nil {
			return
		}
	}
	if j.live {
		s.flush(append(j.opening, j.greeting...), nil)
	}
}

// joining is the state of join.
type joining struct {
	*Hub
	s     *subscriber
	by    reader
	ctx   context.Context
	live  bool
	pause time.Duration // after the last failure of the Source

	// greeting is the hello that is still to be written. Who can be live at once is so before it: after the hello nothing is missed,
	// not even what is not stored.
	greeting []byte

	// opening is what a stream begins with. It is written by itself only where something has to be waited for: mostly it goes with the
	// greeting.
	opening []byte

	// comments are sent however many short waits its waiting is made of, so that no proxy takes the stream for dead. Nil as long as
	// it has not waited.
	comments *time.Ticker
}

func (j *joining) write(parts ...[]byte) error {
	if err := j.ctx.Err(); err != nil {
		return err
	}
	if j.opening != nil {
		parts, j.opening = slices.Insert(parts, 0, j.opening), nil
	}
	return j.s.write(parts...)
}

// greet writes the hello, if that has not been done.
func (j *joining) greet() error {
	defer func() { j.greeting = nil }()
	return j.write(j.greeting)
}

func (j *joining) reset(reason string, now cursor.Cursor) error {
	j.Stats.Resets.Add(1)
	return j.write(resetNote(reason, now).live)
}

// lockPresent locks the hub at a moment between two transactions: in the middle of one, a newcomer would have two half told.
// It returns false, without the lock, if the stream ended before that.
func (j *joining) lockPresent() bool {
	for {
		j.mu.Lock()
		if j.cursor.Whole() {
			return true
		}
		moved := j.moved
		j.mu.Unlock()
		if !j.until(moved) {
			return false
		}
	}
}

// present is where the hub is, and where its table begins.
func (j *joining) present() (now cursor.Cursor, horizon uint64) {
	if j.lockPresent() {
		defer j.mu.Unlock()
		return j.cursor, j.horizon
	}
	return cursor.Cursor{}, 0
}

// until waits, with comments for a heartbeat.
func (j *joining) until(done <-chan struct{}) bool {
	if j.comments == nil {
		j.comments = time.NewTicker(j.Heartbeat)
	}
	if j.opening != nil && j.write() != nil {
		return false
	}
	for {
		select {
		case <-done:
			return true
		case <-j.ctx.Done():
			return false
		case <-j.comments.C:
			if j.write([]byte(":\n")) != nil {
				return false
			}
		}
	}
}

// inTurn asks the Source for what takes one of its connections, when it is the client's turn.
func (j *joining) inTurn(of failures.Operation, do func(ctx context.Context) error) bool {
	return j.ask(of, func(ctx context.Context) error {
		if err := j.turns.take(ctx, j.by); err != nil {
			return err
		}
		defer j.turns.done(j.by)
		return do(ctx)
	})
}

// ask asks the Source something. When that fails it waits a while, longer each time, before it says so: the caller asks again, of
// what may by then be another present.
func (j *joining) ask(of failures.Operation, do func(ctx context.Context) error) bool {
	ctx, cancel := context.WithCancel(j.ctx)
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = do(ctx)
	}()
	answered := j.until(done)
	cancel()
	<-done
	if !answered {
		return false
	}
	if err == nil {
		j.pause = 0
		j.Failures.Succeeded(of)
		return true
	}
	j.Failures.Warn(j.Logger, of, err, "a stream cannot be resumed now, and is tried again", "operation", string(of))
	j.pause = min(max(2*j.pause, 100*time.Millisecond), 5*time.Second)
	wait, stop := context.WithTimeout(j.ctx, j.jitter(j.pause))
	defer stop()
	j.until(wait.Done())
	return false
}

// advance takes a step towards the present. If memory holds all that the client has not seen, and that is no more than a
// backlog, the client becomes live in the same step, and is told it from there. Else a part of it is written.
func (j *joining) advance(c cursor.Cursor) (cursor.Cursor, error) {
	if !j.lockPresent() {
		return c, j.ctx.Err()
	}
	now := j.cursor
	if now.Epoch != c.Epoch || !now.Covers(c) {
		j.mu.Unlock()
		if err := j.greet(); err != nil {
			return c, err
		}
		next, reason := j.judge(claim{cursor: c, given: true})
		if reason != "" {
			return next, j.reset(reason, next)
		}
		return next, j.ctx.Err()
	}
	if !c.Covers(j.memory.from) {
		j.mu.Unlock()
		return j.page(c, now)
	}
	frames, steps := j.memory.since(c, j.s.recipients), &cursor.Steps{From: c, To: now}
	if len(frames) > atOnce {
		j.mu.Unlock()
		return j.tell(unseen(c, frames), steps)
	}
	if frames = unseen(c, frames); len(frames) > 1 && replayedLength(frames, longestID(steps)) > j.Backlog {
		j.mu.Unlock()
		return j.tell(frames, steps)
	}
	j.roster.register(j.s)
	j.s.resume(frames, steps)
	j.relieve()
	j.mu.Unlock()
	j.live = true
	j.Stats.Replayed.Add(int64(len(frames)))
	return c, nil
}

// atOnce is of how many events those that a client missed are sought out while the hub stands still. Among more it is done before,
// and they are told before the client becomes live.
const atOnce = 1000

// tell writes the first part of what memory holds. After all of it the client has seen what the hub had.
func (j *joining) tell(frames []*frame, steps *cursor.Steps) (cursor.Cursor, error) {
	if err := j.greet(); err != nil {
		return steps.From, err
	}
	if len(frames) == 0 {
		return steps.To, nil
	}
	part, longest, bytes := 0, longestID(steps), 0
	for part < len(frames) {
		if bytes += replayedLength(frames[part:part+1], longest); part > 0 && bytes > j.Backlog {
			break
		}
		part++
	}
	j.s.replay(frames[:part], steps)
	next := steps.To
	if part < len(frames) {
		next = steps.After(frames[part-1].row)
	}
	return next, j.flush(part)
}

// flush writes so many events that the stream is owed.
func (j *joining) flush(events int) error {
	if j.pending.used.Load() > j.pending.limit {
		j.mu.Lock()
		j.relieve()
		j.mu.Unlock()
	}
	j.s.flush(nil, nil)
	if j.ctx.Err() == nil {
		j.Stats.Replayed.Add(int64(events))
	}
	return j.ctx.Err()
}

// page reads a part of it from the table.
func (j *joining) page(c, to cursor.Cursor) (next cursor.Cursor, err error) {
	if err := j.greet(); err != nil {
		return c, err
	}
	next, events, horizon, ok := j.read(c, to)
	if !ok {
		return c, j.ctx.Err()
	}
	if !c.SeenBelow(horizon) {
		now, _ := j.present()
		return now, j.reset(resetExpired, now)
	}
	return next, j.flush(events)
}

// read reads a page and gives it to the stream. Before that it waits for its turn, and then for room for the page: a stream that waits
// for its turn holds no room.
func (j *joining) read(c, to cursor.Cursor) (next cursor.Cursor, n int, horizon uint64, ok bool) {
	var room *ticket
	defer func() {
		if room != nil {
			j.pending.giveBack(room)
		}
	}()
	var rows []feed.Row
	j.Stats.Pages.Add(1)
	if !j.inTurn(failures.Replay, func(ctx context.Context) (err error) {
		room = j.pending.reserve(j.s.user, j.Page)
		select {
		case <-room.granted:
		case <-ctx.Done():
			return ctx.Err()
		}
		rows, next, horizon, err = j.Source.Page(ctx, c, to, j.s.recipients)
		return err
	}) {
		return c, 0, 0, false
	}
	if !c.SeenBelow(horizon) {
		return c, 0, horizon, true
	}
	frames := make([]*frame, len(rows))
	for i := range rows {
		frames[i] = encode(&rows[i]).fit()
		frames[i].cursor = cursor.Cursor{} // it is in the frame as text, and is not needed any more
	}
	j.s.replay(frames, nil)
	return next, len(rows), horizon, true
}
