// Package sql holds the schema, as numbered migrations, and the names in it that other packages use.
//
// [Migrate] installs or upgrades it; [Version] is what the programs built with this package expect to find. Every migration
// runs in a transaction of its own, and two that migrate at once wait for each other, so a failure leaves the last good version.
package sql

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"path"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/stdlib"
	"github.com/pressly/goose/v3"
	"github.com/pressly/goose/v3/lock"
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

// Migrate brings the database to [Version] and returns the version that it found (0: no schema) and the one it left.
// It is an error if the database is newer than this program. The DSN may be empty: libpq's PG* variables count.
func Migrate(ctx context.Context, dsn string) (from, to int64, err error) {
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		return 0, 0, err
	}
	db := stdlib.OpenDB(*config)
	defer db.Close()
	// Not CREATE SCHEMA IF NOT EXISTS alone: that asks for the right to create schemas even where there is nothing to create.
	const ensure = `DO $$ BEGIN
		IF to_regnamespace('rowcast') IS NULL THEN CREATE SCHEMA rowcast; END IF;
	EXCEPTION WHEN duplicate_schema OR unique_violation THEN NULL; -- somebody else has just made it
	END $$`
	if _, err := db.ExecContext(ctx, ensure); err != nil {
		return 0, 0, fmt.Errorf("create schema %s: %w", schema, err)
	}
	files, err := fs.Sub(Migrations, "migrations")
	if err != nil {
		return 0, 0, err
	}
	locker, err := lock.NewPostgresSessionLocker()
	if err != nil {
		return 0, 0, err
	}
	provider, err := goose.NewProvider(goose.DialectPostgres, db, files, goose.WithSessionLocker(locker), goose.WithTableName(versionTable))
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
	fmt.Fprintf(&out, "BEGIN;\nCREATE SCHEMA IF NOT EXISTS %s;\n%s", schema, createVersionTable)
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
