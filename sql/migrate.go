package sql

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql/connstring"
)

// A migration is one of the numbered files of [Migrations], or the migration of the inbox.
type migration struct {
	version    int64
	name       string
	statements string
}

// migrations returns the migrations of the schema without the inbox, the oldest first.
func migrations() (all []migration) {
	names, err := fs.Glob(Migrations, "migrations/*.sql")
	if err != nil {
		panic(err)
	}
	for _, name := range names {
		text, err := Migrations.ReadFile(name)
		if err != nil {
			panic(err)
		}
		number, _, _ := strings.Cut(path.Base(name), "_")
		version, err := strconv.ParseInt(number, 10, 64)
		if err != nil {
			panic(err)
		}
		all = append(all, migration{version, path.Base(name), string(text)})
	}
	return all
}

// Version returns the number of the newest migration.
func Version() int64 {
	all := migrations()
	return all[len(all)-1].version
}

// A Migrator installs or upgrades the schema.
type Migrator struct {
	// DSN is the connection string of the database, as for [connstring.Parse].
	DSN string

	// Waiting, if not nil, is called when Migrate has waited more than 5 s for the lock of migrations. holder is a
	// sentence about the session that holds the lock.
	Waiting func(holder string)

	// Inbox makes Migrate install the inbox.
	Inbox bool
}

// Migrate calls [Migrator.Migrate] for the database with the connection string dsn.
func Migrate(ctx context.Context, dsn string) (from, to int64, err error) {
	m := Migrator{DSN: dsn}
	return m.Migrate(ctx)
}

// Migrate installs the schema, or upgrades it to [Version]. It returns the versions before and after the upgrade. If
// there was no schema, from is 0. Migrate fails if the schema or the inbox is newer than this program, or if text in
// the encoding of the database cannot be converted to UTF-8. It also fails if another role owns the schema, or a table
// or function in it, because that role could run its own code with the rights of the current role. It accepts objects
// that a superuser owns, and trigger functions of watched tables.
//
// Each migration runs in a transaction of its own, which holds the lock of migrations. Nothing else is bound to the
// session, so Migrate works through a pooler in transaction mode.
func (m Migrator) Migrate(ctx context.Context) (from, to int64, err error) {
	conn, err := connect(ctx, m.DSN)
	if err != nil {
		return 0, 0, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	for begun, complete := false, false; !complete; {
		err = m.locked(ctx, conn, func(tx pgx.Tx) error {
			version, err := prepare(ctx, tx)
			if err != nil {
				return err
			}
			if to = version; !begun {
				from, begun = version, true
			}
			complete, err = m.step(ctx, tx, version)
			return err
		})
		if err != nil {
			return from, to, err
		}
	}
	return from, to, nil
}

// connect opens a connection whose statements are not prepared, because some poolers do not support prepared
// statements.
func connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	config, err := connstring.Parse(dsn)
	if err != nil {
		return nil, err
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	return pgx.ConnectConfig(ctx, config)
}

// Secure is a statement that protects a transaction from settings of the role or the database. It must be the first
// statement of the transaction, and does not depend on the search_path itself. The settings end with the transaction,
// because a transaction pooler may use another session for the next one.
//
// With another search_path, a name in our statements could refer to a function or operator that another role has
// created in a schema of the path. With standard_conforming_strings off, regular expressions would lose their
// backslashes, also in the constraints that a migration creates. With quote_all_identifiers, the server would return
// names and definitions with more quotes than [Differences] expects.
const Secure = `SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true),
	pg_catalog.set_config('standard_conforming_strings', 'on', true), pg_catalog.set_config('quote_all_identifiers', 'off', true)`

// secured calls change in a transaction that begins with [Secure]. The transaction is READ COMMITTED. With another
// default_transaction_isolation, it would have a snapshot from before it gets the lock of migrations, and so would not
// see the migrations of the session that had the lock before. A transaction that writes is [pgx.ReadWrite], because
// default_transaction_read_only may be on. A standby refuses to begin such a transaction.
func secured(ctx context.Context, conn *pgx.Conn, mode pgx.TxAccessMode, change func(pgx.Tx) error) error {
	err := pgx.BeginTxFunc(ctx, conn, pgx.TxOptions{IsoLevel: pgx.ReadCommitted, AccessMode: mode}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, Secure); err != nil {
			return err
		}
		return change(tx)
	})
	if failed, ok := errors.AsType[*pgconn.PgError](err); ok && failed.Code == "0A000" { // feature_not_supported
		var standby bool
		if conn.QueryRow(ctx, "SELECT pg_catalog.pg_is_in_recovery()").Scan(&standby) == nil && standby {
			return fmt.Errorf("%w: this is a standby: connect to the primary (target_session_attrs=read-write)", err)
		}
	}
	return err
}

