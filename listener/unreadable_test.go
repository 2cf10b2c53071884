package listener_test

import (
	"context"
	"fmt"
	"io/fs"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// outcomes returns a text for each delivered row: its recipient, its event, and its data or the reason why it has no
// data.
func outcomes(rows []feed.Row) (all []string) {
	for _, row := range rows {
		outcome := string(row.Data)
		switch {
		case row.Unreadable != "":
			outcome = "unreadable: " + row.Unreadable
		case row.Data == nil:
			outcome = fmt.Sprintf("too large: %d", row.Size)
		}
		all = append(all, row.Recipient+" "+row.Event+" "+outcome)
	}
	return all
}

// faulty puts a view in place of the table. Through the view, reading data with the key "sqlstate" fails with this
// SQLSTATE. If the data has the key "times" too, only so many reads fail. Rows are inserted into rowcast.stored. The
// function is STABLE, so PostgreSQL calls it only where a query reads data.
func faulty(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, `CREATE SEQUENCE rowcast.tries MINVALUE 0`)
	exec(t, conn, `CREATE FUNCTION rowcast.fault(data jsonb) RETURNS jsonb STABLE LANGUAGE plpgsql AS $$ BEGIN
		-- The query for the newest rows reads only the stored size, which does not fail.
		IF data ? 'sqlstate' AND current_query() NOT LIKE '%newest%' AND (NOT data ? 'times' OR nextval('rowcast.tries') < (data ->> 'times')::int) THEN
			RAISE EXCEPTION 'a fault' USING ERRCODE = data ->> 'sqlstate';
		END IF;
		RETURN data;
	END $$`)
	exec(t, conn, `ALTER TABLE rowcast.notifications RENAME TO stored`)
	exec(t, conn, `CREATE VIEW rowcast.notifications AS
		SELECT xmin, id, recipient, event, rowcast.fault(data) AS data, created_at, xid FROM rowcast.stored`)
}

// readInEveryWay calls write, which commits rows, and checks the outcomes of the rows that are delivered. The rows are
// read by a running listener, by a listener with PollOnly, by a listener that begins later, and by replays for alice.
// The parameter unreadable is the number of rows that each listener must count as unreadable.
func readInEveryWay(t *testing.T, dsn string, write func(), want []string, unreadable int64) {
	t.Helper()
	config := func(l *listener.Listener) { l.PageBytes, l.MaxData = 1<<16, 1<<17 }
	conn := connect(t, dsn)
	before := one[string](t, conn, "SELECT rowcast.cursor()")
	poll := listen(t, dsn, config, func(l *listener.Listener) { l.PollOnly, l.PollInterval = true, 10*time.Millisecond })
	live := listen(t, dsn, config)
	write()
	ofAlice := int64(strings.Count(strings.Join(want, "\n"), "unreadable"))
	if unreadable == some {
		ofAlice = some
	}
	check := func(way string, got []feed.Row, l *listener.Listener, unreadable int64) {
		t.Helper()
		if got := outcomes(got); !slices.Equal(got, want) {
			t.Errorf("%s:\ngot\n%s\nwant\n%s", way, strings.Join(got, "\n"), strings.Join(want, "\n"))
		}
		if got := l.Stats.Unreadable.Load(); got != unreadable && (unreadable != some || got == 0) {
			t.Errorf("%s: counted %d rows that cannot be read, want %d", way, got, unreadable)
		}
		if l.Stats.Sessions.Load() > 1 {
			t.Errorf("%s: %d sessions, want one", way, l.Stats.Sessions.Load())
		}
	}
	check("live", live.rows(t, len(want)), live.Listener, unreadable)
	check("poll", poll.rows(t, len(want)), poll.Listener, unreadable)
	warm := listen(t, dsn, config, func(l *listener.Listener) { l.Warm = 16 << 20 })
	check("warm", warm.rows(t, len(want)), warm.Listener, unreadable)
	for _, pollOnly := range []bool{false, true} {
		l := newListener(t, dsn)
		config(l)
		l.PollOnly = pollOnly
		replayer, err := l.NewReplayer(t.Context(), 1)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(replayer.Close)
		check("replay", replay(t, replayer, before, one[string](t, conn, "SELECT rowcast.cursor()"), []string{"alice"}), l, ofAlice)
	}
}

