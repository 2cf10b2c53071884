package listener

import (
	"context"
	"fmt"
	"math"
	"time"
)

// pace tells whether polling or being rung is the cheaper way. Being rung is, unless there are many commits: their rate says so, or,
// where a commit takes long, that writers wait for each other with their NOTIFYs and so never reach that rate. Empty fetches would
// be the wrong sign: at rates where most fetches find something, being rung can still cost less than polling.
type pace struct {
	rate float64 // commits a second, at the time of at
	at   time.Time
	busy bool

	queued int // how many looks in a row found writers that waited to commit with their NOTIFY
	looked time.Time
	hold   time.Duration // how long to poll before it is tried again whether they would wait
	until  time.Time
}

const (
	// memory is the time in which an old commit's weight falls to 1/e.
	memory = 50 * time.Millisecond
	// A queue is looked for so often, from this rate on: slower commits hardly meet. Once there is one, it is looked at again soon.
	lookEvery = 50 * time.Millisecond
	lookAgain = 15 * time.Millisecond
	lookFrom  = 30
	// lasting is how many looks in a row find writers that wait, if it is for each other. When the disk has stalled, one or two do (at
	// a thousand rows a second 7 of 100 looks, seen), and polling would only make the next rows wait.
	lasting = 4
	// A hold is doubled each time that they wait again soon after it.
	minHold, maxHold = 2 * time.Second, time.Minute
)

func (p *pace) add(now time.Time, commits int) {
	p.decay(now)
	p.rate += float64(commits) / memory.Seconds()
}

func (p *pace) decay(now time.Time) {
	p.rate *= math.Exp(-float64(now.Sub(p.at)) / float64(memory))
	p.at = now
}

// isBusy says to poll from a rate of busy on, until it has fallen below quiet, and for a while if there was a queue.
func (p *pace) isBusy(now time.Time, busy, quiet float64) bool {
	p.decay(now)
	switch {
	case p.rate >= busy || now.Before(p.until):
		p.busy = true
	case p.rate < quiet:
		p.busy = false
	}
	return p.busy
}

// wantsLook tells whether a queue should be looked for.
func (p *pace) wantsLook(now time.Time) bool {
	p.decay(now)
	every := lookEvery
	if p.queued > 0 {
		every = lookAgain
	}
	return p.rate >= lookFrom && now.Sub(p.looked) >= every
}

// see takes note of whether writers wait.
func (p *pace) see(now time.Time, waiting bool) {
	p.looked = now
	if !waiting {
		p.queued = 0
		return
	}
	if p.queued++; p.queued < lasting {
		return
	}
	p.queued = 0
	if now.Sub(p.until) < p.hold {
		p.hold = min(2*p.hold, maxHold)
	} else {
		p.hold = minHold
	}
	p.until = now.Add(p.hold)
}

// lookForQueue looks, now and then while it is rung often, for writers that wait for the lock under which commits with a NOTIFY run
// one at a time (async.c, PreCommit_Notify).
func (s *session) lookForQueue(ctx context.Context) error {
	if math.IsInf(s.Busy, 1) || !s.pace.wantsLook(time.Now()) {
		return nil
	}
	const query = `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'object' AND database = 0
		AND classid = 'pg_database'::regclass AND objid = 0)`
	var waiting bool
	if err := s.bounded(ctx, func(ctx context.Context, db querier) error { return db.QueryRow(ctx, query).Scan(&waiting) }); err != nil {
		return fmt.Errorf("look for writers that wait: %w", err)
	}
	s.pace.see(time.Now(), waiting)
	return nil
}
