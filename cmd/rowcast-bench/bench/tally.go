package bench

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// An expectation is what the clients shall receive: rows First, First+1, … of which each goes to one of the streams in turn, or
// to all.
type expectation struct {
	First, Rows int64
	Everyone    bool
}

// tally counts what arrives: each row at each of those whom it is for exactly once.
type tally struct {
	expectation
	streams int64
	wanted  int64
	seen    []uint32 // a bit for each arrival that is wanted
	took    []int64  // nanoseconds from the INSERT to here, of each
	arrived atomic.Int64
	twice   atomic.Int64
	strange atomic.Int64 // not expected, or not here
	first   atomic.Int64 // when the first of all arrived, in nanoseconds since 1970
	last    atomic.Int64
	all     chan struct{}
}

func newTally(e expectation, streams int) *tally {
	t := &tally{expectation: e, streams: int64(streams), wanted: e.Rows, all: make(chan struct{})}
	if e.Everyone {
		t.wanted *= t.streams
	}
	t.seen, t.took = make([]uint32, t.wanted/32+1), make([]int64, t.wanted)
	return t
}

func (t *tally) count(stream int, r row) {
	now := time.Now().UnixNano()
	at := r.number - t.First
	switch {
	case at < 0 || at >= t.Rows, !t.Everyone && r.number%t.streams != int64(stream):
		t.strange.Add(1)
		return
	case t.Everyone:
		at += int64(stream) * t.Rows
	}
	bit := uint32(1) << (at % 32)
	if atomic.OrUint32(&t.seen[at/32], bit)&bit != 0 {
		t.twice.Add(1)
		return
	}
	t.took[at] = now - r.sent
	t.first.CompareAndSwap(0, now)
	for last := t.last.Load(); now > last && !t.last.CompareAndSwap(last, now); {
		last = t.last.Load()
	}
	if t.arrived.Add(1) == t.wanted {
		close(t.all)
	}
}

// arrivals are what has come of an expectation. Times are in milliseconds.
type arrivals struct {
	P50, P99, Max float64
	First, Last   int64 // when the first and the last of all came, in nanoseconds since 1970
	Count         int64
}

// arrivals fails unless everything has arrived once, and nothing else.
func (t *tally) arrivals() (arrivals, error) {
	arrived, twice, strange := t.arrived.Load(), t.twice.Load(), t.strange.Load()
	if arrived != t.wanted || twice+strange > 0 {
		return arrivals{}, fmt.Errorf("not everything arrived exactly once: of %d, %d are lost; %d came twice, %d to somebody else",
			t.wanted, t.wanted-arrived, twice, strange)
	}
	ms := shares(t.took)
	return arrivals{P50: ms(0.5), P99: ms(0.99), Max: ms(1), First: t.first.Load(), Last: t.last.Load(), Count: arrived}, nil
}

// shares returns a function that says within how many milliseconds a share of some nanoseconds lie.
func shares(took []int64) func(share float64) float64 {
	sorted := slices.Sorted(slices.Values(took))
	return func(share float64) float64 { return float64(sorted[int(share*float64(len(sorted)-1))]) / 1e6 }
}
