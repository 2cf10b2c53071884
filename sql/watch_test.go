package sql_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql/dbtest"
)

// notified is a query for the notifications in order, one a line.
const notified = "SELECT coalesce(string_agg(concat_ws(' ', recipient, event, data), E'\n' ORDER BY recipient, id), '') FROM rowcast.notifications"

// An INSERT into a watched table of any shape inserts its notifications.
func TestWatchedInsertsAreNotified(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ setup, want string }{
		"integer": {`CREATE TABLE public.t (id int); SELECT rowcast.watch('t', 'id'); INSERT INTO t VALUES (1), (2)`,
			"1 message {\"id\": 1}\n2 message {\"id\": 2}"},
		"uuid": {`CREATE TABLE t (id uuid); SELECT rowcast.watch('t', 'id', data => '1');
			INSERT INTO t VALUES ('00000000-0000-0000-0000-000000000001')`, "00000000-0000-0000-0000-000000000001 message 1"},
		"varchar and literals": {`CREATE TABLE t (id varchar(9)); SELECT rowcast.watch('t', 'id', '''e''', '''{}'''); INSERT INTO t VALUES ('a')`, `a e "{}"`},
		"a literal recipient":  {`CREATE TABLE t (id int); SELECT rowcast.watch('t', '''*''', data => 'id'); INSERT INTO t VALUES (7)`, "* message 7"},
		"array": {`CREATE TABLE t (u int[]); SELECT rowcast.watch('t', 'u', data => '1');
			INSERT INTO t VALUES ('{2,1,NULL,2}'), ('{}'), (NULL)`, "1 message 1\n2 message 1"},
		"NULL":        {`CREATE TABLE t (id int); SELECT rowcast.watch('t', 'id'); INSERT INTO t VALUES (NULL)`, ""},
		"when":        {`CREATE TABLE t (id int); SELECT rowcast.watch('t', 'id', data => '1', "when" => 'id > 1 -- comment'); INSERT INTO t VALUES (1), (2), (NULL)`, "2 message 1"},
		"quoted":      {`CREATE TABLE "A ""b'" ("C d" int); SELECT rowcast.watch('"A ""b''"', '"C d"', data => '1'); INSERT INTO "A ""b'" VALUES (3)`, "3 message 1"},
		"own names":   {`CREATE TABLE t (r int, e int, d int, n int, found int, new int, tg_op int); SELECT rowcast.watch('t', 'r', 'e', 'd + n.n + found + new + tg_op'); INSERT INTO t VALUES (1, 2, 3, 4, 5, 6, 7)`, "1 2 25"},
		"generated":   {`CREATE TABLE t (a int, b int GENERATED ALWAYS AS (a * 2) STORED, PRIMARY KEY (a, b)); SELECT rowcast.watch('t', 'b', data => 'a'); INSERT INTO t VALUES (1)`, "2 message 1"},
		"partitioned": {`CREATE TABLE t (a int) PARTITION BY LIST (a); CREATE TABLE p PARTITION OF t FOR VALUES IN (1); SELECT rowcast.watch('t', 'a', data => '1'); INSERT INTO t VALUES (1); INSERT INTO p VALUES (1)`, "1 message 1"},
		"partition":   {`CREATE TABLE t (a int) PARTITION BY LIST (a); CREATE TABLE p PARTITION OF t FOR VALUES IN (1); SELECT rowcast.watch('p', 'a', data => '1'); INSERT INTO t VALUES (1); INSERT INTO p VALUES (1)`, "1 message 1"},
		"inherited":   {`CREATE TABLE t (a int); CREATE TABLE c () INHERITS (t); SELECT rowcast.watch('t', 'a', data => '1'); INSERT INTO c VALUES (2); INSERT INTO t VALUES (1)`, "1 message 1"},
		"on conflict": {`CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 1); SELECT rowcast.watch('t', 'a', data => 'b');
			INSERT INTO t VALUES (1, 2), (2, 2) ON CONFLICT (a) DO UPDATE SET b = 3; INSERT INTO t VALUES (1, 4), (3, 4) ON CONFLICT DO NOTHING`, "2 message 2\n3 message 4"},
		"renamed table":    {`CREATE TABLE t (a int); SELECT rowcast.watch('t', 'a', data => '1'); ALTER TABLE t RENAME TO s; INSERT INTO s VALUES (1)`, "1 message 1"},
		"watched again":    {`CREATE TABLE t (a int); SELECT rowcast.watch('t', 'a'), rowcast.watch('t', 'a + 1', data => '1'); INSERT INTO t VALUES (1)`, "2 message 1"},
		"a column named n": {`CREATE TABLE t (n int); SELECT rowcast.watch('t', 'n'); INSERT INTO t VALUES (1)`, `1 message {"n": 1}`},
		"an app without rights": {`CREATE TABLE t (a int); SELECT rowcast.watch('t', 'a', data => '1'); GRANT INSERT ON t TO pg_monitor;
			SET ROLE pg_monitor; INSERT INTO t VALUES (1); RESET ROLE`, "1 message 1"},
		"bulk": {`CREATE TABLE t (a int); SELECT rowcast.watch('t', '''u''', data => 'a', "when" => 'a % 50000 = 0');
			INSERT INTO t SELECT generate_series(1, 100000)`, "u message 50000\nu message 100000"},
		"unwatched":      {`CREATE TABLE t (a int); SELECT rowcast.watch('t', 'a'); SELECT rowcast.unwatch('t'); INSERT INTO t VALUES (1)`, ""},
		"skip":           {`CREATE TABLE t (a int); SELECT rowcast.watch('t', '1/a', on_error => 'skip'); INSERT INTO t VALUES (0), (1)`, ""},
		"dropped, other": {`CREATE TABLE t (a int, b int); SELECT rowcast.watch('t', 'a'); ALTER TABLE t DROP b; INSERT INTO t VALUES (1)`, `1 message {"a": 1}`},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, dbtest.Database(t))
			run(t, conn, test.setup)
			if got := text(t, conn, notified); got != test.want {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}

