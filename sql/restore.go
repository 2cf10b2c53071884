package sql

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// ErrRestored reports that the table was restored from a dump of another server or database, and must be corrected:
// restored rows or the horizon of retention have transaction numbers of the other server that this server has assigned
// since the restore, or will assign. A cursor with such a number is ambiguous. [Migrate] sets xid of the restored rows
// to 1, which is never assigned.
var ErrRestored = errors.New("rowcast.notifications was restored from another server")

// A dump contains the column xid, so a restored row keeps the transaction number that the other server assigned. This
// server has its own counter. "since" is the transaction that restored the dump. "present" is the xmax of the present
// snapshot, which is the next number that this server assigns unless transactions are running:
//
//	numbers of this server:   3 ......... since ......... present ........>
//	restored rows with xid:       (A)             (B)              (C)
//
// A: This server assigned the number before the restore. Each row that it writes later has a higher number, so a cursor
// with such a number can only refer to the restored row. Nothing is wrong.
//
// B: This server has assigned the number again, to another transaction. C: It will do so later. In both cases the
// number stands for two transactions, and a cursor with it is ambiguous. [Migrate] must correct this before a hub may
// read the table.
//
// A copy of the files is always case A. pg_upgrade copies the counter too, and with CREATE DATABASE ... TEMPLATE both
// databases use the same counter.
//
// One case is not detected: a transaction of this database has got its number before the restore, inserts after it, and
// a restored row has the same number. To detect this, [Check] would have to refuse every row of case A. The case is
// unlikely, because nobody restores a table into which others write.

// moved is a condition in SQL. It is true if rowcast.history names another server or another database.
const moved = `(SELECT (h.system_identifier, h.database) IS DISTINCT FROM (s.system_identifier, s.database)
	FROM rowcast.history h, rowcast.server() s)`

// written is an expression in SQL for the number of the transaction that wrote a row on this server. %s is the table.
// The system column xmin has only the lowest 32 bits of that number. The expression assumes that the row was written in
// the last 2^32 transactions, and returns the highest number up to present with these bits:
//
//	xmin                                   b = number modulo 2^32
//	present - (present - b) modulo 2^32    the highest number up to present with the bits b
const written = `(SELECT present - (present - %s.xmin::text::bigint & 4294967295)
	FROM (SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint OFFSET 0) xmax (present))`

var (
	// since is an expression for the transaction that wrote the row of rowcast.history. After a restore, it is the
	// transaction that restored the dump, until retention moves the horizon. A hub checks the table before it runs
	// retention.
	since = "(SELECT " + fmt.Sprintf(written, "history") + " FROM rowcast.history)"

	// HasRestored is a condition in SQL. It is true if rowcast.notifications has rows that were restored from a dump
	// together with rowcast.history. Such rows have lower numbers than the transaction that restored them. Once retention
	// has moved the horizon, the condition is also true for other rows.
	HasRestored = "EXISTS (SELECT FROM rowcast.notifications WHERE xid >= (SELECT greatest(horizon, '3') FROM rowcast.history) AND xid < " + since + "::text::xid8)"

	// early is a condition that is true for a row of case B or C.
	early = "xid >= " + since + "::text::xid8 AND NOT (" + Assigned("notifications") + ")"

	// restored is a query. It returns true if moved is true and either the table has a row of case B or C, or the
	// horizon is higher than since. The table can be large, so the query reads only some of the rows from since on: the
	// 10,000 rows with the lowest numbers and the 10,000 rows with the highest. It misses restored rows only if this
	// server has written 10,000 rows with lower numbers and 10,000 with higher ones.
	restored = "SELECT " + moved + ` AND ((SELECT horizon::text::bigint FROM rowcast.history) > ` + since + `
		OR EXISTS (SELECT FROM (SELECT NOT (` + Assigned("notifications") + `) AS is_early FROM rowcast.notifications
			WHERE xid >= ` + since + `::text::xid8 ORDER BY xid LIMIT 10000) lowest WHERE is_early)
		OR EXISTS (SELECT FROM (SELECT NOT (` + Assigned("notifications") + `) AS is_early FROM rowcast.notifications
			WHERE xid >= ` + since + `::text::xid8 ORDER BY xid DESC LIMIT 10000) highest WHERE is_early))`
)

