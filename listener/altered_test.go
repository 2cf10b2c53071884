package listener_test

import (
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/listener/failures"
	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// The table was altered and no longer refuses rows that cannot be sent. A row with an invalid recipient is not
// delivered, and above all is not sent to everyone. A row with an event that must not be sent, or with data of several
// lines, is delivered as unreadable.
func TestAlteredTableBreaksNoRule(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	for _, constraint := range []string{
		"recipient_is_1_to_256_bytes", "event_is_1_to_128_bytes", "event_has_no_line_break", "event_is_not_reserved",
	} {
		exec(t, conn, "ALTER TABLE rowcast.notifications DROP CONSTRAINT "+constraint)
	}
	dropDataConstraints(t, conn)
	exec(t, conn, "ALTER TABLE rowcast.notifications ALTER data TYPE json, ALTER recipient TYPE varchar, ALTER event TYPE varchar")
	long := strings.Repeat("é", 64) // 128 bytes
	want := []string{"alice first 1"}
	var events []string
	for _, event := range []string{
		"", "error", "open", "rowcast.", "rowcast.bye", "rowcast.reset", "a\nb", "a\rid: 1", "\n", long + "x", strings.Repeat("x", 100_000),
	} {
		events = append(events, event)
		want = append(want, "alice  unreadable: invalid")
	}
	for _, event := range []string{long, "Open", "rowcast", "a b: c", " "} {
		events = append(events, event)
		want = append(want, "alice "+event+" 2")
	}
	want = append(want, "alice  unreadable: invalid", "alice  unreadable: invalid", "alice last 6")
	readInEveryWay(t, dsn, func() {
		// There are invalid recipients in the first and in the last INSERT. The listener reads the first row together
		// with its data, in a page. Since it cannot read that row, it then reads rows one by one for a while. It reads
		// the last INSERT in this way, too, because unreadable rows come just before it.
		exec(t, conn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('', 'e', '7'), ('', 'rowcast.bye', '8')`)
		exec(t, conn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'first', '1')`)
		exec(t, conn, `INSERT INTO rowcast.notifications (recipient, event, data) SELECT 'alice', e, '2' FROM unnest($1::text[]) e`, events)
		exec(t, conn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'e', E'{"a":\n3}'), ('alice', 'e', E'[4,\r5]')`)
		exec(t, conn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES
			(repeat('é', 128) || 'x', 'e', '9'), (repeat('x', 2000), 'e', '9'), ('alice', 'last', '6')`)
	}, want, 17)
}

// The hub measures recipients and events in bytes of the database's encoding, as the constraints do. In UTF-8, the same
// text may be longer than the limit.
func TestBoundsCountBytesOfTheDatabase(t *testing.T) {
	t.Parallel()
	dsn := odd(t, "LATIN1")
	r := listen(t, dsn)
	exec(t, connect(t, dsn+" client_encoding=UTF8"),
		"INSERT INTO rowcast.notifications (recipient, event, data) VALUES (repeat('é', 256), repeat('é', 128), '1')")
	want := strings.Repeat("é", 256) + " " + strings.Repeat("é", 128) + " 1"
	if got := outcomes(r.rows(t, 1)); got[0] != want || r.Stats.Unreadable.Load() != 0 {
		t.Errorf("got row %s and %d unreadable rows, want row %s and 0", got[0], r.Stats.Unreadable.Load(), want)
	}
}

// some is passed to readInEveryWay in place of the number of unreadable rows, and means at least one. A page that
// begins after an id does not read rows with lower ids, so the number depends on where the pages begin.
const some = -1

// Rows with ids that no cursor can have are skipped. The rows around them arrive, once each, even if a page or a
// transaction ends with a skipped row.
func TestRowsWithInvalidIDs(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	exec(t, conn, `ALTER TABLE rowcast.notifications DROP CONSTRAINT notifications_pkey, DROP CONSTRAINT id_is_positive,
		ALTER id DROP IDENTITY, ALTER id DROP NOT NULL`)
	exec(t, conn, `CREATE INDEX ON rowcast.notifications (xid, id)`)
	var want []string
	for i := range 40 {
		want = append(want, fmt.Sprintf("alice e %d", i+1))
	}
	readInEveryWay(t, dsn, func() {
		for i := 0; i < 40; i += 4 {
			exec(t, conn, `INSERT INTO rowcast.notifications (id, recipient, event, data) SELECT nullif(id, 0), 'alice', 'e', to_jsonb(id)
				FROM unnest(ARRAY[-9223372036854775808, -1, -2, -3, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, $1::bigint, $1 + 1, $1 + 2, $1 + 3]) id`, i+1)
		}
		exec(t, conn, "INSERT INTO rowcast.notifications (id, recipient, event, data) SELECT -i, 'bob', 'e', '0' FROM generate_series(1, 40) i")
	}, want, some)
}

