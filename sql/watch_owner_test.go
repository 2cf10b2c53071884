package sql_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// giveSchema makes a role the owner of the schema rowcast, and of its tables and functions. It also revokes the rights
// of PUBLIC on the functions.
func giveSchema(t *testing.T, conn *pgx.Conn, role string) {
	t.Helper()
	quoted := pgx.Identifier{role}.Sanitize()
	revokeFunctions(t, conn)
	run(t, conn, "ALTER SCHEMA rowcast OWNER TO "+quoted)
	run(t, conn, `DO $$ DECLARE change text; BEGIN
		FOR change IN SELECT format('ALTER TABLE %s OWNER TO %I', oid::regclass, pg_get_userbyid(nspowner)) FROM pg_class JOIN (SELECT nspowner FROM pg_namespace WHERE nspname = 'rowcast') s ON true
				WHERE relnamespace = 'rowcast'::regnamespace AND relkind = 'r'
			UNION ALL SELECT format('ALTER FUNCTION %s OWNER TO %I', oid::regprocedure, pg_get_userbyid(nspowner)) FROM pg_proc JOIN (SELECT nspowner FROM pg_namespace WHERE nspname = 'rowcast') s ON true
				WHERE pronamespace = 'rowcast'::regnamespace LOOP
			EXECUTE change;
		END LOOP;
	END $$`)
}

// trap is SQL that creates a table. Expressions on its columns run code of the owner of the table: in a cast, and in
// the CHECK of a domain, which also runs when a constant is converted. The code counts its runs, fails if another role
// than the owner runs it, and changes the search_path of the session.
const trap = `CREATE SCHEMA shop;
	CREATE SEQUENCE shop.runs;
	CREATE FUNCTION shop.spy(text) RETURNS boolean LANGUAGE plpgsql IMMUTABLE SECURITY INVOKER AS $$ BEGIN
		PERFORM pg_catalog.set_config('search_path', 'shop, pg_catalog', false);
		IF current_user <> (SELECT tableowner FROM pg_catalog.pg_tables WHERE schemaname = 'shop') THEN
			RAISE EXCEPTION 'the code of the owner of the table runs as %', current_user;
		END IF;
		PERFORM pg_catalog.nextval('shop.runs');
		RETURN true;
	END $$;
	CREATE FUNCTION shop.format(text, text) RETURNS text LANGUAGE plpgsql AS $$ BEGIN RAISE EXCEPTION 'shop.format was called'; END $$;
	CREATE DOMAIN shop.tag AS text CHECK (shop.spy(VALUE));
	CREATE TYPE shop.code AS (a int);
	CREATE FUNCTION shop.text_of(shop.code) RETURNS text LANGUAGE plpgsql AS $$ BEGIN PERFORM shop.spy(''); RETURN current_user; END $$;
	CREATE CAST (shop.code AS text) WITH FUNCTION shop.text_of(shop.code);
	CREATE TABLE shop.orders (code shop.code, tags shop.tag[], b text[])`

const (
	watchTrap = `SELECT rowcast.watch('shop.orders', 'code::text', data => 'to_jsonb(current_user)', "when" => $$b && '{urgent}' OR tags && '{urgent}'$$)`
	trapRuns  = "SELECT CASE WHEN is_called THEN last_value ELSE 0 END::text FROM shop.runs"
)

