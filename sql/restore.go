package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrRestored says that the table came from another server, in a dump, with rows whose transaction numbers this one is still to
// give: once it does, old rows would be taken for new.
var ErrRestored = errors.New("rowcast.notifications was restored from another server")

// foreign are rows that are visible although this server has not given their transaction's number, or is only just giving it.
const foreign = `xid >= pg_snapshot_xmin(pg_current_snapshot()) AND NOT pg_visible_in_snapshot(xid, pg_current_snapshot())
	AND xid IS DISTINCT FROM pg_current_xact_id_if_assigned()`

// moved tells whether the schema was installed in another database, or on another server. After pg_upgrade it was, too, and
// then there are no foreign rows.
const moved = `SELECT (history.system_identifier, history.database) IS DISTINCT FROM
	(control.system_identifier, (SELECT oid FROM pg_database WHERE datname = current_database()))
	FROM rowcast.history, pg_control_system() control`

// checkRestored returns [ErrRestored] if [Migrate] must put something right.
func checkRestored(ctx context.Context, conn *pgx.Conn) error {
	var restored bool
	query := fmt.Sprintf("SELECT (%s) AND EXISTS (SELECT FROM rowcast.notifications WHERE %s)", moved, foreign)
	if err := conn.QueryRow(ctx, query).Scan(&restored); err != nil {
		return fmt.Errorf("look for restored rows: %w", err)
	}
	if restored {
		return ErrRestored
	}
	return nil
}

// adopt makes the rows of another server history, which no cursor waits for, and this server the table's own. A horizon that
// this server has not reached was the other's.
func adopt(ctx context.Context, db *sql.DB) error {
	tx, err := db.BeginTx(ctx, nil)
	if err != nil {
		return err
	}
	defer func() { _ = tx.Rollback() }()
	var isMoved bool
	if err := tx.QueryRowContext(ctx, moved).Scan(&isMoved); err != nil || !isMoved {
		return err
	}
	for _, statement := range []string{
		"UPDATE rowcast.notifications SET xid = '1' WHERE " + foreign,
		`UPDATE rowcast.history SET system_identifier = control.system_identifier,
			database = (SELECT oid FROM pg_database WHERE datname = current_database()),
			horizon = CASE WHEN horizon > pg_snapshot_xmax(pg_current_snapshot()) THEN '3' ELSE horizon END
			FROM pg_control_system() control`,
	} {
		if _, err := tx.ExecContext(ctx, statement); err != nil {
			return err
		}
	}
	return tx.Commit()
}
