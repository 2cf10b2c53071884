package main_test

import (
	"testing"
	"time"

	"rowcast/sql/dbtest"
)

// A hub deletes and counts rows that are older than --retain, after it has run for a minute. With --retain 0 it deletes
// none.
func TestRetain(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Cluster(t).DSN("postgres") // a server of its own, because open transactions of other tests would delay the deletion
	migrate(t, dsn)
	for range 3 {
		runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data, created_at) VALUES ('*', '0', now() - interval '1 hour')`)
	}
	keeps := serve(t, dsn, "--retain", "0")
	insertAndAwait(t, dsn, keeps.tail(t, "alice"), "1")
	askUntil(t, keeps.url+"/metrics", "(?m)^rowcast_deleted_rows_total 0$")
	keeps.stop() // after this, no deletion can be running
	if got := valueOf(t, dsn, "SELECT count(*)::text FROM rowcast.notifications"); got != "4" {
		t.Errorf("with --retain 0, %s rows are left, want 4", got)
	}
	deletes := serve(t, dsn, "--retain", "30m")
	askFor(t, time.Minute+waitLimit, deletes.url+"/metrics", "(?m)^rowcast_deleted_rows_total 3$")
	if got := valueOf(t, dsn, "SELECT string_agg(data::text, ' ') FROM rowcast.notifications"); got != "1" {
		t.Errorf("the rows with the data %s are left, want only the row with the data 1", got)
	}
}
