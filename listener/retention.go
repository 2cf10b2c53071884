package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/failures"
)

// A Retention deletes rows that are older than Keep, from the oldest transaction on, and moves the horizon behind them in the same
// transaction: a cursor that has not seen everything below the horizon is too old. Of several hubs one does it at a time.
//
// It has a connection of its own: a portion may take minutes, and no replay may wait for it. The connection is closed
// while there is nothing to delete.
type Retention struct {
	Listener *Listener // says how to connect
	Logger   *slog.Logger

	// Keep is how long a row is kept, by its created_at.
	Keep time.Duration
	// Every is the time between two rounds. Default 1 min.
	Every time.Duration
	// Rows is about how many are deleted in a transaction; a transaction's rows go together. Default 1,000: the
	// others' commits wait while those of a portion are written out.
	Rows int

	// Deleted counts the rows that were deleted.
	Deleted atomic.Int64
	// Failures are those of retention.
	Failures failures.Record

	conn *pgx.Conn // nil while it is closed
}

// keepOpen is the longest pause over which the connection stays open.
const keepOpen = 10 * time.Second

// Run deletes until the context ends, and then returns nil.
func (r *Retention) Run(ctx context.Context) error {
	setDefault(&r.Every, time.Minute)
	setDefault(&r.Rows, 1000)
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
			r.Failures.Warn(r.Logger, failures.Retention, err, "old rows could not be deleted")
		} else if deleted > 0 { // there may be more; three quarters of the time are the writers'
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

// deleteTimeout bounds a portion. A transaction's rows go together, however many.
const deleteTimeout = 10 * time.Minute

// round deletes one portion.
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

// delete removes whole transactions, up to the first with a row that is young enough, and never the newest one: its rows prove
// to cursors of an earlier epoch that their history is still this one.
func (r *Retention) delete(ctx context.Context, tx querier) (int64, error) {
	// Two hubs that delete would only wait for each other.
	var horizon string
	const lock = "SELECT horizon::text FROM rowcast.history WHERE one AND horizon IS NOT NULL FOR UPDATE SKIP LOCKED"
	err := tx.QueryRow(ctx, lock).Scan(&horizon)
	if errors.Is(err, pgx.ErrNoRows) {
		return 0, checkHistory(ctx, tx)
	}
	if err != nil {
		return 0, fmt.Errorf("lock the horizon: %w", err)
	}
	end, err := r.end(ctx, tx, horizon)
	if err != nil || end == nil {
		return 0, err
	}
	const remove = `WITH gone AS (DELETE FROM rowcast.notifications WHERE xid >= $1::text::xid8 AND xid <= $2::text::xid8 RETURNING id)
		SELECT count(*) FROM gone`
	var deleted int64
	if err := tx.QueryRow(ctx, remove, horizon, *end).Scan(&deleted); err != nil {
		return 0, fmt.Errorf("delete: %w", err)
	}
	const move = "UPDATE rowcast.history SET horizon = ($1::text::bigint + 1)::text::xid8 WHERE one"
	if _, err := tx.Exec(ctx, move, *end); err != nil {
		return 0, fmt.Errorf("move the horizon: %w", err)
	}
	// The horizon must not be lost where the deletion is not, nor be told before it is safe.
	_, err = tx.Exec(ctx, "SET LOCAL synchronous_commit = on")
	return deleted, err
}

// endQuery finds the last transaction to go, above the horizon ($1). Rows from the future are of somebody whose clock is wrong: they
// go with the next row that is old, or one of them would hold back all that come after it. And a large transaction may have
// younger rows than those looked at ($2).
const endQuery = `WITH oldest AS MATERIALIZED (
		SELECT xid, created_at < now() - $3::text::interval AS old FROM rowcast.notifications
		WHERE xid >= $1::text::xid8 AND xid < pg_snapshot_xmin(pg_current_snapshot()) AND created_at <= now() ORDER BY xid, id LIMIT $2),
	young AS ((SELECT xid FROM oldest WHERE NOT old ORDER BY xid LIMIT 1)
		UNION ALL (SELECT xid FROM rowcast.notifications WHERE xid = (SELECT xid FROM oldest ORDER BY xid DESC LIMIT 1)
		AND created_at BETWEEN now() - $3::text::interval AND now() LIMIT 1)),
	newest AS (SELECT xid FROM rowcast.notifications WHERE xid < pg_snapshot_xmin(pg_current_snapshot()) ORDER BY xid DESC LIMIT 1)
	SELECT xid::text FROM oldest WHERE xid < (SELECT xid FROM newest)
	AND NOT EXISTS (SELECT FROM young WHERE young.xid <= oldest.xid) ORDER BY xid DESC LIMIT 1`

// end is the last transaction to go, nil if there is none.
func (r *Retention) end(ctx context.Context, tx querier, horizon string) (end *string, err error) {
	keep := fmt.Sprintf("%d microseconds", r.Keep.Microseconds())
	err = tx.QueryRow(ctx, endQuery, horizon, r.Rows, keep).Scan(&end)
	if errors.Is(err, pgx.ErrNoRows) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("look for old rows: %w", err)
	}
	return end, nil
}
