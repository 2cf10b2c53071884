package stream

import (
	"context"
	"net/http"
	"time"

	"rowcast/stream/sse"
	"rowcast/stream/wire"
)

// collect is the time from the first event of a waiting poll to the end of its answer, so that a burst of events is one
// answer.
const collect = 5 * time.Millisecond

// isPoll reports whether a request asks for a poll. ok is false if the parameter has another value than 1.
func isPoll(r *http.Request) (poll, ok bool) {
	values := r.URL.Query()["poll"]
	for _, value := range values {
		if value != "1" {
			return false, false
		}
	}
	return len(values) > 0, true
}

// poll answers a request with the next events of a stream. If the client has missed events, the answer has them, or the
// first of them if there are many. If the client has missed nothing, poll waits for an event, and at most for pollTime.
// A request without a cursor, or with a cursor that cannot be continued, is answered at once. The client polls again
// from the last id of the answer. The poll counts as an open stream until just before the end of the answer is sent.
func (h *Hub) poll(w http.ResponseWriter, r *http.Request, s *subscriber, grant Grant) {
	answering := func() {}
	if h.Polling != nil {
		answering = h.Polling(r)
	}
	answer := wire.NewAnswer(w, r, 2*h.Heartbeat)
	s.beginPoll(answer)
	ctx, leave := context.WithTimeout(r.Context(), h.pollTime(grant))
	defer leave()
	s.beginJoin(leave)
	j := joining{Hub: h, s: s, by: readerOf(grant.User, r), ctx: ctx}
	answered := j.poll(clientCursorOf(r))
	if j.comments != nil {
		j.comments.Stop()
	}
	s.abandonJoin()
	// The client may poll again as soon as it has the end of the answer. By then, this poll must not count for the limits.
	h.remove(s)
	answering()
	switch {
	case answered && !answer.IsEmpty():
		answer.Finish(http.StatusOK)
	case r.Context().Err() == nil:
		h.Stats.Refused.Unavailable.Add(1)
		answer.Replace(sse.AppendRetry(nil, jitter(2*h.Retry)))
		answer.Finish(h.UnavailableStatus)
	default:
		answer.Replace(nil)
		answer.Finish(StatusDisconnected)
	}
}

// StatusDisconnected is the status of a request that was given up because its client had disconnected. nginx uses this
// number, too. The client may have closed only its side of the connection and still receive. Without a status, net/http
// would answer 200.
const StatusDisconnected = 499

// pollTime returns the longest time that a poll waits: the time until the end of the grant, but at least expiryTick,
// and at most a heartbeat interval.
func (h *Hub) pollTime(grant Grant) time.Duration {
	if grant.Expires.IsZero() {
		return h.Heartbeat
	}
	end := grant.Expires
	if grant.Renew == nil {
		end = end.Add(grant.Leeway)
	}
	return min(h.Heartbeat, max(expiryTick, time.Until(end)))
}

// poll gives the answer its events. It returns false if the client must retry later.
func (j *joining) poll(resume clientCursor) (answered bool) {
	c, reason := j.check(resume)
	switch {
	case j.ctx.Err() != nil:
		return false
	case reason != "":
		j.Stats.Resets.Add(1)
		return j.write(j.hello(nil, j.s), resetFrame(reason, c).live) == nil
	case !resume.given:
		return j.write(j.hello(&c, j.s)) == nil
	}
	j.greeting = j.hello(&c, j.s)
	for !j.live && j.events == 0 {
		var err error
		if c, err = j.advance(c); err != nil {
			return false
		}
	}
	if !j.live {
		return true
	}
	j.awaitEvents()
	j.s.flush(j.greeting, nil)
	return true
}

// awaitEvents waits until the poll has events or has ended, or pollTime is over. Then it ends the poll. If no event has
// come, the answer has a heartbeat, so the client polls again from a recent cursor.
func (j *joining) awaitEvents() {
	idle := false
	if j.events == 0 {
		select {
		case <-j.s.arrived():
			pause, stop := context.WithTimeout(j.ctx, collect)
			defer stop()
			<-pause.Done()
		case <-j.ctx.Done():
			idle = true
		}
	}
	st := j.state.Lock()
	defer j.state.Unlock()
	var last *frame
	if idle {
		last = st.heartbeat()
	}
	j.s.endPoll(last)
}

// beginPoll makes the stream a poll. Events that are published for the poll stay in the backlog until awaitEvents ends
// the poll.
func (s *subscriber) beginPoll(conn wire.Conn) {
	s.attach(conn)
	o := s.output.Lock()
	defer s.output.Unlock()
	o.poll = make(chan struct{}, 1)
}

// arrived returns the channel that receives a value when a poll has got an event or has ended. It returns nil if the
// stream is not a poll.
func (s *subscriber) arrived() <-chan struct{} {
	o := s.output.Lock()
	defer s.output.Unlock()
	return o.poll
}

// arrive makes a poll end soon. It does nothing for other streams.
func (o *output) arrive() {
	if o.poll == nil {
		return
	}
	select {
	case o.poll <- struct{}{}:
	default:
	}
}

// endPoll adds a last frame to the backlog, unless it is nil. After that, the poll gets no more events.
func (s *subscriber) endPoll(last *frame) {
	o := s.output.Lock()
	defer s.output.Unlock()
	if o.closed || o.ending {
		return
	}
	o.ending = true
	if last != nil {
		o.needBacklog().add(last)
		o.backlog.count()
	}
}
