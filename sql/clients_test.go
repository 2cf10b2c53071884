package sql_test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// The programs in these directories insert notifications with the client libraries that README.md shows.
const (
	goDir     = "../.ci/clients/go"
	debianDir = "../.ci/clients/debian"
)

// Each client of Go inserts the row of README.md with the code of README.md. The program around this code also inserts
// a row for everyone and many rows, gets the generated id, and uses transactions and savepoints. With the rights of an
// app, it also reads rows back. bun is tested only with the rights of an app, because its INSERT needs them.
func TestGoClients(t *testing.T) {
	t.Parallel()
	bin := buildGoClients(t)
	for _, name := range []string{"GORM", "bun", "sqlx", "lib/pq"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			rights := []string{"app", "sender"}
			if name == "bun" {
				rights = rights[:1]
			}
			testClient(t, rights, filepath.Join(bin, goProgram(name)))
		})
	}
}

// goProgram returns the name of the program for a client of Go.
func goProgram(client string) string { return strings.TrimPrefix(strings.ToLower(client), "lib/") }

// buildGoClients puts the code of README.md into the programs of Go and returns the directory of the executables.
func buildGoClients(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(goDir)); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"GORM", "bun", "sqlx", "lib/pq"} {
		file := filepath.Join(dir, goProgram(name), "main.go")
		writeFile(t, file, withReadme(t, file, "go", "// "+name))
	}
	dbtest.GoBuild(t, ".ci/clients/go", dir, filepath.Join(dir, "bin"))
	return filepath.Join(dir, "bin")
}

// The clients in Debian's packages do the same as the Go clients.
func TestDebianClients(t *testing.T) {
	t.Parallel()
	for _, client := range []struct{ name, language, comment, file, interpreter, modules, packages string }{
		{"Django", "python", "# Django", "django.py", "/usr/bin/python3", "import django, psycopg2", "python3-django python3-psycopg2"},
		{"SQLAlchemy", "python", "# SQLAlchemy", "sqlalchemy.py", "/usr/bin/python3", "import sqlalchemy, psycopg2", "python3-sqlalchemy python3-psycopg2"},
		{"ActiveRecord", "ruby", "# Rails", "activerecord.rb", "ruby", `require "active_record"; require "pg"`, "ruby-activerecord ruby-pg"},
		{"PDO", "php", "// PDO", "pdo.php", "php", `exit(in_array("pgsql", PDO::getAvailableDrivers()) ? 0 : 1);`, "php-cli php-pgsql"},
	} {
		t.Run(client.name, func(t *testing.T) {
			t.Parallel()
			interpreter := dbtest.Interpreter(t, client.interpreter, client.modules, client.packages)
			dir := t.TempDir()
			writeFile(t, filepath.Join(dir, "check.py"), readFile(t, filepath.Join(debianDir, "check.py")))
			file := filepath.Join(dir, "program_"+client.file)
			writeFile(t, file, withReadme(t, filepath.Join(debianDir, client.file), client.language, client.comment))
			testClient(t, []string{"app", "sender"}, interpreter, file)
		})
	}
}

// With the include_object of README.md, Alembic leaves the schema alone. Without include_object, Alembic would drop
// tables of the schema.
func TestAlembicLeavesTheSchemaAlone(t *testing.T) {
	t.Parallel()
	python := dbtest.Interpreter(t, "/usr/bin/python3", "import alembic, psycopg2", "alembic python3-psycopg2")
	file := filepath.Join(t.TempDir(), "program_alembic.py")
	writeFile(t, file, withReadme(t, filepath.Join(debianDir, "alembic.py"), "python", "# Alembic"))
	conn, app, _, _ := granted(t)
	if out := runClient(t, conn, app, "app", python, file); out != "drops: True\nwith include_object: []\n" {
		t.Errorf("got %q, want no change with include_object, and changes without", out)
	}
}