// The owner of the schema can watch a table of another role if the owner is a member of that role. The owner need not
// be a superuser. The code of the table's owner never runs with the rights of the schema's owner, and does not change
// the session in which rowcast.watch() runs.
func TestCodeOfAWatchedTableRunsAsItsOwner(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	owner, seller, app := createRole(t, conn, "owner"), createRole(t, conn, "seller"), createRole(t, conn, "app")
	giveSchema(t, conn, owner)
	run(t, conn, "DO $$ BEGIN EXECUTE format('GRANT CREATE ON DATABASE %I TO PUBLIC', current_database()); END $$")
	setRole(t, conn, seller)
	run(t, conn, trap+"; GRANT USAGE ON SCHEMA shop TO PUBLIC; GRANT INSERT ON shop.orders TO PUBLIC")

	setRole(t, conn, owner)
	_, err := conn.Exec(dbtest.Context(t), watchTrap)
	failed, ok := errors.AsType[*pgconn.PgError](err)
	if !ok || failed.Code != "42501" || !strings.HasPrefix(failed.Hint, "Run this first: GRANT ") {
		t.Fatalf("watch without a membership: got %v, want insufficient_privilege and a hint with GRANT", err)
	}
	run(t, conn, "RESET ROLE")
	run(t, conn, strings.TrimPrefix(failed.Hint, "Run this first: "))
	setRole(t, conn, owner)
	path := text(t, conn, "SHOW search_path")
	run(t, conn, watchTrap)
	if got := text(t, conn, "SHOW search_path"); got != path {
		t.Errorf("after watch, the search_path is %s, want %s", got, path)
	}
	if got := text(t, conn, "SELECT has_schema_privilege('"+strings.ReplaceAll(seller, "'", "''")+"', 'rowcast', 'CREATE')::text"); got != "false" {
		t.Error("the owner of the table has kept the right to create objects in the schema rowcast")
	}
	run(t, conn, "RESET ROLE")
	if text(t, conn, trapRuns) == "0" {
		t.Error("the code of the owner of the table did not run, so this test shows nothing")
	}
	setRole(t, conn, app)
	run(t, conn, "INSERT INTO shop.orders (code, b) VALUES (ROW(1), '{urgent}')")
	run(t, conn, "RESET search_path; RESET ROLE")
	if got, want := text(t, conn, "SELECT recipient || data FROM rowcast.notifications"), seller+text(t, conn, "SELECT to_jsonb('"+strings.ReplaceAll(seller, "'", "''")+"'::text)::text"); got != want {
		t.Errorf("the notification has the recipient and data %s, want %s", got, want)
	}
	setRole(t, conn, owner)
	run(t, conn, "SELECT rowcast.unwatch('shop.orders')")
	run(t, conn, "RESET ROLE; DROP SCHEMA shop CASCADE") // the DROP OWNED of createRole would fail, because it does not drop the cast
}

// The error for a role without the rights says what to do, or who may watch tables. It never tells anyone to make the
// owner of the schema a superuser. A superuser must not watch a table of a superuser if another role owns the schema:
// the functions of the schema would run with the rights of the owner of the table.
func TestWatchSaysWhichRightsAreMissing(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	owner, admin, app := createRole(t, conn, "owner"), createRole(t, conn, "admin"), createRole(t, conn, "app")
	quoted := func(role string) string { return pgx.Identifier{role}.Sanitize() }
	giveSchema(t, conn, owner)
	run(t, conn, "GRANT postgres TO "+quoted(admin)+"; GRANT USAGE ON SCHEMA rowcast TO "+quoted(app)+"; GRANT EXECUTE ON FUNCTION rowcast.watch(regclass, text, text, text, text[], text, text), rowcast.watch_check(regclass, name) TO "+quoted(app))
	run(t, conn, `CREATE TABLE a (id int); CREATE TABLE "B" (id int); CREATE TABLE c (id int); CREATE TABLE d (id int); CREATE TABLE e (id int); ALTER TABLE "B" OWNER TO `+quoted(admin)+`; ALTER TABLE c OWNER TO `+quoted(app))
	const change = " is a superuser or a member of one. Run this first as a superuser: "
	for _, test := range []struct{ role, statement, hint string }{
		{owner, "SELECT rowcast.watch('a', 'id')", "The owner of the table, postgres," + change + "ALTER TABLE public.a OWNER TO "},
		{owner, `SELECT rowcast.watch('"B"', 'id')`, "The owner of the table, " + quoted(admin) + "," + change + `ALTER TABLE public."B" OWNER TO `},
		{owner, "SELECT rowcast.unwatch('d')", "The owner of the table, postgres," + change + "ALTER TABLE public.d OWNER TO "},
		{"postgres", "SELECT rowcast.watch('e', 'id')", "The owner of the table, postgres," + change + "ALTER TABLE public.e OWNER TO " + quoted(owner)},
		{owner, `SELECT rowcast.watch('c', 'id')`, "Run this first: GRANT " + quoted(app) + " TO " + quoted(owner)},
		{app, `SELECT rowcast.watch('c', 'id')`, "Only " + quoted(owner) + ", the owner of the schema rowcast, may watch tables."},
	} {
		setRole(t, conn, test.role)
		_, err := conn.Exec(dbtest.Context(t), test.statement)
		run(t, conn, "RESET ROLE")
		failed, ok := errors.AsType[*pgconn.PgError](err)
		if !ok || failed.Code != "42501" || !strings.HasPrefix(failed.Hint, test.hint) {
			t.Errorf("%s as %s: got %v, %+v, want insufficient_privilege and the hint %q", test.statement, test.role, err, failed, test.hint)
			continue
		}
		if _, change, found := strings.Cut(failed.Hint, ": "); found {
			run(t, conn, change)
			setRole(t, conn, test.role)
			run(t, conn, test.statement)
			run(t, conn, "RESET ROLE")
		}
	}
}

