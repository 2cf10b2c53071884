package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
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

// written is the number of the transaction that wrote a row here, as xmin has its last 32 bits.
const written = `(SELECT present - (present - %s.xmin::text::bigint & 4294967295)
	FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint OFFSET 0) xmax (present))`

var (
	// since is the transaction that restored the dump: what is not older was written here, or overlaps with what is. Later, it is the
	// one that last moved the horizon, which no hub does before it has passed this check.
	since = "(SELECT " + fmt.Sprintf(written, "history") + " FROM rowcast.history)"

	// early are restored rows whose number was given here only afterwards, or not yet.
	early = "xid >= " + since + "::text::xid8 AND xid::text::bigint > " + fmt.Sprintf(written, "notifications")

	// restored tells whether there are such rows, or a horizon that had not been reached. If history's row is still the one that
	// was written first, nothing is: this spares pg_upgrade, after which all rows would be looked at.
	restored = "SELECT " + moved + ` AND (SELECT xmin::text::bigint <> xid::text::bigint & 4294967295 FROM rowcast.history)
		AND ((SELECT horizon::text::bigint FROM rowcast.history) > ` + since + `
		OR EXISTS (SELECT FROM rowcast.notifications WHERE ` + early + "))"
)

// checkRestored returns [ErrRestored] if [Migrate] must put something right.
func checkRestored(ctx context.Context, db querier) error {
	var isRestored bool
	if err := db.QueryRow(ctx, restored).Scan(&isRestored); err != nil {
		return fmt.Errorf("look for restored rows: %w", err)
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
	if err := tx.QueryRowContext(ctx, "SELECT "+moved+", ("+restored+")").Scan(&isMoved, &isRestored); err != nil || !isMoved {
		return err
	}
	if isRestored {
		forget := "UPDATE rowcast.notifications SET xid = '1' WHERE xid >= '3' AND (xid < " + since + "::text::xid8 OR " + early + ")"
		if _, err := tx.ExecContext(ctx, forget); err != nil {
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
