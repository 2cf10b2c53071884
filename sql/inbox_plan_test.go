package sql_test

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// fillInbox inserts rows in transactions of 50 rows. One row in 50 is for alice, one in 100 for everyone, one in 100
// for a group, and the others are for other users.
func fillInbox(tb testing.TB, conn *pgx.Conn, rows int) {
	tb.Helper()
	const load = `DO $$ BEGIN FOR i IN 1 .. %d LOOP
		INSERT INTO rowcast.notifications (recipient, data) SELECT CASE WHEN k = 0 THEN 'alice' WHEN k = 1 AND i %% 2 = 0 THEN '*'
			WHEN k = 1 THEN 'team:7' ELSE 'user' || (i * 50 + k) * 7919::bigint %% 100000 END, '{"msg": "Bob liked your post"}' FROM generate_series(0, 49) k;
		COMMIT; END LOOP; END $$`
	for _, statement := range []string{"SET synchronous_commit = off", fmt.Sprintf(load, rows/50)} {
		if _, err := conn.Exec(tb.Context(), statement); err != nil {
			tb.Fatal(err)
		}
	}
}

// cost runs a query that calls a function of the inbox, and returns how many blocks the call has read. It fails if the
// call has scanned all of notifications or inbox_states.
func cost(t *testing.T, conn *pgx.Conn, query string, args ...any) (blocks int) {
	t.Helper()
	run(t, conn, "BEGIN")
	plan := call[[]struct {
		Plan struct {
			Hit  int `json:"Shared Hit Blocks"`
			Read int `json:"Shared Read Blocks"`
		}
	}](t, conn, "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) "+query, args...)
	const scans = `SELECT (pg_stat_get_xact_numscans('rowcast.notifications'::regclass) + pg_stat_get_xact_numscans('rowcast.inbox_states'::regclass))::text`
	if got := text(t, conn, scans); got != "0" {
		t.Errorf("%s: got %s scans of a whole table, want none", query, got)
	}
	run(t, conn, "ROLLBACK")
	return plan[0].Plan.Hit + plan[0].Plan.Read
}

// openTransactions opens transactions that have a number, and stay open.
func openTransactions(t *testing.T, dsn string, count int) (open []*pgx.Conn) {
	t.Helper()
	for range count {
		conn := connect(t, dsn)
		run(t, conn, "BEGIN; SELECT pg_current_xact_id()")
		open = append(open, conn)
	}
	return open
}

// The functions read few blocks, whatever the size of the table is, and however many transactions have been open since
// before the rows were inserted. This holds for the plans of the first calls and of later calls, and without
// statistics. Only after a user has marked very many rows one by one do the functions read more (see checkManyStates).
func TestInboxReadsFewBlocks(t *testing.T) {
	t.Parallel()
	for _, count := range []int{0, 1, 50} {
		t.Run(fmt.Sprint(count, " open transactions"), func(t *testing.T) {
			t.Parallel()
			// The test has a server of its own, because the transactions of other tests would count, too.
			dsn := dbtest.Cluster(t).DSN("postgres")
			m := sql.Migrator{DSN: dsn, Inbox: true}
			if _, _, err := m.Migrate(dbtest.Context(t)); err != nil {
				t.Fatal(err)
			}
			v := visitor{t, connect(t, dsn), "alice", []string{"team:7"}}
			run(t, v.conn, "ALTER TABLE rowcast.notifications SET (autovacuum_enabled = off); ALTER TABLE rowcast.inbox_states SET (autovacuum_enabled = off)")
			fillInbox(t, v.conn, 1_000)
			open := openTransactions(t, dsn, count)
			fillInbox(t, v.conn, 1_000)
			v.list()
			const limit = 1500
			for _, size := range []int{20_000, 200_000} {
				fillInbox(t, v.conn, size)
				v.checkReads(fmt.Sprint("with ", size, " more rows"), limit)
			}
			v.markAll("read", v.list().Cursor)
			v.checkReads("after all was read", limit)
			v.markAll("archive", v.list().Cursor)
			fillInbox(t, v.conn, 2_000)
			v.checkReads("after all was archived", limit)
			for i, conn := range open {
				send(t, conn, []string{"bob", "alice"}[i%2])
				run(t, conn, []string{"COMMIT", "ROLLBACK"}[i/2%2])
			}
			v.checkReads("after the transactions have ended", limit+40*count) // a call reads some more blocks for each transaction that has rows now
			v.checkUpdates()
			v.checkManyStates()
		})
	}
}

