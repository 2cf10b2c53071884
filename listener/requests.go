package listener

import "context"

// requests are requests of other goroutines to Run's goroutine.
type requests struct {
	fetches   []chan struct{} // each is closed when a fetch that began after the request has ended
	woken     bool            // the next wait must end at once
	interrupt func()          // ends the present wait; nil if there is none
}

// CatchUp returns nil once everything that was committed before the call has been delivered. It returns the error of
// the context if the context ends first.
func (l *Listener) CatchUp(ctx context.Context) error {
	done := make(chan struct{})
	l.requests.Do(func(r *requests) { r.fetches = append(r.fetches, done) })
	l.wake()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wake ends the present wait of Run's goroutine, or the next one if there is none.
func (l *Listener) wake() {
	l.requests.Do(func(r *requests) {
		r.woken = true
		if r.interrupt != nil {
			r.interrupt()
		}
	})
}

// beginWait makes wake and CatchUp call interrupt, until endWait is called. It calls interrupt at once if wake or
// CatchUp was called before, and no wait or fetch has answered that call.
func (l *Listener) beginWait(interrupt func()) {
	l.requests.Do(func(r *requests) {
		r.interrupt = interrupt
		if r.woken || len(r.fetches) > 0 {
			r.woken = false
			interrupt()
		}
	})
}

// endWait makes wake and CatchUp no longer call interrupt.
func (l *Listener) endWait() {
	l.requests.Do(func(r *requests) { r.interrupt = nil })
}

// isFetchRequested reports whether a caller of CatchUp waits for a fetch to begin.
func (l *Listener) isFetchRequested() (requested bool) {
	l.requests.Do(func(r *requests) { requested = len(r.fetches) > 0 })
	return requested
}

// takeRequests removes the requests for a fetch, and returns them. A fetch that begins now answers them.
func (l *Listener) takeRequests() (fetches []chan struct{}) {
	l.requests.Do(func(r *requests) { fetches, r.fetches = r.fetches, nil })
	return fetches
}
