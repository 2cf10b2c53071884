package listener_test

import (
	"strconv"
	"sync"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// With Warm, a listener first delivers the newest rows from before it began. A transaction that was in flight at
// that time is delivered once, after it has committed.
func TestWarmStart(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn, open := connect(t, dsn), connect(t, dsn)
	exec(t, open, "BEGIN")
	insert(t, open, "in flight")
	for _, data := range []string{"1", "2", "3"} {
		insert(t, conn, data)
	}
	var first feed.Batch
	r := listen(t, dsn, func(l *listener.Listener) {
		l.Warm = 700 // enough for two rows, not for three
		deliver := l.Deliver
		l.Deliver = func(b feed.Batch) {
			if first.Cursor.Xmax == 0 {
				first = kept(b)
			}
			deliver(b)
		}
	})
	r.caughtUp(t)
	exec(t, open, "COMMIT")
	insert(t, conn, "4")
	r.caughtUp(t)
	r.stop()
	if !first.Warming || len(first.Rows) > 0 {
		t.Errorf("the first batch is %+v, want an empty batch with Warming", first)
	}
	wantData(t, r.read, `"2"`, `"3"`, `"in flight"`, `"4"`)
}

// If a transaction has more rows than Warm allows, a listener that begins reads only the rows after this transaction.
// So the time to begin does not depend on the size of a transaction.
func TestWarmStartReadsNoLargerTransaction(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	insert(t, conn, "old")
	exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT '*', to_jsonb(i) FROM generate_series(1, 5000) i")
	for _, newer := range []int{0, 3} {
		for i := range newer {
			insert(t, conn, strconv.Itoa(i))
		}
		r := listen(t, dsn, func(l *listener.Listener) { l.Warm = 20 * 300 })
		r.caughtUp(t)
		if len(r.read) != newer {
			t.Errorf("with %d newer rows: %d rows were read, want only the newer rows", newer, len(r.read))
		}
		r.stop()
	}
}

// Warm may be larger than an integer of PostgreSQL: the largest --memory is 1 TiB.
func TestWarmStartWithTheLargestLimit(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	insert(t, connect(t, dsn), "1")
	r := listen(t, dsn, func(l *listener.Listener) { l.Warm = 1 << 40 })
	r.caughtUp(t)
	r.stop()
	wantData(t, r.read, `"1"`)
}

// If the session breaks while a listener reads recent rows, the listener continues to read them in the next session.
// Until all recent rows have been read, each batch has Warming set.
func TestWarmingOutlivesTheSession(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	const rows, pageRows = 60, 8
	for i := range rows {
		insert(t, conn, strconv.Itoa(i))
	}
	var breakOnce sync.Once
	var early []int // how many rows had been read at each batch that came without Warming too early
	read := 0
	r := listen(t, dsn, func(l *listener.Listener) {
		l.Warm, l.PageRows = 1<<20, pageRows
		deliver := l.Deliver
		l.Deliver = func(b feed.Batch) {
			if read += len(b.Rows); !b.Warming && read < rows {
				early = append(early, read)
			}
			if len(b.Rows) > 0 {
				breakOnce.Do(func() {
					query[bool](t, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
						WHERE datname = current_database() AND application_name = 'rowcast listener'`)
				})
			}
			deliver(b)
		}
	})
	r.caughtUp(t)
	r.stop()
	if len(r.read) != rows || r.Failures.Of("fetch").Total == 0 {
		t.Fatalf("%d rows were delivered and %d sessions broke, want %d rows and a broken session", len(r.read), r.Failures.Of("fetch").Total, rows)
	}
	if len(early) > 0 {
		t.Errorf("batches came without Warming after %v of %d rows, want Warming until all rows have been read", early, rows)
	}
}

// If the recent rows take too long to read, a hub begins without the rest of them.
func TestWarmingUpEnds(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	slow(t, conn, 200*time.Millisecond)
	exec(t, conn, `INSERT INTO rowcast.stored (recipient, data) SELECT '*', jsonb_build_array(1e131071) FROM generate_series(1, 100)`)
	r := listen(t, dsn, func(l *listener.Listener) {
		l.Warm, l.PageBytes, l.MaxData, l.Timeout = 1<<20, 1<<16, 1<<16, 4*time.Second
	})
	r.until(t, func() bool { return r.last.Cursor.Xmax > 0 && !r.last.Warming })
	if r.last.Reset == "" || !r.last.Cursor.Whole() || len(r.read) == 0 || len(r.read) == 100 {
		t.Errorf("warming ended after %d of 100 rows with the batch %+v, want a Reset and a whole cursor, after some rows but not all", len(r.read), r.last)
	}
	exec(t, conn, "INSERT INTO rowcast.stored (recipient, data) VALUES ('*', '1')")
	wantData(t, r.rows(t, 1), "1")
	if c := r.last.Cursor; c.Covers(cursor.Cursor{Xmax: c.Xmax + 1}) {
		t.Errorf("the cursor %s covers a cursor with a higher xmax, want it not to", c)
	}
}
