package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/failures"
	"rowcast/sql"
)

// A Retention deletes rows that are older than Keep, beginning with the oldest transaction. In the same transaction as
// the deletion, it moves the horizon, the transaction number below which rows may have been deleted. The deletion of
// rows that are never sent (rule 25) does not move the horizon. A cursor that has not seen everything below the horizon
// is expired. If there are several hubs, only one of them deletes at a time.
//
// It has a connection of its own. Deleting a portion may take minutes, and no replay may wait for that. The connection
// is closed during long pauses.
type Retention struct {
	Listener *Listener // describes how to connect
	Logger   *slog.Logger

	// Keep is how long a row is normally kept after its created_at.
	Keep time.Duration
	// MinAge is the least time between a commit and the deletion of its rows, even if the created_at of the rows is older
	// than Keep at their commit. In this time, every connected hub normally reads the rows. The default is 1 min. A
	// negative MinAge means no such time, which only a test should use.
	MinAge time.Duration
	// Every is the pause after a round that has deleted nothing or has failed. After a round that has deleted rows, the
	// pause is three times the length of the round. The default is 1 min, also for a negative Every.
	Every time.Duration
	// Rows is approximately the largest number of rows that are deleted in a round. The rows of a transaction are
	// deleted together. The default is 1,000, also for a negative number. A large number would delay the commits of
	// writers while the WAL of the round is written.
	Rows int

	// Deleted counts the rows that were deleted.
	Deleted atomic.Int64
	// Failures records the rounds that failed, as the operation failures.Retention.
	Failures failures.Record

	conn *pgx.Conn // nil while it is closed

	settled  uint64 // all transactions below it ended MinAge ago or earlier
	xmin     uint64 // all transactions below it had ended at the time in observed
	observed time.Time

	looked position // up to which deleteMarked has looked at later rows; the zero position if the next round looks from the start
}

// keepOpen is the longest pause over which the connection stays open.
const keepOpen = 10 * time.Second

// Run deletes until the context ends, and then returns nil.
func (r *Retention) Run(ctx context.Context) error {
	setPositive(&r.Every, time.Minute)
	setPositive(&r.Rows, 1000)
	setDefault(&r.MinAge, time.Minute)
	defaults(r.Listener)
	defer r.disconnect()
	for {
		pause := r.Every
		began := time.Now()
		deleted, err := r.round(ctx)
		if ctx.Err() != nil {
			return nil
		}
		if err != nil {
			r.Failures.Warn(r.Logger, failures.Retention, err, "cannot delete old rows")
		} else if deleted > 0 { // there may be more old rows; the pause leaves three quarters of the time to the writers
			r.Deleted.Add(deleted)
			pause = 3 * time.Since(began)
		}
		if pause > keepOpen {
			r.disconnect()
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(pause):
		}
	}
}

// deleteTimeout bounds a round. It is long, because all rows of a transaction are deleted together.
const deleteTimeout = 10 * time.Minute

// round deletes one portion of old rows, and returns the number of rows.
func (r *Retention) round(ctx context.Context) (deleted int64, err error) {
	if r.conn == nil {
		if r.conn, err = r.Listener.connect(ctx, "retention", nil); err != nil {
			return 0, err
		}
	}
	ctx, cancel := context.WithTimeout(ctx, deleteTimeout)
	defer cancel()
	err = inTransaction(ctx, r.conn, deleteTimeout, func(tx querier) error {
		deleted, err = r.delete(ctx, tx)
		return err
	})
	if err != nil {
		r.disconnect()
		return deleted, err
	}
	r.Failures.Succeeded(failures.Retention)
	return deleted, nil
}

// disconnect closes the connection, if there is one.
func (r *Retention) disconnect() {
	if r.conn != nil {
		closeNow(r.conn)
		r.conn = nil
	}
}

