package main_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql/dbtest"
)

// Without a database URL, libpq's environment variables determine the database.
func TestDatabaseOfLibpqsVariables(t *testing.T) {
	t.Parallel()
	config, err := pgconn.ParseConfig(dbtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	migrate := command(t, t.TempDir(), "migrate")
	_, address := pgconn.NetworkAddress(config.Host, config.Port)
	port := address[strings.LastIndexAny(address, ".:")+1:]
	migrate.Env = append(migrate.Env, "PGHOST="+config.Host, "PGPORT="+port, "PGUSER="+config.User, "PGDATABASE="+config.Database)
	out, err := migrate.CombinedOutput()
	if want := "The schema rowcast is up to date: version " + schemaVersion + ".\n"; err != nil || string(out) != want {
		t.Errorf("got the error %v, %q, want no error, %q", err, out, want)
	}
}

func TestNoDatabaseIsGiven(t *testing.T) {
	t.Parallel()
	migrate := command(t, t.TempDir(), "migrate")
	migrate.Env = append(migrate.Env, "PGPORT=1", "PGUSER=me")
	out, err := migrate.CombinedOutput()
	const begin, end = "rowcast: cannot connect to PostgreSQL at ", " (no database is given: use --database-url or DATABASE_URL)\n"
	if got := string(out); exitCode(err) != 1 || !strings.HasPrefix(got, begin) || !strings.HasSuffix(got, end) || strings.Count(got, "\n") != 1 {
		t.Errorf("got %v, %q, want exit code 1 and one line that begins with %q and ends with %q", err, got, begin, end)
	}
}

// The error with which PostgreSQL refuses a connection is part of the message. If the database URL has a parameter that
// PostgreSQL does not know, the message also says how to fix the URL.
func TestDatabaseRefuses(t *testing.T) {
	t.Parallel()
	dsn, err := url.Parse(dbtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	missing, prisma := *dsn, *dsn
	missing.Path = "/nowhere"
	prisma.RawQuery += "&schema=public"
	config, err := pgconn.ParseConfig(dsn.String())
	if err != nil {
		t.Fatal(err)
	}
	_, where := pgconn.NetworkAddress(config.Host, config.Port)
	for _, tt := range []struct{ dsn, want string }{
		{missing.String(), `, database "nowhere", user "postgres": FATAL: database "nowhere" does not exist (SQLSTATE 3D000)`},
		{
			prisma.String(), `, database "` + config.Database + `", user "postgres": FATAL: unrecognized configuration parameter "schema" (SQLSTATE 42704)` +
				" (remove the parameters that are meant for another program from the database URL)",
		},
	} {
		code, _, stderr := run(t, nil, "migrate", "--database-url", tt.dsn)
		if want := "rowcast: cannot connect to PostgreSQL at " + where + tt.want + "\n"; code != 1 || stderr != want {
			t.Errorf("got %d, %q, want 1, %q", code, stderr, want)
		}
	}
}