// check calls a function several times, because PostgreSQL considers a generic plan from the sixth call on. It fails if
// a call after the first one has read more blocks than the limit. The first call may read more, because it also reads
// the catalogs.
func (v visitor) check(when string, limit int, query string, args ...any) {
	v.t.Helper()
	for i := range 8 {
		if got := cost(v.t, v.conn, query, args...); got > limit && i > 0 {
			v.t.Errorf("%s, call %d: %s %.40s has read %d blocks, want %d at most", when, i, query, fmt.Sprint(args...), got, limit)
		}
	}
}

const (
	inboxPageQuery = "SELECT rowcast.inbox('alice', '{team:7}', 20, $1)"
	inboxAllQuery  = "SELECT rowcast.inbox_mark('alice', $1, '{team:7}', up_to => $2)"
	inboxMarkQuery = "SELECT rowcast.inbox_mark('alice', $1, '{team:7}', ids => $2)"
	inboxUndoQuery = "SELECT rowcast.inbox_undo('alice', $1, '{team:7}')"
)

func (v visitor) checkReads(when string, limit int) {
	v.t.Helper()
	v.check(when, limit, inboxPageQuery, nil)
	v.check(when, limit, inboxPageQuery, text(v.t, v.conn, `SELECT xid || '.' || id FROM rowcast.notifications WHERE recipient = 'alice' ORDER BY recipient, xid, id LIMIT 1 OFFSET 200`))
	for _, action := range []string{"seen", "read", "archive"} {
		v.check(when, limit, inboxAllQuery, action, v.list().Cursor)
	}
	for _, action := range []string{"seen", "read", "unread", "archive"} {
		v.check(when, limit, inboxMarkQuery, action, v.newest(20))
	}
}

// newest returns the ids of the newest rows of the user.
func (v visitor) newest(count int) (ids []int64) {
	v.t.Helper()
	const find = "SELECT array_agg(id) FROM (SELECT id FROM rowcast.notifications WHERE recipient = $1 ORDER BY recipient DESC, xid DESC, id DESC LIMIT $2) n"
	if err := v.conn.QueryRow(dbtest.Context(v.t), find, v.name, count).Scan(&ids); err != nil {
		v.t.Fatal(err)
	}
	return ids
}

// checkUpdates checks what it costs to mark all rows of an older list, after all rows were marked and some of them were
// unmarked again. Only the unmarked rows change. It also checks what undo costs.
func (v visitor) checkUpdates() {
	v.t.Helper()
	old, ids := v.list().Cursor, v.newest(20)
	send(v.t, v.conn, "alice")
	for action, reverse := range map[string]string{"read": "unread", "archive": "unarchive"} {
		v.markAll(action, v.list().Cursor)
		v.mark(reverse, ids...)
		v.check("after the action "+reverse, 3000, inboxAllQuery, action, old)
		v.check(action+" all is undone", 3000, inboxUndoQuery, v.markAll(action, old).Undo)
		v.mark(reverse, ids...)
		v.check(action+" is undone", 3000, inboxUndoQuery, v.mark(action, ids...).Undo)
	}
}

