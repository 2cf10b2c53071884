package sql_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql/dbtest"
)

// notified is a query for the notifications, one a line, ordered by recipient and id.
const notified = "SELECT coalesce(string_agg(concat_ws(' ', recipient, event, data), E'\n' ORDER BY recipient, id), '') FROM rowcast.notifications"

// Statements on watched tables of many kinds insert the notifications that the options describe.
func TestWatchedStatementsInsertNotifications(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ setup, want string }{
		"integer": {
			`CREATE TABLE public.t (id int); SELECT rowcast.watch('t', 'id'); INSERT INTO t VALUES (1), (2)`,
			"1 message {\"id\": 1}\n2 message {\"id\": 2}",
		},
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
		"update": {
			`CREATE TABLE t (a int, b text); INSERT INTO t VALUES (1, 'x'), (2, 'y'), (3, 'z');
			SELECT rowcast.watch('t', 'a', 'tg_op', 'jsonb_build_array(o.b, b, o.a)', '{update}', 'o.b <> b');
			UPDATE t SET b = CASE a WHEN 2 THEN b ELSE b || a END, a = a + 10; INSERT INTO t VALUES (4, 'v'); DELETE FROM t`,
			`11 UPDATE ["x", "x1", 1]` + "\n" + `13 UPDATE ["z", "z3", 3]`,
		},
		"delete": {`CREATE TABLE t (a int); INSERT INTO t VALUES (1), (2); SELECT rowcast.watch('t', 'a', 'lower(tg_op)', 'o.a + n.a', '{delete}');
			DELETE FROM t WHERE a = 2; DELETE FROM t WHERE a = 7; UPDATE t SET a = 3`, "2 delete 4"},
		"all operations": {
			`CREATE TABLE t (a int); SELECT rowcast.watch('t', '''u''', 'tg_op', 'jsonb_build_array(o.a, n.a)', '{delete,insert,update}');
			INSERT INTO t VALUES (1), (2); UPDATE t SET a = a + 2; DELETE FROM t WHERE a = 3`,
			"u INSERT [null, 1]\nu INSERT [null, 2]\nu UPDATE [1, 3]\nu UPDATE [2, 4]\nu DELETE [3, 3]",
		},
		"the row as data": {
			`CREATE TABLE t (a int, b int); SELECT rowcast.watch('t', 'a', data => 'n'); INSERT INTO t VALUES (1, 2);
			SELECT rowcast.watch('t', 'a', data => '(n.a, 3)'); INSERT INTO t VALUES (2); SELECT rowcast.watch('t', 'a', data => 'SELECT o FROM (SELECT n.a) AS o'); INSERT INTO t VALUES (3)`,
			`1 message {"a": 1, "b": 2}` + "\n" + `2 message {"f1": 2, "f2": 3}` + "\n" + `3 message {"a": 3}`,
		},
		"a dropped column": {
			`CREATE TABLE t (x text, a int, y int, who text, z date); ALTER TABLE t DROP x;
			SELECT rowcast.watch('t', 'who', 'tg_op', 'jsonb_build_array(o.who, n.who, o.a, a, to_jsonb(n))', '{insert,update,delete}');
			INSERT INTO t VALUES (1, 2, 'alice', NULL); ALTER TABLE t DROP y; ALTER TABLE t ADD b int DEFAULT 5;
			INSERT INTO t VALUES (2, 'bob', NULL); UPDATE t SET a = a + 10; ALTER TABLE t DROP z; DELETE FROM t WHERE a = 12`,
			`alice INSERT [null, "alice", null, 1, {"a": 1, "y": 2, "z": null, "who": "alice"}]` + "\n" +
				`alice UPDATE ["alice", "alice", 1, 11, {"a": 11, "b": 5, "z": null, "who": "alice"}]` + "\n" +
				`bob INSERT [null, "bob", null, 2, {"a": 2, "b": 5, "z": null, "who": "bob"}]` + "\n" +
				`bob UPDATE ["bob", "bob", 2, 12, {"a": 12, "b": 5, "z": null, "who": "bob"}]` + "\n" +
				`bob DELETE ["bob", "bob", 12, 12, {"a": 12, "b": 5, "who": "bob"}]`,
		},
		"a bulk update after a small one": {
			`CREATE TABLE t (a int, b int); SELECT rowcast.watch('t', 'a', data => 'a', "on" => '{update}', "when" => 'o.b < n.b AND a = 15000');
			INSERT INTO t VALUES (0, 0); UPDATE t SET b = 1; INSERT INTO t SELECT i, 0 FROM generate_series(1, 20000) AS i; SET statement_timeout = '1min'; UPDATE t SET b = b + 1`,
			"15000 message 15000",
		},
		"TRUNCATE": {`CREATE TABLE t (a int); INSERT INTO t VALUES (1); SELECT rowcast.watch('t', 'a', "on" => '{delete}'); TRUNCATE t`, ""},
		"update of nothing": {`CREATE TABLE t (a int); SELECT rowcast.watch('t', 'a', "on" => '{update,delete}');
			UPDATE t SET a = 1; DELETE FROM t`, ""},
		"upsert": {
			`CREATE TABLE t (a int PRIMARY KEY, b int); INSERT INTO t VALUES (1, 1), (3, 3);
			SELECT rowcast.watch('t', 'a', 'tg_op', 'jsonb_build_array(o.b, b)', '{insert,update}');
			INSERT INTO t SELECT i, 10 * i FROM generate_series(1, 4) i ON CONFLICT (a) DO UPDATE SET b = EXCLUDED.b + 1`,
			"1 UPDATE [1, 11]\n2 INSERT [null, 20]\n3 UPDATE [3, 31]\n4 INSERT [null, 40]",
		},
		"moved to other partitions": {`CREATE TABLE t (a int, b int) PARTITION BY LIST (a); CREATE TABLE p PARTITION OF t FOR VALUES IN (1, 3);
			CREATE TABLE q (x text, b int, a int); ALTER TABLE q DROP x; ALTER TABLE t ATTACH PARTITION q FOR VALUES IN (2, 4);
			INSERT INTO t VALUES (1, 1), (2, 2), (3, 3), (4, 4); SELECT rowcast.watch('t', 'b', data => 'jsonb_build_array(o.a, n.a)', "on" => '{update}');
			UPDATE t SET a = CASE b WHEN 4 THEN 4 ELSE b % 3 + 1 END`, "1 message [1, 2]\n2 message [2, 3]\n3 message [3, 1]\n4 message [4, 4]"},
		"TOAST and HOT": {`CREATE TABLE t (a int PRIMARY KEY, b text, c int) WITH (fillfactor = 50); ALTER TABLE t ALTER b SET STORAGE EXTERNAL;
			INSERT INTO t SELECT i, repeat(i::text, 9000), 0 FROM generate_series(1, 3) i; SELECT rowcast.watch('t', 'a',
				data => 'jsonb_build_array(length(o.b), length(n.b), o.c, n.c, o.a = n.a)', "on" => '{update}');
			UPDATE t SET c = a; UPDATE t SET b = b || b WHERE a = 3`, "1 message [9000, 9000, 0, 1, true]\n2 message [9000, 9000, 0, 2, true]\n" +
			"3 message [9000, 9000, 0, 3, true]\n3 message [9000, 18000, 3, 3, true]"},
		"bulk update": {
			`CREATE TABLE t (a int, b int); INSERT INTO t SELECT i, i FROM generate_series(1, 100000) i;
			SELECT rowcast.watch('t', '''u''', data => 'a', "on" => '{update}', "when" => 'o.a <> n.a OR o.b + 1 <> n.b OR a % 50000 = 0'); UPDATE t SET b = b + 1`,
			"u message 50000\nu message 100000",
		},
		"own names, update": {
			`CREATE TABLE t (a int, i int, o int, n int, rowcast_n int, tg_op int, part text, source int); INSERT INTO t VALUES (1, 2, 3, 4, 5, 6, 7, 8);
			SELECT rowcast.watch('t', 'a', data => 'jsonb_build_array(n.i, o.i, n.o, rowcast_n, tg_op, part, source, o.n)', "on" => '{update}'); UPDATE t SET i = 9`,
			`1 message [9, 2, 3, 5, 6, "7", 8, 4]`,
		},
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

// Errors of watch, and errors of statements on a watched table, say what is wrong, and have the SQLSTATE of the cause.
// The condition is evaluated first: the other expressions do not fail for rows that it excludes.
func TestWatchErrors(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ setup, statement, code, message string }{
		"failing recipient":          {`SELECT rowcast.watch('t', '1/a')`, `INSERT INTO t VALUES (0)`, "22012", "watching public.t: recipient expression 1/a failed"},
		"failing data":               {`SELECT rowcast.watch('t', 'a', data => 'to_jsonb(1/a)')`, `INSERT INTO t VALUES (0)`, "22012", "data expression to_jsonb(1/a) failed"},
		"NULL data":                  {`SELECT rowcast.watch('t', 'a', data => 'nullif(a, 0)')`, `INSERT INTO t VALUES (1), (0)`, "23502", "the data of the data expression nullif(a, 0) is NULL; for example coalesce(to_jsonb(nullif(a, 0)), 'null')"},
		"control character":          {`SELECT rowcast.watch('t', 'chr(a)')`, `INSERT INTO t VALUES (65), (9)`, "23514", "the recipient \"\t\" of the recipient expression chr(a) violates the constraint recipient_has_no_control_characters"},
		"renamed column":             {`SELECT rowcast.watch('t', 'a'); ALTER TABLE t RENAME a TO b`, `INSERT INTO t VALUES (0)`, "42703", "recipient expression a failed"},
		"dropped column":             {`SELECT rowcast.watch('t', 'a'); ALTER TABLE t ADD b int, DROP a`, `INSERT INTO t VALUES (0)`, "42703", "recipient expression a failed"},
		"no such column":             {``, `SELECT rowcast.watch('t', 'b')`, "42703", "watching public.t: recipient expression b failed"},
		"empty":                      {``, `SELECT rowcast.watch('t', ' ')`, "22023", "the recipient expression is empty"},
		"on_error":                   {``, `SELECT rowcast.watch('t', 'a', on_error => 'x')`, "22023", "on_error is 'x', want fail or skip"},
		"failing update":             {`INSERT INTO t VALUES (1); SELECT rowcast.watch('t', 'a', 'tg_op', 'to_jsonb(1/(n.a-o.a))', '{insert,update}')`, `UPDATE t SET a = a`, "22012", "data expression to_jsonb(1/(n.a-o.a)) failed"},
		"failing delete":             {`INSERT INTO t VALUES (0); SELECT rowcast.watch('t', '1/o.a', "on" => '{delete}')`, `DELETE FROM t`, "22012", "recipient expression 1/o.a failed"},
		"failing condition":          {`SELECT rowcast.watch('t', 'a', "when" => '1/a > 0')`, `INSERT INTO t VALUES (0)`, "22012", "when expression 1/a > 0 failed"},
		"condition first":            {`SELECT rowcast.watch('t', '1/a', data => '1', "when" => 'a <> 0'); INSERT INTO t VALUES (0)`, `SELECT 1/count(*) FROM rowcast.notifications`, "22012", "division"},
		"no operation":               {``, `SELECT rowcast.watch('t', 'a', "on" => '{}')`, "22023", `"on" is '{}'`},
		"other operation":            {``, `SELECT rowcast.watch('t', 'a', "on" => '{truncate}')`, "22023", `want an array of one or more of insert, update and delete`},
		"same operation":             {``, `SELECT rowcast.watch('t', 'a', "on" => '{insert,insert}')`, "22023", `"on" is '{insert,insert}'`},
		"two columns":                {``, `SELECT rowcast.watch('t', 'a), (a')`, "42601", "recipient expression a), (a failed"},
		"UNION":                      {``, `SELECT rowcast.watch('t', '1) AS v UNION SELECT (2')`, "42601", "the combination of the expressions failed"},
		"several values":             {``, `SELECT rowcast.watch('t', 'a', data => 'a, a')`, "42804", "the data expression has the type record, it must be one value"},
		"aggregate":                  {``, `SELECT rowcast.watch('t', 'max(a)')`, "42803", "the combination of the expressions failed"},
		"set in the condition":       {``, `SELECT rowcast.watch('t', 'a', "when" => 'unnest(ARRAY[true])')`, "0A000", "the combination of the expressions failed"},
		"condition that became text": {`ALTER TABLE t ADD b boolean; SELECT rowcast.watch('t', 'a', "when" => 'b'); ALTER TABLE t ALTER b TYPE text`, `INSERT INTO t VALUES (0)`, "42804", "when expression b failed: argument of WHERE must be type boolean"},
		"injected SQL":               {``, `SELECT rowcast.watch('t', 'a) FROM n; DROP TABLE t; SELECT (1')`, "42601", "recipient expression"},
		"skipped by a partition": {`DROP TABLE t; CREATE TABLE t (a int) PARTITION BY LIST (a); CREATE TABLE p PARTITION OF t FOR VALUES IN (1); CREATE TABLE q PARTITION OF t FOR VALUES IN (2);
			CREATE FUNCTION skip() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NULL; END'; CREATE TRIGGER skip BEFORE INSERT ON q FOR EACH ROW EXECUTE FUNCTION skip();
			INSERT INTO t VALUES (1); SELECT rowcast.watch('t', 'a', "on" => '{update}')`, `UPDATE t SET a = 2`, "P0001", "a BEFORE trigger of a partition skipped a row"},
		"foreign partition": {
			`DROP TABLE t; CREATE TABLE t (a int) PARTITION BY LIST (a); CREATE FOREIGN DATA WRAPPER w; CREATE SERVER s FOREIGN DATA WRAPPER w; CREATE FOREIGN TABLE far PARTITION OF t FOR VALUES IN (1) SERVER s`,
			`SELECT rowcast.watch('t', 'a')`, "0A000", "public.t cannot be watched: it has a partition or child that is a foreign table",
		},
		"view":      {`CREATE VIEW v AS TABLE t`, `SELECT rowcast.watch('v', 'a')`, "42809", "public.v is not a table"},
		"own table": {``, `SELECT rowcast.watch('rowcast.notifications', 'recipient')`, "42809", "cannot be watched"},
		"another role": {
			`GRANT USAGE ON SCHEMA rowcast TO pg_monitor; SET ROLE pg_monitor`,
			`SELECT rowcast.watch('public.t', 'a')`, "42501", "role pg_monitor may not watch tables",
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, dbtest.Database(t))
			run(t, conn, "CREATE TABLE t (a int); "+test.setup)
			_, err := conn.Exec(dbtest.Context(t), test.statement)
			if e, ok := errors.AsType[*pgconn.PgError](err); !ok || e.Code != test.code || !strings.Contains(e.Message, test.message) {
				t.Errorf("got %v, want SQLSTATE %s and %q", err, test.code, test.message)
			}
		})
	}
}

