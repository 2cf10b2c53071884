package main_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// examine runs the doctor. found has the verdict, the text and the fixes of each check, by the name of the check.
func examine(t *testing.T, dsn string) (code int, found map[string]string, out string) {
	t.Helper()
	code, out, stderr := run(t, nil, "doctor", "--database-url", dsn)
	if stderr != "" {
		t.Errorf("the doctor wrote to stderr: %s", stderr)
	}
	found = make(map[string]string)
	last := ""
	for _, m := range regexp.MustCompile(`(?m)^(?:(ok|warn|fail) +(.{12})  | +(→ ))(.*)$`).FindAllStringSubmatch(out, -1) {
		if m[3] != "" {
			found[last] += " " + m[3] + m[4]
			continue
		}
		last = strings.TrimSpace(m[2])
		found[last] = m[1] + " " + m[4]
	}
	return code, found, out
}

// Settings of the database do not disturb the doctor.
func TestDoctorFindsNothing(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	for _, set := range []string{"standard_conforming_strings = off", "quote_all_identifiers = on"} {
		runSQL(t, dsn, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET "+set+"', current_database()); END $$")
	}
	h := serve(t, dsn)
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_park_lock_acquired_total 1$`)
	code, found, out := examine(t, dsn)
	for check, want := range map[string]string{
		"connection":   `ok .*, database "test_.*", as role "postgres"`,
		"version":      `(ok|warn) PostgreSQL \d+.*`,
		"primary":      `ok this is not a standby`,
		"encoding":     `ok the encoding is UTF8`,
		"collation":    `ok .*`,
		"durability":   `warn fsync, full_page_writes: off, so a crash of the machine can damage the database → ALTER SYSTEM SET fsync = on; → ALTER SYSTEM SET full_page_writes = on; → SELECT pg_reload_conf\(\);`, // as in all tests
		"LISTEN":       `ok a NOTIFY arrives after .*s`,
		"connections":  `ok the server has \d+ free connections; a hub needs up to 8`,
		"timeouts":     `ok no timeout is set`,
		"standbys":     `ok commits do not wait for a standby`,
		"NOTIFY queue": `ok 0 % full`,
		"transactions": `ok no transaction that writes has been open for more than a minute`,
		"schema":       `ok the schema rowcast exists`,
		"rights":       `ok the role has the rights that a hub needs to read rows`,
		"retention":    `ok the role can delete old rows`,
		"row security": `ok no row security policy applies to this role`,
		"migrations":   `ok the schema has the version that this rowcast needs: ` + schemaVersion + `; the inbox is not installed, and rowcast serve --inbox needs it`,
		"tables":       `ok every table is as rowcast migrate creates it`,
		"columns":      `ok every column is as rowcast migrate creates it`,
		"constraints":  `ok every constraint is there`,
		"indexes":      `ok every index is there and valid`,
		"functions":    `ok every function has the source that rowcast migrate installs`,
		"trigger":      `ok every trigger is enabled in all sessions`,
		"owners":       `ok every object belongs to the owner of the schema or a superuser, except functions of watched tables`,
		"grants":       `ok no table, and no function of the inbox or of a watched table, grants rights to PUBLIC`,
		"senders":      `ok the roles that may insert notifications may call what an INSERT calls`,
		"read-only":    `ok no setting makes the transactions of an app read-only`,
		"ids":          `ok the sequence of the ids is not behind the ids of the rows`,
		"rows":         `ok no row has a transaction number that this server will assign later`,
		"watched":      `ok tables that are watched: 0`,
		"hubs":         `ok hubs connected: 1`,
		"park lock":    `ok a hub is idle in LISTEN, and INSERTs notify it`,
		"reading":      `ok new rows can be read`,
	} {
		if !regexp.MustCompile("^" + want + "$").MatchString(found[check]) {
			t.Errorf("%s: got %q, want a match of %q", check, found[check], want)
		}
	}
	if code != 0 || len(found) != 33 || !regexp.MustCompile(`\n\nNo check failed. Warnings: [12].\n$`).MatchString(out) {
		t.Errorf("got %d, %d checks, %s, want 0, 33 checks, and at the end that no check failed, with 1 or 2 warnings", code, len(found), out)
	}
}

func TestDoctorFinds(t *testing.T) {
	t.Parallel()
	const renumber = " → SELECT setval(pg_get_serial_sequence('rowcast.notifications', 'id'), max(id)) FROM rowcast.notifications WHERE id < 4611686018427387904" +
		" HAVING max(id) > coalesce(pg_sequence_last_value(pg_get_serial_sequence('rowcast.notifications', 'id')::regclass), 0);" +
		" → UPDATE rowcast.notifications older SET id = DEFAULT WHERE EXISTS (SELECT FROM rowcast.notifications newer WHERE newer.id = older.id AND (newer.xid, newer.ctid) > (older.xid, older.ctid));"
	const ring = " → ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER ring;"
	tests := []struct {
		name, check string
		harm        []string
		want        string
	}{
		{"no trigger", "trigger", []string{"DROP TRIGGER ring ON rowcast.notifications"}, "fail trigger rowcast.notifications.ring is missing, so a sleeping hub finds new rows only by its safety poll, within about a second → CREATE TRIGGER ring AFTER INSERT ON rowcast.notifications FOR EACH STATEMENT WHEN ((NOT pg_try_advisory_xact_lock_shared(1919907683, 1634956288))) EXECUTE FUNCTION rowcast.ring();" + ring},
		{"disabled trigger", "trigger", []string{"ALTER TABLE rowcast.notifications DISABLE TRIGGER ring"}, "fail property enabled of rowcast.notifications.ring is DISABLED instead of ALWAYS, so a sleeping hub finds new rows only by its safety poll, within about a second" + ring},
		{"replica trigger", "trigger", []string{"ALTER TABLE rowcast.notifications ENABLE REPLICA TRIGGER ring"}, "fail property enabled of rowcast.notifications.ring is REPLICA instead of ALWAYS, so a sleeping hub finds new rows only by its safety poll, within about a second" + ring},
		{"ordinary trigger", "trigger", []string{"ALTER TABLE rowcast.notifications ENABLE TRIGGER ring"}, "warn property enabled of rowcast.notifications.ring is ORIGIN instead of ALWAYS" + ring},
		{"no epoch", "tables", []string{"ALTER TABLE rowcast.epoch RENAME TO other"}, "fail table rowcast.epoch is missing → CREATE UNLOGGED TABLE rowcast.epoch (one boolean PRIMARY KEY DEFAULT true CHECK (one), token uuid NOT NULL DEFAULT gen_random_uuid());"},
		{"logged epoch", "tables", []string{"ALTER TABLE rowcast.epoch SET LOGGED"}, "fail table rowcast.epoch is LOGGED instead of UNLOGGED, so hubs do not detect that PostgreSQL has recovered from the crash of a server process → ALTER TABLE rowcast.epoch SET UNLOGGED;"},
		{
			"unlogged tables", "tables",
			[]string{"ALTER TABLE rowcast.notifications SET UNLOGGED", "ALTER TABLE rowcast.migrations SET UNLOGGED"},
			"fail table rowcast.migrations is UNLOGGED instead of LOGGED; table rowcast.notifications is UNLOGGED instead of LOGGED, so a crash empties it" +
				" → ALTER TABLE rowcast.migrations SET LOGGED; → ALTER TABLE rowcast.notifications SET LOGGED;",
		},
		{"a missing table", "tables", []string{"DROP TABLE rowcast.notifications CASCADE"}, "fail table rowcast.notifications is missing; restore it from a backup"},
		{"a restored dump", "rows", looksRestored, "fail the table was restored from a dump of another server, and the transaction numbers of its rows mean other transactions here → rowcast migrate"},
		{
			"forged rows", "rows",
			[]string{"INSERT INTO rowcast.notifications (recipient, data, xid) VALUES ('*', '1', '9999999999')", "UPDATE rowcast.history SET database = (SELECT oid FROM pg_database WHERE datname = current_database())"},
			"fail some rows have transaction numbers that this server has not assigned, so they are never sent → remove xid from the statements of the app; UPDATE rowcast.notifications SET xid = '1' WHERE xid >= pg_snapshot_xmin(pg_current_snapshot()) AND NOT pg_visible_in_snapshot(xid, pg_current_snapshot());",
		},
		{"an old schema", "migrations", []string{"UPDATE rowcast.migrations SET version_id = 0"}, "fail schema rowcast is missing, incomplete or too old: it has version 0, and version " + schemaVersion + " is needed → rowcast migrate"},
		{
			"a missing function", "reading",
			[]string{"DROP FUNCTION rowcast.epoch_tag() CASCADE"},
			"fail a hub cannot read new rows: read epoch: ERROR: function rowcast.epoch_tag() does not exist (SQLSTATE 42883)",
		},
		{"an index is missing", "indexes", []string{"DROP INDEX rowcast.notifications_recipient_idx"}, "fail index rowcast.notifications.notifications_recipient_idx is missing → CREATE INDEX CONCURRENTLY notifications_recipient_idx ON rowcast.notifications USING btree (recipient, xid, id);"},
		{"recipient may be NULL", "columns", []string{"ALTER TABLE rowcast.notifications ALTER recipient DROP NOT NULL"}, "fail property not null of rowcast.notifications.recipient is missing → UPDATE rowcast.notifications SET recipient = '* (nobody)' WHERE recipient IS NULL RETURNING id; → ALTER TABLE rowcast.notifications ALTER COLUMN recipient SET NOT NULL;"},
		{"no primary key", "constraints", []string{"ALTER TABLE rowcast.notifications DROP CONSTRAINT notifications_pkey"}, "fail constraint rowcast.notifications.notifications_pkey is missing" + renumber + " → ALTER TABLE rowcast.notifications ADD CONSTRAINT notifications_pkey PRIMARY KEY (id);"},
		{
			"a foreign key", "constraints",
			[]string{"CREATE TABLE seen (cascading bigint REFERENCES rowcast.notifications ON DELETE CASCADE, id bigint CONSTRAINT fk REFERENCES rowcast.notifications)"},
			"warn constraint fk of public.seen is a foreign key to rowcast.notifications without ON DELETE CASCADE or SET NULL, so retention cannot delete the rows that it refers to, nor any row after them → ALTER TABLE public.seen DROP CONSTRAINT fk;",
		},
		{
			"an archive that inherits", "tables",
			[]string{"CREATE TABLE archive () INHERITS (rowcast.notifications)"},
			"warn table public.archive inherits from rowcast.notifications, so each query of a hub reads all its rows, and retention deletes its old rows → ALTER TABLE public.archive NO INHERIT rowcast.notifications;",
		},
		{"another owner", "owners", []string{"ALTER TABLE rowcast.epoch OWNER TO pg_monitor"}, "fail TABLE rowcast.epoch belongs to the role pg_monitor, and the schema to postgres → ALTER TABLE rowcast.epoch OWNER TO postgres;"},
		{"rights of everyone", "grants", []string{"GRANT DELETE ON rowcast.notifications TO PUBLIC"}, "warn TABLE rowcast.notifications grants DELETE to PUBLIC, that is to every role → REVOKE ALL ON rowcast.notifications FROM PUBLIC;"},
		{"no right to notify", "senders", []string{"REVOKE EXECUTE ON FUNCTION pg_notify(text, text) FROM PUBLIC", "GRANT INSERT ON rowcast.notifications TO pg_monitor"}, "fail INSERTs of some roles fail, because the roles may not call functions of PostgreSQL that an INSERT calls; a superuser can grant this → GRANT EXECUTE ON FUNCTION pg_catalog.pg_notify(text, text) TO pg_monitor;"},
		{"a newer schema", "migrations", []string{"INSERT INTO rowcast.migrations (version_id, is_applied) VALUES (99, true)"}, "warn the schema has version 99, and this rowcast knows versions up to " + schemaVersion + ", so the objects of the schema were not checked → use the rowcast that has migrated the schema"},
		{"a history without rows", "rows", []string{"DELETE FROM rowcast.history"}, "fail schema rowcast is missing, incomplete or too old: the table rowcast.history is empty → rowcast migrate"},
		{"no schema", "schema", []string{"DROP SCHEMA rowcast CASCADE"}, "fail there is no schema rowcast in this database → rowcast migrate"},
		{"no hub", "hubs", nil, "warn no hub is connected → rowcast serve"},
		{"no idle hub", "park lock", nil, "ok no hub is idle in LISTEN, so INSERTs send no notification"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			runSQL(t, dsn, tt.harm...)
			code, found, out := examine(t, dsn)
			if found[tt.check] != tt.want {
				t.Errorf("got  %s\nwant %s\n%s", found[tt.check], tt.want, out)
			}
			wantCode := 0
			if strings.HasPrefix(tt.want, "fail") {
				wantCode = 1
			}
			if code != wantCode {
				t.Errorf("got exit code %d, want %d\n%s", code, wantCode, out)
			}
		})
	}
}

// If the schema or the inbox is newer than the program, the doctor does not compare the objects of the schema, and does
// not report that they are as they should be.
func TestDoctorDoesNotCompareANewerSchema(t *testing.T) {
	t.Parallel()
	for harm, want := range map[string]string{
		"INSERT INTO rowcast.migrations (version_id, is_applied) VALUES (99, true)":                     "the schema has version 99, and this rowcast knows versions up to " + schemaVersion,
		"CREATE OR REPLACE FUNCTION rowcast.inbox_version() RETURNS integer LANGUAGE sql AS 'SELECT 9'": "the inbox has version 9, and this rowcast knows versions up to 1",
	} {
		dsn := dbtest.Inbox(t)
		runSQL(t, dsn, harm, "DROP INDEX rowcast.notifications_recipient_idx")
		code, found, out := examine(t, dsn)
		want = "warn " + want + ", so the objects of the schema were not checked → use the rowcast that has migrated the schema"
		if code != 0 || found["migrations"] != want {
			t.Errorf("got %d, %q, want 0, %q", code, found["migrations"], want)
		}
		for _, check := range []string{"tables", "columns", "constraints", "indexes", "functions", "trigger", "owners", "grants"} {
			if found[check] != "" {
				t.Errorf("%s: got %q, want nothing, because nothing was compared", check, found[check])
			}
		}
		if found["reading"] != "ok new rows can be read" {
			t.Errorf("the last check: got %q, want that new rows can be read\n%s", found["reading"], out)
		}
	}
}

// If INSERTs of an app fail, the doctor says so. After the statements that it prints, the INSERTs succeed.
func TestDoctorMendsINSERTs(t *testing.T) {
	t.Parallel()
	const database = `DO $$ BEGIN EXECUTE format('ALTER DATABASE %I SET default_transaction_read_only = on', current_database()); END $$`
	tests := []struct{ name, check, harm, want string }{
		{"a column that must be set", "columns", "ALTER TABLE rowcast.notifications ADD tenant int NOT NULL", "fail property not null of rowcast.notifications.tenant was not installed by rowcast; the column has no default, so every INSERT without it fails"},
		{"the sequence is behind", "ids", "INSERT INTO rowcast.notifications (id, recipient, data) OVERRIDING SYSTEM VALUE VALUES (1, 'alice', '1'), (2, 'alice', '2')", "fail the sequence of the ids is at 1, and the highest id is 2, so INSERTs get ids that rows have, and fail"},
		{"the sequence is at its end", "ids", "SELECT setval('rowcast.notifications_id_seq', 9223372036854775807)", "fail the sequence of the ids is at 9223372036854775807, so only 0 ids are left, and INSERTs fail after that"},
		{"a read-only database", "read-only", database, "fail default_transaction_read_only is on for roles that may insert notifications, so their INSERTs fail"},
		{"a read-only role", "read-only", `ALTER ROLE "THIS_ROLE" SET default_transaction_read_only = yes`, "fail default_transaction_read_only is on for roles that may insert notifications, so their INSERTs fail"},
		{"row level security", "tables", "ALTER TABLE rowcast.notifications ENABLE ROW LEVEL SECURITY", "fail TABLE rowcast.notifications has row level security, which can keep hubs from reading rows and refuse notifications"},
		{"no right to call a function of a CHECK constraint", "senders", "REVOKE EXECUTE ON FUNCTION pg_column_size FROM PUBLIC", "fail INSERTs of some roles fail, because the roles may not call functions of PostgreSQL that an INSERT calls; a superuser can grant this"},
		{"no right to call an operator's function", "senders", "REVOKE EXECUTE ON FUNCTION textregexne FROM PUBLIC", "fail INSERTs of some roles fail, because the roles may not call functions of PostgreSQL that an INSERT calls; a superuser can grant this"},
		{"no right to call a function of a trigger", "senders", "REVOKE EXECUTE ON FUNCTION pg_try_advisory_xact_lock_shared(int, int) FROM PUBLIC", "fail INSERTs of some roles fail, because the roles may not call functions of PostgreSQL that an INSERT calls; a superuser can grant this"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			role, app := login(t, dsn, "App")
			migrateFor(t, dsn, role)
			insert := func() error {
				conn, err := pgx.Connect(t.Context(), app)
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close(context.Background())
				_, err = conn.Exec(t.Context(), `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', to_jsonb(repeat('x', 9000)))`)
				return err
			}
			runSQL(t, dsn, strings.ReplaceAll(tt.harm, "THIS_ROLE", role))
			if err := insert(); err == nil {
				t.Fatal("the INSERT succeeded, want an error")
			}
			code, found, _ := examine(t, dsn)
			verdict, fix, _ := strings.Cut(found[tt.check], " → ")
			if code != 1 || verdict != tt.want || fix == "" {
				t.Fatalf("got %d, %s\nwant 1, %s → statements", code, found[tt.check], tt.want)
			}
			runSQL(t, dsn, strings.Split(fix, " → ")...)
			if err := insert(); err != nil {
				t.Errorf("after the statements %s: got %v, want no error", fix, err)
			}
			if _, found, _ := examine(t, dsn); !strings.HasPrefix(found[tt.check], "ok ") {
				t.Errorf("after the statements: got %s, want ok", found[tt.check])
			}
		})
	}
}