const (
	// lockKey is the key of the advisory lock that makes migrations run one at a time. Earlier versions of rowcast used
	// the session locker of goose (github.com/pressly/goose), which has the same key. So the lock also excludes the
	// migrations of these versions.
	lockKey int64 = 4097083626

	lockInterval = 200 * time.Millisecond // the time between two attempts to get the lock
	lockReport   = 5 * time.Second        // the time after which the holder is reported
	lockTimeout  = 5 * time.Minute        // the time after which the migration fails
)

// locked waits for the lock of migrations, and calls change in a transaction that holds it. After lockTimeout without
// the lock, it returns an error.
func (m Migrator) locked(ctx context.Context, conn *pgx.Conn, change func(pgx.Tx) error) error {
	ticker := time.NewTicker(lockInterval)
	defer ticker.Stop()
	for began, reported := time.Now(), false; ; {
		var locked bool
		holder := ""
		err := secured(ctx, conn, pgx.ReadWrite, func(tx pgx.Tx) error {
			if err := tx.QueryRow(ctx, "SELECT pg_try_advisory_xact_lock($1)", lockKey).Scan(&locked); err != nil {
				return err
			}
			if locked {
				return change(tx)
			}
			holder = holderOf(ctx, tx)
			return nil
		})
		waited := time.Since(began)
		switch {
		case err != nil || locked:
			return err
		case waited > lockTimeout:
			return fmt.Errorf("waited %v for the lock of migrations: %s", lockTimeout, holder)
		case waited > lockReport && !reported && m.Waiting != nil:
			reported = true
			m.Waiting(holder)
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// EndPrepared is advice about a prepared transaction that holds a lock. Such a transaction has no process.
const EndPrepared = "find it in pg_prepared_xacts, and end it with COMMIT PREPARED or ROLLBACK PREPARED"

// holderOf returns a sentence about the session or the prepared transaction that holds the lock. It contains (hidden) for
// values that the role may not see.
func holderOf(ctx context.Context, db querier) string {
	const find = `SELECT CASE WHEN pid IS NULL THEN 'a prepared transaction holds the lock of migrations; ` + EndPrepared + `'
			ELSE format('process %s of the role %s, application "%s", connected since %s, holds the lock of migrations; '
			'if it is not a migration, run SELECT pg_terminate_backend(%s)', pid, coalesce(usename, '(hidden)'),
			coalesce(application_name, '(hidden)'), coalesce(backend_start::text, '(hidden)'), pid) END
		FROM pg_locks LEFT JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted AND objsubid = 1
			AND classid::bigint << 32 | objid::bigint = $1
			AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	var holder string
	if err := db.QueryRow(ctx, find, lockKey).Scan(&holder); err != nil {
		return "another session holds the lock of migrations"
	}
	return holder
}

// prepare checks that the schema can be installed or upgraded, creates it if it does not exist, and returns its
// version. The table of installed versions can be missing or empty although the schema is installed: in a copy of the
// schema without rows, or after a test suite has truncated all tables. In that case, prepare fills the table.
func prepare(ctx context.Context, tx pgx.Tx) (version int64, err error) {
	if _, err := tx.Exec(ctx, checkEncoding); err != nil {
		return 0, err
	}
	if err := checkControl(ctx, tx); err != nil {
		return 0, err
	}
	if err := createSchema(ctx, tx); err != nil {
		return 0, fmt.Errorf("create schema %s: %w", schema, err)
	}
	if err := checkOwners(ctx, tx); err != nil {
		return 0, err
	}
	if _, err := tx.Exec(ctx, ensureVersionTable); err != nil {
		return 0, err
	}
	if err := tx.QueryRow(ctx, "SELECT coalesce(max(version_id), 0) FROM "+versionTable).Scan(&version); err != nil {
		return 0, fmt.Errorf("read schema version: %w", err)
	}
	if version > 0 {
		return version, nil
	}
	if version, err = recognize(ctx, tx); err != nil {
		return 0, fmt.Errorf("recognize schema version: %w", err)
	}
	const record = "INSERT INTO " + versionTable + " (version_id, is_applied) SELECT v, true FROM generate_series(1, $1::bigint) v"
	_, err = tx.Exec(ctx, record, version)
	return version, err
}

// createSchema creates the schema if it does not exist. If the current role may not create it, the error names the
// owner of the database, who may create it or grant the right.
func createSchema(ctx context.Context, tx pgx.Tx) error {
	var owner, grant string
	const query = `SELECT pg_get_userbyid(datdba), format('GRANT CREATE ON DATABASE %I TO %I', datname, current_user)
		FROM pg_database WHERE datname = current_database()`
	if err := tx.QueryRow(ctx, query).Scan(&owner, &grant); err != nil {
		return fmt.Errorf("find the owner of the database: %w", err)
	}
	_, err := tx.Exec(ctx, ensureSchema)
	if failed, ok := errors.AsType[*pgconn.PgError](err); ok && failed.Code == "42501" { // insufficient_privilege
		return fmt.Errorf("%w: run rowcast migrate as the owner of the database (%q), or let that role run %s", err, owner, grant)
	}
	return err
}

// signs has a condition for each version, which is true if the schema has that version or a later one.
var signs = []string{
	"to_regclass('rowcast.notifications') IS NOT NULL",
	"EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('rowcast.history') AND attname = 'xid' AND NOT attisdropped)",
	"to_regproc('rowcast.disown') IS NOT NULL",
	"EXISTS (SELECT FROM pg_attribute WHERE attrelid = to_regclass('rowcast.history') AND attname = 'singleton' AND NOT attisdropped)",
	"to_regproc('rowcast.server') IS NOT NULL",
	"to_regproc('rowcast.unwatch') IS NOT NULL",
	"EXISTS (SELECT FROM pg_proc WHERE oid = to_regproc('rowcast.cursor') AND prosrc LIKE '%horizon%')",
	"EXISTS (SELECT FROM pg_proc WHERE oid = to_regproc('rowcast.unwatch') AND prosrc LIKE '%proowner%')",
	"EXISTS (SELECT FROM pg_proc WHERE oid = to_regproc('rowcast.cursor') AND prosrc LIKE '%use_variable%')",
}

// recognize finds out the version of the schema from the objects in it.
func recognize(ctx context.Context, tx pgx.Tx) (version int64, err error) {
	for _, sign := range signs {
		var there bool
		if err := tx.QueryRow(ctx, "SELECT "+sign).Scan(&there); err != nil || !there {
			return version, err
		}
		version++
	}
	return version, nil
}

// step runs the migration that follows version. If there is none, it corrects restored rows, installs the inbox if that
// is wanted, and returns true.
func (m Migrator) step(ctx context.Context, tx pgx.Tx, version int64) (complete bool, err error) {
	if version > Version() {
		return false, fmt.Errorf("schema is at version %d, newer than version %d of this program: upgrade rowcast", version, Version())
	}
	for _, next := range migrations() {
		if next.version <= version {
			continue
		}
		if err := next.run(ctx, tx); err != nil {
			return false, err
		}
		_, err := tx.Exec(ctx, "INSERT INTO "+versionTable+" (version_id, is_applied) VALUES ($1, true)", next.version)
		return false, err
	}
	if err := adopt(ctx, tx); err != nil {
		return false, fmt.Errorf("adopt restored rows: %w", err)
	}
	return true, m.installInbox(ctx, tx)
}

// run runs the statements of the migration.
func (m migration) run(ctx context.Context, tx pgx.Tx) error {
	if _, err := tx.Exec(ctx, m.statements, pgx.QueryExecModeSimpleProtocol); err != nil {
		return fmt.Errorf("migrate: %s: %w", m.name, err)
	}
	return nil
}

// checkEncoding is SQL that fails in a database with an encoding that PostgreSQL cannot convert to UTF-8.
const checkEncoding = `DO $$ BEGIN
    IF pg_catalog.current_setting('server_encoding') OPERATOR(pg_catalog.=) ANY ('{SQL_ASCII,MULE_INTERNAL}'::pg_catalog.text[]) THEN
        RAISE EXCEPTION 'text in the encoding of this database (%) cannot be converted to UTF-8',
            pg_catalog.current_setting('server_encoding')
            USING HINT = 'Create a database with CREATE DATABASE ... ENCODING ''UTF8'' TEMPLATE template0.';
    END IF;
END $$`

// checkControl returns an error if the current role may not call pg_control_system(). The functions of the schema call
// it with the rights of the schema's owner.
func checkControl(ctx context.Context, tx pgx.Tx) error {
	var role string
	var may bool
	const query = "SELECT quote_ident(current_user), has_function_privilege('pg_control_system()', 'EXECUTE')"
	if err := tx.QueryRow(ctx, query).Scan(&role, &may); err != nil || may {
		return err
	}
	return fmt.Errorf("the role %s may not call pg_control_system(), which tells whether the database was restored on another server: "+
		"let a superuser run GRANT EXECUTE ON FUNCTION pg_control_system() TO %s in this database", role, role)
}

// ensureSchema is SQL that creates the schema if it does not exist. CREATE SCHEMA IF NOT EXISTS would need the right to
// create schemas even if the schema exists.
const ensureSchema = `DO $$ BEGIN IF to_regnamespace('rowcast') IS NULL THEN CREATE SCHEMA rowcast; END IF; END $$`

// ensureVersionTable is SQL that creates the table of installed versions if it does not exist, in the format of goose.
const ensureVersionTable = `DO $$ BEGIN
    IF to_regclass('` + versionTable + `') IS NULL THEN
        CREATE TABLE ` + versionTable + ` (
            id         integer   PRIMARY KEY GENERATED BY DEFAULT AS IDENTITY,
            version_id bigint    NOT NULL,
            is_applied boolean   NOT NULL,
            tstamp     timestamp NOT NULL DEFAULT now()
        );
        INSERT INTO ` + versionTable + ` (version_id, is_applied) VALUES (0, true);
    END IF;
END $$`

// checkOwners returns an error if findStranger finds an object.
func checkOwners(ctx context.Context, tx pgx.Tx) error {
	var owner, name string
	var kind int
	err := tx.QueryRow(ctx, findStranger).Scan(&owner, &name, &kind)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("read the owners of the schema: %w", err)
	}
	advice := fmt.Sprintf("run rowcast migrate as %q", owner)
	if kind > 0 { // the schema belongs to the current role or a superuser
		advice = "rowcast doctor prints what to do"
	}
	return fmt.Errorf("%s belongs to the role %q, which could run its own code with the rights of the current role: %s", name, owner, advice)
}

// findStranger is a query. It returns the owner, the name and the kind of an object that another role than the current
// one owns: the schema (kind 0), a relation in it (kind 1) or a function in it (kind 2). It leaves out objects that a
// superuser owns. It also leaves out the trigger functions of watched tables, which belong to the owners of the tables.
// They are harmless: only a trigger of a table can call such a function, and no migration creates a trigger with it.
const findStranger = `SELECT rolname AS owner, name, kind FROM (
        SELECT nspowner, 0, 'the schema ' || nspname FROM pg_namespace WHERE nspname = 'rowcast'
        UNION ALL SELECT relowner, 1, 'rowcast.' || relname FROM pg_class WHERE relnamespace = to_regnamespace('rowcast')
        UNION ALL SELECT proowner, 2, 'the function rowcast.' || proname FROM pg_proc
            WHERE pronamespace = to_regnamespace('rowcast') AND NOT (` + ofWatchedTable + `)
    ) objects (role, kind, name) JOIN pg_roles ON pg_roles.oid = role
    WHERE NOT rolsuper AND rolname <> current_user ORDER BY kind, name LIMIT 1`

// ofWatchedTable is a condition in SQL. It is true if a row of pg_proc is a trigger function of a watched table.
const ofWatchedTable = `proname ~ '^watch_[0-9a-f]{32}$' AND prorettype = 'trigger'::regtype`