// The recipient, the event and the condition of a watched table accept only some types. The error for another type
// says what to write. If the recipient is an array, each distinct element that is not NULL gets a notification.
func TestTypesOfWatchedExpressions(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	run(t, conn, `CREATE TYPE mood AS ENUM ('sad', 'open'); CREATE TYPE pair AS (a int, b int); CREATE DOMAIN tag AS text; CREATE DOMAIN tags AS tag[];
		CREATE DOMAIN yes AS boolean; CREATE DOMAIN key AS int CHECK (VALUE > 0); CREATE DOMAIN pairs AS pair`)
	const identifier = "00000000-0000-0000-0000-000000000001"
	const scalar, list = "text, an integer, numeric, a UUID or an enum", "text, an integer, numeric, a UUID or an enum, or an array of these"
	for _, test := range []struct{ kind, expression, value, recipient, event, when string }{
		{"text", "a", "x", "x", "x", "boolean"},
		{"varchar(9)", "a", "x", "x", "x", "boolean"},
		{"char(3)", "a", "x", "x", "x", "boolean"},
		{"name", "a", "x", "x", "x", "boolean"},
		{"smallint", "a", "7", "7", "7", "boolean"},
		{"bigint", "a", "-7", "-7", "-7", "boolean"},
		{"numeric(20)", "a", "7", "7", "7", "boolean"},
		{"uuid", "a", identifier, identifier, identifier, "boolean"},
		{"mood", "a", "sad", "sad", "sad", "boolean"},
		{"tag", "a", "x", "x", "x", "boolean"},
		{"key", "a", "7", "7", "7", "boolean"},
		{"text[]", "a", "{x,y,x}", "x,y", "must be " + scalar, "boolean"},
		{"int[]", "a", "{{1},{2}}", "1,2", "must be " + scalar, "boolean"},
		{"uuid[]", "a", "{" + identifier + "}", identifier, "must be " + scalar, "boolean"},
		{"mood[]", "a", "{sad}", "sad", "must be " + scalar, "boolean"},
		{"tag[]", "a", "{x,NULL}", "x", "must be " + scalar, "boolean"},
		{"tags", "a", "{x,y}", "x,y", "must be " + scalar, "boolean"},
		{"pair", "a", "(1,2)", "must be " + list, "must be " + scalar, "boolean"},
		{"pairs", "a", "(1,2)", "must be " + list, "must be " + scalar, "boolean"},
		{"pair[]", "a", "{}", "must be " + list, "must be " + scalar, "boolean"},
		{"tags[]", "a", "{}", "must be " + list, "must be " + scalar, "boolean"},
		{"jsonb", "a", "{}", "must be " + list, "must be " + scalar, "boolean"},
		{"jsonb", "a -> 'b'", "{}", "must be " + list, "must be " + scalar, "boolean"},
		{"jsonb", "a ->> 'b'", `{"b": "x"}`, "x", "x", "boolean"},
		{"timestamptz", "a", "now", "must be " + list, "must be " + scalar, "boolean"},
		{"float8", "a", "1", "must be " + list, "must be " + scalar, "boolean"},
		{"int", "a, a", "1", "must be " + list, "must be " + scalar, "boolean"},
		{"int", "n", "1", "must be " + list, "must be " + scalar, "boolean"},
		{"boolean", "a", "true", "must be " + list, "must be " + scalar, ""},
		{"yes", "a", "true", "must be " + list, "must be " + scalar, ""},
	} {
		run(t, conn, "DROP TABLE IF EXISTS t; CREATE TABLE t (a "+test.kind+")")
		for part, want := range map[string]string{"recipient": test.recipient, "event": test.event, "when": test.when} {
			arguments := map[string]string{"recipient": "'*'", "event": "'message'", "when": "true", part: test.expression}
			_, err := conn.Exec(dbtest.Context(t), "SELECT rowcast.watch('t', $1, event => $2, \"when\" => $3)", arguments["recipient"], arguments["event"], arguments["when"])
			refused, ok := errors.AsType[*pgconn.PgError](err)
			switch {
			case part == "when" && want == "" && err == nil:
			case err != nil && (!ok || refused.Code != "42804" || refused.Hint == "" || !strings.HasSuffix(refused.Message, want) ||
				!strings.HasPrefix(refused.Message, "rowcast: watching public.t: the "+part+" expression has the type ")):
				t.Errorf("%s %s of the type %s: got %v, want an error that ends with %q", part, test.expression, test.kind, err, want)
			case err == nil:
				run(t, conn, "INSERT INTO t VALUES ('"+test.value+"')")
				if got := text(t, conn, "WITH gone AS (DELETE FROM rowcast.notifications RETURNING *) SELECT string_agg("+part+", ',' ORDER BY "+part+") FROM gone"); got != want {
					t.Errorf("%s %s of the type %s: got %q, want %q", part, test.expression, test.kind, got, want)
				}
			}
		}
	}
}

