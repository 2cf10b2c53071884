package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrRestored says that the table came from another server or database, in a dump, with rows whose transaction numbers this one
// had not given by then: once it does, cursors that hold for the one row are taken to hold for the other.
var ErrRestored = errors.New("rowcast.notifications was restored from another server")

// A dump is what was visible, with numbers that came from elsewhere. Where this server had given all of them before, its own rows
// have higher ones: a cursor whose anchor was restored claims nothing of what was written here, so it is exact as it is, and
// whoever began at zero here finds the old rows read. The same holds for copies of the files, as they bring their counter with
// them (pg_upgrade) or share it (CREATE DATABASE … TEMPLATE). Otherwise the numbers overlap, and the anchor proves nothing.
// (Should a transaction of this database have drawn its number before the table was restored, and insert after: its rows, too,
// are below what such a cursor claims. Cursors of before a restore that runs beside writers are not worth a refusal of all.)

// moved tells whether the schema was installed in another database, or on another server.
const moved = `(SELECT (system_identifier, database) IS DISTINCT FROM (
	(SELECT system_identifier FROM pg_control_system()), (SELECT oid FROM pg_database WHERE datname = current_database())
	) FROM rowcast.history)`

// written is the number of the transaction that wrote a row here: the last one assigned whose last 32 bits are those in xmin.
const written = `(SELECT present - (present - %s.xmin::text::bigint & 4294967295)
	FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint OFFSET 0) xmax (present))`

var (
	// since is the transaction that restored the dump: what is not older was written here, or overlaps with what is. Later, it is the
	// one that last moved the horizon, which no hub does before it has passed this check.
	since = "(SELECT " + fmt.Sprintf(written, "history") + " FROM rowcast.history)"

	// early are restored rows whose number was given here only afterwards, or not yet.
	early = "xid >= " + since + "::text::xid8 AND NOT (" + Assigned("notifications") + ")"

	// restored tells whether there are such rows, or a horizon that had not been reached. Only the lowest and the highest numbers
	// from since on are looked at, so that the answer takes no longer in a large table: the numbers of one server are a range.
	restored = "SELECT " + moved + ` AND ((SELECT horizon::text::bigint FROM rowcast.history) > ` + since + `
		OR EXISTS (SELECT FROM (SELECT NOT (` + Assigned("notifications") + `) AS is_early FROM rowcast.notifications
			WHERE xid >= ` + since + `::text::xid8 ORDER BY xid LIMIT 10000) lowest WHERE is_early)
		OR EXISTS (SELECT FROM (SELECT NOT (` + Assigned("notifications") + `) AS is_early FROM rowcast.notifications
			WHERE xid >= ` + since + `::text::xid8 ORDER BY xid DESC LIMIT 10000) highest WHERE is_early))`
)

// Assigned is a condition in SQL that holds for a row of rowcast.notifications, under a name, if this server had assigned the number
// in its column xid by the time it was written. Rows that a dump, a subscription or a person brings with other numbers must not be
// sent, also not when the server assigns these numbers later. Savepoints, updates and rewrites of the table make xmin, the number of
// the transaction that wrote the row, larger than xid, and never smaller. xmin has 32 bits; mostly they are all of xid's.
func Assigned(name string) string {
	return name + ".xmin = " + name + ".xid::xid OR " + name + ".xid::text::bigint <= " + fmt.Sprintf(written, name)
}

// begin writes the row of history in a copy of the schema without its rows, or after somebody has emptied the table. What retention
// had deleted before is not known any more.
const begin = `INSERT INTO rowcast.history (system_identifier, database, horizon)
	SELECT system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()), coalesce(
		(SELECT xid FROM rowcast.notifications WHERE xid >= '3' ORDER BY xid LIMIT 1), pg_snapshot_xmin(pg_current_snapshot()))
	FROM pg_control_system() WHERE NOT EXISTS (SELECT FROM rowcast.history)`

// checkRestored returns [ErrRestored] if [Migrate] must put something right.
func checkRestored(ctx context.Context, db querier) error {
	var hasHistory, isRestored bool
	const has = "SELECT EXISTS (SELECT FROM rowcast.history), coalesce((%s), false)"
	if err := db.QueryRow(ctx, fmt.Sprintf(has, restored)).Scan(&hasHistory, &isRestored); err != nil {
		return fmt.Errorf("look for restored rows: %w", err)
	}
	if !hasHistory {
		return fmt.Errorf("%w: the table rowcast.history is empty", ErrNoSchema)
	}
	if isRestored {
		return ErrRestored
	}
	return nil
}

// adopt makes this server the table's own, and if there are restored rows that overlap with its own, all restored ones history,
// which no cursor waits for: without the anchors, cursors of before are reset. What was written here stays as it is.
func adopt(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var isMoved, isRestored bool
	if _, err := tx.ExecContext(ctx, begin); err != nil {
		return err
	}
	if err := tx.QueryRowContext(ctx, "SELECT "+moved+", ("+restored+")").Scan(&isMoved, &isRestored); err != nil {
		return err
	}
	if !isMoved {
		return tx.Commit()
	}
	if isRestored {
		forget := "UPDATE rowcast.notifications SET xid = '1' WHERE xid >= '3' AND (xid < " + since + "::text::xid8 OR " + early + ")"
		if err := update(ctx, tx, forget); err != nil {
			return err
		}
	}
	// Retention leaves the newest transaction, so a horizon above that came with the dump.
	const own = `UPDATE rowcast.history SET system_identifier = control.system_identifier, xid = pg_current_xact_id(),
		database = (SELECT oid FROM pg_database WHERE datname = current_database()),
		horizon = CASE WHEN EXISTS (SELECT FROM rowcast.notifications WHERE xid >= horizon) THEN horizon ELSE '3' END
		FROM pg_control_system() control`
	if _, err := tx.ExecContext(ctx, own); err != nil {
		return err
	}
	return tx.Commit()
}

// update changes rows, also those that were written before a constraint that they break.
func update(ctx context.Context, tx *sql.Tx, statement string) error {
	const find = `SELECT conname, pg_get_constraintdef(oid) FROM pg_constraint
		WHERE conrelid = 'rowcast.notifications'::regclass AND contype = 'c' AND NOT convalidated`
	rows, err := tx.QueryContext(ctx, find)
	if err != nil {
		return err
	}
	defer rows.Close()
	before, after := "", ""
	for rows.Next() {
		var name, definition string
		if err := rows.Scan(&name, &definition); err != nil {
			return err
		}
		name = pgx.Identifier{name}.Sanitize()
		before += "ALTER TABLE rowcast.notifications DROP CONSTRAINT " + name + ";"
		after += "ALTER TABLE rowcast.notifications ADD CONSTRAINT " + name + " " + definition + ";"
	}
	if err := rows.Err(); err != nil {
		return err
	}
	for _, part := range []string{before, statement, after} {
		if part == "" {
			continue
		}
		if _, err := tx.ExecContext(ctx, part); err != nil {
			return err
		}
	}
	return nil
}