// delete calls deleteMarked. If that has deleted nothing, delete deletes all rows of the oldest transactions, about
// r.Rows rows at most. It stops before the first transaction that has a row younger than Keep, other than a row from
// the future, or that may have ended less than MinAge ago. It never deletes the rows of the newest transaction: they
// are the anchors by which cursors of an earlier epoch are validated. Rows that are never sent (rule 25) are no anchors,
// so they do not count as the newest. They do not move the horizon either, because the cursors of hubs and clients do
// not follow them, and all streams would be reset.
func (r *Retention) delete(ctx context.Context, tx querier) (int64, error) {
	// Two hubs that delete at the same time would only wait for each other.
	var horizon, xmin string
	const lock = `SELECT horizon::text, pg_snapshot_xmin(pg_current_snapshot())::text FROM rowcast.history
		WHERE singleton AND horizon IS NOT NULL FOR UPDATE SKIP LOCKED`
	err := tx.QueryRow(ctx, lock).Scan(&horizon, &xmin)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, checkHistory(ctx, tx)
	}
	if err != nil {
		return 0, fmt.Errorf("lock the horizon: %w", err)
	}
	if err := r.observe(xmin); err != nil {
		return 0, err
	}
	// With this setting, the trigger of the inbox sends no events about the rows that retention deletes.
	if _, err := tx.Exec(ctx, "SET LOCAL rowcast.retention = on"); err != nil {
		return 0, fmt.Errorf("announce the deletion: %w", err)
	}
	if deleted, err := r.deleteMarked(ctx, tx); err != nil || deleted > 0 {
		return deleted, err
	}
	end, err := r.findEnd(ctx, tx, horizon)
	if err != nil || end == nil {
		return 0, err
	}
	remove := `WITH gone AS (DELETE FROM rowcast.notifications n WHERE xid >= $1::text::xid8 AND xid <= $2::text::xid8
			RETURNING xid::text::bigint AS xid, (` + assigned + `) AS sent)
		SELECT count(*), max(xid) FILTER (WHERE sent) FROM gone`
	var deleted int64
	var last *int64 // the last deleted transaction with a row that could be sent; nil if there is none
	if err := tx.QueryRow(ctx, remove, horizon, *end).Scan(&deleted, &last); err != nil {
		return 0, fmt.Errorf("delete: %w", err)
	}
	if last == nil {
		return deleted, nil
	}
	const move = "UPDATE rowcast.history SET horizon = ($1::bigint + 1)::text::xid8 WHERE singleton"
	if _, err := tx.Exec(ctx, move, *last); err != nil {
		return 0, fmt.Errorf("move the horizon: %w", err)
	}
	// The commit is synchronous, whatever the setting is: no cursor may be checked against a horizon that a crash could
	// lose.
	_, err = tx.Exec(ctx, "SET LOCAL synchronous_commit = on")
	return deleted, err
}

// deleteMarked deletes old rows whose number in xid is below [sql.FirstXid], r.Rows rows at most. For example, they
// were restored from a dump. They are never sent, and no cursor refers to them. So the horizon does not move, and the
// rows of a transaction need not be deleted together.
//
// The order of such rows says nothing about their age, and there is no index on created_at. Therefore deleteMarked looks
// at the first r.Rows rows. If none of them is old, it also looks at r.Rows later rows, in each round at the next ones.
func (r *Retention) deleteMarked(ctx context.Context, tx querier) (deleted int64, err error) {
	deleted, first, err := r.deleteMarkedAfter(ctx, tx, position{})
	if err != nil || deleted > 0 || first == (position{}) {
		return deleted, err
	}
	if r.looked == (position{}) {
		r.looked = first
	}
	deleted, r.looked, err = r.deleteMarkedAfter(ctx, tx, r.looked)
	return deleted, err
}

// A position is a place in the order of xid and id. The zero position is before all rows.
type position struct {
	xid uint64
	id  int64
}

