package listener_test

import (
	"context"
	"fmt"
	"log/slog"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// Old rows are deleted from the oldest on, whole transactions at a time, up to the first transaction with a young row.
// The horizon moves with the deletion. A cursor from before the deleted rows is expired, a cursor from after them is
// not.
func TestRetention(t *testing.T) {
	t.Parallel()
	dsn := alone(t)
	conn, open := connect(t, dsn), connect(t, dsn)
	const old = `INSERT INTO rowcast.notifications (recipient, data, created_at) SELECT 'alice', to_jsonb(i), now() - interval '1 hour' FROM generate_series(1, 7) i`
	before := present(t, conn)
	for range 5 {
		exec(t, conn, old)
	}
	kept := present(t, conn)
	insert(t, conn, "young")
	exec(t, conn, old) // these rows follow a young transaction, so they are not deleted

	r := newRetention(t, dsn, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	deadline := time.After(patience)
	for r.Deleted.Load() < 35 {
		select {
		case <-deadline:
			t.Fatalf("waited %v for the deletion of 35 rows, %d were deleted", patience, r.Deleted.Load())
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := receive(t, "the end of Run", done); err != nil {
		t.Error(err)
	}
	if got := one[int64](t, open, "SELECT count(*) FROM rowcast.notifications"); got != 8 {
		t.Errorf("got %d rows after the deletion, want 8", got)
	}
	horizon, err := strconv.ParseUint(one[string](t, conn, "SELECT horizon::text FROM rowcast.history"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if before.SeenBelow(horizon) || !kept.SeenBelow(horizon) {
		t.Errorf("with horizon %d: cursor %v is expired: %t, want true; cursor %v is expired: %t, want false",
			horizon, before, !before.SeenBelow(horizon), kept, !kept.SeenBelow(horizon))
	}
	if err := newListener(t, dsn).Preflight(limited(t)); err != nil { // Preflight begins the epoch
		t.Fatal(err)
	}
	// A page reports the horizon. A hub compares it with the cursor of the client, and so notices that rows were
	// deleted before the replay read them.
	_, _, delivered, err := newReplayer(t, dsn, 512).Page(limited(t), before, present(t, conn).Reached(cursor.Cursor{Epoch: epochOf(t, dsn)}), []string{"alice"})
	if err != nil || delivered != horizon {
		t.Errorf("the page has horizon %d and error %v, want horizon %d and no error", delivered, err, horizon)
	}
}

// alone returns a database with the schema on a server of its own. On the shared server, open transactions of other
// tests would delay the deletion of rows.
func alone(t *testing.T) string {
	t.Helper()
	dsn := dbtest.Cluster(t).DSN("postgres")
	if _, _, err := sql.Migrate(limited(t), dsn); err != nil {
		t.Fatal(err)
	}
	return dsn
}

// epochOf returns the tag of the present epoch. A listener must have connected before, because it begins the epoch.
func epochOf(t *testing.T, dsn string) cursor.Tag {
	t.Helper()
	tag, err := cursor.ParseTag(one[string](t, connect(t, dsn), "SELECT rowcast.epoch_tag()"))
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

// newRetention returns a Retention that deletes rows older than half an hour. The parameter rows sets its field Rows.
func newRetention(t *testing.T, dsn string, rows int) *listener.Retention {
	t.Helper()
	return &listener.Retention{
		Listener: newListener(t, dsn), Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Keep: 30 * time.Minute, MinAge: -1, Every: time.Millisecond, Rows: rows,
	}
}

// aging returns a connection to a new database, and a Retention of this database. The parameter rows sets its field
// Rows.
func aging(t *testing.T, rows int) (*pgx.Conn, *listener.Retention) {
	t.Helper()
	dsn := alone(t)
	return connect(t, dsn), newRetention(t, dsn, rows)
}

// wantDeleted runs one round and checks the number of rows that it deletes. The parameter why describes the round.
func wantDeleted(t *testing.T, r *listener.Retention, why string, want int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if deleted, err := r.Round(ctx); err != nil || deleted != want {
		t.Errorf("%s: deleted %d rows, with error %v, want %d rows and no error", why, deleted, err, want)
	}
}

// aged inserts rows in one transaction. The parameter minutes has the age of each row, in minutes.
func aged(t *testing.T, conn *pgx.Conn, minutes ...int) {
	t.Helper()
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data, created_at)
		SELECT '*', to_jsonb(m), now() - m * interval '1 minute' FROM unnest($1::int[]) m`, minutes)
}

// A row is deleted only if the number of its transaction is below the numbers of all running transactions. Otherwise
// the horizon could pass a running transaction, whose rows no client has seen yet.
func TestRetentionWaitsForRunningTransactions(t *testing.T) {
	t.Parallel()
	dsn := alone(t)
	conn, open := connect(t, dsn), connect(t, dsn)
	for _, statement := range []string{"BEGIN", "SELECT pg_current_xact_id()"} {
		aged(t, conn, 60)
		exec(t, open, statement)
		aged(t, conn, 60)
	}
	r := newRetention(t, dsn, 10)
	wantDeleted(t, r, "below the open transaction", 2) // the newest transaction below the open one stays
	exec(t, open, "COMMIT")
	wantDeleted(t, r, "after the end of the open transaction", 1)
}

// With a long Keep, retention deletes the rows that are older than Keep, and only those. Older versions of PostgreSQL
// can read only short intervals from text.
func TestRetentionKeepsRowsForLong(t *testing.T) {
	t.Parallel()
	for _, keep := range []time.Duration{36 * time.Minute, 7 * 24 * time.Hour, 100 * 365 * 24 * time.Hour} {
		t.Run(keep.String(), func(t *testing.T) {
			t.Parallel()
			conn, r := aging(t, 10)
			r.Keep = keep
			minutes := int(keep.Minutes())
			for _, age := range []int{minutes + 10, minutes - 10, minutes - 11} {
				aged(t, conn, age)
			}
			exec(t, conn, `INSERT INTO rowcast.notifications (xid, recipient, data, created_at)
				VALUES ('2', '*', '1', now() - $1 * interval '1 minute')`, minutes+10) // as if it was restored
			wantDeleted(t, r, "the first round", 1)
			wantDeleted(t, r, "the second round", 1)
			wantDeleted(t, r, "a round when all rows are younger than Keep", 0)
		})
	}
}

// A transaction is deleted as a whole, so it is kept while one of its rows is young. That holds even if a round has
// read its maximum of rows before it comes to the young row.
func TestRetentionDeletesWholeTransactions(t *testing.T) {
	t.Parallel()
	conn, r := aging(t, 3)
	aged(t, conn, 60, 60)
	aged(t, conn, 60, 60, 60, 60, 60, 1)
	aged(t, conn, 60)
	aged(t, conn, 60)
	wantDeleted(t, r, "rows before the transaction with a young row", 2)
	wantDeleted(t, r, "the transaction with a young row", 0)
	exec(t, conn, "UPDATE rowcast.notifications SET created_at = now() - interval '1 hour'")
	wantDeleted(t, r, "the transaction, when all its rows are old", 6)
	wantDeleted(t, r, "all but the newest transaction", 1)
}

// A row with a created_at in the future, from a wrong clock, is deleted together with the next old row.
func TestRetentionPassesRowsFromTheFuture(t *testing.T) {
	t.Parallel()
	conn, r := aging(t, 3)
	const year = -365 * 24 * 60
	aged(t, conn, 60)
	aged(t, conn, year, year, year, year, year) // more than the three rows that a round reads
	aged(t, conn, 60)
	aged(t, conn, year)
	aged(t, conn, 1)
	wantDeleted(t, r, "rows up to the last old row", 7)
	wantDeleted(t, r, "a row from the future before a young row", 0)
}

// Rows that were restored from a dump have the number 1. They are deleted by their age like other rows, but do not move
// the horizon. Young rows and rows from the future stay.
func TestRetentionDeletesRestoredRows(t *testing.T) {
	t.Parallel()
	conn, r := aging(t, 4)
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data, created_at, xid)
		SELECT '*', to_jsonb(m), now() - m * interval '1 minute', '1' FROM unnest('{60, -60, 1, 61, 62, 63, 64, 2}'::int[]) m`)
	for _, want := range []int64{3, 2, 0} {
		wantDeleted(t, r, "restored rows", want)
	}
	aged(t, conn, 60)
	aged(t, conn, 60)
	wantDeleted(t, r, "a row of this server", 1)
	if got := one[string](t, conn, "SELECT string_agg(data::text, ' ' ORDER BY id) FROM rowcast.notifications"); got != "-60 1 2 60" {
		t.Errorf("got the rows %s, want -60 1 2 60", got)
	}
}

// Old restored rows are deleted even if they follow many young ones. Each round looks at the first four rows, and if
// none of them is old, at the next four later rows.
func TestRetentionPassesYoungRestoredRows(t *testing.T) {
	t.Parallel()
	conn, r := aging(t, 4)
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data, created_at, xid)
		SELECT '*', to_jsonb(i), now() - CASE WHEN i IN (13, 14) THEN interval '1 hour' ELSE interval '1 minute' END, '1'
		FROM generate_series(1, 15) i`)
	becomesOld := func(data int) {
		t.Helper()
		exec(t, conn, "UPDATE rowcast.notifications SET created_at = now() - interval '1 hour' WHERE data = to_jsonb($1::int)", data)
	}
	wantDeleted(t, r, "rows 1 to 8, which are young", 0)
	becomesOld(2)
	wantDeleted(t, r, "rows 1 to 4, of which one is old now", 1)
	wantDeleted(t, r, "rows 9 to 12, which are young", 0)
	wantDeleted(t, r, "rows 13 to 15", 2)
	becomesOld(7)
	wantDeleted(t, r, "rows 6 to 9, which follow the first four (1, 3, 4, 5), after the end of the table was reached", 1)
	wantDeleted(t, r, "young rows", 0)
	if got := one[int](t, conn, "SELECT count(*)::int FROM rowcast.notifications"); got != 11 {
		t.Errorf("got %d rows, want 11", got)
	}
}

// Rows with the number of another transaction are never sent, so they do not move the horizon when they are deleted, and
// no stream is reset. They are not the anchor of a cursor, so the newest of the other rows is kept.
func TestRetentionDeletesForeignRows(t *testing.T) {
	t.Parallel()
	conn, r := aging(t, 10)
	l := listen(t, conn.Config().ConnString())
	aged(t, conn, 61)
	aged(t, conn, 60)
	wantData(t, l.rows(t, 2), "61", "60")
	exec(t, conn, "ALTER TABLE rowcast.notifications DISABLE TRIGGER ALL")
	exec(t, conn, fmt.Sprintf(bring, 200))
	exec(t, conn, "UPDATE rowcast.notifications SET created_at = now() - interval '1 hour'")
	burn(t, conn, 400) // now the numbers of the foreign rows are assigned
	wantDeleted(t, r, "all but the newest of the server's own rows", 1)
	wantDeleted(t, r, "when the foreign rows follow the newest of the server's own rows", 0)
	exec(t, conn, "ALTER TABLE rowcast.notifications ENABLE TRIGGER ALL")
	horizon := one[string](t, conn, "SELECT horizon::text FROM rowcast.history")
	aged(t, conn, 59)
	for deleted := 1; deleted < 101; deleted += 10 {
		wantDeleted(t, r, "the server's own row, and the foreign rows", 10)
	}
	wantDeleted(t, r, "the last foreign row", 1)
	if want := one[string](t, conn, "SELECT horizon::text FROM rowcast.history"); want == horizon {
		t.Errorf("got the horizon %s, want a higher one, because one of the server's own rows was deleted", horizon)
	}
	insert(t, conn, "next")
	var rows []feed.Row
	for len(rows) < 2 {
		b := l.next(t)
		if b.Reset != "" {
			t.Fatalf("got the reset %q, want none", b.Reset)
		}
		rows = append(rows, b.Rows...)
	}
	wantData(t, rows, "59", `"next"`)
}

// The horizon is moved in the transaction of the deletion, so that a failure undoes both.
func TestRetentionMovesTheHorizonWithTheRows(t *testing.T) {
	t.Parallel()
	conn, r := aging(t, 10)
	aged(t, conn, 60)
	aged(t, conn, 60)
	exec(t, conn, "ALTER TABLE rowcast.history ADD CONSTRAINT stays CHECK (horizon = '3')")
	if _, err := r.Round(limited(t)); err == nil || !strings.HasPrefix(err.Error(), "move the horizon: ") {
		t.Errorf("got error %v, want one that begins with \"move the horizon: \"", err)
	}
	if got := one[int](t, conn, "SELECT count(*)::int FROM rowcast.notifications"); got != 2 {
		t.Errorf("got %d rows after the failure, want 2", got)
	}
}

// If two hubs delete old rows, only one deletes at a time. The other hub does not wait until it may delete.
func TestRetentionIsForOneHubAtATime(t *testing.T) {
	t.Parallel()
	dsn := alone(t)
	conn, other := connect(t, dsn), connect(t, dsn)
	const transactions = 200
	for range transactions {
		aged(t, conn, 60, 60)
	}
	exec(t, other, "BEGIN; SELECT FROM rowcast.history FOR UPDATE")
	hubs := []*listener.Retention{newRetention(t, dsn, 2), newRetention(t, dsn, 2)}
	wantDeleted(t, hubs[0], "while another session has locked the horizon", 0)
	exec(t, other, "COMMIT")
	ctx, cancel := context.WithCancel(t.Context())
	var all sync.WaitGroup
	for _, r := range hubs {
		all.Go(func() { _ = r.Run(ctx) })
	}
	eventually(t, conn, "SELECT count(*) = 2 FROM rowcast.notifications")
	cancel()
	await(t, "the end of Run of both hubs", &all)
	// Perhaps a hub does not count the two rows of a round that was running when the context ended.
	if got := hubs[0].Deleted.Load() + hubs[1].Deleted.Load(); got < 2*transactions-6 || got > 2*transactions-2 {
		t.Errorf("the hubs counted %d deleted rows, want %d, or up to 4 fewer", got, 2*transactions-2)
	}
}

// The deletion and the horizon must be durable before they are visible. Therefore the commit of a round waits for the
// disk, and for a synchronous standby if one is configured, even if synchronous_commit is off by default. In this test,
// the standby does not exist.
func TestRetentionCommitsSynchronously(t *testing.T) {
	t.Parallel()
	dsn := alone(t)
	conn := connect(t, dsn)
	aged(t, conn, 60)
	aged(t, conn, 60)
	exec(t, conn, "SET synchronous_commit = off")
	beginsSynchronousReplication(t, conn)
	for _, statement := range []string{
		"ALTER ROLE postgres SET synchronous_commit = off",
		"ALTER DATABASE postgres SET synchronous_commit = off",
		"ALTER SYSTEM SET synchronous_standby_names = 'nobody'",
		"SELECT pg_reload_conf()",
	} {
		exec(t, conn, statement)
	}
	commitsWait(t, conn, dsn)
	r := newRetention(t, dsn, 10)
	deleted := make(chan int64, 1)
	go func() {
		n, _ := r.Round(limited(t))
		deleted <- n
	}()
	eventually(t, conn, "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'rowcast retention' AND wait_event = 'SyncRep'")
	exec(t, conn, "ALTER SYSTEM RESET synchronous_standby_names")
	exec(t, conn, "SELECT pg_reload_conf()")
	if got := receive(t, "the deletion, which no longer has to wait for a standby", deleted); got != 1 {
		t.Errorf("deleted %d rows, want 1", got)
	}
}

// beginsSynchronousReplication waits until the server's checkpointer has read synchronous_standby_names for the first
// time. In the releases since May 2025 (13.21, 14.18, 15.13, 16.9 and 17.5), a commit before that time can wait for a
// standby forever: if the checkpointer then reads that no standby is configured, it does not wake the waiting session
// (SyncRepUpdateSyncStandbysDefined in syncrep.c). Once a checkpoint has ended, the checkpointer has read the setting.
func beginsSynchronousReplication(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, "CHECKPOINT")
}

// commitsWait waits until commits wait for a standby. After the settings were reloaded, it takes some time until each
// session and the checkpointer have read them.
func commitsWait(t *testing.T, conn *pgx.Conn, dsn string) {
	t.Helper()
	eventually(t, conn, "SELECT current_setting('synchronous_standby_names') = 'nobody'")
	probe := connect(t, dsn)
	exec(t, conn, "CREATE TABLE probe (n int)")
	exec(t, probe, "SET application_name = 'probe'; SET synchronous_commit = on")
	ended := make(chan struct{})
	go func() { // inserts until the connection is closed; once commits wait for a standby, an INSERT waits
		defer close(ended)
		for ctx := limited(t); ; {
			if _, err := probe.Exec(ctx, "INSERT INTO probe VALUES (1)"); err != nil || ctx.Err() != nil {
				return
			}
		}
	}()
	t.Cleanup(func() {
		_ = probe.PgConn().Conn().Close()
		receive(t, "the end of the probe", ended)
	})
	eventually(t, conn, "SELECT count(*) = 1 FROM pg_stat_activity WHERE application_name = 'probe' AND wait_event = 'SyncRep'")
}

// Retention continues while the connection for replays is busy and further replays wait for it.
func TestRetentionDoesNotWaitForReplays(t *testing.T) {
	t.Parallel()
	conn, r := aging(t, 10)
	if err := r.Listener.Preflight(limited(t)); err != nil { // Preflight begins the epoch
		t.Fatal(err)
	}
	begin := present(t, conn)
	for range 3 {
		aged(t, conn, 60)
	}
	aged(t, conn, 0)
	end := present(t, conn)
	gate := newGate(t, "unnest($7::text[])")
	gate.into(r.Listener)
	replayer, err := r.Listener.NewReplayer(limited(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	var replays sync.WaitGroup
	for range 3 {
		replays.Go(func() {
			if _, _, _, err := replayer.Page(limited(t), begin, end, []string{"alice"}); err != nil {
				t.Errorf("replay: %v", err)
			}
		})
	}
	gate.wait(t)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	holdsSoon(t, "the deletion of the old rows", func() bool { return r.Deleted.Load() == 3 })
	cancel()
	if err := receive(t, "the end of Run", done); err != nil {
		t.Error(err)
	}
	gate.open()
	await(t, "the replays", &replays)
}

// A row is deleted at the earliest MinAge after its commit, even if its created_at is older than Keep.
func TestRetentionKeepsNewCommits(t *testing.T) {
	t.Parallel()
	conn, r := aging(t, 10)
	const age = 200 * time.Millisecond
	r.MinAge = age
	aged(t, conn, 60)
	wantDeleted(t, r, "the first round, before MinAge has passed", 0)
	aged(t, conn, 60)
	aged(t, conn, 60)
	committed := time.Now()
	for deleted := int64(0); deleted < 2; {
		if time.Since(committed) > patience {
			t.Fatalf("after %v, %d rows are deleted, want 2", patience, deleted)
		}
		n, err := r.Round(limited(t))
		if err != nil {
			t.Fatal(err)
		}
		if deleted += n; deleted > 1 && time.Since(committed) < age {
			t.Errorf("a row is deleted %v after its commit, want at least %v", time.Since(committed), age)
		}
	}
}

// A round deletes only transactions below the xmin of an earlier round. After a failover, the server may continue at a
// lower transaction number. Then the earlier xmin no longer counts.
func TestRetentionBeginsAnewAfterAFailover(t *testing.T) {
	t.Parallel()
	var r listener.Retention
	for _, round := range []struct{ xmin, want uint64 }{{100, 0}, {110, 100}, {110, 110}, {50, 0}, {60, 50}} {
		if got := r.Settled(t, round.xmin); got != round.want {
			t.Errorf("after a round with xmin %d: transactions below %d may be deleted, want %d", round.xmin, got, round.want)
		}
	}
}

// When retention deletes rows, their state in the inbox is deleted too, and no event about this is sent to streams.
func TestRetentionOfTheInbox(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	conn := connect(t, dsn)
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data, created_at) SELECT 'alice', '1', now() - interval '1 hour' FROM generate_series(1, 5)`)
	exec(t, conn, "SELECT rowcast.inbox_mark('alice', 'seen', ids => ARRAY(SELECT id FROM rowcast.notifications))")
	r := newRetention(t, dsn, 10)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	// Transactions of tests that run in parallel can keep the server from deleting the rows until they end.
	deadline := time.After(limit)
	for r.Deleted.Load() < 5 {
		select {
		case <-deadline:
			t.Fatalf("waited %v for the deletion of 5 rows, %d were deleted", limit, r.Deleted.Load())
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := receive(t, "the end of Run", done); err != nil {
		t.Error(err)
	}
	const left = "SELECT concat((SELECT count(*) FROM rowcast.inbox_states), ' ', string_agg(data ->> 'action', ' ')) FROM rowcast.notifications"
	if got := one[string](t, conn, left); got != "0 seen" {
		t.Errorf("got %s, want 0 states, and only the event with the action seen", got)
	}
}
