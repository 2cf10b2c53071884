package listener_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// Rows that take long to read delay later rows. Meanwhile, Lag returns the delay. The log reports once that rows are
// delayed, and once that all rows have been read.
func TestLagIsShownWhileRowsAreRead(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	dropDataConstraints(t, conn)
	log := &lines{}
	var highest time.Duration // the lag when the last row before bob's is delivered
	r := listen(t, dsn, func(l *listener.Listener) {
		l.PageBytes, l.MaxData, l.LagLimit = 1<<16, 1<<30, 100*time.Millisecond
		l.Logger = slog.New(slog.NewTextHandler(log, nil))
		rows, deliver := 0, l.Deliver
		l.Deliver = func(b feed.Batch) {
			if rows += len(b.Rows); rows == 40 {
				highest = max(highest, l.Stats.Lag())
			}
			deliver(b)
		}
	})
	r.until(t, func() bool { return r.Stats.Lag() > 0 })
	start := time.Now()
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data)
		SELECT 'mallory', ('[' || repeat('1e131071, ', 20) || '1e131071]')::jsonb FROM generate_series(1, 40)`)
	exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('bob', '1')")
	r.until(t, func() bool { return len(r.read) == 41 })
	took := time.Since(start)
	t.Logf("bob's row came after %v, the lag was up to %v", took, highest)
	if highest < took/2 || highest > took+time.Second {
		t.Errorf("the lag was up to %v, want from %v to %v", highest, took/2, took+time.Second)
	}
	r.caughtUp(t)
	holdsSoon(t, "a lag of at most 2 s", func() bool { return r.Stats.Lag() <= 2*time.Second })
	written := log.text()
	if strings.Count(written, "reading new rows takes long: later rows are delayed") != 1 || strings.Count(written, "all new rows have been read") != 1 {
		t.Errorf("want one line about the delay and one about its end, the log is\n%s", written)
	}
}

// Lag grows while the listener cannot read the table.
func TestLagGrowsInAnOutage(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	r := listen(t, dsn)
	r.caughtUp(t)
	exec(t, conn, "ALTER TABLE rowcast.notifications RENAME TO away")
	holdsSoon(t, "a lag above 1.5 s", func() bool { return r.Stats.Lag() > 1500*time.Millisecond })
	exec(t, conn, "ALTER TABLE rowcast.away RENAME TO notifications")
	r.caughtUp(t)
	holdsSoon(t, "a lag of at most 1.5 s", func() bool { return r.Stats.Lag() <= 1500*time.Millisecond })
}
