package main_test

import (
	"bytes"
	"os/exec"
	"regexp"
	"strings"
	"testing"

	"rowcast/cmd/internal/terminal"
	"rowcast/sql/dbtest"
)

// succeed runs a command that must succeed, and returns what it prints.
func succeed(t *testing.T, args ...string) string {
	t.Helper()
	code, stdout, stderr := run(t, nil, args...)
	if code != 0 || stderr != "" {
		t.Fatalf("rowcast %q: got %d, %s, want 0 and no error", args, code, stderr)
	}
	return stdout
}

func TestWatch(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	runSQL(t, dsn, `CREATE TABLE "Orders" (id int, customer text, status text)`)
	args := []string{
		"watch", `public."Orders"`, "--database-url", dsn, "--recipient", "customer", "--event", "'order'", "--data", "jsonb_build_array(tg_op, id)",
		"--on=insert,update", "--when", "status = 'open'", "--on-error=skip",
	}
	const statement = `, recipient => 'customer', event => '''order''', data => 'jsonb_build_array(tg_op, id)', "on" => '{insert,update}', "when" => 'status = ''open''', on_error => 'skip');` + "\n"
	printed := succeed(t, append(args, "--print")...)
	if want := `SELECT rowcast.watch('public."Orders"'` + statement; printed != want {
		t.Errorf("--print: got %s, want %s", printed, want)
	}
	if got, want := succeed(t, "watch", "--list", "--database-url", dsn), "-- No table is watched.\n"; got != want {
		t.Errorf("--list: got %s, want %s", got, want)
	}
	for _, watch := range []func(){
		func() { runSQL(t, dsn, printed) },
		func() {
			if got, want := succeed(t, args...), "The table public.\"Orders\" is watched.\n"; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		},
	} {
		watch()
		if got, want := succeed(t, "watch", "--list", "--database-url", dsn), `SELECT rowcast.watch('public."Orders"'`+statement; got != want {
			t.Errorf("--list: got %s, want %s", got, want)
		}
		runSQL(t, dsn, `INSERT INTO "Orders" VALUES (1, 'alice', 'new')`, `UPDATE "Orders" SET status = 'open'`)
		if got, want := valueOf(t, dsn, "SELECT string_agg(recipient || event || data, ' ') FROM rowcast.notifications"), `aliceorder["UPDATE", 1]`; got != want {
			t.Errorf("got the notifications %s, want %s", got, want)
		}
		for _, want := range []string{"is no longer watched", "was not watched"} {
			if got := succeed(t, "unwatch", `public."Orders"`, "--database-url", dsn); got != `The table public."Orders" `+want+".\n" {
				t.Errorf("got %s, want that the table %s", got, want)
			}
		}
		runSQL(t, dsn, `INSERT INTO "Orders" VALUES (2, 'alice', 'open')`, `DELETE FROM "Orders"`)
		if got := valueOf(t, dsn, "WITH gone AS (DELETE FROM rowcast.notifications RETURNING 1) SELECT count(*)::text FROM gone"); got != "1" {
			t.Errorf("after unwatch, there are %s notifications, want 1", got)
		}
	}
}