// Alembic executes a string as SQLAlchemy's text(), in which a colon before a name, as in xids[:page], is a parameter.
func TestAlembicRunsThePrintedScript(t *testing.T) {
	t.Parallel()
	python := dbtest.Interpreter(t, "/usr/bin/python3", "import alembic, psycopg2", "alembic python3-psycopg2")
	dir := t.TempDir()
	program, script := filepath.Join(dir, "program_script.py"), filepath.Join(dir, "rowcast.sql")
	writeFile(t, program, readFile(t, filepath.Join(debianDir, "alembic_script.py")))
	conn := connect(t, dbtest.Empty(t))
	writeFile(t, script, printed(t, sql.Script{NoTransaction: true, Inbox: true}))
	for range 2 { // the second run changes nothing
		runClient(t, conn, conn.Config().User, "owner", python, program, script)
	}
	run(t, conn, "SET search_path = pg_catalog")
	if all, err := sql.Differences(dbtest.Context(t), conn); err != nil || len(all) > 0 {
		t.Errorf("Differences: got %v, %v, want none", all, err)
	}
	if err := sql.CheckInbox(dbtest.Context(t), conn); err != nil {
		t.Errorf("CheckInbox: %v", err)
	}
}

// With the schema_filter of README.md, Doctrine finds only the tables of the app. Without it, Doctrine fails.
func TestDoctrineLeavesTheSchemaAlone(t *testing.T) {
	t.Parallel()
	load := `require "/usr/share/php/Doctrine/DBAL/autoload.php"; exit(in_array("pgsql", PDO::getAvailableDrivers()) ? 0 : 1);`
	php := dbtest.Interpreter(t, "php", load, "php-cli php-pgsql php-doctrine-dbal")
	filter := regexp.MustCompile("`schema_filter: ([^`]+)`").FindStringSubmatch(readFile(t, "README.md"))
	if filter == nil {
		t.Fatal("README.md has no schema_filter of Doctrine")
	}
	conn, app, _, _ := granted(t)
	run(t, conn, "CREATE TABLE public.orders (id int)")
	file := filepath.Join(t.TempDir(), "doctrine.php")
	writeFile(t, file, readFile(t, filepath.Join(debianDir, "doctrine.php")))
	out := runClient(t, conn, app, "app", php, file, filter[1])
	without, with, _ := strings.Cut(out, "\n")
	if !strings.HasPrefix(without, "Unknown database type xid8") || with != "orders\n" {
		t.Errorf("got %q, want an unknown type without the filter, and orders with it", out)
	}
}

// An app can dump its own tables with pg_dump if it excludes the schema, which has tables that the app cannot read.
func TestDumpAsAnApp(t *testing.T) {
	t.Parallel()
	pgDump := dbtest.Client(t, "pg_dump")
	conn, app, _, _ := granted(t)
	role := pgx.Identifier{app}.Sanitize()
	run(t, conn, "CREATE TABLE public.orders (id int)")
	run(t, conn, "ALTER TABLE public.orders OWNER TO "+role)
	if out := runClient(t, conn, app, "app", pgDump, "-N", "rowcast"); !strings.Contains(out, "orders") || strings.Contains(out, "rowcast.") {
		t.Errorf("pg_dump -N rowcast: got %s, want only the table orders", out)
	}
	server := conn.Config()
	command := exec.CommandContext(dbtest.Context(t), pgDump, "-h", server.Host, "-p", strconv.Itoa(int(server.Port)), "-U", app, server.Database)
	if out, err := command.CombinedOutput(); err == nil || !strings.Contains(string(out), "permission denied") {
		t.Errorf("pg_dump without -N: got %v, %s, want an error with permission denied", err, out)
	}
}

