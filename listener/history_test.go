package listener_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// loseRows simulates a crash that loses rows. It deletes the rows with this data, ends the epoch, and terminates the
// hub's sessions.
func loseRows(t *testing.T, conn *pgx.Conn, data ...string) {
	t.Helper()
	exec(t, conn, "DELETE FROM rowcast.notifications WHERE data #>> '{}' = ANY ($1)", data)
	exec(t, conn, "TRUNCATE rowcast.epoch")
	loseSessions(t, conn)
}

// loseSessions terminates the hub's sessions.
func loseSessions(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
		WHERE datname = current_database() AND application_name LIKE 'rowcast%'`)
}

// wantLeft waits for the batch after a recovery, and checks that its Clamp is the row with the id want.
func (r *reader) wantLeft(t *testing.T, want int64) {
	t.Helper()
	switch b := r.recovered(t); {
	case b.Reset != "":
		t.Errorf("got reset %q, want none", b.Reset)
	case b.Clamp.ID != want:
		t.Errorf("got row %d as the last row that still exists, want %d", b.Clamp.ID, want)
	}
}

// wantNothingLeft waits for the batch after a recovery, and checks that it has a Reset.
func (r *reader) wantNothingLeft(t *testing.T) {
	t.Helper()
	if b := r.recovered(t); b.Reset != listener.ResetHistory {
		t.Errorf("got reset %q and clamp %v, want reset %q", b.Reset, b.Clamp, listener.ResetHistory)
	}
}

// recovered waits for a batch with a Reset or a Clamp, and returns it.
func (r *reader) recovered(t *testing.T) feed.Batch {
	t.Helper()
	for {
		if b := r.next(t); b.Reset != "" || b.Clamp != nil {
			return b
		}
	}
}

// The listener finds the last remaining row after each of several crashes, even if a later crash loses rows that
// survived an earlier crash, and no row was delivered in between.
func TestSeveralCrashes(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	r := listen(t, dsn)
	for _, data := range []string{"1", "2", "3", "4"} {
		insert(t, conn, data)
	}
	rows := r.rows(t, 4)
	loseRows(t, conn, "3", "4")
	r.wantLeft(t, rows[1].ID)
	loseRows(t, conn, "2")
	r.wantLeft(t, rows[0].ID)
	insert(t, conn, "5")
	wantData(t, r.rows(t, 1), `"5"`)
	loseRows(t, conn, "1", "5") // the table is empty now: there is no row to go back to, so the id of the anchor is 0
	r.wantLeft(t, 0)
	insert(t, conn, "6")
	wantData(t, r.rows(t, 1), `"6"`)
}

// If somebody deletes the last rows of a transaction, and then an epoch begins, the listener does not deliver the other
// rows of the transaction again.
func TestLastRowsOfATransactionAreDeleted(t *testing.T) {
	t.Parallel()
	for left := int64(1); left < 7; left++ {
		t.Run(fmt.Sprint(left, " left"), func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			conn := connect(t, dsn)
			r := listen(t, dsn, func(l *listener.Listener) { l.PageRows = 3 })
			insert(t, conn, "before")
			exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', to_jsonb(i::text) FROM generate_series(1, 7) i")
			insert(t, conn, "lost")
			rows := r.rows(t, 9)
			loseRows(t, conn, append(strings.Split("1 2 3 4 5 6 7", " ")[left:], "lost")...)
			r.wantLeft(t, rows[left].ID)
			insert(t, conn, "next")
			wantData(t, r.caughtUp(t), `"next"`)
		})
	}
}

// After a crash, another transaction can get the number and the ids of a lost one. Its rows are delivered.
func TestNumberIsAssignedAgain(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	r := listen(t, dsn)
	insert(t, conn, "before")
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '"lost"'), ('alice', '"lost"')`)
	rows := r.rows(t, 3)
	exec(t, conn, `DELETE FROM rowcast.notifications WHERE data = '"lost"'`)
	exec(t, conn, "ALTER TABLE rowcast.notifications DISABLE TRIGGER ALL")
	exec(t, conn, `INSERT INTO rowcast.notifications (id, recipient, data, xid) OVERRIDING SYSTEM VALUE VALUES ($1, 'alice', '"next"', $2::text::xid8)`,
		rows[1].ID, fmt.Sprint(rows[1].Xid))
	loseRows(t, conn)
	r.wantLeft(t, rows[0].ID)
	wantData(t, r.rows(t, 1), `"next"`)
}

// The listener knows only the last of the rows that were committed before it began. If a crash loses this row and the
// rows of all later transactions, the listener does not go back to an earlier row, but resets the streams.
func TestDoesNotGoBackBehindItsBeginning(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	open, conn := connect(t, dsn), connect(t, dsn)
	exec(t, open, "BEGIN")
	insert(t, open, "in flight")
	insert(t, conn, "before")
	before := one[int64](t, conn, "SELECT id FROM rowcast.notifications")
	r := listen(t, dsn)
	exec(t, open, "COMMIT")
	insert(t, conn, "1")
	r.rows(t, 2)
	loseRows(t, conn, "1")
	r.wantLeft(t, before)
	insert(t, conn, "2")
	wantData(t, r.rows(t, 1), `"2"`)
	loseRows(t, conn, "before", "2")
	r.wantNothingLeft(t)
	insert(t, conn, "3")
	wantData(t, r.rows(t, 1), `"3"`)
}

// While pg_restore is at work, the listener neither begins an epoch nor reads rows. After that, it does not deliver the
// restored rows, even if it began with an empty table. The cursor of a client that has seen no row is not valid.
func TestRestoreWhileListening(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	var log lines
	r := listen(t, dsn, func(l *listener.Listener) { l.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	before := present(t, conn)
	insert(t, conn, "before")
	r.rows(t, 1)
	exec(t, conn, `BEGIN; TRUNCATE rowcast.notifications, rowcast.epoch;
		ALTER TABLE rowcast.notifications DISABLE TRIGGER ALL, DROP CONSTRAINT notifications_pkey;
		DROP INDEX rowcast.notifications_xid_id_idx, rowcast.notifications_recipient_idx;
		ALTER TABLE rowcast.epoch DROP CONSTRAINT epoch_pkey;
		COMMIT`)
	loseSessions(t, conn)
	holdsSoon(t, "the log message about the missing index", func() bool { return strings.Contains(log.text(), "has no index") })
	exec(t, conn, "INSERT INTO rowcast.epoch DEFAULT VALUES; UPDATE rowcast.history SET horizon = horizon")
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data, xid) VALUES ('alice', '"restored"', '100')`)
	exec(t, conn, `BEGIN; ALTER TABLE rowcast.epoch ADD PRIMARY KEY (one); ALTER TABLE rowcast.notifications ADD PRIMARY KEY (id);
		CREATE UNIQUE INDEX notifications_xid_id_idx ON rowcast.notifications (xid, id);
		CREATE INDEX notifications_recipient_idx ON rowcast.notifications (recipient, xid, id);
		ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER ring, ENABLE ALWAYS TRIGGER disown; COMMIT`)
	r.wantNothingLeft(t)
	insert(t, conn, "next")
	wantData(t, r.caughtUp(t), `"next"`)
	if valid, err := newReplayer(t, dsn, 512).IsValid(limited(t), before, present(t, conn).Reached(cursor.Cursor{Epoch: epochOf(t, dsn)})); err != nil || valid {
		t.Errorf("the cursor %s from the empty table is valid: %t, with error %v, want false and no error", before, valid, err)
	}
}
