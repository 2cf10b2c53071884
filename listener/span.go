package listener

import (
	"slices"
	"time"

	"rowcast/listener/cursor"
)

// A span estimates how many rows nearQuery would read again. These are the rows that the cursor has seen and that
// belong to transactions after the oldest transaction that the cursor has not seen. They can be many if that oldest
// transaction has been open for long. Then nearQuery must leave that transaction out. When it has ended, fetchQuery
// reads its rows.
type span struct {
	from  uint64 // nearQuery must not begin below this transaction; 0 before the first fetch
	ended []end  // the ends of the last fetches that found rows, as far back as nearQuery may begin
	rows  int    // the number of rows of these fetches

	wait int // nearQuery may leave out transactions when this count is 0; each fetch decrements it
}

// An end is where a fetch ended.
type end struct {
	xmax uint64 // the xmax of the snapshot: the fetch has read no row of this transaction or a later one
	rows int
}

const (
	// fewRows is the largest number of rows that nearQuery may read again. With more rows, fetchQuery costs less.
	fewRows = 200
	// slowFetch is how long a fetch may take. After a slower fetch, nearQuery leaves out all transactions that were in
	// flight in the last snapshot of the fetch. They may have inserted many rows, which nearQuery would find again in each
	// fetch until their commit.
	slowFetch = 2 * time.Millisecond
	// afterWaste is the least distance, in fetches, between two wasted pages. A page is wasted if a transaction that
	// nearQuery has left out has ended: a second query must then read the page. After a wasted page, nearQuery leaves out
	// no transaction for a while. So at most one in twenty fetches needs a second query for that reason.
	afterWaste = 20
)

// add records a fetch.
func (s *span) add(done fetched) {
	s.wait = max(s.wait-1, 0)
	if s.from == 0 || done.took > slowFetch {
		s.from = done.end
	}
	if done.rows == 0 {
		return
	}
	s.ended = append(s.ended, end{done.end, done.rows})
	s.rows += done.rows
	for s.rows-s.ended[0].rows > fewRows { // after the end ended[0], there are too many rows for nearQuery
		s.rows -= s.ended[0].rows
		s.ended = slices.Delete(s.ended, 0, 1)
	}
}

// wasted records that a page of nearQuery could not be used.
func (s *span) wasted() { s.wait = afterWaste }

// skip returns how many of the oldest transactions in flight nearQuery must leave out to read few rows again. It
// returns false if nearQuery must not be used.
func (s *span) skip(c cursor.Cursor) (oldest int, near bool) {
	lowest := s.from
	if s.rows > fewRows {
		lowest = max(lowest, s.ended[0].xmax)
	}
	oldest, _ = slices.BinarySearch(c.Xip, lowest)
	return oldest, s.from > 0 && c.Whole() && c.Xmax >= lowest && (oldest == 0 || s.wait == 0)
}

// queryNow returns the query for the next page, and how many of the oldest transactions in flight it leaves out. With
// PollOnly, each page asks for the state. Otherwise, the listener could continue in another epoch, because its
// connection to a pooler can outlive a restart of the server.
func (s *session) queryNow(why reason, snapshot *cursor.Cursor) (query pageQuery, skipped int) {
	if s.PollOnly || s.wakeup.isStateDue(why, snapshot == nil) {
		return stateQuery, 0
	}
	if skipped, near := s.span.skip(s.cursor); near && snapshot == nil && !s.historyLost {
		return nearQuery, skipped
	}
	return fetchQuery, 0
}
