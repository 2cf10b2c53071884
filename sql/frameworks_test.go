package sql_test

import (
	"context"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// frameworksDir has an app for each framework. The migrations of Django, Laravel and Rails are the code of README.md.
const frameworksDir = "../.ci/frameworks"

// Django installs the schema by a migration, in the database of the app and in the test database. The tests of the app
// check which of their rows remain after a test. When Django runs the migration again, the schema is already there.
func TestDjangoTestDatabase(t *testing.T) {
	t.Parallel()
	python := dbtest.Interpreter(t, "/usr/bin/python3", "import django, psycopg2", "python3-django python3-psycopg2")
	app := newApp(t, "django", "shop/migrations/rowcast.sql")
	app.insertReadme("shop/migrations/0002_rowcast.py", "python", "# A migration of Django, beside rowcast.sql")
	for range 2 { // the second run keeps the database of the first one
		app.run(python, "manage.py", "test", "--keepdb")
	}
	app.wantInstalled(app.testDatabase())
	app.run(python, "manage.py", "migrate")
	app.run(python, "manage.py", "migrate", "shop", "zero")
	app.run(python, "manage.py", "migrate")
	app.wantInstalled(app.conn)
}

// Rails loads structure.sql or schema.rb into the test database and into a database for each process that runs tests.
// The test helper then runs rowcast.sql in all of them. The tests of the app check the tables before and after.
func TestRailsTestDatabase(t *testing.T) {
	t.Parallel()
	ruby := dbtest.Interpreter(t, "ruby", `require "rails"; require "active_record"; require "pg"; require "database_cleaner"`,
		"ruby-railties ruby-activerecord ruby-pg ruby-database-cleaner rake")
	dbtest.Client(t, "pg_dump")
	for _, format := range []string{"sql", "ruby"} {
		t.Run(format, func(t *testing.T) {
			t.Parallel()
			app := newApp(t, "rails", "db/rowcast.sql")
			app.insertReadme("db/migrate/20260101000001_install_rowcast.rb", "ruby", "# A migration of Rails, with db/rowcast.sql")
			app.insertReadme("test/test_helper.rb", "ruby", "# Rails, in test/test_helper.rb or spec/rails_helper.rb")
			rake := func(tasks ...string) {
				app.run(append([]string{"env", "FORMAT=" + format, ruby, "-W0", "-S", "rake"}, tasks...)...)
			}
			rake("db:migrate")
			app.wantInstalled(app.conn)
			rake("db:test:prepare")
			rake("test")
			app.wantInstalled(app.testDatabase())
		})
	}
}

// Laravel installs the schema by a migration, also when RefreshDatabase runs it again. The program of the app checks
// what remains after a test and after a truncation of all tables.
func TestLaravelTestDatabase(t *testing.T) {
	t.Parallel()
	load := `error_reporting(E_ALL & ~E_DEPRECATED); require "/usr/share/php/Illuminate/autoload.php"; require "/usr/share/php/Doctrine/DBAL/autoload.php";
		exit(in_array("pgsql", PDO::getAvailableDrivers()) && trait_exists("Illuminate\Foundation\Testing\RefreshDatabase") ? 0 : 1);`
	php := dbtest.Interpreter(t, "php", load, "php-cli php-pgsql php-doctrine-dbal php-laravel-framework")
	app := newApp(t, "laravel", "database/rowcast.sql")
	app.insertReadme("database/migrations/2026_01_01_000001_install_rowcast.php", "php", "// A migration of Laravel, with database/rowcast.sql")
	if err := os.MkdirAll(filepath.Join(app.dir, "bootstrap", "cache"), 0o700); err != nil {
		t.Fatal(err)
	}
	app.run(php, "test.php", strconv.FormatInt(sql.Version(), 10))
	app.wantInstalled(app.conn)
}

// Prisma installs the schema by a migration: in the database, again in the same database after a reset, and in shadow
// databases. The migrations that Prisma generates do not change the schema.
func TestPrismaTestDatabase(t *testing.T) {
	t.Parallel()
	node := dbtest.Node(t)
	modules := dbtest.NodeModules(t, ".ci/frameworks/prisma", "frameworks-prisma", "prisma")
	app := newApp(t, "prisma", "migrations/1_rowcast/migration.sql")
	if err := os.Symlink(modules, filepath.Join(app.dir, "node_modules")); err != nil {
		t.Fatal(err)
	}
	prisma := func(arguments ...string) string {
		// Prisma would download its engines if the environment did not name other files. Prisma does not use these
		// files.
		return app.run(append([]string{
			"env", "PRISMA_SCHEMA_ENGINE_BINARY=" + node, "PRISMA_QUERY_ENGINE_LIBRARY=" + node, "CHECKPOINT_DISABLE=1",
			"PRISMA_HIDE_UPDATE_MESSAGE=1", "DATABASE_URL=postgresql://unused", node, "node_modules/prisma/build/index.js", "migrate",
		}, arguments...)...)
	}
	prisma("deploy")
	app.wantInstalled(app.conn)
	prisma("reset", "--force", "--skip-generate")
	app.wantInstalled(app.conn)
	prisma("diff", "--from-migrations", "migrations", "--to-schema-datamodel", "schema.prisma", "--exit-code")

	schema := filepath.Join(app.dir, "schema.prisma")
	writeFile(t, schema, strings.Replace(readFile(t, schema), "Int @id", "Int @id\n  number Int", 1))
	prisma("dev", "--name", "number", "--skip-generate")
	app.wantInstalled(app.conn)
	added, err := filepath.Glob(filepath.Join(app.dir, "migrations", "*_number", "migration.sql"))
	if err != nil || len(added) != 1 {
		t.Fatalf("got the new migrations %q, %v, want one", added, err)
	}
	if got := readFile(t, added[0]); !strings.Contains(got, `ALTER TABLE "Order" ADD COLUMN`) || strings.Contains(got, "rowcast") {
		t.Errorf("got the migration\n%s\nwant one that adds a column and does not name rowcast", got)
	}
}

// An app is a copy of a directory of frameworksDir, with an empty database. The owner of the database may create
// other databases.
type app struct {
	t         *testing.T
	dir, role string
	conn      *pgx.Conn // to the database of the app
}

// newApp creates an app for a framework. It writes the SQL of rowcast migrate --print --no-transaction to a file of the
// app.
func newApp(t *testing.T, framework, file string) app {
	t.Helper()
	conn := connect(t, dbtest.Empty(t))
	a := app{t: t, dir: t.TempDir(), role: createRole(t, conn, "owner"), conn: conn}
	if err := os.CopyFS(a.dir, os.DirFS(filepath.Join(frameworksDir, framework))); err != nil {
		t.Fatal(err)
	}
	role, database := pgx.Identifier{a.role}.Sanitize(), pgx.Identifier{conn.Config().Database}.Sanitize()
	run(t, conn, "ALTER ROLE "+role+" CREATEDB")
	run(t, conn, "ALTER DATABASE "+database+" OWNER TO "+role)
	run(t, conn, "ALTER SCHEMA public OWNER TO "+role)
	t.Cleanup(func() {
		statements := []string{"ALTER DATABASE " + database + " OWNER TO current_user"}
		for _, process := range []string{"", "-0", "-1"} { // Rails has a database for each process that runs tests
			test := pgx.Identifier{"test_" + conn.Config().Database + process}.Sanitize()
			statements = append(statements, "DROP DATABASE IF EXISTS "+test+" WITH (FORCE)")
		}
		for _, statement := range statements {
			if _, err := conn.Exec(context.WithoutCancel(t.Context()), statement); err != nil {
				t.Errorf("%s: %v", statement, err)
			}
		}
	})
	if err := os.MkdirAll(filepath.Dir(filepath.Join(a.dir, file)), 0o700); err != nil {
		t.Fatal(err)
	}
	writeFile(t, filepath.Join(a.dir, file), printed(t, sql.Script{NoTransaction: true}))
	return a
}

// insertReadme puts code of README.md into a file of the app.
func (a app) insertReadme(file, language, comment string) {
	a.t.Helper()
	path := filepath.Join(a.dir, file)
	writeFile(a.t, path, withReadme(a.t, path, language, comment))
}

// run runs a program of the app.
func (a app) run(arguments ...string) string {
	a.t.Helper()
	return runClientIn(a.t, a.dir, a.conn, a.role, "owner", arguments...)
}

// testDatabase connects to the test database, which Django and Rails create.
func (a app) testDatabase() *pgx.Conn {
	a.t.Helper()
	config := a.conn.Config().Copy()
	config.Database = "test_" + config.Database
	conn, err := pgx.ConnectConfig(dbtest.Context(a.t), config)
	if err != nil {
		a.t.Fatal(err)
	}
	a.t.Cleanup(func() { _ = conn.Close(context.WithoutCancel(a.t.Context())) })
	return conn
}

// wantInstalled checks that the database has the schema as Migrate installs it, and that a hub can start.
func (a app) wantInstalled(conn *pgx.Conn) {
	a.t.Helper()
	run(a.t, conn, "SET search_path = pg_catalog")
	if err := sql.Check(dbtest.Context(a.t), conn); err != nil {
		a.t.Errorf("Check: %v", err)
	}
	if all, err := sql.Differences(dbtest.Context(a.t), conn); err != nil || len(all) > 0 {
		a.t.Errorf("Differences: got %v, %v, want none", all, err)
	}
}