func TestWatchFails(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	runSQL(t, dsn, "CREATE TABLE orders (id int, customer text)", "CREATE VIEW v AS TABLE orders")
	const missing = " was not found in this database: write it with its schema, as in public.orders, and a name with capital letters in double quotes"
	const unqualified = ` a table with its schema, as in public.orders or public."Orders"; without the schema, the statement would depend on the search_path`
	for _, tt := range []struct {
		want string
		code int
		args []string
	}{
		{"name the table, as in rowcast watch public.orders --recipient customer_id, or give --list", 2, []string{"watch"}},
		{"--recipient: name the column or expression of the recipient, as in --recipient customer_id; '*' in single quotes is everyone", 2, []string{"watch", "orders"}},
		{"--recipient: the value is empty", 2, []string{"watch", "orders", "--recipient= "}},
		{`--on must be one of "insert","update","delete" but got "truncate"`, 2, []string{"watch", "orders", "--recipient=id", "--on=insert,truncate"}},
		{`--on-error must be one of "fail","skip" but got "ignore"`, 2, []string{"watch", "orders", "--recipient=id", "--on-error=ignore"}},
		{"watch: --list: leave out the table, because this flag prints all watched tables", 2, []string{"watch", "orders", "--list"}},
		{`--print: orders is not` + unqualified, 2, []string{"watch", "orders", "--recipient=id", "--print"}},
		{`--print: "public.orders" is not` + unqualified, 2, []string{"watch", `"public.orders"`, "--recipient=id", "--print"}},
		{`--print: public."orders is not` + unqualified, 2, []string{"watch", `public."orders`, "--recipient=id", "--print"}},
		{`--print: public. is not` + unqualified, 2, []string{"watch", `public.`, "--recipient=id", "--print"}},
		{`expected "<table>"`, 2, []string{"unwatch"}},
		{"the table Orders_" + missing, 1, []string{"watch", "Orders_", "--recipient=id"}},
		{"the table nowhere.orders" + missing, 1, []string{"unwatch", "nowhere.orders"}},
		{"public.v is not a table (SQLSTATE 42809); Watch the table under a view. A foreign table cannot be watched.", 1, []string{"watch", "v", "--recipient=id"}},
		{`watching public.orders: event expression order failed: syntax error at or near "order" (SQLSTATE 42601); Each expression is one SQL expression over the new row n and the old row o. A constant text needs single quotes.`, 1, []string{"watch", "orders", "--recipient=id", "--event=order"}},
		{`watching public.orders: recipient expression custmer failed: column "custmer" does not exist (SQLSTATE 42703); Perhaps you meant to reference the column "n.customer" or the column "o.customer".`, 1, []string{"watch", "orders", "--recipient=custmer"}},
		{`"on" is '{insert,insert}', want an array of one or more of insert, update and delete (SQLSTATE 22023)`, 1, []string{"watch", "orders", "--recipient=id", "--on=insert,insert"}},
	} {
		args := tt.args
		if tt.code == 1 {
			args = append(args, "--database-url", dsn)
		}
		code, stdout, stderr := run(t, nil, args...)
		if want := "rowcast: " + tt.want + "\n"; code != tt.code || stdout != "" || stderr != want {
			t.Errorf("rowcast %q: got %d, %q, %q, want %d, no output, %q", args, code, stdout, stderr, tt.code, want)
		}
	}
	for _, flag := range []string{"--recipient=id", "--event='e'", "--data=id", "--on=insert", "--when=true", "--on-error=fail", "--print"} {
		code, _, stderr := run(t, nil, "watch", "--list", flag)
		name, _, _ := strings.Cut(flag, "=")
		if want := "rowcast: watch: " + name + " has no effect with --list, which prints all watched tables: leave it out\n"; code != 2 || stderr != want {
			t.Errorf("rowcast watch --list %s: got %d, %q, want 2, %q", flag, code, stderr, want)
		}
	}
	_, other := login(t, dsn, "other")
	code, _, stderr := run(t, nil, "watch", "orders", "--recipient=id", "--database-url", other)
	if want := "rowcast: ERROR: permission denied for schema rowcast (SQLSTATE 42501); connect as postgres, the owner of the schema rowcast\n"; code != 1 || stderr != want {
		t.Errorf("rowcast watch as another role: got %d, %q, want 1, %q", code, stderr, want)
	}
	if got := valueOf(t, dsn, "SELECT count(*)::text FROM rowcast.watched()"); got != "0" {
		t.Errorf("after the errors, %s tables are watched, want 0", got)
	}
	empty := dbtest.Empty(t)
	runSQL(t, empty, "CREATE TABLE orders (id int)")
	for _, args := range [][]string{{"watch", "orders", "--recipient=id"}, {"watch", "--list"}, {"unwatch", "orders"}} {
		code, _, stderr := run(t, nil, append(args, "--database-url", empty)...)
		if want := "rowcast: schema rowcast is missing, incomplete or too old: run rowcast migrate\n"; code != 1 || stderr != want {
			t.Errorf("rowcast %q without the schema: got %d, %q, want 1, %q", args, code, stderr, want)
		}
	}
}

