package listener_test

import (
	"fmt"
	"testing"

	"rowcast/sql/dbtest"
)

// While a transaction stays open, each fetch reads again only a few of the rows that other transactions have committed
// since.
func TestFetchesBesideAnOpenTransaction(t *testing.T) {
	t.Parallel()
	const before, after, most = 5000, 20, 30_000
	dsn := dbtest.Database(t)
	conn, open := connect(t, dsn), connect(t, dsn)
	r := listen(t, dsn)
	exec(t, open, "BEGIN")
	exec(t, open, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('bob', '0')")
	for i := range before / 100 {
		exec(t, conn, fmt.Sprintf("INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', '%d' FROM generate_series(1, 100)", i))
	}
	r.caughtUp(t)
	for range after {
		exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')")
		r.caughtUp(t)
	}
	exec(t, open, "COMMIT")
	wantData(t, r.caughtUp(t), "0")
	r.stop() // at the end of a session, PostgreSQL adds what the session has read to its statistics
	const read = "(SELECT sum(idx_tup_read) FROM pg_stat_user_indexes WHERE relname = 'notifications' AND schemaname = 'rowcast')"
	eventually(t, conn, fmt.Sprintf("SELECT %s >= %d", read, before+after+1))
	if got := one[int64](t, conn, "SELECT "+read+"::bigint"); got > most {
		t.Errorf("the fetches have read %d index entries, want at most %d", got, most)
	} else {
		t.Logf("%d index entries were read", got)
	}
}
