package main_test

import (
	"os/exec"
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

func TestMigrate(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	// The same variable as every other program's.
	for _, want := range []string{"The schema rowcast is installed: version 2.\n", "The schema rowcast is up to date: version 2.\n"} {
		code, stdout, stderr := run(t, environment{"DATABASE_URL": dsn}, "migrate")
		if code != 0 || stdout != want || stderr != "" {
			t.Errorf("got %d, %q, %q, want 0, %q", code, stdout, stderr, want)
		}
	}
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (data) VALUES ('1')`)
}

// A database of the version before is upgraded, and serves as one that was new.
func TestMigrateUpgrades(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	runSQL(t, dsn, "ALTER TABLE rowcast.history DROP COLUMN xid; DELETE FROM rowcast.migrations WHERE version_id = 2")
	code, stdout, stderr := run(t, nil, "migrate", "--database-url", dsn)
	if want := "The schema rowcast is upgraded from version 1 to 2.\n"; code != 0 || stdout != want {
		t.Errorf("got %d, %q, %q, want 0, %q", code, stdout, stderr, want)
	}
	serve := start(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", dsn)
	serve.err.await(t, "msg=listening")
}

// What --print prints, psql makes the same schema of as migrate does.
func TestMigratePrint(t *testing.T) {
	t.Parallel()
	psql := dbtest.Client(t, "psql")
	code, printed, stderr := run(t, nil, "migrate", "--print")
	if code != 0 || stderr != "" {
		t.Fatalf("got %d, %q", code, stderr)
	}
	dsn := dbtest.Empty(t)
	apply := exec.CommandContext(dbtest.Context(t), psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", dsn)
	apply.Stdin = strings.NewReader(printed)
	if out, err := apply.CombinedOutput(); err != nil || len(out) > 0 {
		t.Fatalf("psql: %v: %s", err, out)
	}
	code, stdout, stderr := run(t, nil, "migrate", "--database-url", dsn)
	if want := "The schema rowcast is up to date: version 2.\n"; code != 0 || stdout != want {
		t.Errorf("got %d, %q, %q, want 0, %q", code, stdout, stderr, want)
	}
}

func TestMigrateFails(t *testing.T) {
	t.Parallel()
	newer := dbtest.Database(t)
	runSQL(t, newer, `INSERT INTO rowcast.migrations (version_id, is_applied) VALUES (9999, true)`)
	tests := []struct{ dsn, want string }{
		{newer, "schema is at version 9999, this rowcast knows only up to 2: upgrade rowcast"},
		{nobodyThere, noConnection},
		{"postgres://me:secret%zz@db/app", unreadable},
		{"host=db password=secret sslmode=whatever", unreadable},
	}
	for _, tt := range tests {
		code, stdout, stderr := run(t, nil, "migrate", "--database-url", tt.dsn)
		if want := "rowcast: " + tt.want + "\n"; code != 1 || stdout != "" || stderr != want {
			t.Errorf("%s: got %d, %q, %q, want 1, %q", tt.dsn, code, stdout, stderr, want)
		}
	}
}

// nobodyThere is a database URL where nothing listens: port 1 is reserved for what nobody runs.
const (
	nobodyThere  = "postgres://me:secret@127.0.0.1:1/app"
	noConnection = `no connection to PostgreSQL at 127.0.0.1:1, database "app", user "me": connect: connection refused`
	unreadable   = "the database URL cannot be read: it should look like postgres://user:password@host:5432/name, " +
		"with special characters in the password percent-encoded"
)
