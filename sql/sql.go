// Package sql contains the schema rowcast as numbered migrations, and the rights that its roles need.
//
// [Migrate] installs or upgrades the schema. Programs built with this package need a schema whose version is at least
// [Version]. Each migration runs in its own transaction, so a failure leaves the schema at the last complete version.
// An advisory lock makes concurrent migrations run one after the other.
package sql

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
)

const (
	// Channel is the NOTIFY channel for the wake-ups of the trigger and for messages sent with NOTIFY.
	Channel = "rowcast"

	// ParkLock1 and [ParkLock2] are the key of the park lock, an advisory lock. While hubs are idle in LISTEN, one of
	// them holds it. ParkLock1 is "rowc" in ASCII.
	ParkLock1 = 0x726f7763
	// ParkLock2 is the second half of the key: "ast" in ASCII, and a zero byte.
	ParkLock2 = 0x61737400

	// FirstXid is the first number that PostgreSQL assigns to a transaction (FirstNormalTransactionId). A row with a
	// lower number in xid is never sent. To mark rows that must not be sent, such as rows of a dump of another server,
	// the trigger disown and [Migrate] set xid to 1.
	FirstXid = 3

	schema       = "rowcast"
	versionTable = "rowcast.migrations"
)

// Migrations are the numbered files that [Migrate] runs.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Version returns the number of the newest migration.
func Version() int64 {
	names, err := fs.Glob(Migrations, "migrations/*.sql")
	if err != nil || len(names) == 0 {
		panic("no migrations are embedded")
	}
	version, err := goose.NumericComponent(names[len(names)-1])
	if err != nil {
		panic(err)
	}
	return version
}

// A Migrator installs or upgrades the schema.
type Migrator struct {
	// DSN is the connection string of the database. Settings that it does not contain are taken from libpq's variables,
	// such as PGHOST.
	DSN string

	// Waiting, if not nil, is called when Migrate has waited 5 s for the lock of migrations. holder is a sentence about
	// the session that holds the lock.
	Waiting func(holder string)
}

// Migrate calls [Migrator.Migrate] for the database with the connection string dsn.
func Migrate(ctx context.Context, dsn string) (from, to int64, err error) {
	m := Migrator{DSN: dsn}
	return m.Migrate(ctx)
}

// Migrate upgrades the schema to [Version]. It returns the version before and after the upgrade. Without a schema, the
// version is 0. It fails if the schema is newer than this program, or if text in the encoding of the database cannot be
// converted to UTF-8. It also fails if another role owns the schema, or a table or function in it, because that role
// could run its own code with the rights of the current role. It accepts objects that a superuser owns.
func (m Migrator) Migrate(ctx context.Context) (from, to int64, err error) {
	config, err := pgx.ParseConfig(m.DSN)
	if err != nil {
		return 0, 0, err
	}
	db := stdlib.OpenDB(*config, stdlib.OptionAfterConnect(securePath))
	defer db.Close()
	if err := ensureSchema(ctx, db); err != nil {
		return 0, 0, err
	}
	provider, err := m.provider(db)
	if err != nil {
		return 0, 0, err
	}
	if from, err = provider.GetDBVersion(ctx); err != nil {
		return 0, 0, fmt.Errorf("read schema version: %w", err)
	}
	if from > Version() {
		return from, from, fmt.Errorf("schema is at version %d, newer than version %d of this program: upgrade rowcast", from, Version())
	}
	if _, err = provider.Up(ctx); err != nil {
		return from, from, fmt.Errorf("migrate: %w", err)
	}
	if err = adopt(ctx, db); err != nil {
		return from, Version(), fmt.Errorf("adopt restored rows: %w", err)
	}
	return from, Version(), nil
}

func (m Migrator) provider(db *sql.DB) (*goose.Provider, error) {
	files, err := fs.Sub(Migrations, "migrations")
	if err != nil {
		return nil, err
	}
	lock := &migrationLock{waiting: m.Waiting}
	return goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(lock), goose.WithTableName(versionTable))
}

// ensureSchema creates the schema if it does not exist. It fails if the encoding of the database is not supported, or
// if another role owns the schema, or a table or function in it.
func ensureSchema(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, checkEncoding); err != nil {
		return err
	}
	// CREATE SCHEMA IF NOT EXISTS would need the right to create schemas even if the schema exists.
	const ensure = `DO $$ BEGIN
		IF to_regnamespace('rowcast') IS NULL THEN CREATE SCHEMA rowcast; END IF;
	EXCEPTION WHEN duplicate_schema OR unique_violation THEN NULL; -- another session has created it meanwhile
	END $$`
	if _, err := db.ExecContext(ctx, ensure); err != nil {
		return fmt.Errorf("create schema %s: %w", schema, err)
	}
	return checkOwners(ctx, db)
}

// checkEncoding is SQL that fails in a database with an encoding that PostgreSQL cannot convert to UTF-8.
const checkEncoding = `DO $$ BEGIN
    IF pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) ANY ('{SQL_ASCII,MULE_INTERNAL}'::pg_catalog.text[]) THEN
        RAISE EXCEPTION 'text in the encoding of this database (%) cannot be converted to UTF-8',
            pg_catalog.current_setting('server_encoding')
            USING HINT = 'Create a database with CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0.';
    END IF;
END $$`

