package cluster

import (
	"context"
	"time"
)

// pause is a short wait that grows, for what can only be asked again and
// again: the state of a process that is not our child, of a file, of a lock.
type pause time.Duration

func newPause() *pause {
	p := pause(2 * time.Millisecond)
	return &p
}

func (p *pause) next() <-chan time.Time {
	d := time.Duration(*p)
	*p = pause(min(2*d, 50*time.Millisecond))
	return time.After(d)
}

func (p *pause) wait(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-p.next():
		return nil
	}
}
