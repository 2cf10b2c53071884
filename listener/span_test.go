package listener

import (
	"testing"
	"time"

	"rowcast/listener/cursor"
)

// nearQuery must read few rows again. So it leaves out transactions that have been open for too long, or is not used.
func TestSpan(t *testing.T) {
	t.Parallel()
	var s span
	const unused = -1
	want := func(when string, c cursor.Cursor, want int) {
		t.Helper()
		got, near := s.skip(c)
		if !near {
			got = unused
		}
		if got != want {
			t.Errorf("%s: nearQuery leaves out %d transactions, want %d (-1 means that it is not used)", when, got, want)
		}
	}
	open := func(xmax uint64, xip ...uint64) cursor.Cursor { return cursor.Cursor{Xmax: xmax, Xip: xip} }
	want("before the first fetch", open(500), unused)
	s.add(fetched{end: 1000, rows: 10_000})
	want("a transaction from before the first fetch is open", open(1000, 999), 1)
	want("no transaction is open", open(1000), 0)
	want("the last fetch has ended above the cursor", open(999), unused)
	want("a transaction was delivered in part", cursor.Cursor{Xmax: 1000, Xid: 1000, ID: 1}, unused)
	for xmax := uint64(1010); xmax <= 2000; xmax += 10 {
		s.add(fetched{end: xmax, rows: 10})
	}
	want("a transaction was open during 19 fetches", open(2000, 1810), 0)
	s.add(fetched{end: 2010, rows: 20})
	want("it is still open", open(2010, 1810), 1)
	want("the oldest open transaction is a later one", open(2010, 1830), 0)
	want("three transactions are open, one of them for long", open(2010, 1500, 1830, 2009), 1)
	s.wasted()
	want("a transaction that nearQuery has left out has ended", open(2010, 1500), unused)
	want("meanwhile, no transaction needs to be left out", open(2010, 1830), 0)
	for range afterWaste {
		s.add(fetched{end: 2010})
	}
	want("some fetches later", open(2010, 1500), 1)
	s.add(fetched{end: 2020, took: time.Second})
	want("a fetch was slow", open(2020, 1830), 1)
	want("a later transaction is open", open(2021, 2020), 0)
	for xmax := uint64(2100); xmax < 3000; xmax++ {
		s.add(fetched{end: xmax, rows: 1})
	}
	want("many fetches, of which 200 are after the oldest transaction", open(2999, 2799), 0)
	want("many fetches, of which 201 are after the oldest transaction", open(2999, 2798), 1)
	if len(s.ended) > fewRows+1 {
		t.Errorf("the span remembers %d fetches, want at most %d", len(s.ended), fewRows+1)
	}
}