// migrateFor grants a role the rights of an app.
func migrateFor(t *testing.T, dsn, role string) {
	t.Helper()
	if code, _, stderr := run(t, nil, "migrate", "--app-role", role, "--database-url", dsn); code != 0 {
		t.Fatalf("migrate: got %d, %s, want 0", code, stderr)
	}
}

// If the role of a hub may not read the sequence of the ids, the doctor does not compare the sequence with the ids. The
// check does not fail.
func TestDoctorMayNotReadTheSequence(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	role, hub := login(t, dsn, "Hub")
	if code, _, stderr := run(t, nil, "migrate", "--hub-role", role, "--database-url", dsn); code != 0 {
		t.Fatalf("migrate: got %d, %s, want 0", code, stderr)
	}
	code, found, out := examine(t, hub)
	if want := "ok only a role with SELECT on the sequence of the ids can see whether it is behind the ids of the rows"; code != 0 || found["ids"] != want {
		t.Errorf("got %d, %s, want 0, %s", code, out, want)
	}
}

func TestDoctorWithoutADatabase(t *testing.T) {
	t.Parallel()
	code, found, out := examine(t, nobodyThere)
	if code != 1 || found["connection"] != "fail "+noConnection || len(found) != 1 || strings.Contains(out, "secret") {
		t.Errorf("got %d, %s, want 1, only the check of the connection, and no password", code, out)
	}
}

