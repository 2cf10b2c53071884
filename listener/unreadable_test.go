package listener_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/feed"
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

// faulty puts a view in place of the table. Through the view, reading data with the key "sqlstate" fails with the
// SQLSTATE that is its value. If the data also has the key "times" with the value n, only the first n reads fail. Rows
// are inserted into rowcast.stored. The function rowcast.fault is STABLE, so PostgreSQL calls it only where a query
// reads data.
func faulty(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, `CREATE SEQUENCE rowcast.tries MINVALUE 0`)
	exec(t, conn, `CREATE FUNCTION rowcast.fault(data jsonb) RETURNS jsonb STABLE LANGUAGE plpgsql AS $$ BEGIN
		-- The query for the newest rows reads only the stored size, which does not fail in a table.
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
// read by a running listener, by a listener with PollOnly, by a listener that begins later, and by replays for alice
// and everyone. The parameter unreadable is the number of rows that each listener must count as unreadable; some means
// at least one. The replays must count the unreadable rows that they deliver to alice and to everyone.
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
			t.Errorf("%s: counted %d rows that cannot be read, want %d (-1 means at least 1)", way, got, unreadable)
		}
		if l.Stats.Sessions.Load() > 1 {
			t.Errorf("%s: got %d sessions, want at most 1", way, l.Stats.Sessions.Load())
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

// If PostgreSQL returns one of these errors each time the data of a row is read, the row is delivered without data, as
// unreadable with a reason or as too large. The rows before and after it are delivered as usual.
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

// Rows that only an altered table accepts do not prevent other rows from being read, and do not prevent another hub
// from beginning. A row without a recipient is skipped.
func TestRowsThatTheTableShouldRefuse(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	for _, column := range []string{"recipient", "event", "data", "created_at"} {
		exec(t, conn, "ALTER TABLE rowcast.notifications ALTER "+column+" DROP NOT NULL")
	}
	for _, constraint := range []string{"created_at_is_finite", "data_expands_at_most_32_fold", "data_is_at_most_64_mib"} {
		exec(t, conn, "ALTER TABLE rowcast.notifications DROP CONSTRAINT "+constraint)
	}
	readInEveryWay(t, dsn, func() {
		exec(t, conn, `INSERT INTO rowcast.notifications (recipient, event, data, created_at) VALUES
			('alice', 'e', '1', now()), ('alice', NULL, '2', now()), ('alice', 'e', NULL, now()),
			('alice', 'e', '3', NULL), ('alice', 'e', '4', 'infinity'), ('alice', 'e', '5', '-infinity'), (NULL, 'e', '7', now()), ('alice', 'e', '6', now())`)
	}, []string{
		"alice e 1", "alice  unreadable: invalid", "alice  unreadable: invalid",
		"alice e 3", "alice e 4", "alice e 5", "alice e 6",
	}, 3)
}

// If reading a row fails, but not because of the row itself, the row does not count as unreadable. The listener reads
// the row again, if necessary in another session.
func TestErrorsNotCausedByARow(t *testing.T) {
	t.Parallel()
	for _, state := range []string{"42501", "55P03", "57P01", "57014", "53200"} {
		t.Run(state, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			conn := connect(t, dsn)
			faulty(t, conn)
			r := listen(t, dsn)
			data := fmt.Sprintf(`{"times": 2, "sqlstate": "%s"}`, state)
			exec(t, conn, "INSERT INTO rowcast.stored (recipient, data) VALUES ('*', $1), ('*', '1')", data)
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
	gate := newGate(t, rowStatement)
	r := listen(t, dsn, gate.into, func(l *listener.Listener) { l.Timeout = 2 * time.Second })
	const random = `(SELECT to_jsonb(string_agg(md5(i::text), '')) FROM generate_series(1, 1000) i)`
	exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', "+random+")")
	gate.wait(t)
	exec(t, locker, "BEGIN; LOCK TABLE rowcast.notifications")
	gate.open()
	eventually(t, conn, `SELECT count(*) > 0 FROM pg_locks WHERE NOT granted AND relation = 'rowcast.notifications'::regclass`)
	sessions := r.Stats.Sessions.Load()
	for deadline := time.Now().Add(patience); r.Connected() && r.Stats.Sessions.Load() == sessions; {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for the end of the session, whose statement waits for a lock", patience)
		}
		time.Sleep(time.Millisecond)
	}
	exec(t, locker, "COMMIT")
	if got := r.rows(t, 1)[0]; len(got.Data) != 32*1000+2 || r.Stats.Unreadable.Load() > 0 {
		t.Errorf("got %d bytes, and counted %d rows as unreadable, want 32002 bytes and 0", len(got.Data), r.Stats.Unreadable.Load())
	}
}
