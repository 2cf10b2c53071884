// Package sql holds the schema, as numbered migrations, and the names in it that other packages use.
//
// [Migrate] installs or upgrades it; [Version] is what the programs built with this package expect to find. Every migration
// runs in a transaction of its own, and two that migrate at once wait for each other, so a failure leaves the last good version.
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
	// Channel is where the trigger rings and where people send notifications by hand.
	Channel = "rowcast"

	// ParkLock1 and [ParkLock2] are the key of the advisory lock that a parked hub holds: "rowc" in ASCII,
	ParkLock1 = 0x726f7763
	// ParkLock2 is the key's second half: "ast".
	ParkLock2 = 0x61737400

	// FirstXid is the first transaction number that PostgreSQL gives (FirstNormalTransactionId). Rows below it are history
	// that no cursor waits for: rows restored from another server.
	FirstXid = 3

	schema       = "rowcast"
	versionTable = "rowcast.migrations"
)

// Migrations are the numbered files that [Migrate] runs.
//
//go:embed migrations/*.sql
var Migrations embed.FS

// Version is the number of the newest migration.
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
	// DSN says which database. It may be empty: libpq's PG* variables count.
	DSN string

	// Waiting, if not nil, is called once if another session has held the lock of migrations for 5 s, with a sentence that names
	// the session.
	Waiting func(holder string)
}

// Migrate is [Migrator.Migrate] for a DSN.
func Migrate(ctx context.Context, dsn string) (from, to int64, err error) {
	m := Migrator{DSN: dsn}
	return m.Migrate(ctx)
}

// Migrate brings the database to [Version] and returns the version that it found (0: no schema) and the one it left. It is an
// error if the database is newer than this program, if its encoding has no conversion to UTF-8, or if another role than the
// present one owns something in the schema: that role could have its own code run with the present role's rights.
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
		return from, from, fmt.Errorf("schema is at version %d, this rowcast knows only up to %d: upgrade rowcast", from, Version())
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

// ensureSchema makes sure that there is a schema in which nobody else can have put anything, in a database that can hold it.
func ensureSchema(ctx context.Context, db *sql.DB) error {
	if _, err := db.ExecContext(ctx, checkEncoding); err != nil {
		return err
	}
	// Not CREATE SCHEMA IF NOT EXISTS alone: that asks for the right to create schemas even where there is nothing to create.
	const ensure = `DO $$ BEGIN
		IF to_regnamespace('rowcast') IS NULL THEN CREATE SCHEMA rowcast; END IF;
	EXCEPTION WHEN duplicate_schema OR unique_violation THEN NULL; -- another session has just made it
	END $$`
	if _, err := db.ExecContext(ctx, ensure); err != nil {
		return fmt.Errorf("create schema %s: %w", schema, err)
	}
	return checkOwners(ctx, db)
}

// checkEncoding refuses the encodings whose text cannot be converted to UTF-8 as a whole.
const checkEncoding = `DO $$ BEGIN
    IF pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) ANY ('{SQL_ASCII,MULE_INTERNAL}'::pg_catalog.text[]) THEN
        RAISE EXCEPTION 'the encoding of this database is %, whose text cannot be sent as UTF-8',
            pg_catalog.current_setting('server_encoding')
            USING HINT = 'Use a database that was made with CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0.';
    END IF;
END $$`

// checkOwners refuses a schema in which another role, that is no superuser anyway, owns something.
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
		return fmt.Errorf("look for the owner of the schema: %w", err)
	}
	return fmt.Errorf("%s belongs to the role %q, which could run its own code with the rights of the present role: "+
		"run rowcast migrate as %q, or drop the schema first", name, owner, owner)
}

// securePath makes sure that names in our statements mean what they mean in PostgreSQL: in a schema of the search_path that anybody
// may write to, another function or operator may fit better. Behind a pooler the session may serve another client next: there the
// setting would break the other client's statements. So there the database's own search_path must be harmless.
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

// checkPath refuses a search_path that names other schemas before pg_catalog. PostgreSQL searches pg_catalog first if the path does not
// name it.
func checkPath(path string) error {
	var names []string
	for name := range strings.SplitSeq(path, ",") {
		names = append(names, strings.Trim(name, ` "`))
	}
	if slices.Index(names, "pg_catalog") <= 0 {
		return nil
	}
	return fmt.Errorf("the search_path of this role or database (%s) has other schemas before pg_catalog, and is not changed through a "+
		"pooler: connect directly to PostgreSQL", path)
}

// ErrNoSchema says that the database has no schema of ours, or an older one than this program needs.
var ErrNoSchema = errors.New("schema rowcast is missing or too old")

// Check returns [ErrNoSchema] unless the database is at [Version] or above, and [ErrRestored] if it must be put right first.
// Both are mended by [Migrate].
func Check(ctx context.Context, db querier) error {
	var installed *string
	if err := db.QueryRow(ctx, "SELECT to_regclass($1)::text", versionTable).Scan(&installed); err != nil {
		return fmt.Errorf("look for the schema: %w", err)
	}
	if installed == nil {
		return fmt.Errorf("%w: there is none", ErrNoSchema)
	}
	var version int64
	if err := db.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+versionTable).Scan(&version); err != nil {
		return fmt.Errorf("read schema version: %w", err)
	}
	if version < Version() {
		return fmt.Errorf("%w: version %d, needed is %d", ErrNoSchema, version, Version())
	}
	return checkRestored(ctx, db)
}

// Print writes the SQL that [Migrate] and [Grant] would run on an empty database, to be run by psql; it leaves the same version behind.
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

// createVersionTable makes goose's table as goose makes it.
const createVersionTable = `CREATE TABLE ` + versionTable + ` (
    id         integer   PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
    version_id bigint    NOT NULL,
    is_applied boolean   NOT NULL,
    tstamp     timestamp NOT NULL DEFAULT now()
);
INSERT INTO ` + versionTable + ` (version_id, is_applied) VALUES (0, true);
`
