package main_test

import (
	"fmt"
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
	const begin, end = "rowcast: cannot connect to PostgreSQL at ", " (no database URL is given: use --database-url or DATABASE_URL)\n"
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
	missing, unknown := *dsn, *dsn
	missing.Path = "/nowhere"
	unknown.RawQuery += "&statement_timeuot=5s"
	config, err := pgconn.ParseConfig(dsn.String())
	if err != nil {
		t.Fatal(err)
	}
	_, where := pgconn.NetworkAddress(config.Host, config.Port)
	for _, tt := range []struct{ dsn, want string }{
		{missing.String(), `, database "nowhere", user "postgres": FATAL: database "nowhere" does not exist (SQLSTATE 3D000)` + hints["3D000"]},
		{
			unknown.String(), `, database "` + config.Database + `", user "postgres": FATAL: unrecognized configuration parameter "statement_timeuot" (SQLSTATE 42704)` +
				" (remove the parameters that are meant for another program from the database URL)",
		},
	} {
		code, _, stderr := run(t, nil, "migrate", "--database-url", tt.dsn)
		if want := "rowcast: cannot connect to PostgreSQL at " + where + tt.want + "\n"; code != 1 || stderr != want {
			t.Errorf("got %d, %q, want 1, %q", code, stderr, want)
		}
	}
}

// The commands migrate, serve, doctor and demo refuse URLs and parameters of other programs, whether a flag or a
// variable gives them. The error names the other program and contains no password.
func TestURLsOfOtherPrograms(t *testing.T) {
	t.Parallel()
	const belong, remove = "the database URL has parameters that belong to other programs: ", "; remove them from the URL for rowcast"
	for dsn, want := range map[string]string{
		"postgres://me:secret@127.0.0.1:1/app?schema=public&connection_limit=5": belong + "connection_limit (Prisma), schema (Prisma)" + remove,
		"host=127.0.0.1 port=1 password=secret pool=5":                          belong + "pool (Rails)" + remove,
		"jdbc:postgresql://127.0.0.1:1/app?user=me&password=secret": `the database URL begins with jdbc: (JDBC): leave out "jdbc:", ` +
			"and write postgresql://user:password@host:5432/name",
		"postgresql+psycopg2://me:secret@127.0.0.1:1/app": "the database URL begins with postgresql+psycopg2:// (SQLAlchemy): write postgresql:// instead",
	} {
		for _, command := range []string{"migrate", "serve --insecure-uid --listen=127.0.0.1:0", "doctor", "demo --listen=127.0.0.1:0"} {
			args := strings.Fields(command)
			given := map[string]func() (int, string, string){
				"by the flag": func() (int, string, string) { return run(t, nil, append(args, "--database-url", dsn)...) },
			}
			for _, variable := range []string{"DATABASE_URL", "ROWCAST_DATABASE_URL"} {
				given["by "+variable] = func() (int, string, string) { return run(t, environment{variable: dsn}, args...) }
			}
			for how, run := range given {
				code, stdout, stderr := run()
				if want := "rowcast: " + want + "\n"; code != 2 || stdout != "" || !strings.HasSuffix(stderr, want) || strings.Contains(stderr, "secret") {
					t.Errorf("%s, %s %s: got %d, stdout %q, stderr %q, want 2, no stdout, and %q at the end of stderr without the password", command, dsn, how, code, stdout, stderr, want)
				}
			}
		}
	}
}

// migrate, doctor and serve accept parameters of libpq that pgx does not know.
func TestParametersOfLibpq(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	config, err := pgconn.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	role, _ := login(t, dsn, "hub")
	runSQL(t, dsn, `ALTER ROLE "`+role+`" PASSWORD 'secret'`)
	if code, _, stderr := run(t, nil, "migrate", "--hub-role", role, "--database-url", dsn+"&keepalives_idle=30&gssencmode=disable"); code != 0 {
		t.Fatalf("migrate: got exit code %d, %s, want 0", code, stderr)
	}
	libpq := fmt.Sprintf("host=db.invalid hostaddr=127.0.0.1 port=%d dbname=%s user='%s' password=secret sslmode=prefer keepalives=1 "+
		"fallback_application_name=app client_encoding=auto ssl_min_protocol_version=TLSv1.2 gssencmode=prefer", config.Port, config.Database, role)
	if code, stdout, stderr := run(t, nil, "doctor", "--database-url", libpq); code != 0 || stderr != "" || strings.Contains(stdout, "secret") {
		t.Errorf("doctor: got exit code %d, stdout %s, stderr %q, want 0, no password in stdout, and no stderr", code, stdout, stderr)
	}
	h := serve(t, libpq)
	tail := h.tail(t, "alice")
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
	tail.out.await(t, `"data":1}`)
}
