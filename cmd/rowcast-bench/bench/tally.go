package bench

import (
	"fmt"
	"slices"
	"sync/atomic"
	"time"
)

// An expectation says which rows the clients must receive: the rows with the numbers from First to First+Rows-1.
type expectation struct {
	First, Rows int64
	Everyone    bool // each row arrives at all streams; otherwise row n arrives at stream n%streams only
}

// A tally checks that each row arrives exactly once at each of its streams.
type tally struct {
	expectation
	streams    int64
	wanted     int64
	seen       []uint32 // a bit for each expected arrival
	took       []int64  // for each arrival, the nanoseconds since row.sent
	arrived    atomic.Int64
	repeated   atomic.Int64
	unexpected atomic.Int64 // rows that were not expected, or not at this stream
	first      atomic.Int64 // the time of the first arrival, in nanoseconds since 1970
	last       atomic.Int64
	all        chan struct{}
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
		t.unexpected.Add(1)
		return
	case t.Everyone:
		at += int64(stream) * t.Rows
	}
	bit := uint32(1) << (at % 32)
	if atomic.OrUint32(&t.seen[at/32], bit)&bit != 0 {
		t.repeated.Add(1)
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

// arrivals is the result of an expectation. Durations are in milliseconds.
type arrivals struct {
	P50, P99, Max float64
	First, Last   int64 // the times of the first and the last arrival, in nanoseconds since 1970
	Count         int64
}

// arrivals returns the result. It fails if a row is missing, was repeated or was not expected.
func (t *tally) arrivals() (arrivals, error) {
	arrived, repeated, unexpected := t.arrived.Load(), t.repeated.Load(), t.unexpected.Load()
	if arrived != t.wanted || repeated+unexpected > 0 {
		return arrivals{}, fmt.Errorf("not every row arrived exactly once: of %d arrivals, %d are missing, %d were repeated, %d were not expected",
			t.wanted, t.wanted-arrived, repeated, unexpected)
	}
	ms := quantiles(t.took)
	return arrivals{P50: ms(0.5), P99: ms(0.99), Max: ms(1), First: t.first.Load(), Last: t.last.Load(), Count: arrived}, nil
}

// quantiles returns a function that returns quantiles of durations in nanoseconds. The result is in milliseconds.
func quantiles(took []int64) func(share float64) float64 {
	sorted := slices.Sorted(slices.Values(took))
	return func(share float64) float64 { return float64(sorted[int(share*float64(len(sorted)-1))]) / 1e6 }
}
