package stream

import (
	"context"
	"slices"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/failures"
	"rowcast/listener/feed"
)

// opening is the first line of a stream, a comment.
const opening = ":\n"

// goLive makes a stream live and gives it the events that it has missed. The caller has computed these since it locked
// the state, so no event is missed or sent twice (rule 11 of package cursor).
func (st *state) goLive(s *subscriber, missed []*frame, steps *cursor.Steps) {
	st.roster.makeLive(s)
	s.goLive(missed, steps)
}

// beginAtPresent makes a stream live whose client sent no cursor and so has missed nothing. It returns the first bytes
// of the stream, which are then written together with the head of the response. It returns nil if there is more to do,
// which join does.
func (h *Hub) beginAtPresent(s *subscriber, from clientCursor) []byte {
	if from.given {
		return nil
	}
	st := h.state.Lock()
	now := st.cursor
	if now.Whole() {
		st.goLive(s, nil, nil)
	}
	h.state.Unlock()
	if !now.Whole() {
		return nil
	}
	return append([]byte(opening), h.hello(&now, s.recipients)...)
}

// join sends a stream what its client has missed since its cursor, and makes the stream live. Until then, only join
// writes to the stream. It returns early when the stream ends.
func (h *Hub) join(s *subscriber, from clientCursor, by reader) {
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
	c, reason := j.check(from)
	begin := &c
	if reason != "" {
		begin = nil
	}
	j.greeting = h.hello(begin, s.recipients)
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

// A joining is the state of join.
type joining struct {
	*Hub
	s     *subscriber
	by    reader
	ctx   context.Context
	live  bool
	pause time.Duration // after the last failure of the Source

	// greeting is rowcast.hello, until it has been written. If the stream can become live at once, it does so before
	// rowcast.hello is written. Then the client misses nothing after that event, NOTIFY messages included.
	greeting []byte

	// opening is the first line, until it has been written. It is written alone only if the stream has to wait for
	// something.
	opening []byte

	// comments ticks each heartbeat. At each tick a comment is written, so that no proxy closes the stream as idle. It
	// is nil until the stream has to wait, and then runs through all waits.
	comments *time.Ticker
}

// check returns the cursor from which the stream continues. That is the client's cursor if possible. Otherwise it is
// the Hub's cursor, and the reason is not empty.
func (j *joining) check(from clientCursor) (c cursor.Cursor, reason string) {
	now, horizon := j.present()
	if !from.given {
		return now, ""
	}
	if from.malformed {
		return now, resetMalformed
	}
	c = from.cursor
	for caughtUp := false; j.ctx.Err() == nil; now, horizon = j.present() {
		if c.Epoch != now.Epoch {
			var valid, asked bool
			if c, valid, asked = j.toEpochOf(c, now); asked && !valid {
				return now, resetHistory
			}
			continue
		}
		if !c.SeenBelow(horizon) {
			return now, resetExpired
		}
		if now.Covers(c) {
			return c, ""
		}
		// The client received rows from another hub that this hub has not read yet (rule 9 of package cursor).
		if caughtUp {
			return now, resetAhead
		}
		caughtUp = j.attempt(failures.CatchUp, j.Source.CatchUp)
	}
	return c, ""
}

// toEpochOf converts a cursor of another epoch to the current one if it is valid there. asked is false if the Source
// could not be asked.
func (j *joining) toEpochOf(c, now cursor.Cursor) (_ cursor.Cursor, valid, asked bool) {
	asked = j.attemptInTurn(failures.CheckCursor, func(ctx context.Context) (err error) {
		valid, err = j.Source.IsValid(ctx, c, now)
		return err
	})
	switch {
	case !asked:
		return c, false, false
	case valid:
		c.Epoch = now.Epoch
		return c, true, true
	}
	st := j.state.Lock()
	defer j.state.Unlock()
	c, valid = st.epochs.forward(c)
	return c, valid, true
}

// present returns the Hub's cursor, and the transaction number below which retention has deleted rows. The cursor is
// whole, unless the stream has ended.
func (j *joining) present() (now cursor.Cursor, horizon uint64) {
	if st := j.lockWhole(); st != nil {
		defer j.state.Unlock()
		return st.cursor, st.horizon
	}
	return cursor.Cursor{}, 0
}

// lockWhole locks the Hub's state when its cursor is whole (rule 10 of package cursor). While the Hub receives a transaction in several batches, a
// new stream would get only the last part of it. If the stream ends before that, lockWhole returns nil and the state is
// not locked.
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

// advance takes one step towards the Hub's cursor. If the memory has all that the client has missed, and that fits into
// a backlog, the stream becomes live. Otherwise a part of it is written. It returns the client's cursor after the step.
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
	return c, nil
}

