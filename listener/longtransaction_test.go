package listener_test

import (
	"fmt"
	"math"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// Transactions that are open for so long that fetches do not look for their rows any more are delivered when they end.
// Each row of other transactions is delivered once before that.
func TestRowsOfLongTransactions(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	r := listen(t, dsn, func(l *listener.Listener) { l.Busy = math.Inf(1) })
	r.waitForLock(t, 1)
	for round := range 3 {
		first, second := connect(t, dsn), connect(t, dsn)
		for _, open := range []struct {
			name string
			conn *pgx.Conn
		}{{"first", first}, {"second", second}} {
			exec(t, open.conn, "BEGIN")
			insert(t, open.conn, open.name)
		}
		for part := range 30 { // more rows than nearQuery may read again
			exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT '*', to_jsonb(i::text) FROM generate_series($1::int, $1::int + 9) i", part*10)
			var want []string
			for i := range 10 {
				want = append(want, fmt.Sprintf(`"%d"`, part*10+i))
			}
			wantData(t, r.rows(t, 10), want...)
		}
		exec(t, first, "COMMIT")
		wantData(t, r.rows(t, 1), `"first"`)
		insert(t, conn, fmt.Sprint("between ", round))
		wantData(t, r.rows(t, 1), fmt.Sprintf(`"between %d"`, round))
		exec(t, second, "COMMIT")
		wantData(t, r.rows(t, 1), `"second"`)
	}
	wantData(t, r.caughtUp(t))
}

// When such a transaction ends, the page that was read without its rows is read again. A row of this page that cannot be
// read is counted once.
func TestUnreadableRowAtTheEndOfALongTransaction(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	exec(t, conn, "ALTER TABLE rowcast.notifications DROP CONSTRAINT recipient_is_1_to_256_bytes")
	r := listen(t, dsn, func(l *listener.Listener) { l.Busy = math.Inf(1) })
	r.waitForLock(t, 1)
	long := connect(t, dsn)
	exec(t, long, "BEGIN")
	insert(t, long, "long")
	for range 30 { // more rows than nearQuery may read again
		exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT '*', '1' FROM generate_series(1, 10)")
		r.rows(t, 10)
	}
	exec(t, conn, "SET rowcast.ring = off") // so that this row and the end of the transaction are seen by one fetch
	exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('', '1')")
	exec(t, long, "COMMIT")
	wantData(t, r.rows(t, 1), `"long"`)
	wantData(t, r.caughtUp(t))
	if n := r.Stats.Unreadable.Load(); n != 1 {
		t.Errorf("counted %d rows that cannot be read, want 1", n)
	}
}