// If rowcast.notifications refuses the value of an expression, the error names the expression. If the value is NULL,
// empty or reserved, the error usually says what to write instead. If the expression is a constant, rowcast.watch()
// fails. Otherwise, the INSERT into the watched table fails, or sends nothing if on_error is skip.
func TestRefusedValuesOfWatchedExpressions(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	run(t, conn, "CREATE TYPE mood AS ENUM ('sad', 'open')")
	for _, test := range []struct{ part, kind, expression, value, code, want string }{
		{"event", "text", "a", "'open'", "23514", `the event "open" of the event expression a is reserved; for example 'order.' || a`},
		{"event", "mood", "n.a", "'open'", "23514", `the event "open" of the event expression n.a is reserved; for example 'order.' || n.a`},
		{"event", "text", "'rowcast.' || a", "'b'", "23514", `the event "rowcast.b" of the event expression 'rowcast.' || a is reserved; for example 'order.' || 'rowcast.' || a`},
		{"event", "text", "a", "NULL", "23502", `the event of the event expression a is NULL; for example coalesce(a::text, 'message')`},
		{"event", "mood", "a", "NULL", "23502", `the event of the event expression a is NULL; for example coalesce(a::text, 'message')`},
		{"event", "text", "a", "''", "23514", `the event of the event expression a is empty; for example coalesce(nullif(a, ''), 'message')`},
		{"event", "text", "a", "repeat('é', 65)", "23514", `the event "` + strings.Repeat("é", 65) + `" of the event expression a violates the constraint event_is_1_to_128_bytes`},
		{"event", "text", "a", `E'x\ny'`, "23514", "the event \"x\ny\" of the event expression a violates the constraint event_has_no_line_break"},
		{"recipient", "text", "a", "''", "23514", "the recipient of the recipient expression a is empty; nullif(a, '') sends nothing"},
		{"recipient", "text[]", "a", "'{x,\"\"}'", "23514", "the recipient of the recipient expression a is empty; nullif(a, '') sends nothing"},
		{"recipient", "text", "a", "repeat('x', 257)", "23514", `the recipient "` + strings.Repeat("x", 100) + `" of the recipient expression a violates the constraint recipient_is_1_to_256_bytes`},
		{"data", "jsonb", "a", "NULL", "23502", "the data of the data expression a is NULL; for example coalesce(to_jsonb(a), 'null')"},
		{"event", "int", "'open'", "", "23514", `the event "open" of the event expression 'open' is reserved`},
		{"event", "int", " 'rowcast.x' ", "", "23514", `the event "rowcast.x" of the event expression  'rowcast.x'  is reserved`},
		{"event", "int", "''", "", "23514", "the event of the event expression '' is empty"},
		{"event", "int", "Null", "", "23502", "the event of the event expression Null is NULL"},
		{"recipient", "int", "''", "", "23514", "the recipient of the recipient expression '' is empty"},
		{"recipient", "int", "NULL", "", "23502", "the recipient of the recipient expression NULL is NULL"},
		{"data", "int", "NULL", "", "23502", "the data of the data expression NULL is NULL"},
	} {
		run(t, conn, "DROP TABLE IF EXISTS t; CREATE TABLE t (event text, a "+test.kind+")")
		arguments := map[string]string{"recipient": "'*'", "event": "'it''s'", "data": "1", test.part: test.expression}
		for _, onError := range []string{"fail", "skip"} {
			_, err := conn.Exec(dbtest.Context(t), "SELECT rowcast.watch('t', $1, $2, $3, on_error => $4)", arguments["recipient"], arguments["event"], arguments["data"], onError)
			if test.value != "" && err == nil {
				_, err = conn.Exec(dbtest.Context(t), "INSERT INTO t (a) VALUES ("+test.value+")")
			}
			refused, ok := errors.AsType[*pgconn.PgError](err)
			if sent := text(t, conn, "SELECT count(*)::text FROM rowcast.notifications"); sent != "0" {
				t.Errorf("%+v: got %s notifications, want 0", test, sent)
			}
			if onError == "skip" && test.value != "" {
				if err != nil {
					t.Errorf("%+v: got %v, want that the INSERT succeeds", test, err)
				}
			} else if !ok || refused.Code != test.code || !strings.HasPrefix(refused.Message, "rowcast: watching public.t: "+test.want) {
				t.Errorf("%+v: got %v, want SQLSTATE %s and a message with %q", test, err, test.code, test.want)
			}
		}
	}
}