func TestDoctorFindsAPooler(t *testing.T) {
	t.Parallel()
	_, found, _ := examine(t, dbtest.PgBouncer(t, dbtest.Database(t), "transaction", 5))
	want := "fail a NOTIFY does not arrive: the connection probably goes through a transaction pooler such as PgBouncer → connect the hub directly to PostgreSQL, or start it with --poll"
	if found["LISTEN"] != want {
		t.Errorf("got  %s\nwant %s", found["LISTEN"], want)
	}
}

// The doctor prints the command that grants a role all rights that it lacks, and the role that must run it. With these
// rights and no others, a hub works. The doctor also reports a low CONNECTION LIMIT of the role, and row security
// policies.
func TestDoctorGrantsTheRights(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	role, hub := login(t, dsn, "Hub")
	runSQL(t, dsn, `ALTER ROLE "`+role+`" CONNECTION LIMIT 5`)
	advice := ` → as the owner of the schema ("postgres"): rowcast migrate --hub-role '` + role + `'`

	code, found, _ := examine(t, hub)
	if begin := `fail the role "` + role + `" lacks rights that a hub needs: USAGE ON SCHEMA rowcast, SELECT ON rowcast.notifications, `; code != 1 ||
		!strings.HasPrefix(found["rights"], begin) || !strings.HasSuffix(found["rights"], advice) || strings.Count(found["rights"], "→") != 1 {
		t.Fatalf("got %d, %s, want 1, and a failure that begins with %s and ends with %s", code, found["rights"], begin, advice)
	}
	code, _, stderr := run(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", hub)
	if want := "rowcast: find the schema: ERROR: permission denied for schema rowcast (SQLSTATE 42501): run rowcast doctor, which prints the missing rights\n"; code != 1 || stderr != want {
		t.Errorf("serve: got %d, %q, want 1, %q", code, stderr, want)
	}

	if code, _, stderr := run(t, nil, "migrate", "--hub-role", role, "--database-url", dsn); code != 0 {
		t.Fatalf("migrate: got %d, %s, want 0", code, stderr)
	}
	code, found, out := examine(t, hub)
	if code != 0 || found["rights"] != "ok the role has the rights that a hub needs to read rows" || found["retention"] != "ok the role can delete old rows" {
		t.Errorf("got %d, %s, want 0 and no missing rights", code, out)
	}
	runSQL(t, dsn, `REVOKE DELETE ON rowcast.notifications FROM "`+role+`"`)
	_, found, _ = examine(t, hub)
	if want := `warn the role "` + role + `" cannot delete old rows: start the hub with --retain=0, or grant the rights` + advice; found["retention"] != want {
		t.Errorf("got  %s\nwant %s", found["retention"], want)
	}
	if want := "free connections; a hub needs up to 8, and a reserve of 4 → raise the role's CONNECTION LIMIT, or connect the apps through a pooler"; !strings.HasSuffix(found["connections"], want) {
		t.Errorf("got  %s\nwant %s at the end", found["connections"], want)
	}
	runSQL(t, dsn, `GRANT DELETE ON rowcast.notifications TO "`+role+`"`)
	tail := serve(t, hub).tail(t, "alice")
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1')`)
	tail.out.await(t, `"data":1}`)

	runSQL(t, dsn, `ALTER TABLE rowcast.notifications ENABLE ROW LEVEL SECURITY`)
	_, found, _ = examine(t, hub)
	if want := "fail row security policies apply to this role, so a hub may refuse to start → ALTER TABLE rowcast.notifications DISABLE ROW LEVEL SECURITY;"; found["row security"] != want {
		t.Errorf("got  %s\nwant %s", found["row security"], want)
	}
}

func dropRole(t *testing.T, dsn, role string) {
	t.Helper()
	conn, err := pgx.Connect(context.Background(), dsn)
	if err != nil {
		t.Error(err)
		return
	}
	defer conn.Close(context.Background())
	for _, statement := range []string{`DROP OWNED BY "` + role + `"`, `DROP ROLE "` + role + `"`} {
		if _, err := conn.Exec(context.Background(), statement); err != nil {
			t.Errorf("%s: %v", statement, err)
		}
	}
}

func TestDoctorReportsTheParkLock(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn, err := pgx.Connect(t.Context(), dsn+"&application_name=other")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1')`); err != nil {
		t.Fatal(err)
	}
	_, found, _ := examine(t, dsn)
	if want := "ok no hub is idle in LISTEN; open transactions that inserted without a notification: 1"; found["park lock"] != want {
		t.Errorf("got  %s\nwant %s", found["park lock"], want)
	}
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	if _, err := conn.Exec(t.Context(), "SELECT pg_advisory_lock(1919907683, 1634956288)"); err != nil {
		t.Fatal(err)
	}
	_, found, _ = examine(t, dsn)
	want := regexp.MustCompile(`^warn a session that is not a hub holds the park lock \(pid \d+, application "other"\), so every INSERT sends a NOTIFY → SELECT pg_terminate_backend\(\d+\);$`)
	if !want.MatchString(found["park lock"]) {
		t.Errorf("got  %s\nwant a match of %s", found["park lock"], want)
	}
}