// An error of watch or of a watched INSERT names the expression and the table and keeps the SQLSTATE.
func TestWatchErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ setup, statement, code, message string }{
		"failing recipient": {`SELECT rowcast.watch('t', '1/a')`, `INSERT INTO t VALUES (0)`, "22012", "watching public.t: recipient expression 1/a failed"},
		"failing data":      {`SELECT rowcast.watch('t', 'a', data => 'to_jsonb(1/a)')`, `INSERT INTO t VALUES (0)`, "22012", "data expression to_jsonb(1/a) failed"},
		"NULL data":         {`SELECT rowcast.watch('t', 'a', data => 'NULL')`, `INSERT INTO t VALUES (0)`, "23502", "INSERT INTO rowcast.notifications failed"},
		"renamed column":    {`SELECT rowcast.watch('t', 'a'); ALTER TABLE t RENAME a TO b`, `INSERT INTO t VALUES (0)`, "42703", "recipient expression a failed"},
		"dropped column":    {`SELECT rowcast.watch('t', 'a'); ALTER TABLE t ADD b int, DROP a`, `INSERT INTO t VALUES (0)`, "42703", "recipient expression a failed"},
		"no such column":    {``, `SELECT rowcast.watch('t', 'b')`, "42703", "watching public.t: recipient expression b failed"},
		"empty":             {``, `SELECT rowcast.watch('t', ' ')`, "22023", "the recipient expression is empty"},
		"on_error":          {``, `SELECT rowcast.watch('t', 'a', on_error => 'x')`, "22023", "on_error is 'x', want fail or skip"},
		"view":              {`CREATE VIEW v AS TABLE t`, `SELECT rowcast.watch('v', 'a')`, "42809", "public.v is not a table"},
		"own table":         {``, `SELECT rowcast.watch('rowcast.notifications', 'recipient')`, "42809", "cannot be watched"},
		"another role": {`GRANT USAGE ON SCHEMA rowcast TO pg_monitor; SET ROLE pg_monitor`,
			`SELECT rowcast.watch('public.t', 'a')`, "42501", "role pg_monitor may not watch tables"},
	} {
		t.Run(name, func(t *testing.T) {
			conn := connect(t, dbtest.Database(t))
			run(t, conn, "CREATE TABLE t (a int); "+test.setup)
			_, err := conn.Exec(dbtest.Context(t), test.statement)
			if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != test.code || !strings.Contains(e.Message, test.message) {
				t.Errorf("got %v, want SQLSTATE %s and %q", err, test.code, test.message)
			}
		})
	}
}

// Only the owner can call the function of a watched table, and unwatch removes it.
func TestWatchFunctionIsPrivateAndRemoved(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	const functions = "FROM pg_proc WHERE pronamespace = 'rowcast'::regnamespace AND proname LIKE 'watch\\_________________________________'"
	run(t, conn, "CREATE TABLE t (a int); SELECT rowcast.watch('t', 'a'); SELECT rowcast.watch('t', 'a')")
	if got := text(t, conn, "SELECT string_agg(has_function_privilege('pg_monitor', oid, 'EXECUTE')::text, ' ') "+functions); got != "false" {
		t.Errorf("others may call the functions: got %q, want one function and false", got)
	}
	if got := text(t, conn, "SELECT concat(rowcast.unwatch('t'), rowcast.unwatch('t'))"); got != "tf" {
		t.Errorf("unwatch twice: got %q, want tf", got)
	}
	if got := text(t, conn, "SELECT count(*)::text "+functions); got != "0" {
		t.Errorf("got %s functions after unwatch, want 0", got)
	}
}