// Reading the watched tables runs no code of their owners. Even preparing a statement with an expression of a watched
// table can run such code.
func TestReadWatchedRunsNoCode(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	run(t, conn, trap)
	run(t, conn, watchTrap)
	before := text(t, conn, trapRuns)
	run(t, conn, "SET search_path = pg_catalog, pg_temp")
	if all, err := sql.ReadWatched(dbtest.Context(t), conn); err != nil || len(all) != 1 || len(all[0].Problems) > 0 {
		t.Errorf("got %v, %v, want one table without problems", all, err)
	}
	if after := text(t, conn, trapRuns); after != before {
		t.Errorf("the code of the owner of the table has run %s times, want %s", after, before)
	}
	if _, err := conn.Prepare(dbtest.Context(t), "p", "SELECT tags && '{urgent}' FROM shop.orders"); err != nil || text(t, conn, trapRuns) == before {
		t.Errorf("preparing a statement ran no code of the owner (%v), so this test shows nothing", err)
	}
}

// If two sessions watch tables of the same role at the same time, the second session waits, and both succeed.
func TestWatchTwoTablesAtOnce(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	first, second, monitor := connect(t, dsn), connect(t, dsn), connect(t, dsn)
	seller := pgx.Identifier{createRole(t, first, "seller")}.Sanitize()
	run(t, first, "CREATE TABLE a (id int); CREATE TABLE b (id int); ALTER TABLE a OWNER TO "+seller+"; ALTER TABLE b OWNER TO "+seller)
	run(t, first, "BEGIN; SELECT rowcast.watch('a', 'id')")
	done := make(chan error, 1)
	go func() {
		_, err := second.Exec(dbtest.Context(t), "SELECT rowcast.watch('b', 'id')")
		done <- err
	}()
	waitForLock(t, monitor, second, done)
	run(t, first, "COMMIT")
	if err := dbtest.Receive(t, done, "the end of the second watch"); err != nil {
		t.Errorf("the second of two watches at once: got %v, want no error", err)
	}
	run(t, first, "INSERT INTO a VALUES (1); INSERT INTO b VALUES (2)")
	if got := text(t, first, notified); !strings.Contains(got, "1 message") || !strings.Contains(got, "2 message") {
		t.Errorf("got the notifications %q, want one of each table", got)
	}
}

// waitForLock waits until a session waits for a lock. It fails if done receives the end of the session's
// statement first.
func waitForLock(t *testing.T, monitor, conn *pgx.Conn, done <-chan error) {
	t.Helper()
	const waits = "SELECT EXISTS (SELECT FROM pg_locks WHERE pid = $1 AND NOT granted)"
	for waiting := false; !waiting; {
		if err := monitor.QueryRow(dbtest.Context(t), waits, int32(conn.PgConn().PID())).Scan(&waiting); err != nil {
			t.Fatal(err)
		}
		select {
		case err := <-done:
			t.Fatalf("the statement did not wait for a lock: got %v", err)
		default:
		}
	}
}

// If an app has given a trigger a name that watch uses, unwatch does not drop the function of that trigger.
func TestUnwatchDropsOnlyItsFunction(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	run(t, conn, `CREATE TABLE t (a int); CREATE FUNCTION theirs() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END';
		CREATE TRIGGER rowcast_watch_delete AFTER DELETE ON t EXECUTE FUNCTION theirs(); SELECT rowcast.watch('t', 'a')`)
	if got := text(t, conn, "SELECT concat(rowcast.unwatch('t'), rowcast.unwatch('t'), to_regproc('theirs'))"); got != "tftheirs" {
		t.Errorf("got %s, want tftheirs: the first unwatch finds a trigger, the second finds none, and the function theirs is left", got)
	}
}