// A prepared transaction has no process. The doctor reports one that holds the park lock, or blocks a check.
func TestDoctorReportsPreparedTransactions(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		statement string
		want      string
	}{
		"park lock": {"SELECT pg_advisory_xact_lock(1919907683, 1634956288)", `(?m)^warn +park lock +a prepared transaction holds the park lock, ` +
			`so every INSERT sends a NOTIFY, and the hubs poll\n +→ .*ROLLBACK PREPARED$`},
		"table": {"LOCK TABLE rowcast.history", `(?m)^fail .* no answer within 10 s: a prepared transaction blocks the check\n +→ .*ROLLBACK PREPARED$`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			gid := strings.ReplaceAll(t.Name(), "/", " ")
			runSQL(t, dsn, "BEGIN; "+tt.statement+"; SELECT pg_current_xact_id(); PREPARE TRANSACTION '"+gid+"'")
			defer runSQL(t, dsn, "ROLLBACK PREPARED '"+gid+"'")
			if _, _, out := examine(t, dsn); !regexp.MustCompile(tt.want).MatchString(out) {
				t.Errorf("got %s\nwant a match of %s", out, tt.want)
			}
		})
	}
}

// A publication of the table can make each DELETE fail. The doctor reports it.
func TestDoctorFindsAPublicationThatRefusesDeletes(t *testing.T) {
	t.Parallel()
	for _, table := range []string{"notifications", "history"} {
		t.Run(table, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			runSQL(t, dsn, "ALTER TABLE rowcast."+table+" REPLICA IDENTITY NOTHING")
			if _, found, _ := examine(t, dsn); found["retention"] != "ok the role can delete old rows" {
				t.Errorf("without a publication: got %s", found["retention"])
			}
			runSQL(t, dsn, "CREATE PUBLICATION all_rows FOR TABLE rowcast."+table)
			want := regexp.MustCompile(`^warn a publication keeps hubs from deleting old rows: cannot (delete from|update) table "` + table +
				`" because it does not have a replica identity .* → ALTER PUBLICATION … SET \(publish = 'insert'\)`)
			if code, found, _ := examine(t, dsn); code != 0 || !want.MatchString(found["retention"]) {
				t.Errorf("got the exit code %d and %s, want 0 and a match of %s", code, found["retention"], want)
			}
		})
	}
}

