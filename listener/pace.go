package listener

import (
	"context"
	"fmt"
	"math"
	"time"
)

// A pace decides whether polling is cheaper than being notified. Polling is cheaper in two cases: the rate of commits
// is high, or commits wait for each other because they send a NOTIFY. The second case must be checked too, because the
// rate is never high if each commit takes long. The share of fetches that find rows does not help to decide: even if
// most fetches find rows, being notified can still be cheaper.
type pace struct {
	rate float64   // commits a second, an average in which older commits count less
	at   time.Time // when rate was updated
	busy bool

	queued  int           // how many checks in a row found writers that waited to commit with their NOTIFY
	checked time.Time     // the time of the last check
	hold    time.Duration // how long to poll before the hub tries again to be notified
	until   time.Time     // the end of the present or last hold
}

const (
	// memory is the time in which the weight of an old commit falls to 1/e.
	memory = 50 * time.Millisecond
	// checkFrom is the rate, in commits a second, from which on the hub checks for a queue of writers. At a lower rate,
	// writers hardly ever wait for each other.
	checkFrom = 30
	// checkEvery is the minimum time between two checks. After a check that has found a queue, it is checkAgain. A check
	// delays the rows that are committed meanwhile: at a thousand rows a second, a check every 50 ms delayed 2 % of the
	// rows.
	checkEvery = 200 * time.Millisecond
	checkAgain = 15 * time.Millisecond
	// lasting is the number of checks in a row that must find waiting writers before the hub polls. After a stall of the
	// disk, only one or two checks find waiting writers, and polling would only delay the next rows. At a thousand rows a
	// second, 7 of 100 checks found waiting writers.
	lasting = 4
	// minHold and maxHold bound a hold, the time for which the hub polls because writers have waited. The hold is
	// doubled if writers wait again soon after the last hold.
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

// isBusy reports whether to poll. It returns true from the time when the rate reaches busy, or when a hold begins,
// until the rate is below quiet and there is no hold.
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

// isCheckDue reports whether to check for a queue of writers now.
func (p *pace) isCheckDue(now time.Time) bool {
	p.decay(now)
	every := checkEvery
	if p.queued > 0 {
		every = checkAgain
	}
	return p.rate >= checkFrom && now.Sub(p.checked) >= every
}

// observe records whether a check has found writers that wait. After enough such checks in a row, it begins a hold.
func (p *pace) observe(now time.Time, waiting bool) {
	p.checked = now
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

// checkQueue checks, if a check is due, whether writers wait for the lock under which commits with a NOTIFY run one at
// a time (async.c, PreCommit_Notify).
func (w *wakeup) checkQueue(ctx context.Context) error {
	if math.IsInf(w.Busy, 1) || !w.pace.isCheckDue(time.Now()) {
		return nil
	}
	const query = `SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'object' AND database = 0
		AND classid = 'pg_database'::regclass AND objid = 0)`
	var waiting bool
	ask := func(ctx context.Context, db querier) error { return db.QueryRow(ctx, query).Scan(&waiting) }
	if err := w.link.bounded(ctx, ask); err != nil {
		return fmt.Errorf("check whether writers wait for the NOTIFY lock: %w", err)
	}
	w.pace.observe(time.Now(), waiting)
	return nil
}
