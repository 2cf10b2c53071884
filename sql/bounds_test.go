package sql_test

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os/exec"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// INSERT refuses data whose text is too long, or far longer than the jsonb value is without compression. The limits also
// hold for a value that comes compressed from another table. JSON that apps write is accepted, even if it is large or
// compresses well.
func TestTextOfDataIsBounded(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	const (
		expands, tooLong = "data_expands_at_most_32_fold", "data_is_at_most_64_mib"
		array            = "('[' || repeat('%s, ', %d - 1) || '%[1]s]')::jsonb"
	)
	compressed := func(name, data string) string {
		run(t, conn, "CREATE TABLE "+name+" AS SELECT "+data+" AS data")
		if got := text(t, conn, "SELECT (pg_column_size(data #> '{}') > 40 * pg_column_size(data))::text FROM "+name); got != "true" {
			t.Fatalf("the compressed data of %s has at least a fortieth of its uncompressed size, want less", name)
		}
		return "(SELECT data FROM " + name + ")"
	}
	for name, test := range map[string]struct{ data, constraint string }{
		"small":                           {`'{"msg": "hi"}'`, ""},
		"8,192 bytes of text":             {"to_jsonb(1e8191::numeric)", ""},
		"8,193 bytes of text":             {"to_jsonb(1e8192::numeric)", expands},
		"56 large numbers, 7.3 MB":        {fmt.Sprintf(array, "1e131071", 56), expands},
		"many decimals":                   {fmt.Sprintf(array, "1e-16383", 500), expands},
		"zeros with 400 decimals":         {fmt.Sprintf(array, "0e-400", 5000), expands},
		"large numbers in objects":        {fmt.Sprintf(array, `{"n": 1e2000}`, 50), expands},
		"large numbers after a long text": {"jsonb_build_array(repeat('x', 9000), 1e131071::numeric, 1e131071::numeric, 1e131071::numeric)", expands},
		"compressed large numbers":        {compressed("numbers", fmt.Sprintf(array, "1e2000", 3000)), expands},
		"8,200 large numbers, over 1 GB":  {fmt.Sprintf(array, "1e131071", 8200), "54000"},
		"67,108,864 bytes of text":        {"to_jsonb(repeat('x', 67108862))", ""},
		"67,108,865 bytes of text":        {"to_jsonb(repeat('x', 67108863))", tooLong},
		"69 MB of control characters":     {"to_jsonb(repeat(E'\\x01', 11500000))", tooLong},
		"30 MB of control characters":     {"to_jsonb(repeat(E'\\x01', 5000000))", ""},
		"doubles":                         {"(SELECT jsonb_agg(random()) FROM generate_series(1, 20000))", ""},
		"the smallest doubles":            {fmt.Sprintf(array, "-5e-324", 20000), ""},
		"the largest doubles":             {fmt.Sprintf(array, "1.7976931348623157e308", 20000), ""},
		"zeros with 324 decimals":         {fmt.Sprintf(array, "0e-324", 20000), ""},
		"doubles in objects":              {fmt.Sprintf(array, `{"n": -5e-324}`, 5000), ""},
		"the same word again and again":   {fmt.Sprintf(array, `"word"`, 100000), ""},
		"compressed text":                 {compressed("words", "to_jsonb(repeat('word ', 1000000))"), ""},
		"compressed control characters":   {compressed("controls", "to_jsonb(repeat(E'\\x01', 1000000))"), ""},
		"compressed doubles":              {compressed("doubles", fmt.Sprintf(array, "-5e-324", 20000)), ""},
		"4,500 nested arrays":             {"(repeat('[', 4500) || repeat(']', 4500))::jsonb", ""},
		"4,500 arrays around 1,000 words": {"(repeat('[', 4500) || '\"' || repeat('word ', 1000) || '\"' || repeat(']', 4500))::jsonb", ""},
	} {
		_, err := conn.Exec(dbtest.Context(t), "INSERT INTO rowcast.notifications (recipient, data) SELECT '*', "+test.data)
		got := constraintOf(err)
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok && got == "" {
			got = refused.Code
		}
		if got != test.constraint || test.constraint == "" && err != nil {
			t.Errorf("%s: got %v, want the constraint or the error code %q (no error if empty)", name, err, test.constraint)
		}
	}
}