// The doctor prints the whole statement that creates a missing function. The statement mends the schema.
func TestDoctorPrintsAFunction(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	runSQL(t, dsn, "DROP FUNCTION rowcast.cursor()")
	_, _, out := examine(t, dsn)
	_, rest, found := strings.Cut(out, "function rowcast.cursor() is missing")
	statement, _, ended := strings.Cut(rest, "$function$;")
	if !found || !ended {
		t.Fatalf("got %s, want the statement that creates the function", out)
	}
	runSQL(t, dsn, strings.Replace(statement, "→", "", 1)+"$function$;")
	if code, fixed, out := examine(t, dsn); code != 0 || !strings.HasPrefix(fixed["functions"], "ok") {
		t.Errorf("after the statement: got %d, %s, want 0 and the verdict ok for the functions", code, out)
	}
}

// A new function of the inbox can be called by every role, so the doctor prints a second statement that revokes this right.
// The arrow shows that it is a statement of its own.
func TestDoctorPrintsTheREVOKEOfAFunction(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	runSQL(t, dsn, "DROP FUNCTION rowcast.inbox_visit(text)")
	_, found, out := examine(t, dsn)
	want := "fail function rowcast.inbox_visit(me text) is missing → CREATE OR REPLACE FUNCTION rowcast.inbox_visit(me text)" +
		" → REVOKE ALL ON FUNCTION rowcast.inbox_visit(me text) FROM PUBLIC;"
	if found["functions"] != want {
		t.Errorf("got  %s\nwant %s\n%s", found["functions"], want, out)
	}
}