// If a copy of a watched table has copies of its triggers, both tables call one function. Each table can be watched again
// and unwatched, and the other one stays watched.
func TestWatchedTableWithACopy(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	run(t, conn, "CREATE TABLE t (a int); CREATE TABLE copy (LIKE t); SELECT rowcast.watch('t', 'a')")
	run(t, conn, text(t, conn, "SELECT replace(pg_get_triggerdef(oid), 'public.t ', 'public.copy ') FROM pg_trigger WHERE tgrelid = 't'::regclass"))
	for _, change := range []string{"SELECT rowcast.watch('t', 'a + 10')", "SELECT rowcast.unwatch('t')", "SELECT rowcast.unwatch('copy')"} {
		run(t, conn, change)
		run(t, conn, "INSERT INTO t VALUES (1); INSERT INTO copy VALUES (2)")
	}
	if got, want := text(t, conn, "SELECT string_agg(recipient, ' ' ORDER BY id) FROM rowcast.notifications"), "11 2 2"; got != want {
		t.Errorf("got notifications for %s, want %s", got, want)
	}
	if got := text(t, conn, "SELECT count(*)::text FROM rowcast.watched()"); got != "0" {
		t.Errorf("%s trigger functions are left, want 0", got)
	}
}

// A table that was dropped leaves its trigger function behind. If a table with the same name is watched, that function
// is dropped. The functions of other tables are kept.
func TestWatchATableThatWasCreatedAgain(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	run(t, conn, `CREATE TABLE t (a int); CREATE TABLE "T" (a int); SELECT rowcast.watch('t', 'a'), rowcast.watch('"T"', 'a')`)
	run(t, conn, `DROP TABLE t, "T"; CREATE TABLE t (a int); SELECT rowcast.watch('t', 'a')`)
	const listed = `SELECT string_agg(concat(target, options ->> 'table'), ' ' ORDER BY target) FROM rowcast.watched()`
	if got, want := text(t, conn, listed), `tpublic.t public."T"`; got != want {
		t.Errorf("the trigger functions are those of %s, want %s", got, want)
	}
}

// A watchProblem is a change of a watched table, and what ReadWatched returns afterwards.
type watchProblem struct {
	harm, want string
	failing    bool
}

// mends reports whether there is a problem that a statement can mend.
func (p watchProblem) mends() bool {
	return p.want != "" && !strings.Contains(p.want, "dropped or renamed") && !strings.Contains(p.want, "virtual")
}

