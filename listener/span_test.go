package listener

import (
	"testing"
	"time"
)

// nearQuery is used only while it reads few rows again.
func TestSpan(t *testing.T) {
	t.Parallel()
	var s span
	want := func(when string, oldest uint64, short bool) {
		t.Helper()
		if got := s.isShort(oldest); got != short {
			t.Errorf("%s: got %v, want %v", when, got, short)
		}
	}
	want("before the first fetch", 500, false)
	s.add(fetched{end: 1000, rows: 10_000})
	want("a transaction from before the first fetch is open", 999, false)
	want("it has ended", 1000, true)
	for end := uint64(1010); end <= 2000; end += 10 {
		s.add(fetched{end: end, rows: 10})
	}
	want("a transaction was open during 19 fetches", 1810, true)
	s.add(fetched{end: 2010, rows: 20})
	want("it is still open", 1810, false)
	want("a later transaction is the oldest", 1830, true)
	s.add(fetched{end: 2020, took: time.Second})
	want("a fetch was slow", 1830, false)
	want("all transactions of that time have ended", 2020, true)
	for end := uint64(2100); end < 3000; end++ {
		s.add(fetched{end: end, rows: 1})
	}
	want("of many fetches, the oldest are counted together", 2090, false)
	want("many fetches, of which few are after the oldest transaction", 2990, true)
}
