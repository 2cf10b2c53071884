package listener_test

import (
	"context"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// layTraps creates traps: functions and operators that have the names of built-in functions and operators (see
// dbtest.Traps). A trap raises an error when it is used. New sessions find the traps first.
func layTraps(t *testing.T, conn *pgx.Conn, dsn string) {
	t.Helper()
	exec(t, conn, dbtest.Traps)
	exec(t, conn, "ALTER DATABASE "+pgx.Identifier{conn.Config().Database}.Sanitize()+" SET search_path = public, pg_catalog")
	exec(t, conn, "SET search_path = pg_catalog, pg_temp")
	for _, trapped := range []string{"SELECT concat_ws('-', 1::bigint, 2::oid)", "SELECT 1 WHERE 1::oid = 1::int", "SELECT pg_backend_pid()"} {
		if _, err := connect(t, dsn).Exec(t.Context(), trapped); err == nil || !strings.Contains(err.Error(), "a trap of another role") {
			t.Fatalf("%s: got %v, want the error that a trap of another role raises", trapped, err)
		}
	}
}

// The hub uses the built-in functions, operators, types and tables, even if a new connection finds objects of another
// role with the same names first.
func TestTrapsOfAnotherRoleAreNotUsed(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	layTraps(t, conn, dsn)
	for _, pollOnly := range []bool{false, true} {
		t.Run(fmt.Sprintf("PollOnly=%t", pollOnly), func(t *testing.T) {
			walkPastTraps(t, conn, dsn, pollOnly, func(l *listener.Listener) {
				l.Config.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
					return conn.Exec(ctx, dbtest.TemporaryTraps).Close()
				}
			})
		})
	}
}

// A program with the same role leaves objects in pg_temp, and settings, in a session behind PgBouncer. The hub that
// gets the session next uses none of them, and leaves the settings of the session as they are.
func TestUsedSessionBehindPgBouncer(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	layTraps(t, conn, dsn)
	pooled := dbtest.PgBouncer(t, dsn, "transaction", 1)
	config, err := pgx.ParseConfig(pooled)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeSimpleProtocol
	stranger, err := pgx.ConnectConfig(limited(t), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Close(limited(t)) })
	exec(t, stranger, "SET search_path = pg_catalog; "+dbtest.TemporaryTraps+` CREATE TEMP TABLE notifications (trap int);
		CREATE TEMP TABLE epoch (trap int); CREATE TEMP TABLE history (trap int); CREATE TEMP TABLE pg_stat_activity (trap int);
		PREPARE trap AS SELECT 1; SET default_transaction_read_only = on; SET default_transaction_isolation = serializable;
		SET row_security = on; SET search_path = pg_temp, public, pg_catalog`)
	session := one[uint32](t, stranger, "SELECT pg_catalog.pg_backend_pid()")
	for _, trapped := range []string{"SELECT 'x'::text", "SELECT pid FROM pg_locks"} {
		if _, err := stranger.Exec(t.Context(), trapped); err == nil {
			t.Fatalf("%s: got no error, want one, because the session finds a trap in pg_temp first", trapped)
		}
	}
	walkPastTraps(t, conn, pooled, true, func(*listener.Listener) {})
	for setting, want := range map[string]string{
		"search_path": "pg_temp, public, pg_catalog", "default_transaction_read_only": "on", "default_transaction_isolation": "serializable",
	} {
		if got := one[string](t, stranger, "SELECT pg_catalog.current_setting('"+setting+"')"); got != want {
			t.Errorf("the session behind PgBouncer has %s = %s, want %s", setting, got, want)
		}
	}
	if got := one[uint32](t, stranger, "SELECT pg_catalog.pg_backend_pid()"); got != session {
		t.Errorf("got session %d at the end, want %d, the session from the beginning", got, session)
	}
}

// walkPastTraps uses the database as a hub does: preflight, fetches, a replay, the check of a cursor, a disconnect
// request and retention.
func walkPastTraps(t *testing.T, conn *pgx.Conn, dsn string, pollOnly bool, own func(*listener.Listener)) {
	t.Helper()
	begin := one[string](t, conn, "SELECT rowcast.cursor()")
	var log lines
	configure := func(l *listener.Listener) {
		l.PollOnly, l.Look, l.Disconnect = pollOnly, 50*time.Millisecond, func(string) {}
		l.Logger = slog.New(slog.NewTextHandler(&log, nil))
		own(l)
	}
	l := newListener(t, dsn)
	configure(l)
	if err := l.Preflight(limited(t)); err != nil {
		t.Errorf("Preflight: %v", err)
	}
	r := listen(t, dsn, configure)
	if !pollOnly {
		r.waitForLock(t, 1)
	}
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	fetches := r.Stats.Fetches.Load()
	// Without PollOnly, some of these fetches are safety polls.
	r.until(t, func() bool { return r.Stats.Fetches.Load() > fetches+3 })
	replayer, err := r.NewReplayer(limited(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	wantData(t, replay(t, replayer, begin, r.last.Cursor.String(), nil), `"1"`)
	if valid, err := replayer.IsValid(limited(t), r.last.Cursor, r.last.Cursor); err != nil || !valid {
		t.Errorf("IsValid: got %t and error %v, want true", valid, err)
	}
	if err := replayer.Disconnect(limited(t), "alice"); err != nil {
		t.Errorf("Disconnect: %v", err)
	}
	retention := &listener.Retention{Listener: l, Logger: l.Logger, Keep: time.Nanosecond}
	if _, err := retention.Round(limited(t)); err != nil {
		t.Errorf("a round of retention: got error %v, want none", err)
	}
	if strings.Contains(log.text(), "level=WARN") {
		t.Errorf("the log has warnings, want none:\n%s", log.text())
	}
}

// A listener with PollOnly works with a role whose transactions are read-only by default.
func TestReadOnlyRoleCanPoll(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	role := createRole(t, dsn, "hub", hubGrants...)
	exec(t, conn, "ALTER ROLE "+role+" LOGIN")
	exec(t, conn, "ALTER ROLE "+role+" SET default_transaction_read_only = on")
	configure := func(l *listener.Listener) { l.Config.User, l.PollOnly = role, true }
	l := newListener(t, dsn)
	configure(l)
	if err := l.Preflight(limited(t)); err != nil {
		t.Fatalf("Preflight: %v", err)
	}
	begin := one[string](t, conn, "SELECT rowcast.cursor()")
	r := listen(t, dsn, configure)
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	r.caughtUp(t)
	replayer, err := r.NewReplayer(limited(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	wantData(t, replay(t, replayer, begin, r.last.Cursor.String(), nil), `"1"`)
	if err := replayer.Disconnect(limited(t), "alice"); err != nil {
		t.Errorf("Disconnect: %v", err)
	}
}