// ReadWatched returns what is wrong with a watched table. The statement in Mend repairs it or ends the watching. There
// is no such statement if an expression names a column that was dropped or renamed, or if the table has a virtual
// generated column.
func TestProblemsOfWatchedTables(t *testing.T) {
	t.Parallel()
	const watch = `SELECT rowcast.watch('t', 'a', data => $$jsonb_build_object('c', "B c")$$, "on" => '{insert,update}', "when" => 'o.d IS NULL -- e')`
	const virtual = `DO $$ BEGIN
		IF current_setting('server_version_num')::int >= 180000 THEN
			EXECUTE 'ALTER TABLE t DROP e, ADD e int GENERATED ALWAYS AS (a) VIRTUAL';
		ELSE -- PostgreSQL has no such columns before version 18
			UPDATE pg_attribute SET attgenerated = 'v' WHERE attrelid = 't'::regclass AND attname = 'e';
		END IF;
	END $$`
	for name, test := range map[string]watchProblem{
		"none":          {`ALTER TABLE t DROP c, DROP e; ALTER TABLE t ENABLE ALWAYS TRIGGER rowcast_watch_insert; ALTER TABLE t RENAME TO s; ALTER TABLE s RENAME TO t`, "", false},
		"disabled":      {`ALTER TABLE t DISABLE TRIGGER rowcast_watch_update`, "disabled triggers: rowcast_watch_update", false},
		"replica":       {`ALTER TABLE t ENABLE REPLICA TRIGGER rowcast_watch_insert`, "disabled triggers: rowcast_watch_insert", false},
		"one trigger":   {`DROP TRIGGER rowcast_watch_update ON t`, "missing triggers: update", false},
		"no trigger":    {`DROP TRIGGER rowcast_watch_update ON t; DROP TRIGGER rowcast_watch_insert ON t`, "the table public.t or its triggers were dropped", false},
		"dropped table": {`DROP TABLE t`, "the table public.t or its triggers were dropped", false},
		"another owner": {`ALTER TABLE t OWNER TO pg_monitor`, "the table belongs to pg_monitor, and its trigger function to postgres", true},
		"another type":  {`ALTER TABLE t ALTER a TYPE text, ALTER c TYPE bigint`, "columns with another type: a was integer and is text, c was integer and is bigint", false},
		"foreign child": {
			`CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE TABLE child () INHERITS (t); CREATE FOREIGN TABLE far () INHERITS (child) SERVER s`,
			"it has a partition or child that is a foreign table", true,
		},
		"virtual column":     {virtual, "virtual generated columns, which PostgreSQL does not compute for triggers: e", false},
		"no right to insert": {`ALTER TABLE t OWNER TO pg_monitor; DO $$ BEGIN EXECUTE format('ALTER FUNCTION %s OWNER TO pg_monitor', (SELECT watcher FROM rowcast.watched())); END $$`, "the owner pg_monitor of the trigger function may not insert notifications", false},
		"renamed column":     {`ALTER TABLE t RENAME d TO x`, `the when expression o.d IS NULL -- e names the column "d", which was dropped or renamed`, true},
		"dropped column":     {`ALTER TABLE t DROP "B c"`, `the data expression jsonb_build_object('c', "B c") names the column "B c", which was dropped or renamed`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, dbtest.Database(t))
			run(t, conn, `CREATE TABLE t (a int, "B c" int, c int, d int, e int, f int); ALTER TABLE t DROP f`)
			run(t, conn, watch)
			run(t, conn, test.harm)
			run(t, conn, "SET search_path = pg_catalog, pg_temp")
			read := func() (problems, mend string, failing bool) {
				all, err := sql.ReadWatched(dbtest.Context(t), conn)
				if err != nil || len(all) > 1 {
					t.Fatalf("got %v, %v, want at most one table", all, err)
				}
				for _, w := range all {
					problems, mend, failing = strings.Join(w.Problems, "; "), w.Mend, w.Failing
				}
				return problems, mend, failing
			}
			problems, mend, failing := read()
			if problems != test.want || failing != test.failing || (mend != "") != test.mends() {
				t.Fatalf("got the problems %q, failing %t and the mend %q, want the problems %q, failing %t and a mend: %t", problems, failing, mend, test.want, test.failing, test.mends())
			}
			if mend == "" {
				return
			}
			run(t, conn, mend)
			if problems, _, _ := read(); problems != "" {
				t.Errorf("after %s: got %s, want no problems", mend, problems)
			}
		})
	}
}

// A dropped column is no problem if an expression has its name only as the name of a function, of a type or of a column
// of another table.
func TestDroppedColumnWithACommonName(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	run(t, conn, `CREATE TABLE users (id int, name text); INSERT INTO users VALUES (1, 'Ann'); CREATE TABLE t (id int, created timestamp, date date, lower text, name text);
		SELECT rowcast.watch('t', 'id', data => $$jsonb_build_array(created :: date, lower ('X'), (SELECT u.name FROM public.users AS u WHERE u.id = n.id))$$);
		ALTER TABLE t DROP date, DROP lower, DROP name; INSERT INTO t VALUES (1, '2026-02-01')`)
	if got, want := text(t, conn, notified), `1 message ["2026-02-01", "x", "Ann"]`; got != want {
		t.Fatalf("got the notification %s, want %s", got, want)
	}
	run(t, conn, "SET search_path = pg_catalog, pg_temp")
	if all, err := sql.ReadWatched(dbtest.Context(t), conn); err != nil || len(all) != 1 || len(all[0].Problems) > 0 {
		t.Errorf("got %v, %v, want one table without problems", all, err)
	}
}