func TestDoctorNamesTheSessionThatBlocksIt(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn, err := pgx.Connect(t.Context(), dsn+"&application_name=blocker")
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if _, err := conn.Exec(t.Context(), "BEGIN; LOCK TABLE rowcast.history"); err != nil {
		t.Fatal(err)
	}
	code, _, out := examine(t, dsn)
	want := regexp.MustCompile(fmt.Sprintf(`(?m)^fail .* no answer within 10 s: process %d of the role postgres \(application "blocker", idle in transaction\) blocks the check\n +→ .*SELECT pg_terminate_backend\(%[1]d\);$`, conn.PgConn().PID()))
	if code != 1 || !want.MatchString(out) {
		t.Errorf("got %d, %s\nwant a match of %s", code, out, want)
	}
}

// doctor --role examines the rights of the role of an app. If the role lacks rights, the output does not name rights
// that only a hub needs.
func TestDoctorExaminesTheRoleOfAnApp(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	role, app := login(t, dsn, "App")
	doctor := func() (int, string) {
		code, out, _ := run(t, nil, "doctor", "--database-url", dsn, "--role", role)
		return code, out
	}
	if code, out, _ := run(t, nil, "doctor", "--database-url", dsn, "--role", "no such"); code != 1 ||
		!strings.Contains(out, `the role "no such" does not exist`) || !strings.Contains(out, `→ CREATE ROLE "no such" LOGIN;`) {
		t.Errorf("a role that does not exist: got %d, %s, want 1, an error that says so, and CREATE ROLE", code, out)
	}
	code, out := doctor()
	if want := "→ rowcast migrate --app-role '" + role + "'\n"; code != 1 || !strings.Contains(out, want) || strings.Contains(out, "epoch") {
		t.Fatalf("got %d, %s, want 1, %q and no epoch", code, out, want)
	}
	if code, _, stderr := run(t, nil, "migrate", "--database-url", dsn, "--app-role", role); code != 0 {
		t.Fatalf("migrate: got %d, %s, want 0", code, stderr)
	}
	if code, out := doctor(); code != 0 || !strings.Contains(out, "the rights of an app (--app-role)") || !strings.Contains(out, "the role cannot change or delete") {
		t.Errorf("got %d, %s, want 0 and the rights of an app", code, out)
	}
	if code, _, stderr := run(t, nil, "migrate", "--database-url", dsn, "--inbox"); code != 0 {
		t.Fatalf("migrate --inbox: got %d, %s, want 0", code, stderr)
	}
	code, out = doctor()
	if want := "but may not call the functions of the inbox\n                    → rowcast migrate --app-role '" + role + "'\n"; code != 0 || !strings.Contains(out, want) {
		t.Errorf("got %d, %s, want 0 and %s", code, out, want)
	}
	migrateFor(t, dsn, role)
	if code, out := doctor(); code != 0 || !strings.Contains(out, "the rights of an app (--app-role)") {
		t.Errorf("got %d, %s, want 0 and the rights of an app", code, out)
	}

	_, found, _ := examine(t, app)
	if want := `fail the role "` + role + `" lacks rights that a hub needs; it can insert notifications, so it is probably the role of an app → connect as the role of the hub, or check the role of an app with rowcast doctor --role`; found["rights"] != want {
		t.Errorf("as the role of an app: got  %s\nwant %s", found["rights"], want)
	}
	runSQL(t, dsn, `GRANT DELETE ON rowcast.notifications TO "`+role+`"`)
	if _, out := doctor(); !strings.Contains(out, `→ REVOKE DELETE ON rowcast.notifications FROM "`+role+`";`) {
		t.Errorf("with DELETE: got %s, want a statement that revokes DELETE", out)
	}
	runSQL(t, dsn, `GRANT UPDATE (data) ON rowcast.notifications TO PUBLIC`)
	if _, out := doctor(); !strings.Contains(out, `→ REVOKE UPDATE (data) ON rowcast.notifications FROM "`+role+`";`) || !strings.Contains(out, "FROM PUBLIC") {
		t.Errorf("with UPDATE of a column for everyone: got %s, want a statement that revokes UPDATE (data), and a hint about PUBLIC", out)
	}
	runSQL(t, dsn, `REVOKE UPDATE (data) ON rowcast.notifications FROM PUBLIC`)
	runSQL(t, dsn, `GRANT UPDATE ON rowcast.notifications TO "`+role+`"`)
	if _, out := doctor(); !strings.Contains(out, "→ REVOKE UPDATE ON rowcast.notifications FROM") || strings.Contains(out, "UPDATE (data)") {
		t.Errorf("with UPDATE: got %s, want a statement that revokes UPDATE, and none for the column data", out)
	}
	runSQL(t, dsn, `REVOKE UPDATE ON rowcast.notifications FROM "`+role+`"`)
	runSQL(t, dsn, `REVOKE DELETE, SELECT ON rowcast.notifications FROM "`+role+`"`, `GRANT SELECT (id) ON rowcast.notifications TO "`+role+`"`)
	if code, out := doctor(); code != 0 || !strings.Contains(out, "the rights of a sender (--sender-role)") {
		t.Errorf("as a sender: got %d, %s, want 0 and the rights of a sender", code, out)
	}
}

