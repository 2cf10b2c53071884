package listener_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// Rows that take long to read keep the next row waiting. While they do, the lag says how long, and the log says once that rows wait and
// once that all have been read.
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
		if n := len(r.told); n == 40 {
			highest = max(highest, r.Stats.Lag())
		}
		return len(r.told) == 41
	})
	took := time.Since(start)
	t.Logf("bob's row came after %v, the lag was up to %v", took, highest)
	if highest < took/2 || highest > took+time.Second {
		t.Errorf("the lag was up to %v, want about %v", highest, took)
	}
	r.caughtUp(t)
	if lag := r.Stats.Lag(); lag > 2*time.Second {
		t.Errorf("the lag is %v after all rows were read", lag)
	}
	said := log.text()
	if strings.Count(said, "reading new rows takes long: later rows wait") != 1 || strings.Count(said, "all new rows have been read") != 1 {
		t.Errorf("the log is\n%s", said)
	}
}

// An outage is lag, too.
func TestLagGrowsInAnOutage(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	r := listen(t, dsn)
	r.caughtUp(t)
	exec(t, conn, "ALTER TABLE rowcast.notifications RENAME TO away")
	holdsSoon(t, "the lag exceeds 1.5 s", func() bool { return r.Stats.Lag() > 1500*time.Millisecond })
	exec(t, conn, "ALTER TABLE rowcast.away RENAME TO notifications")
	r.caughtUp(t)
	if lag := r.Stats.Lag(); lag > 1500*time.Millisecond {
		t.Errorf("the lag is %v after all rows were read", lag)
	}
}

// Data that cannot be 64 MiB of text, however much it expands, is not measured before its text is made: making the text takes most of the
// time, and measuring takes as long.
func TestSmallDataIsNotMeasured(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	dropDataConstraints(t, conn)
	// Nothing expands more than these numbers: as many digits on both sides of the point as PostgreSQL allows.
	const insert = `INSERT INTO rowcast.notifications (data) SELECT
		('[' || rpad('', $1, number || ',') || number || ']')::jsonb FROM (SELECT '1' || repeat('0', 131071) || '.' || repeat('0', 16383)) n (number)
		RETURNING pg_column_size(data #> '{}')`
	const length = 131072 + 1 + 16383 + 1
	for numbers, measured := range map[int]bool{450: false, 451: true} {
		size := one[int](t, conn, insert, (numbers-1)*length)
		if (size > 7216) != measured {
			t.Errorf("%d numbers have %d bytes", numbers, size)
		}
		if text := one[int](t, conn, "SELECT octet_length(data::text) FROM rowcast.notifications ORDER BY id DESC LIMIT 1"); text > 68<<20 {
			t.Errorf("%d numbers in %d bytes are %d bytes of text", numbers, size, text)
		}
		xid := one[string](t, conn, "SELECT xid::text FROM rowcast.notifications ORDER BY id DESC LIMIT 1")
		id := one[int](t, conn, "SELECT id FROM rowcast.notifications ORDER BY id DESC LIMIT 1")
		plan := strings.Join(query[string](t, conn, "EXPLAIN (ANALYZE, COSTS off, TIMING off) "+listener.RowQuery, xid, id, 1<<20), "\n")
		for line := range strings.Lines(plan) {
			if strings.Contains(line, "Function Scan on jsonb_path_query") && strings.Contains(line, "never executed") == measured {
				t.Errorf("%d numbers in %d bytes: measured: %t\n%s", numbers, size, !measured, plan)
			}
		}
		if !strings.Contains(plan, "jsonb_path_query") {
			t.Errorf("the plan is\n%s", plan)
		}
	}
}