// checkManyStates checks what the functions cost if a user has marked very many rows as read, one by one: more rows than
// a call of a function reads.
func (v visitor) checkManyStates() {
	v.t.Helper()
	run(v.t, v.conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', '1' FROM generate_series(1, 60000)")
	run(v.t, v.conn, `INSERT INTO rowcast.inbox_states (recipient, id, seen, read, read_version) SELECT 'alice', id, true, true, 1
		FROM rowcast.notifications WHERE recipient IN ('alice', 'team:7', '*') ON CONFLICT DO NOTHING`)
	v.check("after every row was read one by one", 120_000, inboxPageQuery, nil)
	v.checkUpdates()
	v.markAll("read", v.list().Cursor)
	v.check("after all", 1000, inboxPageQuery, nil)
}

// BenchmarkInbox measures the functions with ROWCAST_INBOX_ROWS rows (default 100,000). For example, with 10,000,000
// rows, 200,000 are for alice and 100,000 are for everyone. alice has read the oldest three quarters of the rows.
func BenchmarkInbox(b *testing.B) {
	rows := 100_000
	if text, ok := os.LookupEnv("ROWCAST_INBOX_ROWS"); ok {
		var err error
		if rows, err = strconv.Atoi(text); err != nil {
			b.Fatalf("ROWCAST_INBOX_ROWS: %v", err)
		}
	}
	conn, err := pgx.Connect(b.Context(), dbtest.Inbox(b))
	if err != nil {
		b.Fatal(err)
	}
	defer func() { _ = conn.Close(b.Context()) }()
	exec := func(query string, args ...any) {
		b.Helper()
		if _, err := conn.Exec(b.Context(), query, args...); err != nil {
			b.Fatal(err)
		}
	}
	exec("SELECT rowcast.inbox('alice')")
	fillInbox(b, conn, rows/4*3)
	exec("SELECT rowcast.inbox_mark('alice', 'read', up_to => rowcast.cursor())")
	fillInbox(b, conn, rows/4)
	exec("VACUUM ANALYZE rowcast.notifications")
	const page, mark = "SELECT rowcast.inbox('alice', '{team:7}', 20, $1)", "SELECT rowcast.inbox_mark('alice', 'read', '{team:7}', up_to => rowcast.cursor())"
	var deep string
	const find = `SELECT xid || '.' || id FROM (SELECT xid, id FROM rowcast.notifications WHERE recipient IN ('alice', 'team:7', '*')
		ORDER BY xid DESC, id DESC LIMIT 10000) n ORDER BY xid, id LIMIT 1`
	if err := conn.QueryRow(b.Context(), find).Scan(&deep); err != nil {
		b.Fatal(err)
	}
	b.Run("first page", func(b *testing.B) {
		for b.Loop() {
			exec(page, nil)
		}
	})
	b.Run("deep page", func(b *testing.B) {
		for b.Loop() {
			exec(page, deep)
		}
	})
	b.Run("mark all", func(b *testing.B) {
		var spent time.Duration
		for b.Loop() {
			exec("BEGIN")
			began := time.Now()
			exec(mark)
			spent += time.Since(began)
			exec("ROLLBACK")
		}
		b.ReportMetric(float64(spent.Microseconds())/float64(b.N), "µs/mark")
	})
}

// PostgreSQL stores a snapshot with 4,096 transactions in compressed form. A call decompresses it once, and not for each
// transaction or row. So it takes about as long as a call of rowcast.inbox_counts() with snapshots that are not
// compressed. A call that decompresses each time takes about 30 times as long.
func TestInboxWithLongSnapshots(t *testing.T) {
	t.Parallel()
	v := alice(t)
	run(t, v.conn, `UPDATE rowcast.inbox_users SET (read, archived) = (SELECT s, s FROM (
		SELECT concat_ws(':', 3, 8195, string_agg(x::text, ',' ORDER BY x))::pg_snapshot FROM generate_series(3, 8193, 2) AS x) AS long (s))`)
	const counts = "rowcast.inbox_counts((SELECT rowcast.inbox_plain(u) FROM rowcast.inbox_users AS u), '{alice,*}')"
	calls := []string{counts, "rowcast.inbox('alice')", "rowcast.inbox_mark('alice', 'seen', ids => '{}')"}
	best := make([]time.Duration, len(calls))
	// On a busy machine, it may take some rounds until each call has run once without an interruption.
	for round := 1; round <= 5 || round <= 100 && slices.Max(best) > 5*best[0]; round++ {
		for i, call := range calls {
			began := time.Now()
			run(t, v.conn, "SELECT "+call)
			if took := time.Since(began); best[i] == 0 || took < best[i] {
				best[i] = took
			}
		}
	}
	for i, call := range calls {
		if best[i] > 5*best[0] {
			t.Errorf("%s: took %s, and %s took %s: want at most 5 times as long", call, best[i], counts, best[0])
		}
	}
}