// The hint of an error says how to write an expression.
func TestHintsOfWatchedExpressions(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	run(t, conn, "CREATE TABLE public.t (a int); CREATE TABLE public.secrets (a int); CREATE TYPE public.mood AS ENUM ('sad'); ALTER TABLE t OWNER TO pg_monitor")
	const rows, home = "The new row is n, the old one o. If a table is meant, write it with its schema, as in public.orders.", "Write names outside pg_catalog with their schema, as in public.f(id)."
	for expression, want := range map[string]string{
		"old.a":                          rows,
		"NEW.a":                          rows,
		"t.a":                            rows,
		"(SELECT a FROM secrets)":        rows,
		"f(a)":                           home,
		"'sad'::mood":                    home,
		"new":                            "the new row n and the old row o",
		"'a' b":                          "A constant text needs single quotes.",
		"a), (a":                         "Each expression is one SQL expression",
		"a, a":                           "Write one expression.",
		"to_jsonb(n) -> 'a'":             "The operator ->> returns text",
		"a = 1":                          "a cast to text",
		"(SELECT a FROM public.secrets)": "The expressions run with the rights of pg_monitor, the owner of the table.",
	} {
		_, err := conn.Exec(dbtest.Context(t), "SELECT rowcast.watch('t', $1)", expression)
		failed, ok := errors.AsType[*pgconn.PgError](err)
		if !ok {
			t.Errorf("%s: got %v, want an error with the hint %q", expression, err, want)
		} else if !strings.Contains(failed.Hint, want) {
			t.Errorf("%s: got %v with the hint %q, want %q", expression, err, failed.Hint, want)
		}
	}
}

// Other roles may not call the trigger function of a watched table. unwatch removes the function.
func TestWatchFunctionIsPrivateAndRemoved(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	const functions = "FROM pg_proc WHERE pronamespace = 'rowcast'::regnamespace AND proname LIKE 'watch\\_________________________________'"
	run(t, conn, "CREATE TABLE t (a int); SELECT rowcast.watch('t', 'a'); SELECT rowcast.watch('t', 'a')")
	if got := text(t, conn, "SELECT string_agg(has_function_privilege('pg_monitor', oid, 'EXECUTE')::text, ' ') "+functions); got != "false" {
		t.Errorf("may another role call the trigger functions of the table: got %q, want one function, and false for it", got)
	}
	if got := text(t, conn, "SELECT concat(rowcast.unwatch('t'), rowcast.unwatch('t'))"); got != "tf" {
		t.Errorf("unwatch twice: got %q, want tf: the table was watched, and then not", got)
	}
	if got := text(t, conn, "SELECT count(*)::text "+functions); got != "0" {
		t.Errorf("got %s functions after unwatch, want 0", got)
	}
}
