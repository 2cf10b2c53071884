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
		"update": {`CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, 'z');
			SELECT rowcast.watch('t', 'a', 'tg_op', 'jsonb_build_array(o.b, b, o.a)', '{update}', 'o.b <> b');
			UPDATE t SET b = CASE a WHEN 2 THEN b ELSE b || a END, a = a + 10; INSERT INTO t VALUES (4, 'v'); DELETE FROM t`,
			`11 UPDATE ["x", "x1", 1]` + "\n" + `13 UPDATE ["z", "z3", 3]`},
		"delete": {`CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2); SELECT rowcast.watch('t', 'a', 'lower(tg_op)', 'o.a + n.a', '{delete}');
			DELETE FROM t WHERE a = 2; DELETE FROM t WHERE a = 7; UPDATE t SET a = 3`, "2 delete 4"},
		"all operations": {`CREATE TABLE t (a int); SELECT rowcast.watch('t', '''u''', 'tg_op', 'jsonb_build_array(o.a, n.a)', '{delete,insert,update}');
			INSERT INTO t VALUES (1), (2); UPDATE t SET a = a + 2; DELETE FROM t WHERE a = 3`,
			"u INSERT [null, 1]\nu INSERT [null, 2]\nu UPDATE [1, 3]\nu UPDATE [2, 4]\nu DELETE [3, 3]"},
		"TRUNCATE": {`CREATE TABLE t (a int); INSERT INTO t VALUES (1); SELECT rowcast.watch('t', 'a', "on" => '{delete}'); TRUNCATE t`, ""},
		"update of nothing": {`CREATE TABLE t (a int); SELECT rowcast.watch('t', 'a', "on" => '{update,delete}');
			UPDATE t SET a = 1; DELETE FROM t`, ""},
		"upsert": {`CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 1), (3, 3);
			SELECT rowcast.watch('t', 'a', 'tg_op', 'jsonb_build_array(o.b, b)', '{insert,update}');
			INSERT INTO t SELECT i, 10 * i FROM generate_series(1, 4) i ON CONFLICT (a) DO UPDATE SET b = EXCLUDED.b + 1`,
			"1 UPDATE [1, 11]\n2 INSERT [null, 20]\n3 UPDATE [3, 31]\n4 INSERT [null, 40]"},
		"moved to other partitions": {`CREATE TABLE t (a int, b int) PARTITION BY LIST (a); CREATE TABLE p PARTITION OF t FOR VALUES IN (1, 3);
			CREATE TABLE q (x text, b int, a int); ALTER TABLE q DROP x; ALTER TABLE t ATTACH PARTITION q FOR VALUES IN (2, 4);
			INSERT INTO t VALUES (1, 1), (2, 2), (3, 3), (4, 4); SELECT rowcast.watch('t', 'b', data => 'jsonb_build_array(o.a, n.a)', "on" => '{update}');
			UPDATE t SET a = CASE b WHEN 4 THEN 4 ELSE b % 3 + 1 END`, "1 message [1, 2]\n2 message [2, 3]\n3 message [3, 1]\n4 message [4, 4]"},
		"TOAST and HOT": {`CREATE TABLE t (a int PRIMARY KEY, b text, c int) WITH (fillfactor = 50); ALTER TABLE t ALTER b SET STORAGE EXTERNAL;
			INSERT INTO t SELECT i, repeat(i::text, 9000), 0 FROM generate_series(1, 3) i; SELECT rowcast.watch('t', 'a',
				data => 'jsonb_build_array(length(o.b), length(n.b), o.c, n.c, o.a = n.a)', "on" => '{update}');
			UPDATE t SET c = a; UPDATE t SET b = b || b WHERE a = 3`, "1 message [9000, 9000, 0, 1, true]\n2 message [9000, 9000, 0, 2, true]\n" +
			"3 message [9000, 9000, 0, 3, true]\n3 message [9000, 18000, 3, 3, true]"},
		"bulk update": {`CREATE TABLE t (a int, b int); INSERT INTO t SELECT i, i FROM generate_series(1, 100000) i;
			SELECT rowcast.watch('t', '''u''', data => 'a', "on" => '{update}', "when" => 'o.a <> n.a OR o.b + 1 <> n.b OR a % 50000 = 0'); UPDATE t SET b = b + 1`,
			"u message 50000\nu message 100000"},
		"own names, update": {`CREATE TABLE t (a int, i int, o int, n int, rowcast_n int, tg_op int, part text, source int); INSERT INTO t VALUES (1, 2, 3, 4, 5, 6, 7, 8);
			SELECT rowcast.watch('t', 'a', data => 'jsonb_build_array(n.i, o.i, n.o, rowcast_n, tg_op, part, source, o.n)', "on" => '{update}'); UPDATE t SET i = 9`,
			`1 message [9, 2, 3, 5, 6, "7", 8, 4]`},
		"a table of another owner": {`GRANT CREATE, USAGE ON SCHEMA public TO pg_monitor; SET ROLE pg_monitor; CREATE TABLE t (a int); RESET ROLE;
			SELECT rowcast.watch('t', 'a', data => 'to_jsonb(current_user)', "on" => '{insert,update,delete}'); INSERT INTO t VALUES (1)`, `1 message "pg_monitor"`},
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
		"control character": {`SELECT rowcast.watch('t', 'chr(a)')`, `INSERT INTO t VALUES (9)`, "23514", "recipient_has_no_control_characters"},
		"renamed column":    {`SELECT rowcast.watch('t', 'a'); ALTER TABLE t RENAME a TO b`, `INSERT INTO t VALUES (0)`, "42703", "recipient expression a failed"},
		"dropped column":    {`SELECT rowcast.watch('t', 'a'); ALTER TABLE t ADD b int, DROP a`, `INSERT INTO t VALUES (0)`, "42703", "recipient expression a failed"},
		"no such column":    {``, `SELECT rowcast.watch('t', 'b')`, "42703", "watching public.t: recipient expression b failed"},
		"empty":             {``, `SELECT rowcast.watch('t', ' ')`, "22023", "the recipient expression is empty"},
		"on_error":          {``, `SELECT rowcast.watch('t', 'a', on_error => 'x')`, "22023", "on_error is 'x', want fail or skip"},
		"failing update":    {`INSERT INTO t VALUES (1); SELECT rowcast.watch('t', 'a', 'tg_op', 'to_jsonb(1/(n.a-o.a))', '{insert,update}')`, `UPDATE t SET a = a`, "22012", "data expression to_jsonb(1/(n.a-o.a)) failed"},
		"failing delete":    {`INSERT INTO t VALUES (0); SELECT rowcast.watch('t', '1/o.a', "on" => '{delete}')`, `DELETE FROM t`, "22012", "recipient expression 1/o.a failed"},
		"failing condition": {`SELECT rowcast.watch('t', 'a', "when" => '1/a > 0')`, `INSERT INTO t VALUES (0)`, "22012", "when expression 1/a > 0 failed"},
		"condition first":   {`SELECT rowcast.watch('t', '1/a', data => '1', "when" => 'a <> 0'); INSERT INTO t VALUES (0)`, `SELECT 1/count(*) FROM rowcast.notifications`, "22012", "division"},
		"no operation":      {``, `SELECT rowcast.watch('t', 'a', "on" => '{}')`, "22023", `"on" is '{}'`},
		"other operation":   {``, `SELECT rowcast.watch('t', 'a', "on" => '{truncate}')`, "22023", `want an array of one or more of insert, update and delete`},
		"same operation":    {``, `SELECT rowcast.watch('t', 'a', "on" => '{insert,insert}')`, "22023", `"on" is '{insert,insert}'`},
		"injected SQL":      {``, `SELECT rowcast.watch('t', 'a) FROM n; DROP TABLE t; SELECT (1')`, "42601", "recipient expression"},
		"skipped by a partition": {`DROP TABLE t; CREATE TABLE t (a int) PARTITION BY LIST (a); CREATE TABLE p PARTITION OF t FOR VALUES IN (1); CREATE TABLE q PARTITION OF t FOR VALUES IN (2);
			CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER skip BEFORE INSERT ON q FOR EACH ROW EXECUTE FUNCTION skip();
			INSERT INTO t VALUES (1); SELECT rowcast.watch('t', 'a', "on" => '{update}')`, `UPDATE t SET a = 2`, "P0001", "a BEFORE trigger of a partition skipped a row"},
		"view":      {`CREATE VIEW v AS TABLE t`, `SELECT rowcast.watch('v', 'a')`, "42809", "public.v is not a table"},
		"own table": {``, `SELECT rowcast.watch('rowcast.notifications', 'recipient')`, "42809", "cannot be watched"},
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