// Each example of rowcast watch or rowcast.watch() in the documentation that sets the data works. Its notifications
// contain only the named columns, even after another column was renamed.
func TestExamplesOfWatch(t *testing.T) {
	t.Parallel()
	_, help, _ := run(t, nil, "watch", "--help")
	help = strings.Join(strings.Fields(help), " ")
	for _, want := range []string{"tg_op is INSERT, UPDATE or DELETE", "Required, except with --list"} {
		if !strings.Contains(help, want) {
			t.Errorf("the help does not say %q:\n%s", want, help)
		}
	}
	_, example, _ := strings.Cut(help, "Example: ")
	example, _, _ = strings.Cut(example, " Arguments:")
	examples := []string{example}
	pattern := regexp.MustCompile(`(?m)^    ((?:rowcast watch .* --data|SELECT rowcast\.watch\((?:.|\n     )*data =>).*)$`)
	for document, want := range map[string]int{"sql/README.md": 2, "cmd/rowcast/README.md": 1} {
		found := pattern.FindAllStringSubmatch(readmeOf(t, document), -1)
		if len(found) != want {
			t.Errorf("%s has %d examples %q, want %d", document, len(found), found, want)
		}
		for _, one := range found {
			examples = append(examples, one[1])
		}
	}
	for _, example := range examples {
		t.Run(example, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			runSQL(t, dsn, "CREATE TABLE orders (id int, customer_id int, status text, secret text)")
			if arguments, found := strings.CutPrefix(example, "rowcast "); found {
				split, err := exec.CommandContext(t.Context(), "sh", "-c", `printf '%s\0' `+arguments).Output()
				if err != nil {
					t.Fatal(err)
				}
				succeed(t, append(strings.Split(strings.TrimSuffix(string(split), "\x00"), "\x00"), "--database-url", dsn)...)
			} else {
				runSQL(t, dsn, example)
			}
			runSQL(t, dsn, "ALTER TABLE orders RENAME secret TO token", "INSERT INTO orders VALUES (1, 7, 'new', 'x')")
			if got, want := valueOf(t, dsn, "SELECT recipient || data FROM rowcast.notifications"), `7{"id": 1, "status": "new"}`; got != want {
				t.Errorf("got %s, want %s", got, want)
			}
		})
	}
}

// A dump contains the triggers of a watched table. In the restored database, they insert notifications, doctor finds
// nothing wrong with watched tables and owners, and unwatch works. Restoring the rows of the table inserts no
// notifications.
func TestWatchedTableIsRestored(t *testing.T) {
	t.Parallel()
	for name, options := range map[string][]string{
		"pg_restore": {"-Fc"}, "psql": {"-Fp"}, "pg_restore without owners": {"-Fc", "--no-owner", "--no-privileges"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			source, target := dbtest.Database(t), dbtest.Empty(t)
			runSQL(t, source, "CREATE TABLE orders (id int, customer text, gone int)", "ALTER TABLE orders DROP gone")
			runSQL(t, source, "ALTER TABLE orders OWNER TO pg_monitor", "GRANT CREATE ON SCHEMA public TO pg_monitor")
			succeed(t, "watch", "orders", "--database-url", source, "--recipient", "customer", "--data", "to_jsonb(current_user)", "--when", "id > 0\n -- new", "--on", "insert,update,delete")
			runSQL(t, source, "INSERT INTO orders VALUES (1, 'alice')")

			dump, err := postgres(t, "pg_dump", append(options, source)...).Output()
			if err != nil {
				t.Fatalf("pg_dump: %v", err)
			}
			into := postgres(t, "pg_restore", "--exit-on-error", "-d", target)
			if name == "psql" {
				into = postgres(t, "psql", "-qX", "-v", "ON_ERROR_STOP=1", target)
			} else if len(options) > 1 {
				into = postgres(t, "pg_restore", "--exit-on-error", "--no-owner", "--no-privileges", "-d", target)
			}
			into.Stdin = bytes.NewReader(dump)
			if out, err := into.CombinedOutput(); err != nil {
				t.Fatalf("%s: %v: %s", into.Path, err, out)
			}
			migrate(t, target)
			runSQL(t, target, "UPDATE orders SET id = 2")
			owner := valueOf(t, target, "SELECT tableowner::text FROM pg_tables WHERE tablename = 'orders'")
			if got, want := valueOf(t, target, "SELECT string_agg(recipient || ' ' || data, ', ' ORDER BY id) FROM rowcast.notifications"), `alice "pg_monitor", alice "`+owner+`"`; got != want {
				t.Errorf("got the notifications %s, want %s", got, want)
			}
			if got, want := succeed(t, "watch", "--list", "--database-url", target), succeed(t, "watch", "--list", "--database-url", source); got != want {
				t.Errorf("the restored database lists %s, want %s", got, want)
			}
			_, found, out := examine(t, target)
			for check, want := range map[string]string{"watched": "ok tables that are watched: 1", "owners": "ok every object belongs to the owner of the schema or a superuser, except functions of watched tables"} {
				if found[check] != want {
					t.Errorf("%s: got %q, want %q\n%s", check, found[check], want, out)
				}
			}
			succeed(t, "unwatch", "orders", "--database-url", target)
			if got := valueOf(t, target, "SELECT concat((SELECT count(*) FROM pg_trigger WHERE tgrelid = 'orders'::regclass), (SELECT count(*) FROM rowcast.watched()))"); got != "00" {
				t.Errorf("after unwatch, the number of triggers and the number of watched tables are %s, want 00", got)
			}
		})
	}
}

