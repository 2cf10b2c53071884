package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrRestored reports that the table was restored from a dump of another server or database, and that the transaction numbers of
// its rows overlap with this server's, so that a cursor could refer to either of two rows.
var ErrRestored = errors.New("rowcast.notifications was restored from another server")

// The rows of a dump keep the numbers of the server that it was made on. If this server had assigned all of these numbers before the
// restore, nothing is wrong: its own rows have higher numbers, so a cursor that is anchored in a restored row is exact here, too.
// Copies of the files are the same case, because they bring the counter along (pg_upgrade) or share it (CREATE DATABASE ... TEMPLATE).
// Otherwise the numbers overlap, and the anchor of a cursor proves nothing.
// (One case is left out: a transaction of this database that drew its number before the restore and inserts after it. Restoring beside
// writers is rare, and refusing each restore for it would be worse.)

// moved is true if the schema was installed in another database or on another server.
const moved = `(SELECT (system_identifier, database) IS DISTINCT FROM (
	(SELECT system_identifier FROM pg_control_system()), (SELECT oid FROM pg_database WHERE datname = current_database())
	) FROM rowcast.history)`

// written is the number of the transaction that wrote a row here: the last one assigned whose last 32 bits are those in xmin.
const written = `(SELECT present - (present - %s.xmin::text::bigint & 4294967295)
	FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint OFFSET 0) xmax (present))`

var (
	// since is the transaction that restored the dump. Rows with higher numbers were written here, or overlap with those that were.
	// Later, since is the transaction that last moved the horizon, which no hub does before it has passed this check.
	since = "(SELECT " + fmt.Sprintf(written, "history") + " FROM rowcast.history)"

	// early is true for restored rows whose number this server assigned only after the restore, or has not assigned yet.
	early = "xid >= " + since + "::text::xid8 AND NOT (" + Assigned("notifications") + ")"

	// restored is true if there are such rows, or if the horizon is a number that had not been assigned. Only the lowest and the highest numbers
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

// begin writes the row of history in a copy of the schema without rows, or after the table was emptied. What retention had deleted
// before is no longer known.
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

// adopt makes this server the table's own. If restored rows overlap with this server's own, all restored rows become existing rows,
// which no cursor waits for. Without their anchors, cursors of before the restore are reset. Rows that were written here stay as they
// are.
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

// update runs an UPDATE of rows that may break constraints, because the rows are older than these: it takes the constraints that are
// for new rows only away and adds them again.
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
