package main_test

import (
	"context"
	"net/url"
	"regexp"
	"strings"
	"testing"

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

func TestDoctorFindsNothing(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn)
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_park_lock_acquired_total 1$`)
	code, found, out := examine(t, dsn)
	for check, want := range map[string]string{
		"connection":   `ok .*, database "test_.*", as role "postgres"`,
		"version":      `ok PostgreSQL \d+.*`,
		"primary":      `ok this is not a standby`,
		"LISTEN":       `ok a NOTIFY arrives after .*s`,
		"connections":  `ok the server has \d+ free connections; a hub needs up to 8`,
		"timeouts":     `ok no timeout is set`,
		"standbys":     `ok commits do not wait for a standby`,
		"NOTIFY queue": `ok 0 % full`,
		"transactions": `ok no transaction that writes has been open for more than a minute`,
		"schema":       `ok the schema rowcast exists`,
		"rights":       `ok the role has the rights that a hub needs to read rows`,
		"retention":    `ok the role can delete old rows`,
		"row security": `ok no row security policy hides rows from this role`,
		"migrations":   `ok the schema has version ` + schemaVersion + `, which this rowcast needs, or a later one`,
		"trigger":      `ok it is enabled in all sessions`,
		"tables":       `ok only rowcast.epoch is UNLOGGED`,
		"rows":         `ok all rows have transaction numbers of this server`,
		"hubs":         `ok hubs connected: 1`,
		"park lock":    `ok a hub sleeps until a notification arrives \(LISTEN\), and INSERTs notify it`,
		"reading":      `ok new rows can be read`,
	} {
		if !regexp.MustCompile("^" + want + "$").MatchString(found[check]) {
			t.Errorf("%s: got %q, want a match of %q", check, found[check], want)
		}
	}
	if code != 0 || len(found) != 20 || !strings.HasSuffix(out, "\n\nNo problem found.\n") {
		t.Errorf("got %d, %d checks, %s, want 0, 20 checks and no problem", code, len(found), out)
	}
}

func TestDoctorFinds(t *testing.T) {
	t.Parallel()
	const ring = " → ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER ring;"
	tests := []struct {
		name, check string
		harm        []string
		want        string
	}{
		{"no trigger", "trigger", []string{"DROP TRIGGER ring ON rowcast.notifications"}, "fail the table rowcast.notifications has no trigger ring, so a sleeping hub finds new rows only by its safety poll, within about a second → drop the schema and run rowcast migrate, or create the trigger with its statement in rowcast migrate --print"},
		{"disabled trigger", "trigger", []string{"ALTER TABLE rowcast.notifications DISABLE TRIGGER ring"}, "fail the trigger is disabled, so a sleeping hub finds new rows only by its safety poll, within about a second" + ring},
		{"replica trigger", "trigger", []string{"ALTER TABLE rowcast.notifications ENABLE REPLICA TRIGGER ring"}, "fail the trigger fires only in sessions with session_replication_role = replica" + ring},
		{"ordinary trigger", "trigger", []string{"ALTER TABLE rowcast.notifications ENABLE TRIGGER ring"}, "warn the trigger does not fire in sessions with session_replication_role = replica" + ring},
		{"logged epoch", "tables", []string{"ALTER TABLE rowcast.epoch SET LOGGED"}, "fail rowcast.epoch is not UNLOGGED, so hubs do not detect a crash → ALTER TABLE rowcast.epoch SET UNLOGGED;"},
		{
			"unlogged tables", "tables",
			[]string{"ALTER TABLE rowcast.notifications SET UNLOGGED", "ALTER TABLE rowcast.migrations SET UNLOGGED"},
			"fail only rowcast.epoch may be UNLOGGED, but a crash would also empty rowcast.migrations, rowcast.notifications" +
				" → ALTER TABLE rowcast.migrations SET LOGGED; → ALTER TABLE rowcast.notifications SET LOGGED;",
		},
		{"a restored dump", "rows", looksRestored, "fail the table was restored from a dump of another server, and the transaction numbers of its rows mean other transactions here → rowcast migrate"},
		{
			"forged rows", "rows",
			[]string{"INSERT INTO rowcast.notifications (data, xid) VALUES ('1', '9999999999')", "UPDATE rowcast.history SET database = (SELECT oid FROM pg_database WHERE datname = current_database())"},
			"fail some rows have transaction numbers that this server has not assigned, so they are never sent → remove xid from the INSERTs of the app; UPDATE rowcast.notifications SET xid = '1' WHERE xid >= pg_snapshot_xmin(pg_current_snapshot()) AND NOT pg_visible_in_snapshot(xid, pg_current_snapshot());",
		},
		{"an old schema", "migrations", []string{"UPDATE rowcast.migrations SET version_id = 0"}, "fail schema rowcast is missing, incomplete or too old: it has version 0, and version " + schemaVersion + " is needed → rowcast migrate"},
		{
			"a missing function", "reading",
			[]string{"DROP FUNCTION rowcast.epoch_tag() CASCADE"},
			"fail a hub cannot read new rows: read epoch: ERROR: function rowcast.epoch_tag() does not exist (SQLSTATE 42883)",
		},
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

func TestDoctorWithoutADatabase(t *testing.T) {
	t.Parallel()
	code, found, out := examine(t, nobodyThere)
	if code != 1 || found["connection"] != "fail "+noConnection || len(found) != 1 || strings.Contains(out, "secret") {
		t.Errorf("got %d, %s, want 1, only the check of the connection, and no password", code, out)
	}
}

func TestDoctorFindsAPooler(t *testing.T) {
	t.Parallel()
	_, found, _ := examine(t, pooler(t, dbtest.Database(t)))
	want := "fail a NOTIFY does not arrive: the connection goes through a transaction pooler such as PgBouncer → connect the hub directly to PostgreSQL, or start it with --poll"
	if found["LISTEN"] != want {
		t.Errorf("got  %s\nwant %s", found["LISTEN"], want)
	}
}

// The doctor prints the statements that grant a role the rights that it lacks. With these rights and no others, a hub
// works. The doctor also reports a low CONNECTION LIMIT of the role, and row security policies.
func TestDoctorGrantsTheRights(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	u, err := url.Parse(dsn)
	if err != nil {
		t.Fatal(err)
	}
	role := "Hub of " + strings.TrimPrefix(u.Path, "/")
	runSQL(t, dsn, `CREATE ROLE "`+role+`" LOGIN PASSWORD 'x' CONNECTION LIMIT 5`)
	t.Cleanup(func() { dropRole(t, dsn, role) })
	u.User = url.UserPassword(role, "x")

	code, found, _ := examine(t, u.String())
	verdict, mend, _ := strings.Cut(found["rights"], " → ")
	if code != 1 || verdict != `fail the role "`+role+`" lacks rights that a hub needs` {
		t.Fatalf("got %d, %s, want 1 and a failure because rights are missing", code, found["rights"])
	}
	code, _, stderr := run(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", u.String())
	if want := "rowcast: find the schema: ERROR: permission denied for schema rowcast (SQLSTATE 42501): run rowcast doctor, which prints the missing rights\n"; code != 1 || stderr != want {
		t.Errorf("serve: got %d, %q, want 1, %q", code, stderr, want)
	}

	runSQL(t, dsn, strings.Split(mend, " → ")...)
	code, found, out := examine(t, u.String())
	if code != 0 || found["rights"] != "ok the role has the rights that a hub needs to read rows" {
		t.Errorf("got %d, %s, want 0 and no missing rights", code, out)
	}
	verdict, mend, _ = strings.Cut(found["retention"], " → ")
	if want := `warn the role "` + role + `" cannot delete old rows: start the hub with --retain=0, or grant the rights`; verdict != want {
		t.Errorf("got %s, want %s", verdict, want)
	}
	runSQL(t, dsn, strings.Split(mend, " → ")...)
	if _, found, _ := examine(t, u.String()); found["retention"] != "ok the role can delete old rows" {
		t.Errorf("got %s, want that the role can delete old rows", found["retention"])
	}
	if want := "free connections; a hub needs up to 8, and a reserve of 4 → raise the role's CONNECTION LIMIT, or connect the apps through a pooler"; !strings.HasSuffix(found["connections"], want) {
		t.Errorf("got  %s\nwant %s at the end", found["connections"], want)
	}
	tail := serve(t, u.String()).tail(t, "alice")
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (data) VALUES ('1')`)
	tail.out.await(t, `"data":1}`)

	runSQL(t, dsn, `ALTER TABLE rowcast.notifications ENABLE ROW LEVEL SECURITY`)
	_, found, _ = examine(t, u.String())
	if want := "fail row security policies hide rows from this role, so the hub would refuse to start → give the role BYPASSRLS, or make it the owner of the tables, which must not have FORCE ROW LEVEL SECURITY"; found["row security"] != want {
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
	if _, err := tx.Exec(t.Context(), `INSERT INTO rowcast.notifications (data) VALUES ('1')`); err != nil {
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
	want := regexp.MustCompile(`^warn another session than a hub holds it \(pid \d+, application "other"\), so every INSERT sends a NOTIFY → SELECT pg_terminate_backend\(\d+\);$`)
	if !want.MatchString(found["park lock"]) {
		t.Errorf("got  %s\nwant a match of %s", found["park lock"], want)
	}
}
