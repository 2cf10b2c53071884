package sql_test

import (
	"fmt"
	"os"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// fillInbox inserts rows in transactions of 50 rows. One row in 50 is for alice, one in 100 for everyone, one in 100 for a
// group, and the others are for other users.
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
// call has scanned a whole table.
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

// The functions read a limited number of blocks at each size of the table, with the plans of the first and of later calls,
// and without statistics. The limit is higher after a user has read very many rows one by one, until the user marks all as
// read.
func TestInboxReadsFewBlocks(t *testing.T) {
	t.Parallel()
	// The test has a server of its own, because an open transaction, also in another database, makes the functions read up to
	// 2,000 newer rows of each recipient.
	dsn := dbtest.Cluster(t).DSN("postgres")
	m := sql.Migrator{DSN: dsn, Inbox: true}
	if _, _, err := m.Migrate(dbtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	v := visitor{t, connect(t, dsn), "alice", []string{"team:7"}}
	v.list()
	run(t, v.conn, "ALTER TABLE rowcast.notifications SET (autovacuum_enabled = off); ALTER TABLE rowcast.inbox_states SET (autovacuum_enabled = off)")
	check := func(when string, limit int, query string, args ...any) {
		t.Helper()
		for i := range 8 { // PostgreSQL considers a generic plan from the sixth call on
			if got := cost(t, v.conn, query, args...); got > limit && i > 0 { // the first call also reads the catalogs
				t.Errorf("%s, call %d: %s has read %d blocks, want %d at most", when, i, query, got, limit)
			}
		}
	}
	const page, mark = "SELECT rowcast.inbox('alice', '{team:7}', 20, $1)", "SELECT rowcast.inbox_mark('alice', $1, '{team:7}', up_to => $2)"
	for _, size := range []int{20_000, 200_000} {
		fillInbox(t, v.conn, size)
		when := fmt.Sprint("with ", size, " more rows")
		check(when, 1500, page, nil)
		check(when, 1500, page, text(t, v.conn, `SELECT xid || '.' || id FROM rowcast.notifications WHERE recipient = 'alice' ORDER BY recipient, xid, id LIMIT 1 OFFSET 200`))
		for _, action := range []string{"seen", "read", "archive"} {
			check(when, 1500, mark, action, v.list().Cursor)
		}
	}
	run(t, v.conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', '1' FROM generate_series(1, 60000)")
	run(t, v.conn, `INSERT INTO rowcast.inbox_states (recipient, id, seen, read, read_version) SELECT 'alice', id, true, true, 1
		FROM rowcast.notifications WHERE recipient IN ('alice', 'team:7', '*')`)
	check("after every row was read one by one", 120_000, page, nil)
	v.markAll("read", v.list().Cursor)
	check("after all", 1000, page, nil)
}

// BenchmarkInbox measures the functions with ROWCAST_INBOX_ROWS rows (default 100,000). Of 10,000,000 rows, 200,000 are for
// alice, of which 150,000 are read, and 100,000 are for everyone.
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
	b.Run("page 500", func(b *testing.B) {
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
