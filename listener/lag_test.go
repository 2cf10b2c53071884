package listener_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"rowcast/listener"
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
	r := listen(t, dsn, func(l *listener.Listener) {
		l.PageBytes, l.MaxData, l.LagLimit = 1<<16, 1<<30, 100*time.Millisecond
		l.Logger = slog.New(slog.NewTextHandler(log, nil))
	})
	var highest time.Duration
	r.until(t, func() bool { return r.Stats.Lag() > 0 })
	start := time.Now()
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data)
		SELECT 'mallory', ('[' || repeat('1e131071, ', 20) || '1e131071]')::jsonb FROM generate_series(1, 40)`)
	exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('bob', '1')")
	r.until(t, func() bool {
		if n := len(r.read); n == 40 {
			highest = max(highest, r.Stats.Lag())
		}
		return len(r.read) == 41
	})
	took := time.Since(start)
	t.Logf("bob's row came after %v, the lag was up to %v", took, highest)
	if highest < took/2 || highest > took+time.Second {
		t.Errorf("the lag was up to %v, want about %v", highest, took)
	}
	r.caughtUp(t)
	if lag := r.Stats.Lag(); lag > 2*time.Second {
		t.Errorf("the lag is %v after all rows were read, want at most 2 s", lag)
	}
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
	if lag := r.Stats.Lag(); lag > 1500*time.Millisecond {
		t.Errorf("the lag is %v after all rows were read, want at most 1.5 s", lag)
	}
}

// Only data from 7 KiB to 1 MiB is measured before it is converted to text, because measuring takes longer than
// converting. Smaller data has less than 64 MiB of text. Larger data would take many seconds to measure.
func TestSmallAndLargeDataIsNotMeasured(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	dropDataConstraints(t, conn)
	// These numbers expand most: they have as many digits before and after the point as PostgreSQL allows.
	const longest = `SELECT ('[' || rpad('', ($1 - 1) * length(number || ','), number || ',') || number || ']')::jsonb
		FROM (SELECT '1' || repeat('0', 131071) || '.' || repeat('0', 16383)) n (number)`
	const small = "SELECT jsonb_agg(i % 10) FROM generate_series(1, $1) i"
	for _, tt := range []struct {
		data     string
		numbers  int
		measured bool
	}{{longest, 450, false}, {longest, 451, true}, {small, 60_000, true}, {small, 100_000, false}} {
		size := one[int](t, conn, "INSERT INTO rowcast.notifications (data) "+tt.data+" RETURNING pg_column_size(data #> '{}')", tt.numbers)
		if (size > 7216 && size <= 1<<20) != tt.measured {
			t.Errorf("%d numbers are stored in %d bytes, want from 7217 bytes to 1 MiB: %t", tt.numbers, size, tt.measured)
		}
		if text := one[int](t, conn, "SELECT octet_length(data::text) FROM rowcast.notifications ORDER BY id DESC LIMIT 1"); text > 68<<20 {
			t.Errorf("%d numbers in %d bytes are %d bytes of text, want at most 68 MiB", tt.numbers, size, text)
		}
		xid := one[string](t, conn, "SELECT xid::text FROM rowcast.notifications ORDER BY id DESC LIMIT 1")
		id := one[int](t, conn, "SELECT id FROM rowcast.notifications ORDER BY id DESC LIMIT 1")
		plan := strings.Join(query[string](t, conn, "EXPLAIN (ANALYZE, COSTS off, TIMING off) "+listener.RowQuery, xid, id, 1<<20), "\n")
		_, scan, found := strings.Cut(plan, "Function Scan on jsonb_array_elements")
		scan, _, _ = strings.Cut(scan, "\n")
		if !found || strings.Contains(scan, "never executed") == tt.measured {
			t.Errorf("%d numbers in %d bytes: want the query to measure them: %t, the plan is\n%s", tt.numbers, size, tt.measured, plan)
		}
	}
}
