package listener_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// The listener works although the database has settings that could disturb it. It overrides the settings on which its
// statements depend.
func TestSettingsOfTheDatabaseDoNotDisturb(t *testing.T) {
	t.Parallel()
	for _, pollOnly := range []bool{false, true} {
		t.Run(fmt.Sprintf("PollOnly=%t", pollOnly), func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			conn := connect(t, dsn) // this session begins before the settings are changed, so it keeps the defaults
			exec(t, conn, "CREATE SCHEMA evil; CREATE TABLE evil.notifications (); CREATE FUNCTION evil.pg_current_snapshot() RETURNS int LANGUAGE sql AS 'SELECT 1'")
			database := pgx.Identifier{one[string](t, conn, "SELECT current_database()")}.Sanitize()
			for _, set := range []string{
				"default_transaction_isolation = serializable", "default_transaction_read_only = on",
				"search_path = evil, pg_catalog, rowcast", "DateStyle = German", "TimeZone = 'Asia/Kolkata'", "bytea_output = escape",
				"statement_timeout = 100", "lock_timeout = 100", "idle_in_transaction_session_timeout = 100",
				"enable_indexscan = off", "plan_cache_mode = force_custom_plan",
			} {
				exec(t, conn, "ALTER DATABASE "+database+" SET "+set)
			}
			begin := one[string](t, conn, "SELECT rowcast.cursor()")
			r := listen(t, dsn, func(l *listener.Listener) { l.PollOnly = pollOnly })
			if !pollOnly {
				r.waitForLock(t, 1)
			}
			exec(t, conn, "BEGIN")
			insert(t, conn, "1")
			exec(t, conn, "LOCK rowcast.notifications") // the transaction holds the lock for longer than the timeouts of 100 ms
			exec(t, conn, "SELECT pg_sleep(0.2)")
			exec(t, conn, "COMMIT")
			wantData(t, r.rows(t, 1), `"1"`)
			r.caughtUp(t)
			replayer, err := r.NewReplayer(t.Context(), 1)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(replayer.Close)
			wantData(t, replay(t, replayer, begin, r.last.Cursor.String(), nil), `"1"`)
			if sessions := r.Stats.Sessions.Load(); sessions != 1 {
				t.Errorf("got %d sessions, want 1", sessions)
			}
		})
	}
}

// createRole creates a role with grants and returns its name. It drops the role at the end of the test.
func createRole(t *testing.T, dsn, name string, grants ...string) string {
	t.Helper()
	conn := connect(t, dsn)
	role := fmt.Sprintf("%s_%d", name, conn.PgConn().PID())
	exec(t, conn, "CREATE ROLE "+role)
	t.Cleanup(func() {
		conn, err := pgx.Connect(context.Background(), dsn)
		if err != nil {
			t.Error(err)
			return
		}
		defer func() { _ = conn.Close(context.Background()) }()
		if _, err := conn.Exec(context.Background(), "DROP OWNED BY "+role+"; DROP ROLE "+role); err != nil {
			t.Error(err)
		}
	})
	for _, grant := range grants {
		exec(t, conn, "GRANT "+grant+" TO "+role)
	}
	return role
}

var hubGrants = []string{"USAGE ON SCHEMA rowcast", "SELECT ON ALL TABLES IN SCHEMA rowcast", "INSERT ON rowcast.epoch"}

func TestHubNeedsFewRights(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	role := createRole(t, dsn, "hub", hubGrants...)
	as := func(l *listener.Listener) { l.Config.RuntimeParams["role"] = role }
	hub := newListener(t, dsn)
	as(hub)
	if err := hub.Preflight(limited(t)); err != nil {
		t.Fatalf("Preflight: %v", err)
	}
	begin := one[string](t, conn, "SELECT rowcast.cursor()")
	r := listen(t, dsn, as)
	r.waitForLock(t, 1)
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	r.caughtUp(t)
	replayer, err := r.NewReplayer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	wantData(t, replay(t, replayer, begin, r.last.Cursor.String(), nil), `"1"`)
}

// If row-level security would hide rows from the hub, reading fails, and the hub logs a warning. If the rows were only
// hidden, nobody would notice that they are missing.
func TestRowSecurityIsAnError(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	exec(t, connect(t, dsn), "ALTER TABLE rowcast.notifications ENABLE ROW LEVEL SECURITY")
	role := createRole(t, dsn, "hub", hubGrants...)
	log := &logged{written: make(chan string, 1)}
	l := newListener(t, dsn)
	l.Config.RuntimeParams["role"] = role
	l.Logger = slog.New(slog.NewTextHandler(log, nil))
	run(t, l)
	select {
	case written := <-log.written:
		if !strings.Contains(written, "row-level security") {
			t.Errorf("got the warning %s, want one about row-level security", written)
		}
	case <-time.After(patience):
		t.Errorf("waited %v for a warning in the log", patience)
	}
}

// logged is a log that sends its first warning to written.
type logged struct {
	once    sync.Once
	written chan string
}

func (l *logged) Write(line []byte) (int, error) {
	if strings.Contains(string(line), "WARN") {
		l.once.Do(func() { l.written <- string(line) })
	}
	return len(line), nil
}