// Install, ReadWatched and Statement keep all options, with any characters. Statement leaves out defaults.
func TestWatchStatement(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	const table = `public."T's \ä"`
	run(t, conn, `CREATE TABLE `+table+` (a int)`)
	want := sql.Watch{
		Table: table, Recipient: "a -- it's\n", Event: `'a\b''c' || E'\n'`, Data: "'\"\t\\\"'::text", On: []string{"update", "delete"},
		When: "'ä\u0085\u202e\u2028' <> $$'$$", OnError: "skip",
	}
	if got, err := want.Install(dbtest.Context(t), dsn); err != nil || got != table {
		t.Fatalf("got %s, %v, want %s", got, err, table)
	}
	for range 2 {
		all, err := sql.ListWatched(dbtest.Context(t), dsn)
		if err != nil || len(all) != 1 || len(all[0].Problems) > 0 {
			t.Fatalf("got %v, %v, want one table without problems", all, err)
		}
		got := all[0].Watch
		if got.Statement() != want.Statement() || !slices.Equal(got.On, want.On) {
			t.Errorf("got  %q\nwant %q", got, want)
		}
		run(t, conn, "SET standard_conforming_strings = off; SET escape_string_warning = off")
		run(t, conn, got.Statement())
	}
	const short = "SELECT rowcast.watch('t', recipient => 'a')"
	if got := (sql.Watch{Table: "t", Recipient: "a", Event: "'message'", Data: "to_jsonb(n.*)", On: []string{"insert"}, When: "true", OnError: "fail"}).Statement(); got != short {
		t.Errorf("got %s, want %s", got, short)
	}
	const escaped = `SELECT rowcast.watch('t', recipient => E'''a\u202e\u2028\u2029\u061c''')`
	if got := (sql.Watch{Table: "t", Recipient: "'a\u202e\u2028\u2029\u061c'"}).Statement(); got != escaped {
		t.Errorf("with invisible characters: got %q, want %q", got, escaped)
	}
	if _, was, err := sql.Unwatch(dbtest.Context(t), dsn, table); err != nil || !was {
		t.Errorf("unwatch: got %t, %v, want true", was, err)
	}
}

// Migrate and Differences accept that the trigger function of a watched table belongs to the owner of the table.
func TestWatchedTableOfAnotherOwnerIsNoDifference(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	seller := createRole(t, conn, "seller")
	run(t, conn, "CREATE TABLE t (a int); ALTER TABLE t OWNER TO "+pgx.Identifier{seller}.Sanitize()+"; SELECT rowcast.watch('t', 'a')")
	if got := text(t, conn, "SELECT pg_get_userbyid(proowner)::text FROM pg_proc WHERE oid = (SELECT watcher FROM rowcast.watched())"); got != seller {
		t.Fatalf("the trigger function belongs to %s, want %s", got, seller)
	}
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Errorf("Migrate: got %v, want no error", err)
	}
	run(t, conn, "SET search_path = pg_catalog, pg_temp")
	if all, err := sql.Differences(dbtest.Context(t), conn); err != nil || len(all) > 0 {
		t.Errorf("got %v, %v, want no differences", all, err)
	}
}

// PostgreSQL 18 does not compute virtual generated columns for triggers. watch refuses such a table, but unwatch
// accepts it.
func TestVirtualColumnsAreRefused(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	if text(t, conn, "SELECT current_setting('server_version_num')") < "180000" {
		t.Skip("PostgreSQL has virtual generated columns from version 18 on")
	}
	const add = "ALTER TABLE t ADD b int GENERATED ALWAYS AS (a * 2) VIRTUAL"
	run(t, conn, "CREATE TABLE t (a int); SELECT rowcast.watch('t', 'a'); "+add)
	if got, want := text(t, conn, "SELECT problems::text FROM rowcast.watched()"), `{"virtual generated columns, which PostgreSQL does not compute for triggers: b"}`; got != want {
		t.Errorf("got the problems %s, want %s", got, want)
	}
	_, err := conn.Exec(dbtest.Context(t), "SELECT rowcast.watch('t', 'a')")
	if failed, ok := errors.AsType[*pgconn.PgError](err); !ok || failed.Code != "0A000" {
		t.Errorf("watch: got %v, want feature_not_supported", err)
	}
	if got := text(t, conn, "SELECT rowcast.unwatch('t')::text"); got != "true" {
		t.Errorf("unwatch: got %s, want true", got)
	}
}