// Assigned returns a condition in SQL for a row of rowcast.notifications. name is the table's name or alias in the
// query. The condition is true if this server had assigned the number in the column xid when the row was written. A row
// for which it is false has its number from another server (a dump, a subscription) or from an app, and is never sent,
// even after this server has assigned the number (rule 25 of package cursor).
//
// If the number is of this server, the transaction that wrote the row has this number or a higher one. Savepoints,
// updates and rewrites of the table cause a higher one. The comparison of 32 bits comes first, because it is true for
// nearly every row. No server assigns numbers from 2^63 on, and the conversion of such a number to bigint would fail.
func Assigned(name string) string {
	return name + ".xmin = " + name + ".xid::xid OR " + name + ".xid < '9223372036854775808' AND " +
		name + ".xid::text::bigint <= " + fmt.Sprintf(written, name)
}

// beginHistory inserts the row of rowcast.history if there is none: in a copy of the schema without rows, or after
// TRUNCATE. It is then unknown up to which number retention has deleted rows. The horizon becomes the lowest number in
// the table that is at least 3. If there is no such number, the horizon becomes the xmin of the present snapshot.
const beginHistory = `INSERT INTO rowcast.history (system_identifier, database, horizon)
	SELECT system_identifier, database, coalesce(
		(SELECT xid FROM rowcast.notifications WHERE xid >= '3' ORDER BY xid LIMIT 1), pg_snapshot_xmin(pg_current_snapshot()))
	FROM rowcast.server() WHERE NOT EXISTS (SELECT FROM rowcast.history)`

// checkRestored returns [ErrRestored] if [Migrate] must correct the numbers of restored rows or the horizon, and
// [ErrNoSchema] if the table rowcast.history is empty.
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

// adopt records in rowcast.history that the table belongs to this database of this server. If [ErrRestored] applies,
// adopt first gives the restored rows the number 1, which marks rows that are never sent. A client whose cursor is from
// before the restore is then reset, because the row that its cursor names has a different number now.
func adopt(ctx context.Context, tx pgx.Tx) error {
	var isMoved, isRestored bool
	if _, err := tx.Exec(ctx, beginHistory); err != nil {
		return err
	}
	if err := tx.QueryRow(ctx, "SELECT "+moved+", ("+restored+")").Scan(&isMoved, &isRestored); err != nil {
		return err
	}
	if err := adoptInbox(ctx, tx, isMoved, isRestored); err != nil || !isMoved {
		return err
	}
	if isRestored {
		markExisting := "UPDATE rowcast.notifications SET xid = '1' WHERE xid >= '3' AND (xid < " + since + "::text::xid8 OR " + early + ")"
		if err := updateRows(ctx, tx, markExisting); err != nil {
			return err
		}
	}
	// Retention never deletes the newest transaction. A horizon above all rows is therefore probably a number of the
	// other server. If isRestored is true, the horizon is such a number, even if this server has written rows with higher
	// numbers since.
	const own = `UPDATE rowcast.history h SET system_identifier = server.system_identifier, xid = pg_current_xact_id(), database = server.database,
		horizon = CASE WHEN NOT $1::bool AND EXISTS (SELECT FROM rowcast.notifications WHERE xid >= h.horizon) THEN h.horizon ELSE '3' END
		FROM rowcast.server() server`
	if _, err := tx.Exec(ctx, own, isRestored); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, advance)
	return err
}

// advance is a statement that sets the sequence of the ids to the highest id below [MaxID], unless the sequence is
// higher. Logical replication does not copy sequences, and an INSERT fails if it gets an id that a row has.
const advance = `SELECT setval(pg_get_serial_sequence('rowcast.notifications', 'id'), max(id)) FROM rowcast.notifications WHERE id < 4611686018427387904` +
	` HAVING max(id) > coalesce(pg_sequence_last_value(pg_get_serial_sequence('rowcast.notifications', 'id')::regclass), 0)`

// updateRows runs an UPDATE of rowcast.notifications. Rows may be older than a constraint that is NOT VALID and violate
// it, and an UPDATE would check them. So updateRows drops these constraints and adds them again afterwards.
func updateRows(ctx context.Context, tx pgx.Tx, statement string) error {
	const find = `SELECT coalesce(string_agg(format('ALTER TABLE rowcast.notifications DROP CONSTRAINT %I;', conname), ''), ''),
		coalesce(string_agg(format('ALTER TABLE rowcast.notifications ADD CONSTRAINT %I %s;', conname, pg_get_constraintdef(oid)), ''), '')
		FROM pg_constraint WHERE conrelid = 'rowcast.notifications'::regclass AND contype = 'c' AND NOT convalidated`
	var before, after string
	if err := tx.QueryRow(ctx, find).Scan(&before, &after); err != nil {
		return err
	}
	_, err := tx.Exec(ctx, before+statement+";"+after, pgx.QueryExecModeSimpleProtocol)
	return err
}