// withReadme returns a program in which the code of README.md replaces the comment "README". The code is the block in a
// language whose first line is the given comment.
func withReadme(t *testing.T, program, language, comment string) string {
	t.Helper()
	block := regexp.MustCompile("(?s)```" + language + "\n" + regexp.QuoteMeta(comment) + "\n(.*?)```").FindStringSubmatch(readFile(t, "README.md"))
	if block == nil {
		t.Fatalf("README.md has no code in %s that begins with %q", language, comment)
	}
	text, marker := readFile(t, program), strings.Fields(comment)[0]+" README\n"
	if strings.Count(text, marker) != 1 {
		t.Fatalf("%s does not contain %q exactly once", program, marker)
	}
	return strings.Replace(text, marker, block[1], 1)
}

// testClient runs a program once with each of the given rights, app or sender. It checks the rows that the program has
// inserted.
func testClient(t *testing.T, rights []string, arguments ...string) {
	t.Helper()
	conn, app, sender, _ := granted(t)
	for _, rights := range rights {
		role := map[string]string{"app": app, "sender": sender}[rights]
		run(t, conn, "TRUNCATE rowcast.notifications")
		out := runClient(t, conn, role, rights, arguments...)
		wantNotifications(t, conn, `alice notify {"msg": "hi"}`, `* message {"to": "everyone"}`,
			`many message {"n": 1}`, `many message {"n": 2}`, `many message {"n": 3}`, `key message [1, "two", null]`,
			`kept message {"n": 1}`, `kept message {"n": 2}`, `kept message {"n": 3}`)
		var id int64
		if err := conn.QueryRow(dbtest.Context(t), "SELECT id FROM rowcast.notifications WHERE recipient = 'key'").Scan(&id); err != nil {
			t.Fatal(err)
		}
		if want := fmt.Sprintf("key %d\n", id); out != want {
			t.Errorf("with the rights of the %s, the program printed %q, want %q", rights, out, want)
		}
	}
}

// runClient runs a program that connects with a role, and returns its output.
func runClient(t *testing.T, conn *pgx.Conn, role, rights string, arguments ...string) string {
	t.Helper()
	return runClientIn(t, t.TempDir(), conn, role, rights, arguments...)
}

// runClientIn does what runClient does, but in the directory dir. The environment of the test could have settings of
// PostgreSQL and of languages, so the program gets only the variables below.
func runClientIn(t *testing.T, dir string, conn *pgx.Conn, role, rights string, arguments ...string) string {
	t.Helper()
	run(t, conn, "ALTER ROLE "+pgx.Identifier{role}.Sanitize()+" LOGIN")
	server := conn.Config()
	command := exec.CommandContext(dbtest.Context(t), arguments[0], arguments[1:]...)
	command.Dir, command.Env = dir, []string{
		"PATH=" + os.Getenv("PATH"), "HOME=" + dir, "LC_ALL=C.UTF-8", "ROLE=" + rights,
		"PGHOST=" + server.Host, "PGPORT=" + strconv.Itoa(int(server.Port)), "PGDATABASE=" + server.Database, "PGUSER=" + role,
		"SERVER_VERSION=" + conn.PgConn().ParameterStatus("server_version"),
	}
	var failure strings.Builder
	command.Stderr = &failure
	out, err := command.Output()
	if err != nil {
		t.Fatalf("%s with the rights of the %s: %v\n%s%s", filepath.Base(arguments[len(arguments)-1]), rights, err, out, failure.String())
	}
	return string(out)
}

// wantNotifications checks the recipient, the event and the data of all rows, in the order of their ids.
func wantNotifications(t *testing.T, conn *pgx.Conn, want ...string) {
	t.Helper()
	var got string
	const query = `SELECT coalesce(string_agg(concat_ws(' ', recipient, event, data), E'\n' ORDER BY id), '') FROM rowcast.notifications`
	if err := conn.QueryRow(dbtest.Context(t), query).Scan(&got); err != nil {
		t.Fatal(err)
	}
	if want := strings.Join(want, "\n"); got != want {
		t.Errorf("got the rows\n%s\nwant\n%s", got, want)
	}
}

func readFile(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func writeFile(t *testing.T, path, text string) {
	t.Helper()
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}