// While a hub runs, another session empties a table of rowcast, or damages rowcast.history. The hub continues in the
// same session. If the row of rowcast.history or its horizon is lost, the hub logs that, and uses the oldest
// transaction with rows as the horizon. Another hub can begin afterwards.
func TestEmptiedTables(t *testing.T) {
	t.Parallel()
	for name, damage := range map[string]string{
		"history is deleted":       "DELETE FROM rowcast.history",
		"history is truncated":     "TRUNCATE rowcast.history",
		"history has no horizon":   "ALTER TABLE rowcast.history ALTER horizon DROP NOT NULL; UPDATE rowcast.history SET horizon = NULL",
		"epoch is deleted":         "DELETE FROM rowcast.epoch",
		"migrations are truncated": "TRUNCATE rowcast.migrations",
		"notifications are gone":   "TRUNCATE rowcast.notifications",
		"history has several rows": `ALTER TABLE rowcast.history DROP CONSTRAINT history_pkey;
			INSERT INTO rowcast.history (system_identifier, database) SELECT system_identifier, database FROM rowcast.history`,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			conn := connect(t, dsn)
			log := &lines{}
			r := listen(t, dsn, func(l *listener.Listener) {
				l.Logger, l.Look, l.Warm = slog.New(slog.NewTextHandler(log, nil)), 50*time.Millisecond, 1<<20
			})
			exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')")
			wantData(t, r.rows(t, 1), "1")
			exec(t, conn, damage)
			r.caughtUp(t)
			exec(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '2')")
			wantData(t, r.rows(t, 1), "2")
			r.caughtUp(t)
			if n := r.Stats.Sessions.Load(); n != 1 || r.last.Reset != "" {
				t.Errorf("got %d sessions and reset %q, want 1 session and no reset", n, r.last.Reset)
			}
			wantLost(t, r, log, strings.HasPrefix(name, "history is") || strings.HasSuffix(name, "no horizon"))
			warm := listen(t, dsn, func(l *listener.Listener) { l.Warm = 1 << 20 })
			warm.caughtUp(t)
		})
	}
}

// wantLost checks that a hub reports the row of rowcast.history as lost if lost is true, and only then. In that case,
// it also checks that the horizon is the oldest transaction with rows, that retention returns an error, and that
// rowcast migrate inserts the row again if it is missing.
func wantLost(t *testing.T, r *reader, log *lines, lost bool) {
	t.Helper()
	written := strings.Contains(log.text(), "rowcast.history is empty: run rowcast migrate")
	if failing := r.Failures.Of(failures.History).Failing(); failing != lost || written != lost {
		t.Errorf("history counts as failing: %t, the log reports it: %t, want %t for both", failing, written, lost)
	}
	if !lost {
		return
	}
	if first := r.read[0].Xid; r.last.Horizon != first {
		t.Errorf("got horizon %d, want %d, the oldest transaction with rows", r.last.Horizon, first)
	}
	retention := &listener.Retention{Listener: r.Listener, Keep: time.Hour}
	if _, err := retention.Round(limited(t)); err == nil || !strings.Contains(err.Error(), "rowcast.history has no row: run rowcast migrate") {
		t.Errorf("retention: got %v, want the error that rowcast.history has no row", err)
	}
	conn, err := r.Connect(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	dsn := conn.Config().ConnString()
	exec(t, conn, "DELETE FROM rowcast.history")
	if err := conn.Close(limited(t)); err != nil {
		t.Fatal(err)
	}
	if _, _, err := sql.Migrate(limited(t), dsn); err != nil {
		t.Fatal(err)
	}
	r.caughtUp(t)
	if r.Failures.Of(failures.History).Failing() {
		t.Error("history still counts as failing after rowcast migrate, want it not to")
	}
}