// maxUnderLock is the number of frames of the memory that are searched while the Hub is locked. More frames are
// searched and written before the stream becomes live.
const maxUnderLock = 1000

// recheck handles a cursor that is no longer part of the Hub's history, because the server has recovered from a crash
// while the stream was joining.
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

// replayFrames writes the first frames that the client has missed, up to the size of a backlog. The steps lead from the
// client's cursor to the Hub's.
func (j *joining) replayFrames(frames []*frame, steps *cursor.Steps) (cursor.Cursor, error) {
	if err := j.greet(); err != nil {
		return steps.From(), err
	}
	if len(frames) == 0 {
		return steps.To(), nil
	}
	n, bytes, idLength := 0, 0, maxIDLength(steps)
	for n < len(frames) {
		if bytes += lengthWithIDs(frames[n:n+1], idLength); n > 0 && bytes > j.Backlog {
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

// replayPage reads a page of what the client has missed from the Source, and writes it.
func (j *joining) replayPage(c, to cursor.Cursor) (next cursor.Cursor, err error) {
	if err := j.greet(); err != nil {
		return c, err
	}
	next, events, horizon, ok := j.load(c, to)
	if !ok {
		return c, j.ctx.Err()
	}
	if !c.SeenBelow(horizon) {
		now, _ := j.present()
		return now, j.reset(resetExpired, now)
	}
	return next, j.flush(events)
}

// load reads a page and gives it to the stream. It waits for a free call of the Source first and then for memory. A
// stream that waits for a call holds no memory.
func (j *joining) load(c, to cursor.Cursor) (next cursor.Cursor, n int, horizon uint64, ok bool) {
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
		frames[i] = encode(&rows[i]).trim()
		frames[i].cursor = cursor.Cursor{} // the frame has it as text
	}
	j.s.replay(frames, nil)
	return next, len(rows), horizon, true
}

// flush writes the frames that the stream was given.
func (j *joining) flush(events int) error {
	if j.pending.used.Load() > j.pending.limit {
		st := j.state.Lock()
		st.limitPending()
		j.state.Unlock()
	}
	j.s.flush(nil, nil)
	if j.ctx.Err() == nil {
		j.Stats.Replayed.Add(int64(events))
	}
	return j.ctx.Err()
}

// greet writes rowcast.hello, unless that has been done.
func (j *joining) greet() error {
	defer func() { j.greeting = nil }()
	return j.write(j.greeting)
}

func (j *joining) reset(reason string, now cursor.Cursor) error {
	j.Stats.Resets.Add(1)
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

// attemptInTurn is attempt, with a call of the Source that takes one of its connections.
func (j *joining) attemptInTurn(of failures.Operation, call func(ctx context.Context) error) bool {
	return j.attempt(of, func(ctx context.Context) error {
		if err := j.calls.acquire(ctx, j.by); err != nil {
			return err
		}
		defer j.calls.release(j.by)
		return call(ctx)
	})
}

// attempt calls the Source once and reports whether that succeeded. After a failure it waits before it returns, longer
// each time. The caller then tries again, possibly with another cursor of the Hub.
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

// waitFor waits until done is closed, and writes a comment each heartbeat. It reports false if the stream ended before
// that.
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