// If PostgreSQL cannot read the data of a row, whatever the error is, the row is delivered without data and with the
// reason. The rows before and after it are delivered as usual.
func TestUnreadableRows(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	faulty(t, conn)
	var want []string
	const first, last = `alice message "first"`, `alice message "last"`
	var states []string
	for _, state := range [][2]string{
		{"22021", "unreadable: encoding"},
		{"22P05", "unreadable: encoding"},
		{"22P02", "unreadable: invalid"},
		{"XX001", "unreadable: damaged"},
		{"XX000", "unreadable: damaged"},
		{"58030", "unreadable: damaged"},
		{"53200", "unreadable: memory"},
		{"57014", "unreadable: timeout"},
		{"54000", "too large: 0"},
	} {
		states = append(states, state[0])
		want = append(want, "alice  "+state[1])
	}
	readInEveryWay(t, dsn, func() {
		exec(t, conn, `INSERT INTO rowcast.stored (recipient, data) SELECT 'alice', data FROM unnest(
			'"first"'::jsonb || ARRAY(SELECT jsonb_build_object('sqlstate', state) FROM unnest($1::text[]) state) || '"last"'::jsonb) data`, states)
	}, slices.Concat([]string{first}, want, []string{last}), 8)
}

// Rows that only an altered table accepts do not prevent other rows from being read, and do not prevent the hub from
// beginning.
func TestRowsThatTheTableShouldRefuse(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	for _, column := range []string{"event", "data", "created_at"} {
		exec(t, conn, "ALTER TABLE rowcast.notifications ALTER "+column+" DROP NOT NULL")
	}
	for _, constraint := range []string{"created_at_is_finite", "data_expands_at_most_32_fold", "data_is_at_most_64_mib"} {
		exec(t, conn, "ALTER TABLE rowcast.notifications DROP CONSTRAINT "+constraint)
	}
	readInEveryWay(t, dsn, func() {
		exec(t, conn, `INSERT INTO rowcast.notifications (recipient, event, data, created_at) VALUES
			('alice', 'e', '1', now()), ('alice', NULL, '2', now()), ('alice', 'e', NULL, now()),
			('alice', 'e', '3', NULL), ('alice', 'e', '4', 'infinity'), ('alice', 'e', '5', '-infinity'), ('alice', 'e', '6', now())`)
	}, []string{
		"alice e 1", "alice  unreadable: invalid", "alice  unreadable: invalid",
		"alice e 3", "alice e 4", "alice e 5", "alice e 6",
	}, 2)
}

// odd creates a database with the schema in another encoding. The constraints that refuse text without a UTF-8 form
// are dropped.
func odd(t testing.TB, encoding string) string {
	t.Helper()
	server := dbtest.Empty(t)
	admin := connect(t, server)
	name := fmt.Sprintf("%s_%d", strings.ToLower(encoding), admin.PgConn().PID())
	exec(t, admin, fmt.Sprintf("CREATE DATABASE %s ENCODING '%s' LOCALE 'C' TEMPLATE template0", name, encoding))
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		cleanup, err := pgx.Connect(ctx, server)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = cleanup.Close(ctx) }()
		if _, err := cleanup.Exec(ctx, "DROP DATABASE "+name+" WITH (FORCE)"); err != nil {
			t.Error(err)
		}
	})
	dsn := fmt.Sprintf("host=%s port=%d user=%s dbname=%s", admin.Config().Host, admin.Config().Port, admin.Config().User, name)
	conn := connect(t, dsn)
	exec(t, conn, "CREATE SCHEMA rowcast")
	files, err := fs.Glob(sql.Migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := fs.ReadFile(sql.Migrations, file)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.PgConn().Exec(limited(t), "BEGIN;"+string(text)+"COMMIT;").ReadAll(); err != nil {
			t.Fatalf("%s: %v", file, err)
		}
	}
	for _, constraint := range []string{"data_expands_at_most_32_fold", "data_is_at_most_64_mib", "has_utf8_form"} {
		exec(t, conn, "ALTER TABLE rowcast.notifications DROP CONSTRAINT IF EXISTS "+constraint)
	}
	return dsn
}

