package listener_test

import (
	"math"
	"testing"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// Several notifications that came before a fetch cause one fetch, even if the hub reads some of them only with the
// answer to that fetch.
func TestOneFetchAnswersAllNotificationsBeforeIt(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	inDeliver, release := make(chan struct{}), make(chan struct{})
	r := listen(t, dsn, func(l *listener.Listener) {
		l.Busy = math.Inf(1) // no check for a queue of writers: the answer to the check could bring the notifications
		deliver := l.Deliver
		l.Deliver = func(b feed.Batch) {
			deliver(b)
			if len(b.Rows) > 0 && string(b.Rows[0].Data) == `"1"` {
				close(inDeliver)
				<-release
			}
		}
	})
	r.waitForLock(t, 1)
	insert(t, conn, "0")
	wantData(t, r.rows(t, 1), `"0"`)
	before := r.Stats.Fetches.Load()
	insert(t, conn, "1")
	receive(t, "the delivery", inDeliver)
	for _, row := range []string{"2", "3", "4"} { // each sends a notification of its own
		insert(t, conn, row)
	}
	close(release)
	wantData(t, r.rows(t, 4), `"1"`, `"2"`, `"3"`, `"4"`)
	insert(t, conn, "5")
	wantData(t, r.rows(t, 1), `"5"`)
	if got := r.Stats.Fetches.Load() - before; got != 3 {
		t.Errorf("the hub has fetched %d times, want 3: for row 1, for the three rows after it, and for row 5", got)
	}
}