// deleteMarkedAfter looks at the first r.Rows rows after a position and deletes those that are old. It returns the
// position of the last of the r.Rows rows, or the zero position if there are fewer rows.
func (r *Retention) deleteMarkedAfter(ctx context.Context, tx querier, after position) (deleted int64, last position, err error) {
	const remove = `WITH looked AS MATERIALIZED (
			SELECT xid, id, created_at FROM rowcast.notifications WHERE xid < $1::text::xid8 AND created_at <= now()
			AND (xid, id) > ($4::text::xid8, $5) ORDER BY xid, id LIMIT $2),
		last AS (SELECT xid, id FROM looked ORDER BY xid, id OFFSET $2 - 1),
		gone AS (DELETE FROM rowcast.notifications
			WHERE id = ANY (ARRAY(SELECT id FROM looked WHERE created_at < ` + keptSince + `)) RETURNING id)
		SELECT (SELECT count(*) FROM gone), coalesce((SELECT xid FROM last), '0')::text::bigint, coalesce((SELECT id FROM last), 0)`
	err = tx.QueryRow(ctx, remove, strconv.Itoa(sql.FirstXid), r.Rows, r.keep(), strconv.FormatUint(after.xid, 10), after.id).
		Scan(&deleted, &last.xid, &last.id)
	if err != nil {
		return 0, position{}, fmt.Errorf("delete restored rows: %w", err)
	}
	return deleted, last, nil
}

// observe records the xmin of a snapshot, and moves settled to an xmin that was recorded MinAge ago or earlier. If the
// server has gone back to an earlier transaction, after a crash or a failover, the wait for MinAge begins anew.
func (r *Retention) observe(text string) error {
	xmin, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return fmt.Errorf("read the xmin of the snapshot: %w", err)
	}
	if xmin < r.xmin {
		r.settled, r.xmin = 0, 0
	}
	now := time.Now()
	if r.xmin > 0 && now.Sub(r.observed) >= r.MinAge {
		r.settled, r.xmin = r.xmin, 0
	}
	if r.xmin == 0 {
		r.xmin, r.observed = xmin, now
	}
	if r.MinAge < 0 {
		r.settled = xmin
	}
	return nil
}

// endQuery finds the last transaction to delete, from the horizon ($1) on and below settled ($4). A row with a
// created_at in the future is deleted with the next old row. If it were kept, a single wrong clock would keep all later
// rows. The query looks at the first $2 rows that are not in the future. It also looks for young rows in the
// transaction of the last of these rows, because this transaction may have more rows.
var endQuery = `WITH oldest AS MATERIALIZED (
		SELECT xid, created_at < ` + keptSince + ` AS old FROM rowcast.notifications
		WHERE xid >= $1::text::xid8 AND xid < $4::text::xid8 AND created_at <= now() ORDER BY xid, id LIMIT $2),
	young AS ((SELECT xid FROM oldest WHERE NOT old ORDER BY xid LIMIT 1)
		UNION ALL (SELECT xid FROM rowcast.notifications WHERE xid = (SELECT xid FROM oldest ORDER BY xid DESC LIMIT 1)
		AND created_at BETWEEN ` + keptSince + ` AND now() LIMIT 1)),
	newest AS (SELECT xid FROM rowcast.notifications n WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) AND (` + assigned + `)
		ORDER BY xid DESC LIMIT 1)
	SELECT xid::text FROM oldest WHERE xid < (SELECT xid FROM newest)
	AND NOT EXISTS (SELECT FROM young WHERE young.xid <= oldest.xid) ORDER BY oldest.xid DESC LIMIT 1`

// findEnd returns the last transaction to delete, or nil if there is none.
func (r *Retention) findEnd(ctx context.Context, tx querier, horizon string) (end *string, err error) {
	err = tx.QueryRow(ctx, endQuery, horizon, r.Rows, r.keep(), strconv.FormatUint(r.settled, 10)).Scan(&end)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for old rows: %w", err)
	}
	return end, nil
}

// keptSince is the time before which rows are old, as an SQL expression. Its parameter $3 is the result of keep. It is
// a number and not an interval, because before PostgreSQL 15 the text of an interval can have at most 2^31-1
// microseconds (36 minutes).
const keptSince = `now() - $3::text::bigint * interval '1 microsecond'`

// keep returns r.Keep in microseconds.
func (r *Retention) keep() string { return strconv.FormatInt(r.Keep.Microseconds(), 10) }
