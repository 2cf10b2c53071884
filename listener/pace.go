package listener

import (
	"math"
	"time"
)

// pace tells by the rate of commits whether polling or being rung is the cheaper way. Empty fetches would be the wrong sign:
// at rates where most fetches find something, a NOTIFY a commit can still cost its writer less than it saves.
type pace struct {
	rate float64 // commits a second, at the time of at
	at   time.Time
	busy bool
}

// memory is the time in which an old commit's weight falls to 1/e.
const memory = 50 * time.Millisecond

func (p *pace) add(now time.Time, commits int) {
	p.decay(now)
	p.rate += float64(commits) / memory.Seconds()
}

func (p *pace) decay(now time.Time) {
	p.rate *= math.Exp(-float64(now.Sub(p.at)) / float64(memory))
	p.at = now
}

// isBusy says to poll from a rate of busy on, until it has fallen below quiet.
func (p *pace) isBusy(now time.Time, busy, quiet float64) bool {
	p.decay(now)
	switch {
	case p.rate >= busy:
		p.busy = true
	case p.rate < quiet:
		p.busy = false
	}
	return p.busy
}