// Every role can change settings of its session. The trigger function of a watched table has its own values of some
// settings, such as DateStyle. So with these settings, a writer cannot change what the expressions mean.
func TestSettingsOfTheWriterChangeNoExpression(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	run(t, conn, `CREATE TABLE t (who text, at date, took interval, bytes bytea, share float8);
		SELECT rowcast.watch('t', 'who', 'at::text', 'jsonb_build_array(took::text, bytes::text, share::text)', "when" => $$who !~ '\W' AND NOT coalesce(who = NULL, false)$$)`)
	const insert = `INSERT INTO t VALUES ('alice', '2026-02-01', '1 day 2 hours', 'x', 0.1::float8 + 0.2), ('*', '2026-02-01', '1', '', 1), (NULL, '2026-02-01', '1', '', 1)`
	run(t, conn, insert)
	run(t, conn, `SET standard_conforming_strings = off; SET escape_string_warning = off; SET transform_null_equals = on; SET DateStyle = 'SQL, DMY';
		SET IntervalStyle = iso_8601; SET bytea_output = escape; SET extra_float_digits = -10; DISCARD PLANS`)
	run(t, conn, insert)
	const want = `["1 day 02:00:00", "\\x78", "0.30000000000000004"]`
	if got := text(t, conn, "SELECT string_agg(concat_ws(' ', recipient, event, data), E'\n') FROM rowcast.notifications"); got != "alice 2026-02-01 "+want+"\nalice 2026-02-01 "+want {
		t.Errorf("got %s, want the same notification twice, for alice alone", got)
	}
}

// Another role that may call the trigger function of a watched table, for example after a restore without privileges,
// cannot use the function in a table of its own. That holds if it forges the catalog in which the function looks for the
// owner of the table.
func TestTriggerFunctionInATableOfAnotherRole(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	thief := createRole(t, conn, "thief")
	quoted := pgx.Identifier{thief}.Sanitize()
	run(t, conn, "CREATE TABLE t (a text); SELECT rowcast.watch('t', 'a')")
	run(t, conn, "CREATE SCHEMA own AUTHORIZATION "+quoted+"; GRANT USAGE ON SCHEMA rowcast TO "+quoted)
	watcher := text(t, conn, "SELECT watcher::text FROM rowcast.watched()")
	run(t, conn, "GRANT EXECUTE ON FUNCTION "+watcher+" TO PUBLIC")
	setRole(t, conn, thief)
	run(t, conn, `CREATE TABLE own.pg_class (oid oid, relowner oid);
		CREATE TEMP TABLE rowcast_new (a text); INSERT INTO rowcast_new VALUES ('forged');
		CREATE TRIGGER attack AFTER INSERT ON own.pg_class REFERENCING NEW TABLE AS pg_class FOR EACH STATEMENT EXECUTE FUNCTION `+watcher)
	_, err := conn.Exec(dbtest.Context(t), "INSERT INTO own.pg_class SELECT 'own.pg_class'::regclass, relowner FROM pg_catalog.pg_class WHERE relname = 't'")
	if failed, ok := errors.AsType[*pgconn.PgError](err); !ok || failed.Code != "42501" {
		t.Errorf("got %v, want insufficient_privilege", err)
	}
	run(t, conn, "RESET ROLE; DROP TABLE own.pg_class; DROP TABLE pg_temp.rowcast_new")
}

// If a watched table gets another owner, code of the new owner must not run with the rights of the earlier owner.
// Statements on the table fail, or send nothing, until the table is watched again or the earlier owner gets the table
// back.
func TestCodeOfAnotherOwnerDoesNotRun(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	seller := createRole(t, conn, "seller")
	quoted := pgx.Identifier{seller}.Sanitize()
	run(t, conn, `CREATE SCHEMA shop; GRANT ALL ON SCHEMA shop TO `+quoted+`; CREATE TABLE shop.fails (id int); CREATE TABLE shop.skips (id int);
		SELECT rowcast.watch('shop.fails', 'id'), rowcast.watch('shop.skips', 'id', on_error => 'skip');
		ALTER TABLE shop.fails OWNER TO `+quoted+`; ALTER TABLE shop.skips OWNER TO `+quoted)
	setRole(t, conn, seller)
	run(t, conn, `CREATE TYPE shop.code AS ENUM ('a');
		CREATE FUNCTION shop.spy(shop.code) RETURNS json LANGUAGE plpgsql AS $$ BEGIN RETURN to_json(current_user); END $$;
		CREATE CAST (shop.code AS json) WITH FUNCTION shop.spy(shop.code);
		ALTER TABLE shop.fails ADD code shop.code; ALTER TABLE shop.skips ADD code shop.code`)
	_, err := conn.Exec(dbtest.Context(t), "INSERT INTO shop.fails VALUES (1, 'a')")
	failed, ok := errors.AsType[*pgconn.PgError](err)
	if want := "rowcast: watching shop.fails: the table belongs to " + quoted + ", and its trigger function to postgres"; !ok || failed.Code != "42501" || failed.Message != want {
		t.Errorf("got %v, want insufficient_privilege and %q", err, want)
	}
	run(t, conn, "INSERT INTO shop.skips VALUES (2, 'a'); RESET ROLE")
	if got := text(t, conn, "SELECT count(*)::text FROM rowcast.notifications"); got != "0" {
		t.Errorf("got %s notifications, want none", got)
	}
	run(t, conn, "SELECT rowcast.watch('shop.fails', 'id')")
	run(t, conn, "ALTER TABLE shop.skips OWNER TO CURRENT_USER")
	setRole(t, conn, seller)
	run(t, conn, "INSERT INTO shop.fails VALUES (3, 'a'); RESET ROLE; INSERT INTO shop.skips VALUES (4, 'a')")
	if got, want := text(t, conn, "SELECT string_agg(recipient || data, ' ') FROM rowcast.notifications"), seller; !strings.Contains(got, `"code": "`+strings.ReplaceAll(want, `"`, `\"`)) || !strings.Contains(got, `4{"id": 4, "code": "postgres"}`) {
		t.Errorf("got %s, want a notification whose expressions ran as %s, and one whose expressions ran as postgres", got, want)
	}
	run(t, conn, "DROP SCHEMA shop CASCADE") // the DROP OWNED of createRole would fail, because it does not drop the cast
}