// checkOwners returns an error if another role owns the schema, or a table or function in it. Superusers may own them.
func checkOwners(ctx context.Context, db *sql.DB) error {
	const find = `SELECT pg_catalog.pg_get_userbyid(owner), name FROM (
			SELECT nspowner, 0, 'the schema ' || nspname FROM pg_namespace WHERE nspname = 'rowcast'
			UNION ALL SELECT relowner, 1, 'rowcast.' || relname FROM pg_class WHERE relnamespace = to_regnamespace('rowcast')
			UNION ALL SELECT proowner, 2, 'the function rowcast.' || proname FROM pg_proc WHERE pronamespace = to_regnamespace('rowcast')
		) objects (owner, kind, name) JOIN pg_roles ON pg_roles.oid = owner
		WHERE NOT rolsuper AND rolname <> current_user ORDER BY kind, name LIMIT 1`
	var owner, name string
	err := db.QueryRowContext(ctx, find).Scan(&owner, &name)
	if errors.Is(err, sql.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the owners of the schema: %w", err)
	}
	return fmt.Errorf("%s belongs to the role %q, which could run its own code with the rights of the current role: "+
		"run rowcast migrate as %q, or drop the schema first", name, owner, owner)
}

// securePath sets the search_path of a new session to pg_catalog, pg_temp. With another path, a name in our statements
// could refer to a function or operator that another role has created in a schema of the path. Through a pooler, the
// setting would stay for the next client of the server session. There, securePath changes nothing and returns an error
// if the present search_path is not safe.
func securePath(ctx context.Context, conn *pgx.Conn) error {
	const query = "SELECT pg_catalog.pg_backend_pid(), pg_catalog.current_setting('search_path')"
	result, err := conn.PgConn().Exec(ctx, query).ReadAll()
	if err != nil {
		return err
	}
	row := result[0].Rows[0]
	if pid, path := string(row[0]), string(row[1]); pid != fmt.Sprint(conn.PgConn().PID()) {
		return checkPath(path)
	}
	_, err = conn.PgConn().Exec(ctx, "SET search_path = pg_catalog, pg_temp").ReadAll()
	return err
}

// checkPath returns an error if a search_path has other schemas before pg_catalog. PostgreSQL searches pg_catalog first
// if the path does not contain it.
func checkPath(path string) error {
	var names []string
	for name := range strings.SplitSeq(path, ",") {
		names = append(names, strings.Trim(name, ` "`))
	}
	if slices.Index(names, "pg_catalog") <= 0 {
		return nil
	}
	return fmt.Errorf("the search_path of this role or database (%s) has other schemas before pg_catalog, and rowcast cannot change it "+
		"through a pooler: connect directly to PostgreSQL", path)
}

// ErrNoSchema reports that the schema is missing, has an older version than this program needs, or has an empty table
// rowcast.history.
var ErrNoSchema = errors.New("schema rowcast is missing, incomplete or too old")

// Check returns [ErrNoSchema] if the schema is missing or below [Version], or if rowcast.history is empty. It returns
// [ErrRestored] if rowcast.notifications was restored from another server and must be corrected. [Migrate] corrects
// each of these.
func Check(ctx context.Context, db querier) error {
	var installed *string
	if err := db.QueryRow(ctx, "SELECT to_regclass($1)::text", versionTable).Scan(&installed); err != nil {
		return fmt.Errorf("find the schema: %w", err)
	}
	if installed == nil {
		return fmt.Errorf("%w: it does not exist", ErrNoSchema)
	}
	var version int64
	if err := db.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+versionTable).Scan(&version); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if version < Version() {
		return fmt.Errorf("%w: it has version %d, and version %d is needed", ErrNoSchema, version, Version())
	}
	return checkRestored(ctx, db)
}

// Print writes a script for psql that installs the schema in a database without it, and grants the rights to the roles.
func Print(w io.Writer, roles Roles) error {
	names, err := fs.Glob(Migrations, "migrations/*.sql")
	if err != nil {
		return err
	}
	var out strings.Builder
	fmt.Fprintf(&out, "%s;\nBEGIN;\nSET LOCAL search_path = pg_catalog, pg_temp;\nCREATE SCHEMA IF NOT EXISTS %s;\n%s", checkEncoding, schema, createVersionTable)
	for _, name := range names {
		text, err := Migrations.ReadFile(name)
		if err != nil {
			return err
		}
		version, err := goose.NumericComponent(name)
		if err != nil {
			return err
		}
		fmt.Fprintf(&out, "\n-- %s\n", path.Base(name))
		for line := range strings.Lines(string(text)) {
			if !strings.HasPrefix(line, "-- +goose") {
				out.WriteString(line)
			}
		}
		fmt.Fprintf(&out, "INSERT INTO %s (version_id, is_applied) VALUES (%d, true);\n", versionTable, version)
	}
	for _, g := range roles.grants() {
		fmt.Fprintf(&out, "%s;\n", g)
	}
	out.WriteString("COMMIT;\n")
	_, err = io.WriteString(w, out.String())
	return err
}

// createVersionTable creates the table of installed versions as goose does.
const createVersionTable = `CREATE TABLE ` + versionTable + ` (
    id         integer   PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
    version_id bigint    NOT NULL,
    is_applied boolean   NOT NULL,
    tstamp     timestamp NOT NULL DEFAULT now()
);
INSERT INTO ` + versionTable + ` (version_id, is_applied) VALUES (0, true);
`
