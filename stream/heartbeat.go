package stream

import (
	"context"
	"fmt"
	"time"
)

// Run sends heartbeats, and ends the streams whose grant has expired, until the context ends. Then the Hub answers newcomers "come back
// later", and Run returns once it has ended its streams, spread over Drain.
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

// beat sends a heartbeat to those whose turn it is, who are owed nothing and have long been sent nothing. Its id is the hub's
// cursor, so that who heard nothing for days still resumes from seconds ago; an id that overtook an event would lose it.
func (h *Hub) beat() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.tick++
	h.relieve()
	if most, waited := h.pending.overdue(h.Heartbeat); waited {
		h.closeOwed(most)
	}
	if !h.begun {
		return
	}
	var r *run
	for _, s := range h.roster.beatOf(h.tick) {
		if s.stuck() {
			s.close()
			continue
		}
		if h.tick-s.active < slots/2 || !s.idle() {
			continue
		}
		if r == nil { // encoded once for all
			r = runOf(h.heartbeat())
		}
		s.active = h.tick
		s.send(r)
	}
}

// stop ends the streams, spread over time so that their clients do not all come to another hub at once.
func (h *Hub) stop() {
	h.mu.Lock()
	h.stopping = true
	streams := h.roster.all()
	h.mu.Unlock()

	// The last quarter of the time is for what they are owed.
	const steps, ends = 100, 75
	ticker := time.NewTicker(max(h.Drain/steps, time.Millisecond))
	defer ticker.Stop()
	for step := range steps {
		if step < ends {
			for _, s := range streams[len(streams)*step/ends : len(streams)*(step+1)/ends] {
				h.end(s)
			}
		}
		if h.Stats.Streams.Load() > 0 {
			<-ticker.C
		}
	}
	for _, s := range streams {
		s.close() // who still did not take what it is owed
	}
}

// end tells a subscriber from where and when to come back, and closes its stream.
func (h *Hub) end(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.endLocked(s)
}

func (h *Hub) endLocked(s *subscriber) {
	s.end(h.goodbye(s, h.heartbeat()))
}

// heartbeat tells where the hub is and how many seconds ago it last heard from the database.
func (h *Hub) heartbeat() *frame {
	return note(beat, &h.cursor, fmt.Appendf(nil, `{"behind": %d}`, int(h.behind().Seconds())))
}