// Text without a form in UTF-8 cannot be sent. If the recipient has no such form, the row is skipped.
func TestTextWithoutAFormInUTF8(t *testing.T) {
	t.Parallel()
	for encoding, bad := range map[string]string{"SQL_ASCII": `\xe9`, "EUC_JIS_2004": `\x8ffefe`, "EUC_TW": `\xa9a9`} {
		t.Run(encoding, func(t *testing.T) {
			t.Parallel()
			dsn := odd(t, encoding)
			conn := connect(t, dsn)
			readInEveryWay(t, dsn, func() {
				exec(t, conn, fmt.Sprintf(`WITH bad AS (SELECT convert_from('%s', getdatabaseencoding()) AS text)
					INSERT INTO rowcast.notifications (recipient, event, data)
					SELECT 'alice', 'e', '1'::jsonb UNION ALL
					SELECT 'alice', 'e', jsonb_build_object('msg', 'caf' || text) FROM bad UNION ALL
					SELECT 'alice', 'e' || text, '2'  FROM bad UNION ALL
					SELECT 'bob' || text, 'e', '3' FROM bad UNION ALL
					SELECT 'alice', 'e', '4'`, bad))
				exec(t, conn, fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, data) VALUES
					('bob' || convert_from('%s', getdatabaseencoding()), '5')`, bad))
				exec(t, conn, "INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'e', '6')")
			}, []string{
				"alice e 1", "alice  unreadable: encoding", "alice  unreadable: encoding", "alice e 4", "alice e 6",
			}, 4)
		})
	}
}

// If reading a row fails for another cause than the row, the row does not count as unreadable. The listener reads it
// again, if necessary in another session.
func TestErrorsThatAreNoRowsFault(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"42501", "55P03", "57P01", "57014", "53200"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			conn := connect(t, dsn)
			faulty(t, conn)
			r := listen(t, dsn)
			data := fmt.Sprintf(`{"times": 2, "sqlstate": "%s"}`, state)
			exec(t, conn, "INSERT INTO rowcast.stored (data) VALUES ($1), ('1')", data)
			wantData(t, r.rows(t, 2), data, "1")
			if n := r.Stats.Unreadable.Load(); n > 0 {
				t.Errorf("counted %d rows that cannot be read, want 0", n)
			}
		})
	}
}

// A row does not count as unreadable if the statement that reads it waits too long for a lock.
func TestLockWhileARowIsRead(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn, locker := connect(t, dsn), connect(t, dsn)
	gate := newGate(t, "whole (recipient, event, huge, text)")
	r := listen(t, dsn, gate.into, func(l *listener.Listener) { l.Timeout = 500 * time.Millisecond })
	const random = `(SELECT to_jsonb(string_agg(md5(i::text), '')) FROM generate_series(1, 1000) i)`
	exec(t, conn, "INSERT INTO rowcast.notifications (data) VALUES ("+random+")")
	gate.wait(t)
	exec(t, locker, "BEGIN; LOCK TABLE rowcast.notifications")
	gate.open()
	eventually(t, conn, `SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'rowcast.notifications'::regclass`)
	sessions := r.Stats.Sessions.Load()
	for deadline := time.Now().Add(patience); r.Connected() && r.Stats.Sessions.Load() == sessions; {
		if time.Now().After(deadline) {
			t.Fatal("waited for the end of the session, whose statement waits for a lock")
		}
		time.Sleep(time.Millisecond)
	}
	exec(t, locker, "COMMIT")
	if got := r.rows(t, 1)[0]; len(got.Data) != 32*1000+2 || r.Stats.Unreadable.Load() > 0 {
		t.Errorf("got %d bytes, unreadable: %q, want 32002 bytes", len(got.Data), got.Unreadable)
	}
}

// dropDataConstraints drops the constraints for the size of data, so that a test can insert rows like those from before
// the constraints.
func dropDataConstraints(t testing.TB, conn *pgx.Conn) {
	t.Helper()
	for _, constraint := range []string{"data_expands_at_most_32_fold", "data_is_at_most_64_mib"} {
		exec(t, conn, "ALTER TABLE rowcast.notifications DROP CONSTRAINT "+constraint)
	}
}

// Numbers are measured before they are converted to text. Data that is not too large is read. Data that is too large is
// not converted, so that it does not delay the next row.
func TestNumbersAreMeasured(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	dropDataConstraints(t, conn)
	r := listen(t, dsn)
	exec(t, conn, `INSERT INTO rowcast.notifications (data) SELECT d FROM unnest(ARRAY[
		(SELECT jsonb_agg(i) FROM generate_series(1, 3000) i),
		(SELECT jsonb_build_array(jsonb_agg(1e131071)) FROM generate_series(1, 120)),
		(SELECT jsonb_build_object('a', jsonb_agg(1e131071)) FROM generate_series(1, 8200)), '1']) d`)
	for i, row := range r.rows(t, 4) {
		if want := []int64{16_893, 120*131_074 + 2, 0, 1}[i]; row.Size != want || int64(len(row.Data)) != want || row.Unreadable != "" {
			t.Errorf("row %d has %d bytes of data and size %d, want %d: %q", i, len(row.Data), row.Size, want, row.Unreadable)
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
	// The small rows come first, so that pages have many rows when the large rows come.
	exec(t, conn, `INSERT INTO rowcast.stored (recipient, data) SELECT 'alice', to_jsonb(CASE WHEN i <= $1 THEN 1 ELSE 1e131071 END)
		FROM generate_series(1, 2 * $1::int) i`, rows)
	check := func(way string, got []feed.Row) {
		t.Helper()
		for i, row := range got {
			if large := i >= rows; large && len(row.Data) != 131072 || !large && string(row.Data) != "1" {
				t.Fatalf("%s: row %d: got %d bytes of data and size %d, want the data of the row", way, i, len(row.Data), row.Size)
			}
		}
		made := one[int](t, conn, "SELECT setval('rowcast.made', setval('rowcast.made', nextval('rowcast.made')))::int")
		exec(t, conn, "ALTER SEQUENCE rowcast.made RESTART")
		t.Logf("%s: the data of %d rows was read %d times", way, 2*rows, made)
		if made > 6*2*rows { // a single page reads the data of each row three times
			t.Errorf("%s: the data of %d rows was read %d times, want at most 6 times a row", way, 2*rows, made)
		}
	}
	// The test counts reads and does not measure time, because all pages may take long on a loaded machine. Only the
	// wait for a page has a time limit.
	for len(r.read) < 2*rows {
		r.rows(t, 1)
		if made := one[int](t, conn, "SELECT last_value::int FROM rowcast.made"); made > 6*2*rows {
			t.Fatalf("live: the data was read %d times for the first %d of %d rows", made, len(r.read), 2*rows)
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

// All large rows of a transaction together take longer to read than Timeout, but each row takes less. A running hub and
// a hub that begins later both read all these rows.
func TestManyLargeRowsTakeLongerThanTimeout(t *testing.T) {
	t.Parallel()
	const rows = 60
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	slow(t, conn, 25*time.Millisecond)
	small := func(l *listener.Listener) { l.PageBytes, l.MaxData, l.Timeout = 1<<16, 1<<16, time.Second }
	check := func(r *reader, got []feed.Row) {
		t.Helper()
		for i, row := range got {
			if row.Data != nil || row.Unreadable != "" || row.Size != 131_074 {
				t.Fatalf("row %d has %d bytes of data and size %d: %s", i, len(row.Data), row.Size, row.Unreadable)
			}
		}
		if n := r.Stats.Sessions.Load(); n > 1 {
			t.Errorf("got %d sessions, want 1", n)
		}
	}
	live := listen(t, dsn, small)
	exec(t, conn, `INSERT INTO rowcast.stored (data) SELECT jsonb_build_array(1e131071) FROM generate_series(1, $1::int)`, rows)
	check(live, live.rows(t, rows))
	warm := listen(t, dsn, small, func(l *listener.Listener) { l.Warm = 1 << 20 })
	warm.until(t, func() bool { return warm.last.Cursor.Xmax > 0 && !warm.last.Warming })
	check(warm, warm.read)
}

// slow puts a view in place of the table. Through the view, it takes the time length to read data that is an array.
// Rows are inserted into rowcast.stored, which has no constraints for the size of data.
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

// If the recent rows take too long to read, a hub begins without the rest of them.
func TestWarmingUpEnds(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	slow(t, conn, 200*time.Millisecond)
	exec(t, conn, `INSERT INTO rowcast.stored (data) SELECT jsonb_build_array(1e131071) FROM generate_series(1, 100)`)
	r := listen(t, dsn, func(l *listener.Listener) {
		l.Warm, l.PageBytes, l.MaxData, l.Timeout = 1<<20, 1<<16, 1<<16, time.Second
	})
	r.until(t, func() bool { return r.last.Cursor.Xmax > 0 && !r.last.Warming })
	if r.last.Reset == "" || !r.last.Cursor.Whole() || len(r.read) == 0 || len(r.read) == 100 {
		t.Errorf("warming ended after %d of 100 rows with the batch %+v, want a reset after some rows", len(r.read), r.last)
	}
	exec(t, conn, "INSERT INTO rowcast.stored (data) VALUES ('1')")
	wantData(t, r.rows(t, 1), "1")
	if c := r.last.Cursor; c.Covers(cursor.Cursor{Xmax: c.Xmax + 1}) {
		t.Errorf("the cursor %s covers a later cursor", c)
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
	for _, numbers := range []int{60_000, 3_000_000} { // the first data is measured, the second is too large for that
		exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', jsonb_agg(i % 10) FROM generate_series(1, $1::int) i", numbers)
		insert(t, conn, "next")
		rows := r.rows(t, 2)
		if got := rows[0]; got.Unreadable != "" || len(got.Data) != 3*numbers {
			t.Errorf("%d numbers: got %d bytes, unreadable %q", numbers, len(got.Data), got.Unreadable)
		}
		if string(rows[1].Data) != `"next"` {
			t.Errorf("after %d numbers: got row %.20s, want the row next", numbers, rows[1].Data)
		}
	}
}
