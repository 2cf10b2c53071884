package sql_test

import (
	"context"
	"errors"
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

func connect(t *testing.T, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(dbtest.Context(t), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func run(t *testing.T, conn *pgx.Conn, statement string, args ...any) {
	t.Helper()
	if _, err := conn.Exec(dbtest.Context(t), statement, args...); err != nil {
		t.Fatalf("%s: %v", statement, err)
	}
}

func TestMigrate(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	conn := connect(t, dsn)
	if err := sql.Check(dbtest.Context(t), conn); !errors.Is(err, sql.ErrNoSchema) {
		t.Errorf("check an empty database: got %v, want ErrNoSchema", err)
	}
	migrate := func(wantFrom int64) {
		t.Helper()
		from, to, err := sql.Migrate(dbtest.Context(t), dsn)
		if err != nil || from != wantFrom || to != sql.Version() {
			t.Errorf("migrated from version %d to %d, %v; want from %d to %d", from, to, err, wantFrom, sql.Version())
		}
	}
	migrate(0)
	migrate(sql.Version())
	if err := sql.Check(dbtest.Context(t), conn); err != nil {
		t.Errorf("check after Migrate: got %v, want no error", err)
	}
	run(t, conn, "INSERT INTO rowcast.migrations (version_id, is_applied) VALUES ($1, true)", sql.Version()+1)
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err == nil || !strings.Contains(err.Error(), "upgrade rowcast") {
		t.Errorf("migrate a newer schema: got %v, want advice to upgrade rowcast", err)
	}
}

func TestTwoConcurrentMigrationsSucceed(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	errs := make(chan error, 2)
	for range 2 {
		go func() {
			_, _, err := sql.Migrate(dbtest.Context(t), dsn)
			errs <- err
		}()
	}
	for range 2 {
		if err := dbtest.Receive(t, errs, "the end of two concurrent migrations"); err != nil {
			t.Error(err)
		}
	}
}

// Settings of the database change neither what Migrate and the printed script install nor what Differences finds. Migrate
// uses READ COMMITTED, whatever the default is. With SERIALIZABLE, it could miss what another migration installs while it
// waits for the lock.
func TestSettingsOfTheDatabaseDoNotDisturb(t *testing.T) {
	t.Parallel()
	psql := dbtest.Client(t, "psql")
	for name, install := range map[string]func(dsn string){
		"Migrate": func(dsn string) {
			m := sql.Migrator{DSN: dsn, Inbox: true}
			if _, _, err := m.Migrate(dbtest.Context(t)); err != nil {
				t.Error(err)
			}
			levels := text(t, connect(t, dsn), "SELECT string_agg(DISTINCT level, ' ') FROM levels")
			if levels != "read committed" {
				t.Errorf("Migrate has changed the schema with the isolation levels %s, want read committed", levels)
			}
		},
		"script": func(dsn string) { applyScript(t, psql, dsn, sql.Script{Inbox: true}) },
	} {
		dsn := dbtest.Empty(t)
		conn := connect(t, dsn)
		run(t, conn, `CREATE TABLE levels (level text); CREATE FUNCTION level() RETURNS event_trigger LANGUAGE plpgsql AS $$ BEGIN
			INSERT INTO public.levels VALUES (pg_catalog.current_setting('transaction_isolation')); END $$;
			CREATE EVENT TRIGGER level ON ddl_command_end EXECUTE FUNCTION level()`)
		for _, set := range []string{"standard_conforming_strings = off", "quote_all_identifiers = on", "default_transaction_isolation = serializable"} {
			run(t, conn, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET "+set+"', current_database()); END $$")
		}
		install(dsn)
		examined := connect(t, dsn)
		run(t, examined, "BEGIN")
		run(t, examined, sql.Secure)
		if all, err := sql.Differences(dbtest.Context(t), examined); err != nil || len(all) > 0 {
			t.Errorf("after %s: got %v, %v, want no differences", name, all, err)
		}
	}
}

// The schema can be changed in a database whose transactions are read-only by default, and the watched tables listed.
func TestDefaultTransactionReadOnly(t *testing.T) {
	t.Parallel()
	dsn, ctx := dbtest.Empty(t), dbtest.Context(t)
	conn := connect(t, dsn) // this session begins before the setting, so it may write
	run(t, conn, "CREATE TABLE orders (id bigint PRIMARY KEY, who text)")
	run(t, conn, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$")
	if _, _, err := sql.Migrate(ctx, dsn); err != nil {
		t.Fatalf("Migrate: %v", err)
	}
	if err := sql.Grant(ctx, dsn, sql.Roles{Hubs: []string{"postgres"}}); err != nil {
		t.Errorf("Grant: %v", err)
	}
	if _, err := (sql.Watch{Table: "public.orders", Recipient: "n.who"}).Install(ctx, dsn); err != nil {
		t.Errorf("Install: %v", err)
	}
	if all, err := sql.ListWatched(ctx, dsn); err != nil || len(all) != 1 {
		t.Errorf("ListWatched: got %v, %v, want one table", all, err)
	}
	if _, _, err := sql.Unwatch(ctx, dsn, "public.orders"); err != nil {
		t.Errorf("Unwatch: %v", err)
	}
}

func dump(t *testing.T, pgDump, dsn string) string {
	t.Helper()
	out, err := exec.CommandContext(dbtest.Context(t), pgDump, "--schema-only", dsn).CombinedOutput()
	if err != nil {
		t.Fatalf("pg_dump: %v\n%s", err, out)
	}
	var lines []string
	for line := range strings.Lines(string(out)) {
		if !strings.HasPrefix(line, `\`) { // pg_dump prints \restrict with a random key
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "")
}

func TestConstraints(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	const length, reserved = "event_is_1_to_128_bytes", "event_is_not_reserved"
	for _, test := range []struct {
		recipient  string
		event      string
		constraint string
	}{
		{recipient: "alice", event: "notify"},
		{recipient: "*", event: "message"},
		{recipient: strings.Repeat("é", 128), event: strings.Repeat("é", 64)},
		{recipient: "team:7", event: "errors"},
		{recipient: "a b", event: "rowcast"},

		{"", "notify", "recipient_is_1_to_256_bytes"},
		{strings.Repeat("é", 128) + "x", "notify", "recipient_is_1_to_256_bytes"},
		{"alice\n", "notify", "recipient_has_no_control_characters"},
		{"alice", "", length},
		{"alice", strings.Repeat("é", 64) + "x", length},
		{"alice", "a\nid: 7", "event_has_no_line_break"},
		{"alice", "a\r", "event_has_no_line_break"},
		{"alice", "error", reserved},
		{"alice", "open", reserved},
		{"alice", "rowcast.", reserved},
		{"alice", "rowcast.hello", reserved},
	} {
		_, err := conn.Exec(dbtest.Context(t), "INSERT INTO rowcast.notifications (recipient, event, data) VALUES ($1, $2, '{}')", test.recipient, test.event)
		if got := constraintOf(err); got != test.constraint || test.constraint == "" && err != nil {
			t.Errorf("%.20q %.20q: got %v, want a violation of the constraint %q (no error if empty)", test.recipient, test.event, err, test.constraint)
		}
	}
	for _, statement := range []string{
		"INSERT INTO rowcast.notifications (recipient, data, created_at) VALUES ('*', '{}', 'infinity')",
		"INSERT INTO rowcast.notifications (recipient, id, data) OVERRIDING SYSTEM VALUE VALUES ('*', 0, '{}')",
		"INSERT INTO rowcast.notifications (recipient, data) VALUES (NULL, '{}')",
		"INSERT INTO rowcast.notifications (data) VALUES ('{}')",
		"INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', NULL)",
		"INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '{\"msg\": ')",
		"INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('*', NULL, '{}')",
		"INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('*', E'a\\u0000', '{}')",
	} {
		if _, err := conn.Exec(dbtest.Context(t), statement); err == nil {
			t.Errorf("an INSERT that must fail succeeded: %s", statement)
		}
	}
}

// constraintOf returns the name of the constraint in the error of an INSERT, or "" if the error has none.
func constraintOf(err error) string {
	if failure, ok := errors.AsType[*pgconn.PgError](err); ok {
		return failure.ConstraintName
	}
	return ""
}

// Check fails if restored rows have transaction numbers that this server has not assigned. Migrate sets xid of the rows
// to 1, so the rows are never sent. The horizon, a number of the other server, becomes 3.
func TestMigrateCorrectsARestoredTable(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	run(t, conn, "INSERT INTO rowcast.notifications (recipient, data, xid) VALUES ('*', '1', (pg_current_xact_id()::text::bigint + 1000000)::text::xid8), ('*', '2', '1000')")
	// While rowcast.history names this server and this database, Check accepts rows with any number.
	run(t, conn, "UPDATE rowcast.history SET database = (SELECT oid FROM pg_database WHERE datname = current_database())")
	if err := sql.Check(dbtest.Context(t), conn); err != nil {
		t.Errorf("check on the same server: got %v, want no error", err)
	}
	run(t, conn, "UPDATE rowcast.history SET system_identifier = 7, horizon = '999999999999'")
	if err := sql.Check(dbtest.Context(t), conn); !errors.Is(err, sql.ErrRestored) {
		t.Errorf("check on another server: got %v, want ErrRestored", err)
	}
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	if err := sql.Check(dbtest.Context(t), conn); err != nil {
		t.Errorf("check after Migrate: got %v, want no error", err)
	}
	var xids, horizon string
	if err := conn.QueryRow(dbtest.Context(t), "SELECT string_agg(xid::text, ' ' ORDER BY id), (SELECT horizon::text FROM rowcast.history) FROM rowcast.notifications").Scan(&xids, &horizon); err != nil {
		t.Fatal(err)
	}
	if xids != "1 1" || horizon != "3" {
		t.Errorf("got the transaction numbers %s and the horizon %s, want 1 1 and 3", xids, horizon)
	}
}

// Check and Migrate work if a table that was copied from another server has transaction numbers that are larger than
// the largest bigint. Migrate sets xid of these rows to 1, and leaves the rows that this server has written.
func TestMigrateCorrectsNumbersAboveBigint(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	run(t, conn, "UPDATE rowcast.history SET system_identifier = 7")
	run(t, conn, "INSERT INTO rowcast.notifications (recipient, data, xid) VALUES ('*', '1', '9223372036854775808'), ('*', '2', '18446744073709551615')")
	run(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '3')")
	if err := sql.Check(dbtest.Context(t), conn); !errors.Is(err, sql.ErrRestored) {
		t.Errorf("check: got %v, want ErrRestored", err)
	}
	own := text(t, conn, "SELECT xid::text FROM rowcast.notifications WHERE data = '3'")
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	if err := sql.Check(dbtest.Context(t), conn); err != nil {
		t.Errorf("check after Migrate: got %v, want no error", err)
	}
	if got, want := text(t, conn, "SELECT string_agg(xid::text, ' ' ORDER BY id) FROM rowcast.notifications"), "1 1 "+own; got != want {
		t.Errorf("got the transaction numbers %s, want %s", got, want)
	}
}

// HasRestored looks for restored rows from the horizon on, and never for rows with a lower number than 3.
func TestHasRestoredStartsAtTheHorizon(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	run(t, conn, "UPDATE rowcast.history SET system_identifier = 7") // so that the rows keep their numbers
	run(t, conn, "INSERT INTO rowcast.notifications (recipient, data, xid) VALUES ('*', '1', '1'), ('*', '2', '2'), ('*', '3', '100')")
	for _, tt := range []struct{ horizon, want string }{{"1", "true"}, {"99", "true"}, {"100", "true"}, {"101", "false"}} {
		run(t, conn, "UPDATE rowcast.history SET horizon = '"+tt.horizon+"'")
		if got := text(t, conn, "SELECT ("+sql.HasRestored+")::text"); got != tt.want {
			t.Errorf("a row with the number 100 and the horizon %s: got %s, want %s", tt.horizon, got, tt.want)
		}
	}
	run(t, conn, "DELETE FROM rowcast.notifications WHERE xid = '100'")
	run(t, conn, "UPDATE rowcast.history SET horizon = '1'")
	if got := text(t, conn, "SELECT ("+sql.HasRestored+")::text"); got != "false" {
		t.Errorf("rows with the numbers 1 and 2 and the horizon 1: got %s, want false", got)
	}
}

// After a restore, the horizon is a number of the other server. It becomes 3, although the app has added columns, and even if this server has written a row with
// a higher number since. Otherwise this server's rows below it would count as deleted.
func TestMigrateDropsTheHorizonOfAnotherServer(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	run(t, conn, "UPDATE rowcast.history SET system_identifier = 7, horizon = (pg_current_xact_id()::text::bigint + 2)::text::xid8")
	run(t, conn, "ALTER TABLE rowcast.notifications ADD COLUMN horizon text, ADD COLUMN singleton text, ADD COLUMN server text, ADD COLUMN present text")
	for range 3 {
		run(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1')")
	}
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	if got := text(t, conn, "SELECT horizon::text FROM rowcast.history"); got != "3" {
		t.Errorf("got the horizon %s, want 3", got)
	}
}

// Migrate and Grant work through a pooler in transaction mode, even if four calls run at once. In this mode, each
// transaction can run in another session. The calls leave no lock behind.
func TestMigrateThroughPgBouncer(t *testing.T) {
	t.Parallel()
	for _, sessions := range []int{1, 3} {
		t.Run(fmt.Sprint(sessions, " sessions"), func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Empty(t)
			pooled := dbtest.PgBouncer(t, dsn, "transaction", sessions)
			role := createRole(t, connect(t, dsn), "app")
			for range 3 {
				errs := make(chan error, 4)
				for range cap(errs) {
					go func() {
						_, _, err := sql.Migrate(dbtest.Context(t), pooled)
						errs <- errors.Join(err, sql.Grant(dbtest.Context(t), pooled, sql.Roles{Apps: []string{role}}))
					}()
				}
				for range cap(errs) {
					if err := dbtest.Receive(t, errs, "the end of four concurrent migrations"); err != nil {
						t.Error(err)
					}
				}
			}
			if from, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil || from != sql.Version() {
				t.Errorf("without the pooler: found version %d, %v, want %d", from, err, sql.Version())
			}
			if locks := text(t, connect(t, dsn), "SELECT count(*)::text FROM pg_locks WHERE locktype = 'advisory' AND database = (SELECT oid FROM pg_database WHERE datname = current_database())"); locks != "0" {
				t.Errorf("%s advisory locks are left, want 0", locks)
			}
		})
	}
}
