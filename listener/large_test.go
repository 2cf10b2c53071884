package listener_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// dropDataConstraints drops the constraints for the size of data, so that a test can insert rows that violate them. A
// table can have such rows from before migration 3.
func dropDataConstraints(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	for _, constraint := range []string{"data_expands_at_most_32_fold", "data_is_at_most_64_mib"} {
		exec(t, conn, "ALTER TABLE rowcast.notifications DROP CONSTRAINT "+constraint)
	}
}

// The listener measures the length of the numbers in data of 7217 bytes to 1 MiB before it converts the data to text.
// It reads data that is not too large. It does not convert data that is too large, so that the next row is not delayed.
func TestNumbersAreMeasured(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	dropDataConstraints(t, conn)
	r := listen(t, dsn)
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data) SELECT '*', d FROM unnest(ARRAY[
		(SELECT jsonb_agg(i) FROM generate_series(1, 3000) i),
		(SELECT jsonb_build_array(jsonb_agg(1e131071)) FROM generate_series(1, 120)),
		(SELECT jsonb_build_object('a', jsonb_agg(1e131071)) FROM generate_series(1, 8200)), '1']) d`)
	for i, row := range r.rows(t, 4) {
		if want := []int64{16_893, 120*131_074 + 2, 0, 1}[i]; row.Size != want || int64(len(row.Data)) != want || row.Unreadable != "" {
			t.Errorf("row %d: got %d bytes of data, size %d and Unreadable %q, want %d, %d and \"\"", i, len(row.Data), row.Size, row.Unreadable, want, want)
		}
	}
}

// Only data of 7217 bytes to 1 MiB is measured before it is converted to text, because measuring takes longer than
// converting. Smaller data has less than 64 MiB of text. Larger data would take many seconds to measure.
func TestSmallAndLargeDataIsNotMeasured(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	dropDataConstraints(t, conn)
	// These numbers have as many digits before and after the point as PostgreSQL allows.
	const longest = `SELECT ('[' || rpad('', ($1 - 1) * length(number || ','), number || ',') || number || ']')::jsonb
		FROM (SELECT '1' || repeat('0', 131071) || '.' || repeat('0', 16383)) n (number)`
	const small = "SELECT jsonb_agg(i % 10) FROM generate_series(1, $1) i"
	for _, tt := range []struct {
		data     string
		numbers  int
		measured bool
	}{{longest, 450, false}, {longest, 451, true}, {small, 60_000, true}, {small, 100_000, false}} {
		size := one[int](t, conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT '*', ("+tt.data+") RETURNING pg_column_size(data #> '{}')", tt.numbers)
		if (size > 7216 && size <= 1<<20) != tt.measured {
			t.Errorf("%d numbers are stored in %d bytes; this is from 7217 bytes to 1 MiB: %t, want %t", tt.numbers, size, !tt.measured, tt.measured)
		}
		if text := one[int](t, conn, "SELECT octet_length(data::text) FROM rowcast.notifications ORDER BY id DESC LIMIT 1"); text >= 64<<20 {
			t.Errorf("%d numbers in %d bytes are %d bytes of text, want less than 64 MiB", tt.numbers, size, text)
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

// Data with very many numbers is delivered, and so is the next row. The time to read such data must not grow with the
// square of the count of numbers.
func TestManyNumbersAreRead(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	r := listen(t, dsn)
	r.caughtUp(t)
	// The listener measures the data with 60,000 numbers before it reads the text. The data with 3,000,000 numbers is too
	// large to be measured.
	for _, numbers := range []int{60_000, 3_000_000} {
		exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', jsonb_agg(i % 10) FROM generate_series(1, $1::int) i", numbers)
		insert(t, conn, "next")
		rows := r.rows(t, 2)
		if got := rows[0]; got.Unreadable != "" || len(got.Data) != 3*numbers {
			t.Errorf("%d numbers: got %d bytes of data and Unreadable %q, want %d and \"\"", numbers, len(got.Data), got.Unreadable, 3*numbers)
		}
		if string(rows[1].Data) != `"next"` {
			t.Errorf("after %d numbers: got row %.20s, want \"next\"", numbers, rows[1].Data)
		}
	}
}

// On average, the listener reads the data of a row only a few times, even if the text of many rows is much longer than
// their stored form.
func TestWorkIsLinearWhereRowsExpand(t *testing.T) {
	t.Parallel()
	const rows = 300
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	exec(t, conn, `CREATE SEQUENCE rowcast.made`)
	exec(t, conn, `CREATE FUNCTION rowcast.counted(data jsonb) RETURNS jsonb STABLE LANGUAGE plpgsql AS $$ BEGIN
		PERFORM nextval('rowcast.made');
		RETURN data;
	END $$`)
	dropDataConstraints(t, conn)
	exec(t, conn, `ALTER TABLE rowcast.notifications RENAME TO stored`)
	exec(t, conn, `CREATE VIEW rowcast.notifications AS
		SELECT xmin, id, recipient, event, rowcast.counted(data) AS data, created_at, xid FROM rowcast.stored`)
	before := one[string](t, conn, "SELECT rowcast.cursor()")
	// PageBytes is less than the size of a large row, so a page has at most one large row.
	small := func(l *listener.Listener) { l.PageBytes = 1 << 16 }
	r := listen(t, dsn, small)
	// The small rows come first. By the time the listener reaches the large rows, it asks for many rows in each page.
	exec(t, conn, `INSERT INTO rowcast.stored (recipient, data) SELECT 'alice', to_jsonb(CASE WHEN i <= $1 THEN 1 ELSE 1e131071 END)
		FROM generate_series(1, 2 * $1::int) i`, rows)
	check := func(way string, got []feed.Row) {
		t.Helper()
		for i, row := range got {
			if large := i >= rows; large && len(row.Data) != 131072 || !large && string(row.Data) != "1" {
				t.Fatalf("%s: row %d: got %d bytes of data, beginning with %.1q, want 131072 bytes from row %d on, and \"1\" before it",
					way, i, len(row.Data), row.Data, rows)
			}
		}
		made := one[int](t, conn, "SELECT nextval('rowcast.made')::int - 1")
		exec(t, conn, "ALTER SEQUENCE rowcast.made RESTART")
		t.Logf("%s: the data of %d rows was read %d times", way, 2*rows, made)
		if made > 6*2*rows { // the query of a page uses the data of each row three times
			t.Errorf("%s: the data of %d rows was read %d times, want at most 6 times a row", way, 2*rows, made)
		}
	}
	// The test counts reads and does not measure time, because all pages together may take long on a loaded machine.
	// Only the wait for a page has a time limit.
	for len(r.read) < 2*rows {
		r.rows(t, 1)
		if made := one[int](t, conn, "SELECT last_value::int FROM rowcast.made"); made > 6*2*rows {
			t.Fatalf("live: the data was read %d times for the first %d of %d rows, want at most %d times in total", made, len(r.read), 2*rows, 6*2*rows)
		}
	}
	check("live", r.read)
	l := newListener(t, dsn)
	small(l)
	replayer, err := l.NewReplayer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	check("replay", replay(t, replayer, before, one[string](t, conn, "SELECT rowcast.cursor()"), []string{"alice"}))
}

// Timeout is long enough for each large row of a transaction, but not for all of them together. A running hub
// nevertheless reads all of them without losing its session. So does a hub that begins later and reads recent rows
// first (Warm).
func TestManyLargeRowsTakeLongerThanTimeout(t *testing.T) {
	t.Parallel()
	const rows = 120
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	slow(t, conn, 25*time.Millisecond)
	small := func(l *listener.Listener) { l.PageBytes, l.MaxData, l.Timeout = 1<<16, 1<<16, 6*time.Second }
	check := func(r *reader, got []feed.Row) {
		t.Helper()
		for i, row := range got {
			if row.Data != nil || row.Unreadable != "" || row.Size != 131_074 {
				t.Fatalf("row %d: got %d bytes of data, size %d and Unreadable %q, want 0, 131074 and \"\"", i, len(row.Data), row.Size, row.Unreadable)
			}
		}
		if n := r.Stats.Sessions.Load(); n > 1 {
			t.Errorf("got %d sessions, want at most 1", n)
		}
	}
	live := listen(t, dsn, small)
	exec(t, conn, `INSERT INTO rowcast.stored (recipient, data) SELECT '*', jsonb_build_array(1e131071) FROM generate_series(1, $1::int)`, rows)
	check(live, live.rows(t, rows))
	warm := listen(t, dsn, small, func(l *listener.Listener) { l.Warm = 1 << 20 })
	warm.until(t, func() bool { return warm.last.Cursor.Xmax > 0 && !warm.last.Warming })
	check(warm, warm.read)
}

// slow puts a view in place of the table. If the data of a row is a JSON array, each use of this data takes as long as
// length says, except in the query for the newest rows. Rows are inserted into rowcast.stored, which is the table
// without the constraints for the size of data.
func slow(t *testing.T, conn *pgx.Conn, length time.Duration) {
	t.Helper()
	dropDataConstraints(t, conn)
	exec(t, conn, fmt.Sprintf(`CREATE FUNCTION rowcast.slow(data jsonb) RETURNS jsonb STABLE LANGUAGE plpgsql AS $$ BEGIN
		-- The query for the newest rows reads only the stored size, which takes no time.
		IF jsonb_typeof(data) = 'array' AND current_query() NOT LIKE '%%newest%%' THEN PERFORM pg_sleep(%f); END IF;
		RETURN data;
	END $$`, length.Seconds()))
	exec(t, conn, `ALTER TABLE rowcast.notifications RENAME TO stored`)
	exec(t, conn, `CREATE VIEW rowcast.notifications AS
		SELECT xmin, id, recipient, event, rowcast.slow(data) AS data, created_at, xid FROM rowcast.stored`)
}
