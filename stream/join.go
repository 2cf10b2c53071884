package stream

import (
	"context"
	"errors"
	"slices"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/failures"
	"rowcast/listener/feed"
)

// opening is the first line of a stream, a comment. A stream that has to wait sends it before the wait, so the client
// and proxies receive something at once.
const opening = ":\n"

// goLive makes a stream live and gives it the events that its client has missed. The caller locks the state before it
// finds these events, and unlocks it after goLive. So no event is missed or sent twice (rule 11 of package cursor).
func (st *state) goLive(s *subscriber, missed []*frame, steps *cursor.Steps) {
	st.roster.makeLive(s)
	s.goLive(missed, steps)
}

// join sends a stream the events that its client has missed since the client's cursor, and makes the stream live. Until
// then, no other function writes to the stream. join returns early when the stream ends.
func (h *Hub) join(s *subscriber, resume clientCursor, by reader) {
	ctx, leave := context.WithCancel(context.Background())
	defer leave()
	s.beginJoin(leave)
	j := joining{Hub: h, s: s, by: by, ctx: ctx, opening: []byte(opening)}
	defer func() {
		if j.comments != nil {
			j.comments.Stop()
		}
		if !j.live {
			s.abandonJoin()
		}
	}()
	if !resume.given {
		j.beginWhenWhole()
		return
	}
	c, reason := j.check(resume)
	begin := &c
	if reason != "" {
		begin = nil
	}
	j.greeting = h.hello(begin, s)
	if reason != "" {
		j.Stats.Resets.Add(1)
		j.greeting = append(j.greeting, resetFrame(reason, c).live...)
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

// A joining is the state of join, or of the answer to a poll.
type joining struct {
	*Hub
	s      *subscriber
	by     reader
	ctx    context.Context
	live   bool
	events int           // the number of missed events that the stream was given; a call of reset adds one
	pause  time.Duration // the mean wait after the last failure of the Source; 0 after a success

	// greeting is the result of hello, followed by rowcast.reset if the client must be reset. It is nil once greet has
	// written it. If the stream can become live at once, it does so before rowcast.hello is written. Then the client
	// misses nothing after that event, NOTIFY messages included.
	greeting []byte

	// opening is the constant opening. It is nil once it has been written, and for a poll. It is written alone only if the
	// stream has to wait.
	opening []byte

	// comments ticks once each heartbeat interval. While the stream waits, a comment is written at each tick, so that
	// no proxy closes the stream as idle. comments is nil until the first wait.
	comments *time.Ticker
}

// beginWhenWhole waits until the Hub's cursor is whole, and makes the stream live. The client sent no cursor, so it has
// missed nothing. Its stream must be live before rowcast.hello is written: the client must receive everything after
// this event, NOTIFY messages included.
func (j *joining) beginWhenWhole() {
	st := j.lockWhole()
	if st == nil {
		return
	}
	now := st.cursor
	st.goLive(j.s, nil, nil)
	j.live = true
	j.state.Unlock()
	j.s.flush(append(j.opening, j.hello(&now, j.s)...), nil)
}

// present waits until the Hub's cursor is whole. It returns the cursor, and the transaction number below which
// retention may have deleted rows. If the stream ends first, both results are zero.
func (j *joining) present() (now cursor.Cursor, horizon uint64) {
	if st := j.lockWhole(); st != nil {
		defer j.state.Unlock()
		return st.cursor, st.horizon
	}
	return cursor.Cursor{}, 0
}

// lockWhole waits until the Hub's cursor is whole (rule 10 of package cursor), and locks the state. While the Hub
// receives a transaction in several batches, its cursor is not whole, and a new stream would get only the last part of
// the transaction. If the stream ends first, lockWhole returns nil and the state is not locked.
func (j *joining) lockWhole() *state {
	for {
		st := j.state.Lock()
		if st.cursor.Whole() {
			return st
		}
		next := st.next
		j.state.Unlock()
		if !j.waitFor(next) {
			return nil
		}
	}
}

// advance takes one step towards the Hub's cursor and returns the client's cursor after the step. If the memory has all
// events that the client has missed, they are few (see maxUnderLock), and they fit into a backlog, the stream becomes
// live. Otherwise advance writes some of the missed events, or checks the cursor again.
func (j *joining) advance(c cursor.Cursor) (cursor.Cursor, error) {
	st := j.lockWhole()
	if st == nil {
		return c, j.ctx.Err()
	}
	now := st.cursor
	if now.Epoch != c.Epoch || !now.Covers(c) {
		j.state.Unlock()
		return j.recheck(c)
	}
	if !c.Covers(st.memory.from) {
		j.state.Unlock()
		return j.replayPage(c, now)
	}
	frames, steps := st.memory.since(c, j.s.recipients), cursor.NewSteps(c, now)
	if len(frames) <= maxUnderLock {
		frames = unseen(c, frames)
		j.live = len(frames) <= 1 || lengthWithIDs(frames, maxIDLength(steps)) <= j.Backlog
	}
	if j.live {
		st.goLive(j.s, frames, steps)
		st.limitPending()
	}
	j.state.Unlock()
	if !j.live {
		return j.replayFrames(unseen(c, frames), steps)
	}
	j.Stats.Replayed.Add(int64(len(frames)))
	j.events += len(frames)
	return c, nil
}

// maxUnderLock is the largest number of frames that unseen searches while the Hub's state is locked. If there are more,
// they are searched without the lock, before the stream becomes live.
const maxUnderLock = 1000

// recheck checks the client's cursor again when the Hub's cursor is of another epoch or no longer covers it. This
// happens when an epoch has begun, or all streams were reset, while the stream was joining.
func (j *joining) recheck(c cursor.Cursor) (cursor.Cursor, error) {
	if err := j.greet(); err != nil {
		return c, err
	}
	next, reason := j.check(clientCursor{cursor: c, given: true})
	if reason != "" {
		return next, j.reset(reason, next)
	}
	return next, j.ctx.Err()
}

// replayFrames writes the first of the frames that the client has missed: one frame of any size, or more frames up to
// the size of a backlog. There may be no frames. The steps lead from the client's cursor to the Hub's.
func (j *joining) replayFrames(frames []*frame, steps *cursor.Steps) (cursor.Cursor, error) {
	if err := j.greet(); err != nil {
		return steps.From(), err
	}
	if len(frames) == 0 {
		return steps.To(), nil
	}
	n, bytes, idLength := 0, 0, maxIDLength(steps)
	for n < len(frames) {
		if bytes += frames[n].lengthWithID(idLength); n > 0 && bytes > j.Backlog {
			break
		}
		n++
	}
	j.s.replay(frames[:n], steps)
	next := steps.To()
	if n < len(frames) {
		next = steps.After(frames[n-1].row)
	}
	return next, j.flush(n)
}

// replayPage reads from the Source a page of the rows that the client has missed, and writes their events. If missed
// rows may have been deleted, it writes rowcast.reset instead.
func (j *joining) replayPage(c, end cursor.Cursor) (next cursor.Cursor, err error) {
	if err := j.greet(); err != nil {
		return c, err
	}
	next, events, horizon, ok := j.load(c, end)
	if !ok {
		return c, j.ctx.Err()
	}
	if !c.SeenBelow(horizon) {
		now, _ := j.present()
		return now, j.reset(resetExpired, now)
	}
	return next, j.flush(events)
}

// load reads a page and gives its events to the stream. It first waits until it may call the Source, and then for
// memory. So a stream holds no memory while it waits for its call. If the Source fails, the stream keeps its memory
// during the pause that follows.
func (j *joining) load(c, end cursor.Cursor) (next cursor.Cursor, n int, horizon uint64, ok bool) {
	var memory *reservation
	defer func() {
		if memory != nil {
			j.pending.giveBack(memory)
		}
	}()
	var rows []feed.Row
	j.Stats.Pages.Add(1)
	if !j.attemptInTurn(failures.Replay, func(ctx context.Context) (err error) {
		memory = j.pending.reserve(j.s.user, j.Page)
		select {
		case <-memory.granted:
		case <-ctx.Done():
			return ctx.Err()
		}
		rows, next, horizon, err = j.Source.Page(ctx, c, end, j.s.recipients)
		return err
	}) {
		return c, 0, 0, false
	}
	if !c.SeenBelow(horizon) {
		return c, 0, horizon, true
	}
	frames := make([]*frame, len(rows))
	for i := range rows {
		frames[i] = encode(&rows[i]).trim()
		frames[i].cursor = cursor.Cursor{} // not needed any more: the frame has the cursor as text
	}
	j.s.replay(frames, nil)
	return next, len(rows), horizon, true
}

// flush writes the frames that the stream was given. Unless the stream ends first, it counts the given number of events
// as replayed. The end of pollTime is not the end of a poll: what the client has accepted meanwhile is its answer.
func (j *joining) flush(events int) error {
	if j.pending.used.Load() > j.pending.limit {
		st := j.state.Lock()
		st.limitPending()
		j.state.Unlock()
	}
	j.s.flush(nil, nil)
	j.events += events
	if errors.Is(j.ctx.Err(), context.Canceled) || j.s.isClosed() {
		return context.Canceled
	}
	j.Stats.Replayed.Add(int64(events))
	return nil
}

// greet writes the greeting unless it has been written.
func (j *joining) greet() error {
	defer func() { j.greeting = nil }()
	return j.write(j.greeting)
}

func (j *joining) reset(reason string, now cursor.Cursor) error {
	j.Stats.Resets.Add(1)
	j.events++ // this ends a poll
	return j.write(resetFrame(reason, now).live)
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

// attemptInTurn is like attempt, but call runs only when the fair queue lets the reader call the Source.
func (j *joining) attemptInTurn(of failures.Operation, call func(ctx context.Context) error) bool {
	return j.attempt(of, func(ctx context.Context) error {
		if err := j.calls.Acquire(ctx, j.by); err != nil {
			return err
		}
		defer j.calls.Release(j.by)
		return call(ctx)
	})
}

// attempt calls the Source once and reports whether the call succeeded. After a failure, attempt waits for a random
// time before it returns. The mean of this time doubles with each failure in a row, from 100 ms to 5 s. The caller
// tries again, possibly with another cursor of the Hub.
func (j *joining) attempt(of failures.Operation, call func(ctx context.Context) error) bool {
	ctx, cancel := context.WithCancel(j.ctx)
	done := make(chan struct{})
	var err error
	go func() {
		defer close(done)
		err = call(ctx)
	}()
	finished := j.waitFor(done)
	cancel()
	<-done
	if !finished {
		return false
	}
	if err == nil {
		j.pause = 0
		j.Failures.Succeeded(of)
		return true
	}
	j.Failures.Warn(j.Logger, of, err, "cannot resume a stream; retrying", "operation", string(of))
	j.pause = min(max(2*j.pause, 100*time.Millisecond), 5*time.Second)
	wait, stop := context.WithTimeout(j.ctx, jitter(j.pause))
	defer stop()
	j.waitFor(wait.Done())
	return false
}

// waitFor waits until done is closed. It writes the opening, if that has not been written, and then a comment each
// heartbeat interval. It returns false if the stream ends first.
func (j *joining) waitFor(done <-chan struct{}) bool {
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