// The statement that --list prints escapes the invisible characters in the options of a watched table, such as marks
// that change the direction of the text. When the statement is run, the table has the same options again.
func TestListedStatementKeepsInvisibleCharacters(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	const when = "note <> 'a\u202e\u2066\u2028b'"
	runSQL(t, dsn, "CREATE TABLE notes (id int, note text)", "SELECT rowcast.watch('notes', 'id', \"when\" => $$"+when+"$$)")
	listed := succeed(t, "watch", "--list", "--database-url", dsn)
	if terminal.HasControl(strings.TrimSpace(listed)) {
		t.Errorf("got the statement %q, want one without invisible characters", listed)
	}
	runSQL(t, dsn, "SELECT rowcast.unwatch('notes')", listed)
	if got := valueOf(t, dsn, "SELECT options ->> 'when' FROM rowcast.watched()"); got != when {
		t.Errorf("after %q: got the condition %q, want %q", listed, got, when)
	}
}

// The doctor reports what is wrong with a watched table.
func TestDoctorExaminesWatchedTables(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	runSQL(t, dsn, "CREATE TABLE orders (id int, customer text)", "SELECT rowcast.watch('orders', 'customer')",
		"CREATE TABLE tickets (id int)", "SELECT rowcast.watch('tickets', 'id')", "CREATE TABLE users (id int)", "SELECT rowcast.watch('users', 'id')")
	code, found, _ := examine(t, dsn)
	if want := "ok tables that are watched: 3"; code != 0 || found["watched"] != want {
		t.Errorf("got %d, %q, want 0, %q", code, found["watched"], want)
	}
	runSQL(t, dsn, "ALTER TABLE tickets DISABLE TRIGGER rowcast_watch_insert", "DROP TABLE users")
	code, found, _ = examine(t, dsn)
	want := `^warn public.tickets: disabled triggers: rowcast_watch_insert; the table public.users or its triggers were dropped` +
		` → SELECT rowcast.watch\('public.tickets', recipient => 'id'\); → DROP FUNCTION rowcast.watch_[0-9a-f]{32}\(\);$`
	if code != 0 || !regexp.MustCompile(want).MatchString(found["watched"]) {
		t.Errorf("got %d, %q, want 0 and a match of %q", code, found["watched"], want)
	}
	listed := `(?m)^-- A trigger function without a table: DROP FUNCTION rowcast.watch_[0-9a-f]{32}\(\);\n-- the table public.users or its triggers were dropped$`
	if got := succeed(t, "watch", "--list", "--database-url", dsn); !regexp.MustCompile(listed).MatchString(got) {
		t.Errorf("--list: got %s, want a match of %q", got, listed)
	}
	_, mend, _ := strings.Cut(found["watched"], " → ")
	runSQL(t, dsn, strings.Split(mend, " → ")...)
	const virtual = `DO $$ BEGIN
		IF current_setting('server_version_num')::int >= 180000 THEN
			EXECUTE 'ALTER TABLE tickets ADD twice int GENERATED ALWAYS AS (id * 2) VIRTUAL';
		ELSE -- PostgreSQL has no such columns before version 18
			ALTER TABLE tickets ADD twice int;
			UPDATE pg_attribute SET attgenerated = 'v' WHERE attrelid = 'tickets'::regclass AND attname = 'twice';
		END IF;
	END $$`
	runSQL(t, dsn, virtual)
	code, found, _ = examine(t, dsn)
	if want := `warn public.tickets: virtual generated columns, which PostgreSQL does not compute for triggers: twice → declare the virtual generated columns of the table public.tickets as STORED, or run rowcast unwatch public.tickets`; code != 0 || found["watched"] != want {
		t.Errorf("got %d, %q, want 0, %q", code, found["watched"], want)
	}
	runSQL(t, dsn, "SELECT rowcast.unwatch('tickets')", "ALTER TABLE orders RENAME customer TO buyer")
	code, found, _ = examine(t, dsn)
	if want := `fail public.orders: the recipient expression customer names the column "customer", which was dropped or renamed → watch the table public.orders again with expressions that do not name the dropped or renamed column: rowcast watch --list prints the present options`; code != 1 || found["watched"] != want {
		t.Errorf("got %d, %q, want 1, %q", code, found["watched"], want)
	}
}
