package listener

import (
	"slices"
	"time"
)

// A span estimates how many rows nearQuery would read again. These are the rows that the cursor has seen and that
// belong to transactions after the oldest transaction that the cursor has not seen. They are many if that oldest
// transaction has been open for long.
type span struct {
	from    uint64    // nearQuery is not used if the oldest transaction is below this number; 0 before the first fetch
	fetches []fetched // the last fetches that found rows
}

const (
	// fewRows is the largest number of rows that nearQuery may read again. With more rows, fetchQuery costs less.
	fewRows = 200
	// slowFetch is how long a fetch may take. After a slower fetch, nearQuery is not used until all transactions that were
	// open during the fetch have ended. They may have inserted many rows, which nearQuery would find again in each fetch
	// until their commit.
	slowFetch = 2 * time.Millisecond
	// maxFetches bounds the fetches that a span remembers.
	maxFetches = 32
)

// add records a fetch.
func (s *span) add(done fetched) {
	if s.from == 0 || done.took > slowFetch {
		s.from = done.end
	}
	if done.rows == 0 {
		return
	}
	if len(s.fetches) == maxFetches { // the two oldest become one, which ends where the later one ended
		s.fetches[1].rows += s.fetches[0].rows
		s.fetches = slices.Delete(s.fetches, 0, 1)
	}
	s.fetches = append(s.fetches, done)
}

// isShort reports whether nearQuery would read few rows again if oldest is the oldest transaction that the cursor has not
// seen. A fetch that ended at oldest or below it has read no row of a later transaction.
func (s *span) isShort(oldest uint64) bool {
	s.fetches = slices.DeleteFunc(s.fetches, func(f fetched) bool { return f.end <= oldest })
	again := 0
	for _, f := range s.fetches {
		again += f.rows
	}
	return s.from > 0 && oldest >= s.from && again <= fewRows
}
