package sql_test

import (
	"fmt"
	"os/exec"
	"strings"
	"testing"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// printed returns the text of a script.
func printed(t *testing.T, script sql.Script) string {
	t.Helper()
	var text strings.Builder
	if err := script.Print(&text); err != nil {
		t.Fatal(err)
	}
	return text.String()
}

// applyScript runs a script with psql, which must print nothing.
func applyScript(t *testing.T, psql, dsn string, script sql.Script) {
	t.Helper()
	apply := exec.CommandContext(dbtest.Context(t), psql, "-qX", "-v", "ON_ERROR_STOP=1", dsn)
	apply.Stdin = strings.NewReader(printed(t, script))
	if out, err := apply.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("psql: got %v and the output %q, want no error and no output", err, out)
	}
}

func TestPrintedScriptDoesWhatMigrateDoes(t *testing.T) {
	t.Parallel()
	psql, pgDump := dbtest.Client(t, "psql"), dbtest.Client(t, "pg_dump")
	scripted, migrated := dbtest.Empty(t), dbtest.Empty(t)
	applyScript(t, psql, scripted, sql.Script{})
	if from, _, err := sql.Migrate(dbtest.Context(t), scripted); err != nil || from != sql.Version() {
		t.Errorf("after Print, Migrate found version %d, %v; want %d", from, err, sql.Version())
	}
	if _, _, err := sql.Migrate(dbtest.Context(t), migrated); err != nil {
		t.Fatal(err)
	}
	if got, want := dump(t, pgDump, scripted), dump(t, pgDump, migrated); got != want {
		t.Errorf("the schemas differ; from the script:\n%s\nfrom Migrate:\n%s", got, want)
	}
}

// Frameworks run their migrations again in a database that has the schema, because they drop only the tables of the
// app. The script then changes nothing, or upgrades the schema. It keeps all rows.
func TestPrintedScriptRunsAgain(t *testing.T) {
	t.Parallel()
	psql, pgDump := dbtest.Client(t, "psql"), dbtest.Client(t, "pg_dump")
	want := dump(t, pgDump, dbtest.Database(t))
	for version := 1; version <= int(sql.Version()); version++ {
		t.Run(fmt.Sprint("from version ", version), func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Empty(t)
			conn := connect(t, dsn)
			installUpTo(t, conn, version)
			run(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')")
			for range 2 {
				applyScript(t, psql, dsn, sql.Script{})
				if got := dump(t, pgDump, dsn); got != want {
					t.Fatalf("got the schema\n%s\nwant\n%s", got, want)
				}
			}
			if err := sql.Check(dbtest.Context(t), conn); err != nil {
				t.Error(err)
			}
			wantNotifications(t, conn, "alice message 1")
			const versions = "SELECT string_agg(version_id::text, ' ' ORDER BY id) FROM rowcast.migrations"
			if got, want := text(t, conn, versions), text(t, conn, fmt.Sprintf("SELECT string_agg(i::text, ' ' ORDER BY i) FROM generate_series(0, %d) i", sql.Version())); got != want {
				t.Errorf("got the recorded versions %s, want %s", got, want)
			}
		})
	}
}

// A script does not change a schema of a newer version.
func TestPrintedScriptOfAnOlderProgram(t *testing.T) {
	t.Parallel()
	psql, pgDump := dbtest.Client(t, "psql"), dbtest.Client(t, "pg_dump")
	dsn := dbtest.Database(t)
	run(t, connect(t, dsn), "INSERT INTO rowcast.migrations (version_id, is_applied) VALUES (9999, true); DROP FUNCTION rowcast.unwatch")
	want := dump(t, pgDump, dsn)
	applyScript(t, psql, dsn, sql.Script{})
	if got := dump(t, pgDump, dsn); got != want {
		t.Errorf("got the schema\n%s\nwant\n%s", got, want)
	}
}

// The script waits for the lock of migrations, so it does not run at the same time as Migrate.
func TestPrintedScriptTakesTheLock(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	conn := connect(t, dsn)
	run(t, connect(t, dsn), "SELECT pg_advisory_lock(4097083626)")
	run(t, conn, "SET lock_timeout = '100ms'")
	if _, err := conn.Exec(dbtest.Context(t), printed(t, sql.Script{})); err == nil || !strings.Contains(err.Error(), "lock timeout") {
		t.Errorf("while another session holds the lock: got %v, want a lock timeout", err)
	}
}

// Doctrine, Ecto and others prepare the SQL of a migration, and PostgreSQL prepares only one statement at once. The
// script also needs one transaction, with its lock and search_path, if the tool runs without one. The name of a role may
// look like a quote of the script.
func TestPrintedScriptIsOneStatement(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Empty(t))
	app := createRole(t, conn, "app$part$rowcast$$_$")
	run(t, conn, "SET standard_conforming_strings = off")
	script := printed(t, sql.Script{NoTransaction: true, Inbox: true, Roles: sql.Roles{Apps: []string{app}}})
	for range 2 { // the second run changes nothing
		if _, err := conn.PgConn().ExecParams(dbtest.Context(t), script, nil, nil, nil, nil).Close(); err != nil {
			t.Fatal(err)
		}
	}
	if got := text(t, conn, "SELECT concat_ws(' ', current_setting('search_path'), current_setting('standard_conforming_strings'))"); got != `"$user", public off` {
		t.Errorf("got the settings %s, want those from before the script", got)
	}
	if missing, err := sql.Missing(dbtest.Context(t), conn, app, sql.AppRights()...); err != nil || len(missing) > 0 {
		t.Errorf("got the missing rights %v, %v, want none", missing, err)
	}
	run(t, conn, "SET search_path = pg_catalog; SET standard_conforming_strings = on")
	if all, err := sql.Differences(dbtest.Context(t), conn); err != nil || len(all) > 0 {
		t.Errorf("Differences: got %v, %v, want none", all, err)
	}
	if err := sql.CheckInbox(dbtest.Context(t), conn); err != nil {
		t.Errorf("CheckInbox: %v", err)
	}
}

func TestPrintedScriptGrantsRights(t *testing.T) {
	t.Parallel()
	psql := dbtest.Client(t, "psql")
	dsn := dbtest.Empty(t)
	conn := connect(t, dsn)
	app, hub := createRole(t, conn, "app"), createRole(t, conn, "hub")
	applyScript(t, psql, dsn, sql.Script{Roles: sql.Roles{Apps: []string{app}, Hubs: []string{hub}}})
	for role, rights := range map[string][]sql.Right{app: sql.AppRights(), hub: append(sql.HubRights(), sql.RetentionRights()...)} {
		if missing, err := sql.Missing(dbtest.Context(t), conn, role, rights...); err != nil || len(missing) > 0 {
			t.Errorf("role %s: got the missing rights %v, %v, want none", role, missing, err)
		}
	}
}
