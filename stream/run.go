package stream

import (
	"context"
	"fmt"
	"time"
)

// Run sends heartbeats and closes stalled streams. When a grant expires, Run renews it or ends its stream. When the
// context ends, the Hub answers new clients with "retry later" and ends its streams at different times during Drain.
// Then Run returns nil.
func (h *Hub) Run(ctx context.Context) error {
	h.init()
	ticker := time.NewTicker(max(h.Heartbeat/slots, time.Millisecond))
	defer ticker.Stop()
	expiry := time.NewTicker(expiryTick)
	defer expiry.Stop()
	defer h.renewals.Wait()
	for {
		select {
		case <-ctx.Done():
			h.stop()
			return nil
		case <-ticker.C:
			h.beat()
		case <-expiry.C:
			h.expire(ctx)
		}
	}
}

// beat sends a heartbeat to the idle streams of the next slot and closes the stalled streams of the slot. It also
// closes the slowest streams in two cases: too many bytes are held, or streams wait for memory and no memory has been
// granted for a heartbeat interval. The id of the heartbeat is the Hub's cursor, so a client that received no event for
// days resumes from a recent cursor. A stream with pending events gets no heartbeat: if the id came before them, a
// client that resumes would miss them (rules 14 and 15 of package cursor).
func (h *Hub) beat() {
	st := h.state.Lock()
	defer h.state.Unlock()
	st.tick++
	st.limitPending()
	if target, overdue := h.pending.overdue(h.Heartbeat); overdue {
		st.closeSlowest(target)
	}
	if !st.begun {
		return
	}
	var r *run
	for _, s := range st.roster.inSlot(st.tick) {
		if s.stalled() {
			s.close()
			continue
		}
		if st.tick-s.seat.active < slots/2 || !s.isIdle() {
			continue
		}
		if r == nil { // the heartbeat is encoded once for all streams of the slot
			r = newRun(st.heartbeat())
		}
		s.seat.active = st.tick
		s.send(r)
	}
}

// heartbeat returns a frame with the Hub's cursor and the number of seconds since the last batch.
func (st *state) heartbeat() *frame {
	return note(eventBeat, &st.cursor, fmt.Appendf(nil, `{"behind": %d}`, int(st.behind().Seconds())))
}

// stop ends the streams. The ends are spread over time, so that the clients do not all connect to another hub at once.
func (h *Hub) stop() {
	streams := h.beginStop()

	// Streams are ended during the first three quarters of Drain. In the last quarter, the clients can accept their
	// pending events.
	const steps, ends = 100, 75
	ticker := time.NewTicker(max(h.Drain/steps, time.Millisecond))
	defer ticker.Stop()
	for step := range steps {
		if step < ends {
			for _, s := range streams[len(streams)*step/ends : len(streams)*(step+1)/ends] {
				h.end(s)
			}
		}
		if h.hasStreams() {
			<-ticker.C
		}
	}
	for _, s := range streams {
		s.close() // a stream is still open if its client has not accepted all pending events
	}
}

func (h *Hub) beginStop() []*subscriber {
	st := h.state.Lock()
	defer h.state.Unlock()
	st.stopping = true
	return st.roster.all()
}

func (h *Hub) hasStreams() bool {
	st := h.state.Lock()
	defer h.state.Unlock()
	return st.roster.open > 0
}

func (h *Hub) end(s *subscriber) {
	st := h.state.Lock()
	defer h.state.Unlock()
	st.end(s)
}

// end ends a stream. A live stream first receives the cursor and the time after which the client must reconnect.
func (st *state) end(s *subscriber) {
	s.end(st.lastFrame(s, st.heartbeat()))
}