// watch fails if the name of the table belongs to another table by the time watch gets the lock. A table must not get
// triggers that call the function of another owner.
func TestWatchWhileATableGetsTheName(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	seller := pgx.Identifier{createRole(t, conn, "seller")}.Sanitize()
	other, monitor := connect(t, dsn), connect(t, dsn)
	run(t, conn, "CREATE SCHEMA a; CREATE SCHEMA b; GRANT USAGE ON SCHEMA a TO "+seller+"; CREATE TABLE a.t (id int); CREATE TABLE b.t (id int, secret text); ALTER TABLE a.t OWNER TO "+seller)
	run(t, other, "BEGIN; LOCK TABLE a.t IN SHARE MODE")
	done := make(chan error, 1)
	go func() {
		_, err := conn.Exec(dbtest.Context(t), "SELECT rowcast.watch('a.t', 'id')")
		done <- err
	}()
	waitForLock(t, monitor, conn, done)
	run(t, other, "ALTER SCHEMA a RENAME TO c; ALTER SCHEMA b RENAME TO a; COMMIT")
	err := dbtest.Receive(t, done, "the end of watch")
	if failed, ok := errors.AsType[*pgconn.PgError](err); !ok || failed.Message != "rowcast: while rowcast.watch() waited for a lock, the table was renamed to c.t, and another table got its name" {
		t.Errorf("got %v, want the error that another table got the name", err)
	}
	if got := text(t, monitor, "SELECT count(*)::text FROM rowcast.watched()"); got != "0" {
		t.Errorf("%s tables are watched, want none", got)
	}
}

// Install fails if another transaction uses the table for more than 5 s, or if a migration runs for so long. It does not
// wait longer, because statements of the app that come later wait for Install.
func TestWatchWaitsForTheTableForALimitedTime(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	run(t, conn, "CREATE TABLE t (id int); SELECT rowcast.watch('t', 'id')")
	run(t, conn, "BEGIN; TABLE t")
	_, err := sql.Watch{Table: "public.t", Recipient: "id"}.Install(dbtest.Context(t), dsn)
	if want := "after 5s, another transaction still uses the table: try again when it has ended"; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("got %v, want an error that ends with %q", err, want)
	}
	run(t, conn, "COMMIT; BEGIN; SELECT pg_advisory_xact_lock(4097083626)")
	_, err = sql.Watch{Table: "public.t", Recipient: "id"}.Install(dbtest.Context(t), dsn)
	if want := "after 5s, another session still holds the lock of migrations, probably rowcast migrate or another rowcast watch: try again when it has ended"; err == nil || !strings.HasSuffix(err.Error(), want) {
		t.Errorf("during a migration: got %v, want an error that ends with %q", err, want)
	}
	run(t, conn, "COMMIT")
	if _, err := (sql.Watch{Table: "public.t", Recipient: "id"}).Install(dbtest.Context(t), dsn); err != nil {
		t.Errorf("after the end of the transaction: got %v, want no error", err)
	}
}
