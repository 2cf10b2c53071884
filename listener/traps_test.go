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

// layTraps makes the traps and puts them before pg_catalog in every new session.
func layTraps(t *testing.T, conn *pgx.Conn, dsn string) {
	t.Helper()
	exec(t, conn, dbtest.Traps)
	exec(t, conn, "ALTER DATABASE "+pgx.Identifier{conn.Config().Database}.Sanitize()+" SET search_path = public, pg_catalog")
	exec(t, conn, "SET search_path = pg_catalog, pg_temp")
	for _, trapped := range []string{"SELECT concat_ws('-', 1::bigint, 2::oid)", "SELECT 1 WHERE 1::oid = 1::int", "SELECT pg_backend_pid()"} {
		if _, err := connect(t, dsn).Exec(t.Context(), trapped); err == nil || !strings.Contains(err.Error(), "a trap of a stranger") {
			t.Fatalf("%s: got %v, want that it goes into a trap", trapped, err)
		}
	}
}

// No function, operator, type or table of a stranger is used, whatever the search_path is where a connection begins.
func TestStrangersTrapsAreNotUsed(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	layTraps(t, conn, dsn)
	for _, pollOnly := range []bool{false, true} {
		t.Run(fmt.Sprintf("PollOnly=%t", pollOnly), func(t *testing.T) { walkPastTraps(t, conn, dsn, pollOnly) })
	}
}

// walkPastTraps does all that a hub does with its database.
func walkPastTraps(t *testing.T, conn *pgx.Conn, dsn string, pollOnly bool) {
	begin := one[string](t, conn, "SELECT rowcast.cursor()")
	var log lines
	configure := func(l *listener.Listener) {
		l.PollOnly, l.Look, l.Disconnect = pollOnly, 50*time.Millisecond, func(string) {}
		l.Logger = slog.New(slog.NewTextHandler(&log, nil))
		l.Config.AfterConnect = func(ctx context.Context, conn *pgconn.PgConn) error {
			return conn.Exec(ctx, dbtest.TemporaryTraps).Close()
		}
	}
	l := newListener(t, dsn)
	configure(l)
	if err := l.Preflight(limited(t)); err != nil {
		t.Errorf("Preflight: %v", err)
	}
	r := listen(t, dsn, configure)
	if !pollOnly {
		r.parked(t, 1)
	}
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	fetches := r.Stats.Fetches.Load()
	r.until(t, func() bool { return r.Stats.Fetches.Load() > fetches+3 }) // safety polls among them
	replayer, err := r.NewReplayer(limited(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	wantData(t, replay(t, replayer, begin, r.last.Cursor.String(), nil), `"1"`)
	if stands, err := replayer.Stands(limited(t), r.last.Cursor, r.last.Cursor); err != nil || !stands {
		t.Errorf("Stands: %t, %v", stands, err)
	}
	if err := replayer.Disconnect(limited(t), "alice"); err != nil {
		t.Errorf("Disconnect: %v", err)
	}
	retention := &listener.Retention{Listener: l, Logger: l.Logger, Keep: time.Nanosecond}
	if _, err := retention.Round(limited(t)); err != nil {
		t.Errorf("a round of retention: %v", err)
	}
	if strings.Contains(log.text(), "level=WARN") {
		t.Errorf("the log is\n%s", log.text())
	}
}

// A role that is read-only by default can poll, too.
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