// doctor --role does not examine the role of a hub. Otherwise it would print statements that revoke rights which the
// hub needs. For the owner of the schema, it advises to let the app connect as another role, and prints no such
// statements either: without these rights, rowcast migrate and a hub of the same role would fail.
func TestDoctorRecognisesTheRoleOfAHub(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	hub, _ := login(t, dsn, "Hub")
	owner, ownerDSN := login(t, dsn, "Owner")
	runSQL(t, dsn, `GRANT CREATE ON DATABASE `+valueOf(t, dsn, "SELECT current_database()")+` TO "`+owner+`"`)
	if code, _, stderr := run(t, nil, "migrate", "--database-url", ownerDSN, "--hub-role", hub); code != 0 {
		t.Fatalf("migrate: got %d, %s, want 0", code, stderr)
	}
	code, out, _ := run(t, nil, "doctor", "--database-url", dsn, "--role", hub)
	if want := "this looks like the role of a hub, which needs more rights than an app\n                    → run rowcast doctor as that role, without --role\n"; code != 1 || !strings.Contains(out, want) || strings.Contains(out, "REVOKE") {
		t.Errorf("got %d, %s, want 1, %q and no REVOKE", code, out, want)
	}
	if code, out, _ := run(t, nil, "doctor", "--database-url", dsn, "--role", owner); code != 0 || !strings.Contains(out, "let the app connect as another role") || strings.Contains(out, "REVOKE") {
		t.Errorf("the owner of the schema: got %d, %s, want 0, the advice to let the app connect as another role, and no REVOKE", code, out)
	}
}

// Without a schema, or with an old one, the doctor advises to run rowcast migrate. If the role of the session cannot
// run it, the doctor says which role must.
func TestDoctorSaysWhoMustMigrate(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	hub, hubDSN := login(t, dsn, "hub")
	owner, ownerDSN := login(t, dsn, "owner")
	database := valueOf(t, dsn, "SELECT current_database()")
	runSQL(t, dsn, `ALTER DATABASE `+database+` OWNER TO "`+owner+`"`)
	defer runSQL(t, dsn, `ALTER DATABASE `+database+` OWNER TO postgres`) // so that the role can be dropped
	const none = "fail there is no schema rowcast in this database → "
	byOwner := func(of string) string {
		return fmt.Sprintf(`as the owner of the %s ("%s"): rowcast migrate --hub-role '%s'`, of, owner, hub)
	}
	for dsn, want := range map[string]string{hubDSN: none + byOwner("database"), ownerDSN: none + "rowcast migrate", dsn: none + "rowcast migrate"} {
		if _, found, out := examine(t, dsn); found["schema"] != want {
			t.Errorf("got %s, want %s", out, want)
		}
	}
	if code, _, stderr := run(t, nil, "migrate", "--hub-role", hub, "--database-url", ownerDSN); code != 0 {
		t.Fatalf("migrate: got %d, %s, want 0", code, stderr)
	}
	runSQL(t, dsn, "UPDATE rowcast.migrations SET version_id = 0")
	for as, end := range map[string]string{hubDSN: byOwner("schema"), ownerDSN: "rowcast migrate", dsn: strings.Replace(byOwner("schema"), hub, "postgres", 1)} {
		end = " is needed → " + strings.ReplaceAll(end, "'postgres'", "postgres")
		if _, found, out := examine(t, as); !strings.HasSuffix(found["migrations"], end) {
			t.Errorf("with an old schema: got %s, want %s", out, end)
		}
	}
}

// doctor --role finds rights with which an app could disturb the hubs, and faults that make the INSERTs of the role
// fail.
func TestDoctorFindsRightsThatAnAppDoesNotNeed(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	role, _ := login(t, dsn, "App")
	migrateFor(t, dsn, role)
	doctor := func(want ...string) (fixes []string) {
		t.Helper()
		_, out, _ := run(t, nil, "doctor", "--database-url", dsn, "--role", role)
		for _, text := range want {
			if !strings.Contains(out, text) {
				t.Errorf("got %s, want %s", out, text)
			}
		}
		for _, fix := range regexp.MustCompile(`(?m)→ ([A-Z].*;)`).FindAllStringSubmatch(out, -1) {
			fixes = append(fixes, fix[1])
		}
		return fixes
	}
	if fixes := doctor("the role cannot change or delete notifications"); len(fixes) != 0 {
		t.Errorf("the rights of an app: got %s, want nothing to revoke", fixes)
	}
	to := ` TO "` + role + `"`
	runSQL(
		t, dsn,
		"GRANT UPDATE (token) ON rowcast.epoch"+to, "GRANT TRUNCATE, INSERT ON rowcast.history"+to, "GRANT ALL ON rowcast.migrations"+to,
		"GRANT REFERENCES, INSERT ON rowcast.notifications"+to, "GRANT UPDATE ON SEQUENCE rowcast.notifications_id_seq"+to,
		"ALTER TABLE rowcast.notifications ENABLE ROW LEVEL SECURITY", "REVOKE EXECUTE ON FUNCTION octet_length(text) FROM PUBLIC",
		`ALTER ROLE "`+role+`" SET default_transaction_read_only = on`,
	)
	fixes := doctor(
		"UPDATE (token) ON rowcast.epoch", "TRUNCATE ON rowcast.history", "INSERT ON rowcast.history", "DELETE ON rowcast.migrations",
		"REFERENCES ON rowcast.notifications", "INSERT ON rowcast.notifications", "UPDATE ON SEQUENCE rowcast.notifications_id_seq",
		"has row level security", "pg_catalog.octet_length(text)", "default_transaction_read_only is on",
	)
	runSQL(t, dsn, fixes...)
	if fixes := doctor("the role cannot change or delete notifications", "the rights of an app (--app-role)"); len(fixes) != 0 {
		t.Errorf("after the statements: got %s, want nothing to revoke", fixes)
	}
}