func TestPreflight(t *testing.T) {
	t.Parallel()
	if err := newListener(t, dbtest.Database(t)).Preflight(limited(t)); err != nil {
		t.Errorf("with the schema: got %v, want no error", err)
	}
	if err := newListener(t, dbtest.Empty(t)).Preflight(limited(t)); !errors.Is(err, sql.ErrNoSchema) {
		t.Errorf("without the schema: got %v, want %v", err, sql.ErrNoSchema)
	}
	nowhere := newListener(t, "postgres://nobody@127.0.0.1:1/nothing?sslmode=disable")
	if err := nowhere.Preflight(limited(t)); err == nil {
		t.Error("without a server: got no error, want one")
	}
}

// While pg_restore is at work, the error of Preflight is ErrIncomplete, with which a hub waits. pg_restore has created
// the tables, restores their rows one table after the other, and then creates the indexes.
func TestPreflightDuringARestore(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	l := newListener(t, dsn)
	exec(t, conn, "CREATE TABLE saved AS SELECT * FROM rowcast.history; CREATE TABLE versions AS SELECT * FROM rowcast.migrations")
	exec(t, conn, `TRUNCATE rowcast.epoch, rowcast.history, rowcast.migrations;
		DROP INDEX rowcast.notifications_recipient_idx, rowcast.notifications_xid_id_idx;
		ALTER TABLE rowcast.notifications DROP CONSTRAINT notifications_pkey`)
	for _, restore := range []string{
		"SELECT",
		"INSERT INTO rowcast.history SELECT * FROM saved; UPDATE rowcast.history SET system_identifier = 7, horizon = '999999999999'",
		"INSERT INTO rowcast.migrations OVERRIDING SYSTEM VALUE SELECT * FROM versions", // from here on, only indexes are missing, and the history is of another server
	} {
		exec(t, conn, restore)
		if err := l.Preflight(limited(t)); !errors.Is(err, listener.ErrIncomplete) {
			t.Errorf("after %s: got %v, want %v", restore, err, listener.ErrIncomplete)
		}
	}
	exec(t, conn, "ALTER TABLE rowcast.notifications ADD PRIMARY KEY (id)")
	if err := l.Preflight(limited(t)); !errors.Is(err, sql.ErrRestored) {
		t.Errorf("with an index: got %v, want %v", err, sql.ErrRestored)
	}
}

// Preflight succeeds with a schema that was altered, and logs the difference. It logs nothing about a schema or an
// inbox that is newer than the program. A setting that quotes all identifiers makes no difference.
func TestPreflightLogsDifferences(t *testing.T) {
	t.Parallel()
	for _, pollOnly := range []bool{false, true} {
		dsn := dbtest.Database(t)
		conn, err := pgx.Connect(limited(t), dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		exec(t, conn, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET quote_all_identifiers = on', current_database()); END $$")
		var log bytes.Buffer
		l := newListener(t, dsn)
		l.PollOnly, l.Logger = pollOnly, slog.New(slog.NewTextHandler(&log, nil))
		if err := l.Preflight(limited(t)); err != nil || log.Len() != 0 {
			t.Errorf("migrated schema, PollOnly %t: got %v and the log %s, want no error and an empty log", pollOnly, err, &log)
		}
		exec(t, conn, "DROP INDEX rowcast.notifications_recipient_idx")
		const want = `difference="index rowcast.notifications.notifications_recipient_idx is missing"`
		if err := l.Preflight(limited(t)); err != nil || strings.Count(log.String(), want) != 1 {
			t.Errorf("altered schema, PollOnly %t: got %v and the log %s, want no error and %s", pollOnly, err, &log, want)
		}
		for what, statements := range map[string][2]string{
			"inbox":  {"CREATE FUNCTION rowcast.inbox_version() RETURNS integer LANGUAGE sql AS 'SELECT 9'", "DROP FUNCTION rowcast.inbox_version()"},
			"schema": {"INSERT INTO rowcast.migrations (version_id, is_applied) VALUES (99, true)", "DELETE FROM rowcast.migrations WHERE version_id = 99"},
		} {
			exec(t, conn, statements[0])
			log.Reset()
			if err := l.Preflight(limited(t)); err != nil || log.Len() != 0 {
				t.Errorf("newer %s, PollOnly %t: got %v and the log %s, want no error and an empty log", what, pollOnly, err, &log)
			}
			exec(t, conn, statements[1])
		}
	}
}

// If the comparison of the schema takes too long, Preflight logs it and succeeds.
func TestPreflightSucceedsWithoutDifferences(t *testing.T) {
	t.Parallel()
	for _, pollOnly := range []bool{false, true} {
		t.Run(fmt.Sprintf("PollOnly=%t", pollOnly), func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			conn := connect(t, dsn)
			exec(t, conn, "BEGIN")
			exec(t, conn, "LOCK TABLE pg_catalog.pg_rewrite IN ACCESS EXCLUSIVE MODE") // of all steps, only the comparison reads pg_rewrite
			var log bytes.Buffer
			l := newListener(t, dsn)
			l.PollOnly, l.Timeout, l.Logger = pollOnly, 5*time.Second, slog.New(slog.NewTextHandler(&log, nil))
			const want = "cannot compare the schema with what rowcast migrate installs: run rowcast doctor"
			if err := l.Preflight(limited(t)); err != nil || strings.Count(log.String(), want) != 1 {
				t.Errorf("got %v and the log %s, want no error and %s", err, &log, want)
			}
		})
	}
}