// INSERT refuses a character that cannot be converted to UTF-8 in recipient, event and data. It accepts a character of
// the same encoding that can be converted.
func TestCharactersThatUTF8LacksAreRefused(t *testing.T) {
	t.Parallel()
	dsn := encodedIn(t, "EUC_JIS_2004")
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	conn := connect(t, dsn)
	run(t, conn, "SET client_encoding = 'EUC_JIS_2004'")
	insert := func(recipient, event, text string) error {
		sql := fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('%s', '%s', '{"msg": "%s"}')`, recipient, event, text)
		_, err := conn.PgConn().Exec(dbtest.Context(t), sql).ReadAll()
		return err
	}
	if err := insert("alice", "notify", "\xa4\xa2"); err != nil {
		t.Errorf("hiragana: got %v, want no error", err)
	}
	bad := unconvertible(t, conn)
	for name, err := range map[string]error{
		"data": insert("alice", "notify", bad), "event": insert("alice", bad, "x"), "recipient": insert(bad, "notify", "x"),
	} {
		if failure, ok := errors.AsType[*pgconn.PgError](err); !ok || failure.Code != "22P05" {
			t.Errorf("%s: got %v, want untranslatable_character", name, err)
		}
	}
}

func TestRecipientHasNoControlCharacters(t *testing.T) {
	t.Parallel()
	for encoding, tests := range map[string]map[string]bool{
		"UTF8":   {`alice\n`: false, `\x01`: false, `a\x7f`: false, `a\u0085`: false, `team:é \u202e*\u00a0\u20ac`: true},
		"LATIN1": {`alice\r`: false, `a\x1f`: false, `team:\u00e9 *\u00a0`: true},
	} {
		dsn := encodedIn(t, encoding)
		if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
			t.Fatal(err)
		}
		conn := connect(t, dsn)
		for recipient, allowed := range tests {
			_, err := conn.Exec(dbtest.Context(t), `INSERT INTO rowcast.notifications (recipient, data) VALUES (E'`+recipient+`', '{}')`)
			failure, refused := errors.AsType[*pgconn.PgError](err)
			if allowed && err != nil || !allowed && (!refused || failure.ConstraintName != "recipient_has_no_control_characters") {
				t.Errorf("insert %s in a %s database: got %v, want no error: %t, otherwise a violation of recipient_has_no_control_characters", recipient, encoding, err, allowed)
			}
		}
	}
}

// unconvertible returns a character of the database's encoding that cannot be converted to UTF-8.
func unconvertible(t *testing.T, conn *pgx.Conn) string {
	t.Helper()
	for first := 0xa1; first < 0xff; first++ {
		for second := 0xa1; second < 0xff; second++ {
			text := string([]byte{byte(first), byte(second)})
			_, err := conn.PgConn().Exec(dbtest.Context(t), "SELECT convert_to('"+text+"', 'UTF8')").ReadAll()
			if failure, ok := errors.AsType[*pgconn.PgError](err); ok && failure.Code == "22P05" {
				return text
			}
		}
	}
	t.Fatal("PostgreSQL reports no character from A1A1 to FEFE as untranslatable to UTF-8, want one")
	return ""
}

// encodedIn creates a database with the encoding, on a separate server. The database has no schema rowcast.
func encodedIn(t *testing.T, encoding string) (dsn string) {
	t.Helper()
	c := dbtest.Cluster(t)
	run(t, connect(t, c.DSN("postgres")), "CREATE DATABASE other ENCODING '"+encoding+"' LC_COLLATE 'C' LC_CTYPE 'C' TEMPLATE template0")
	return c.DSN("other")
}

// Migrate and the printed script do not install the schema in a database with an encoding that cannot be converted to
// UTF-8.
func TestEncodingsWithoutConversionAreRefused(t *testing.T) {
	t.Parallel()
	psql := dbtest.Client(t, "psql")
	for _, encoding := range []string{"SQL_ASCII", "MULE_INTERNAL"} {
		dsn := encodedIn(t, encoding)
		want := "text in the encoding of this database (" + encoding + ") cannot be converted to UTF-8"
		if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("Migrate: got %v, want an error that contains %q", err, want)
		}
		script := exec.CommandContext(dbtest.Context(t), psql, "-qX", dsn) // psql executes the other statements after an error
		script.Stdin = strings.NewReader(printed(t, sql.Script{}))
		if out, _ := script.CombinedOutput(); !strings.Contains(string(out), want) {
			t.Errorf("the printed script: got the output %s, want an error that contains %q", out, want)
		}
		if got := text(t, connect(t, dsn), "SELECT coalesce(to_regnamespace('rowcast')::text, 'none')"); got != "none" {
			t.Errorf("%s: the schema was installed, want no schema", encoding)
		}
	}
}

// Migrate and the printed script fail if an ordinary role other than the current one owns the schema, or a table or
// function in it. Otherwise that role could run its own code with the rights of the current role. A function that only
// has the name of a trigger function of a watched table is no exception.
func TestMigrateRefusesASchemaOfAnotherRole(t *testing.T) {
	t.Parallel()
	for name, trap := range map[string]func(role string) string{
		"a schema": func(role string) string {
			return "CREATE SCHEMA rowcast AUTHORIZATION " + role
		},
		"a table": func(role string) string {
			return "CREATE SCHEMA rowcast; CREATE TABLE rowcast.migrations (id int); ALTER TABLE rowcast.migrations OWNER TO " + role
		},
		"a function": func(role string) string {
			return "CREATE SCHEMA rowcast; CREATE FUNCTION rowcast.tag(text) RETURNS text LANGUAGE sql AS 'SELECT 1::text';" +
				"ALTER FUNCTION rowcast.tag(text) OWNER TO " + role
		},
		"a function that looks like a trigger function of a watched table": func(role string) string {
			return "CREATE SCHEMA rowcast; CREATE FUNCTION rowcast.watch_00000000000000000000000000000000() RETURNS text LANGUAGE sql AS 'SELECT 1::text';" +
				"ALTER FUNCTION rowcast.watch_00000000000000000000000000000000() OWNER TO " + role
		},
	} {
		dsn := dbtest.Empty(t)
		conn := connect(t, dsn)
		role := createRole(t, conn, "trapper")
		run(t, conn, trap(pgx.Identifier{role}.Sanitize()))
		_, _, migrate := sql.Migrate(dbtest.Context(t), dsn)
		_, script := conn.Exec(dbtest.Context(t), printed(t, sql.Script{}))
		if migrate == nil || !strings.Contains(migrate.Error(), fmt.Sprintf("belongs to the role %q", role)) {
			t.Errorf("%s of another role: got %v, want an error that names the role", name, migrate)
		} else if strings.Contains(migrate.Error(), "drop") {
			t.Errorf("%s of another role: got %v, want no advice that loses rows", name, migrate)
		}
		if script == nil || !strings.Contains(script.Error(), "belongs to the role "+pgx.Identifier{role}.Sanitize()) {
			t.Errorf("the script with %s of another role: got %v, want an error that names the role", name, script)
		} else if refused, ok := errors.AsType[*pgconn.PgError](script); !ok || refused.Hint == "" || strings.Contains(refused.Hint, "drop") {
			t.Errorf("the script with %s of another role: got %v, %+v, want a hint without advice that loses rows", name, script, refused)
		}
		run(t, conn, "ROLLBACK") // the script has begun a transaction
	}
}

// If the search_path names a schema before pg_catalog, functions and operators of that schema can hide functions and
// operators of pg_catalog. Migrate, Grant, an INSERT, rowcast.cursor() and rowcast.epoch_tag() call no
// function of that schema.
func TestMigrateRunsNoCodeFromOtherSchemas(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	conn := connect(t, dsn)
	for _, trap := range []string{
		"CREATE TABLE public.trapped (what text)",
		"CREATE FUNCTION public.concat_ws(text, bigint, oid) RETURNS text LANGUAGE sql AS $$ INSERT INTO public.trapped VALUES ('concat_ws') RETURNING what $$",
		"CREATE FUNCTION public.pg_try_advisory_xact_lock(int) RETURNS bool LANGUAGE sql AS $$ INSERT INTO public.trapped VALUES ('lock') RETURNING true $$",
		"CREATE FUNCTION public.same(oid, int) RETURNS bool LANGUAGE sql AS $$ INSERT INTO public.trapped VALUES ('=') RETURNING true $$",
		"CREATE OPERATOR public.= (LEFTARG = oid, RIGHTARG = int, FUNCTION = public.same)",
		"CREATE FUNCTION public.to_regnamespace(text) RETURNS regnamespace LANGUAGE sql AS $$ INSERT INTO public.trapped VALUES ('to_regnamespace') RETURNING NULL::regnamespace $$",
		"CREATE FUNCTION public.now() RETURNS timestamp LANGUAGE sql AS $$ INSERT INTO public.trapped VALUES ('now') RETURNING NULL::timestamp $$",
		"DO $$ BEGIN EXECUTE 'ALTER DATABASE ' || current_database() || ' SET search_path = public, pg_catalog'; END $$",
	} {
		run(t, conn, trap)
	}
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	role := createRole(t, conn, "app")
	if err := sql.Grant(dbtest.Context(t), dsn, sql.Roles{Apps: []string{role}, Hubs: []string{role}}); err != nil {
		t.Fatal(err)
	}
	writer := connect(t, dsn)
	run(t, writer, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1')")
	run(t, writer, "SELECT rowcast.cursor(), rowcast.epoch_tag()")
	if got := text(t, conn, "SELECT coalesce(string_agg(what, ' '), 'none') FROM public.trapped"); got != "none" {
		t.Errorf("functions of another schema were called: %s, want none", got)
	}
}

// While Migrate waits for the lock of migrations, it reports the session that holds the lock. It continues when that
// session releases the lock.
func TestMigrateReportsTheHolderOfTheLock(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	conn := connect(t, dsn)
	run(t, conn, "SET application_name = 'a shell that was left open'")
	run(t, conn, "SELECT pg_advisory_lock(4097083626)")
	waiting := make(chan string, 1)
	migrated := make(chan error, 1)
	m := sql.Migrator{DSN: dsn, Waiting: func(holder string) { waiting <- holder }}
	go func() {
		_, _, err := m.Migrate(context.WithoutCancel(dbtest.Context(t)))
		migrated <- err
	}()
	holder := dbtest.Receive(t, waiting, "the report of the session that holds the lock")
	for _, want := range []string{fmt.Sprintf("process %d", conn.PgConn().PID()), "a shell that was left open", "pg_terminate_backend"} {
		if !strings.Contains(holder, want) {
			t.Errorf("report is %q, want it to contain %q", holder, want)
		}
	}
	run(t, conn, "SELECT pg_advisory_unlock(4097083626)")
	if err := dbtest.Receive(t, migrated, "the end of the migration"); err != nil {
		t.Error(err)
	}
}

// A prepared transaction that holds the lock of migrations has no process, and is reported, too.
func TestMigrateReportsThePreparedTransactionThatHoldsTheLock(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	conn := connect(t, dsn)
	run(t, conn, "BEGIN")
	run(t, conn, "CREATE TABLE t ()")
	run(t, conn, "SELECT pg_advisory_xact_lock(4097083626)")
	run(t, conn, "PREPARE TRANSACTION '"+t.Name()+"'")
	waiting := make(chan string, 1)
	migrated := make(chan error, 1)
	m := sql.Migrator{DSN: dsn, Waiting: func(holder string) { waiting <- holder }}
	go func() {
		_, _, err := m.Migrate(context.WithoutCancel(dbtest.Context(t)))
		migrated <- err
	}()
	holder := dbtest.Receive(t, waiting, "the report of the prepared transaction that holds the lock")
	const want = "a prepared transaction holds the lock of migrations; find it in pg_prepared_xacts, and end it with COMMIT PREPARED or ROLLBACK PREPARED"
	if holder != want {
		t.Errorf("got the report %q, want %q", holder, want)
	}
	run(t, conn, "ROLLBACK PREPARED '"+t.Name()+"'")
	if err := dbtest.Receive(t, migrated, "the end of the migration"); err != nil {
		t.Error(err)
	}
}

// Migrate keeps rows that violate the constraints of migration 3, because it does not check existing rows. If a restored
// table contains such rows, Migrate can still set their transaction numbers to 1.
func TestMigrateKeepsRowsThatViolateNewConstraints(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Empty(t)
	conn := connect(t, dsn)
	installUpTo(t, conn, 2)
	run(t, conn, "INSERT INTO rowcast.notifications (data) SELECT jsonb_agg(1e131071::numeric) FROM generate_series(1, 8200)")
	run(t, conn, "INSERT INTO rowcast.notifications (data, xid) VALUES ('1', (pg_current_xact_id()::text::bigint + 1000000)::text::xid8)")
	run(t, conn, "UPDATE rowcast.history SET system_identifier = 7, horizon = '999999999999'") // as if the table were restored
	if from, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil || from != 2 {
		t.Fatalf("Migrate: found version %d, %v, want 2", from, err)
	}
	if got := text(t, conn, "SELECT string_agg(xid::text, ' ' ORDER BY id) FROM rowcast.notifications"); got != "1 1" {
		t.Errorf("restored rows have the transaction numbers %s, want 1 1", got)
	}
	const notValid = "SELECT string_agg(conname, ' ' ORDER BY conname) FROM pg_constraint WHERE conrelid = 'rowcast.notifications'::regclass AND NOT convalidated"
	if got := text(t, conn, notValid); got != "data_expands_at_most_32_fold data_is_at_most_64_mib recipient_has_no_control_characters" {
		t.Errorf("got the NOT VALID constraints %s, want the three of migration 3", got)
	}
	if err := sql.Check(dbtest.Context(t), conn); err != nil {
		t.Error(err)
	}
}

// Some test suites truncate all tables. Check then fails, and Migrate and the printed script fill the tables that must
// not be empty. An empty rowcast.epoch is not an error, because PostgreSQL empties the table after a crash.
func TestMigrateFillsTruncatedTables(t *testing.T) {
	t.Parallel()
	for truncate, want := range map[string]error{
		"TRUNCATE rowcast.history":      sql.ErrNoSchema,
		"TRUNCATE rowcast.migrations":   sql.ErrNoSchema,
		"DROP TABLE rowcast.migrations": sql.ErrNoSchema,
		"TRUNCATE rowcast.epoch":        nil,
		"TRUNCATE rowcast.notifications, rowcast.history, rowcast.epoch, rowcast.migrations":     sql.ErrNoSchema,
		"DELETE FROM rowcast.migrations; DELETE FROM rowcast.history; DELETE FROM rowcast.epoch": sql.ErrNoSchema,
	} {
		t.Run(truncate, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			conn := connect(t, dsn)
			for _, mend := range []func(){
				func() {
					if from, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil || from != sql.Version() {
						t.Errorf("Migrate: found version %d, %v, want %d", from, err, sql.Version())
					}
				},
				func() { run(t, conn, printed(t, sql.Script{})) },
			} {
				run(t, conn, truncate)
				if err := sql.Check(dbtest.Context(t), conn); !errors.Is(err, want) {
					t.Errorf("Check: got %v, want %v", err, want)
				}
				mend()
				if err := sql.Check(dbtest.Context(t), conn); err != nil {
					t.Errorf("Check after the repair: got %v, want no error", err)
				}
				run(t, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')")
			}
		})
	}
}

// Migrate recognizes the version of a schema whose table of versions is empty, as in a copy of the schema without rows
// (pg_dump --schema-only, Rails' structure.sql).
func TestMigrateRecognizesACopyWithoutRows(t *testing.T) {
	t.Parallel()
	pgDump, psql := dbtest.Client(t, "pg_dump"), dbtest.Client(t, "psql")
	for version := 1; version <= int(sql.Version()); version++ {
		t.Run(fmt.Sprint("version ", version), func(t *testing.T) {
			t.Parallel()
			original, copied := dbtest.Empty(t), dbtest.Empty(t)
			installUpTo(t, connect(t, original), version)
			restore := exec.CommandContext(dbtest.Context(t), psql, "-qX", "-v", "ON_ERROR_STOP=1", copied)
			restore.Stdin = strings.NewReader(dump(t, pgDump, original))
			if out, err := restore.CombinedOutput(); err != nil {
				t.Fatalf("psql: %v\n%s", err, out)
			}
			if from, _, err := sql.Migrate(dbtest.Context(t), copied); err != nil || from != int64(version) {
				t.Errorf("Migrate: found version %d, %v, want %d", from, err, version)
			}
			if err := sql.Check(dbtest.Context(t), connect(t, copied)); err != nil {
				t.Errorf("Check after Migrate: got %v, want no error", err)
			}
		})
	}
}

// installUpTo installs the schema with the given version.
func installUpTo(t *testing.T, conn *pgx.Conn, version int) {
	t.Helper()
	run(t, conn, `CREATE SCHEMA rowcast; CREATE TABLE rowcast.migrations (id integer PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
		version_id bigint NOT NULL, is_applied boolean NOT NULL, tstamp timestamp NOT NULL DEFAULT now());
		INSERT INTO rowcast.migrations (version_id, is_applied) VALUES (0, true)`)
	names, err := fs.Glob(sql.Migrations, "migrations/*.sql")
	if err != nil {
		t.Fatal(err)
	}
	for i, name := range names[:version] {
		migration, err := sql.Migrations.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		run(t, conn, string(migration))
		run(t, conn, "INSERT INTO rowcast.migrations (version_id, is_applied) VALUES ($1, true)", i+1)
	}
}

// text runs a query for one text and returns the text.
func text(t *testing.T, conn *pgx.Conn, query string) (result string) {
	t.Helper()
	if err := conn.QueryRow(dbtest.Context(t), query).Scan(&result); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return result
}

// In a copy of a database, Check looks for numbers of another server. It reads at most half of a table with 60,000
// rows, even after retention has moved the horizon. A hub calls Check when it starts.
func TestCheckReadsAPartOfTheTable(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t)) // a copy of a template database
	const rows = 60_000
	run(t, conn, "UPDATE rowcast.history SET horizon = horizon")
	run(t, conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT '*', '1' FROM generate_series(1, $1::int)", rows)
	run(t, conn, "ANALYZE rowcast.notifications")
	run(t, conn, "BEGIN")
	if err := sql.Check(dbtest.Context(t), conn); err != nil {
		t.Fatal(err)
	}
	var read int
	const count = "SELECT seq_tup_read + idx_tup_fetch FROM pg_stat_xact_user_tables WHERE relid = 'rowcast.notifications'::regclass"
	if err := conn.QueryRow(dbtest.Context(t), count).Scan(&read); err != nil {
		t.Fatal(err)
	}
	if read == 0 || read > rows/2 {
		t.Errorf("Check read %d of %d rows, want at least one and at most half", read, rows)
	}
}