// If the owner of a watched table has lost the right to insert notifications, or to call a function that the table's
// trigger calls, the doctor prints the GRANT that mends this.
func TestDoctorGrantsTheRightsOfAWatcher(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	role, _ := login(t, dsn, "Owner")
	runSQL(
		t, dsn, `CREATE SCHEMA AUTHORIZATION "`+role+`"`, `CREATE TABLE "`+role+`".orders (customer text)`, `ALTER TABLE "`+role+`".orders OWNER TO "`+role+`"`,
		`SELECT rowcast.watch('"`+role+`".orders', recipient => 'customer')`,
	)
	for _, right := range []string{"INSERT (data) ON rowcast.notifications", "EXECUTE ON FUNCTION rowcast.recipients(text)"} {
		runSQL(t, dsn, "REVOKE "+right+" FROM PUBLIC", "REVOKE "+right+` FROM "`+role+`"`)
		code, found, _ := examine(t, dsn)
		want := "fail the owner of a watched table lacks rights, so statements on the table fail or send nothing → GRANT " + right + ` TO "` + role + `";`
		if code != 1 || found["watched"] != want {
			t.Fatalf("got %d, %s, want 1, %s", code, found["watched"], want)
		}
		_, grant, _ := strings.Cut(want, " → ")
		runSQL(t, dsn, grant, `INSERT INTO "`+role+`".orders VALUES ('alice')`)
		if _, found, _ := examine(t, dsn); found["watched"] != "ok tables that are watched: 1" {
			t.Errorf("after the statement: got %s, want ok", found["watched"])
		}
	}
}

func TestDoctorFindsAChangedCollation(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	_, found, _ := examine(t, dsn)
	if strings.HasPrefix(found["collation"], "ok not checked: PostgreSQL records the version") {
		t.Skip("this server is older than PostgreSQL 15")
	}
	runSQL(t, dsn, "UPDATE pg_database SET datcollversion = '1.0' WHERE datname = current_database()")
	_, found, _ = examine(t, dsn)
	want := regexp.MustCompile(`^warn the collation of the database had version 1\.0 and has version .* now, .* → REINDEX DATABASE test_\w+; → ALTER DATABASE test_\w+ REFRESH COLLATION VERSION;$`)
	if !want.MatchString(found["collation"]) {
		t.Errorf("got  %s\nwant a match of %s", found["collation"], want)
	}
}

func TestDoctorRefusesSQLASCII(t *testing.T) {
	t.Parallel()
	c := dbtest.Cluster(t)
	runSQL(t, c.DSN("postgres"), "CREATE DATABASE other ENCODING 'SQL_ASCII' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	code, found, _ := examine(t, c.DSN("other"))
	want := "fail text in the encoding of this database (SQL_ASCII) cannot be converted to UTF-8 → create a database with CREATE DATABASE ... ENCODING 'UTF8' TEMPLATE template0, and copy the data with pg_dump"
	if code != 1 || found["encoding"] != want {
		t.Errorf("got %d, %s, want 1, %s", code, found["encoding"], want)
	}
}

// A commit waits until it has reached as many standbys as synchronous_standby_names requires. This server has one
// standby. If the setting requires more, or another one, the doctor warns.
func TestDoctorCountsTheSynchronousStandbys(t *testing.T) {
	t.Parallel()
	primary := dbtest.Cluster(t)
	standby := dbtest.Standby(t, primary)
	dsn := primary.DSN("postgres")
	const missing = "warn commits do not end, and their rows are not sent: " +
		"the number of standbys that are connected and up to date is %d, and synchronous_standby_names = %s requires %d" +
		" → start the missing standbys, and wait until they have caught up; .*"
	want := func(names, want string) {
		t.Helper()
		runSQL(t, dsn, "ALTER SYSTEM SET synchronous_standby_names = '"+names+"'", "SELECT pg_reload_conf()")
		pattern := regexp.MustCompile("^" + want + "$")
		for deadline := time.Now().Add(waitLimit); ; { // the processes of the server read the setting one after another
			_, found, _ := examine(t, dsn)
			if pattern.MatchString(found["standbys"]) {
				return
			}
			if time.Now().After(deadline) {
				t.Fatalf("waited %v; got %s, want a match of %s", waitLimit, found["standbys"], pattern)
			}
		}
	}
	want("FIRST 1 (*)", `ok commits wait for standbys \(synchronous_standby_names = FIRST 1 \(\*\)\), and rows are sent after that`)
	want("FIRST 2 (*)", fmt.Sprintf(missing, 1, `FIRST 2 \(\*\)`, 2))
	want("ANY 2 (*)", fmt.Sprintf(missing, 1, `ANY 2 \(\*\)`, 2))
	want("nobody", fmt.Sprintf(missing, 0, "nobody", 1))
	if err := standby.Stop(dbtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	want("*", fmt.Sprintf(missing, 0, `\*`, 1))
}
