package listener

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
)

// resume finds the cursor from which to continue. This is the listener's own cursor, if it is valid on this server.
func (s *session) resume(ctx context.Context, db querier) (err error) {
	if s.epoch, err = beginEpoch(ctx, db); err != nil {
		return err
	}
	if !s.begun {
		return s.start(ctx, db)
	}
	if s.cursor.Epoch == s.epoch {
		return nil
	}
	valid, err := isAnchorValid(ctx, db, s.cursor)
	if err != nil {
		return err
	}
	if valid { // rule 18
		s.cursor.Epoch = s.epoch
		return nil
	}
	return s.recover(ctx, db)
}

// start begins with the rows that become visible from now on. With Warm, it begins with the newest existing rows.
func (s *session) start(ctx context.Context, db querier) error {
	now, err := s.now(ctx, db)
	if err != nil {
		return err
	}
	if s.Warm > 0 {
		earlier, err := warmCursor(ctx, db, now, s.Warm)
		switch {
		case err == nil:
			now, s.warmUntil = earlier, time.Now().Add(3*s.Timeout)
		case reasonOf(err) == "":
			return err
		default:
			s.Logger.Warn("cannot find recent rows: beginning without them", "error", err)
		}
	}
	s.cursor, s.begun = now, true
	s.delivered.begin(now)
	s.Deliver(feed.Batch{Cursor: now, Warming: s.isWarming()})
	return nil
}

// isWarming reports whether rows are being read that were committed before the listener began.
func (l *Listener) isWarming() bool { return !l.warmUntil.IsZero() }

// endWarming gives up warming, because reading the recent rows takes too long. It continues after the rows that are
// visible now.
func (s *session) endWarming(ctx context.Context) error {
	s.Logger.Warn("reading recent rows takes too long: beginning without the rest of them")
	return s.link.bounded(ctx, s.restart(ResetHistory))
}

// restart returns a function that continues after the rows that are visible now. The function delivers an empty batch
// with the given reset as its Reset, so that the hub resets all streams.
func (s *session) restart(reset string) func(context.Context, querier) error {
	return func(ctx context.Context, db querier) error {
		now, err := s.now(ctx, db)
		if err != nil {
			return err
		}
		s.warmUntil = time.Time{}
		s.delivered.begin(now)
		s.cursor = now
		s.Deliver(feed.Batch{Cursor: now, Reset: reset})
		return nil
	}
}

// now returns the cursor of a reader that has seen all rows that are visible.
func (s *session) now(ctx context.Context, db querier) (now cursor.Cursor, err error) {
	var text string
	if err := db.QueryRow(ctx, "SELECT rowcast.cursor()").Scan(&text); err != nil {
		return now, fmt.Errorf("read cursor: %w", err)
	}
	if now, err = cursor.Parse(text); err != nil {
		return now, fmt.Errorf("read cursor: %w", err)
	}
	now.Epoch = s.epoch
	return now, nil
}

// warmQuery selects the newest transactions, as long as their rows have at most $2 bytes together, and returns the
// oldest of them. A transaction counts as a whole, because it would have to be read from its first row on. Each row
// counts as 300 bytes more than its stored data, so the LIMIT leaves out only rows beyond $2. The query does not scan
// below the horizon, where there may be millions of rows that are deleted and not vacuumed yet.
const warmQuery = `SELECT xid::text FROM (SELECT xid, sum(pg_column_size(data) + 300) OVER (ORDER BY xid DESC, id DESC) AS bytes
	FROM (SELECT xid, id, data FROM rowcast.notifications
		WHERE xid >= coalesce((` + horizon + `), 3)::text::xid8 AND xid < $1::text::xid8
		ORDER BY xid DESC, id DESC LIMIT $2::bigint / 300 + 1) newest) sized
	GROUP BY xid HAVING max(bytes) <= $2 ORDER BY sized.xid LIMIT 1`

// warmCursor returns the cursor of a reader that has not seen the newest transactions. The rows of these transactions
// have at most limit bytes together.
func warmCursor(ctx context.Context, db querier, now cursor.Cursor, limit int64) (cursor.Cursor, error) {
	var oldest string
	err := db.QueryRow(ctx, warmQuery, strconv.FormatUint(now.Xmax, 10), limit).Scan(&oldest)
	if errors.Is(err, pgx.ErrNoRows) {
		return now, nil
	}
	if err != nil {
		return now, fmt.Errorf("find recent rows: %w", err)
	}
	xid, err := strconv.ParseUint(oldest, 10, 64)
	return now.Before(xid), err
}

// recover continues after the server has lost delivered rows, or may have lost them. It continues after the row that
// deliveredRows.left returns. If there is no such row, it restarts.
func (s *session) recover(ctx context.Context, db querier) error {
	left, found, err := s.delivered.left(ctx, db)
	if err != nil {
		return err
	}
	if !found {
		s.Logger.Warn("database history changed (crash, failover or restore): resetting all streams")
		return s.restart(ResetHistory)(ctx, db)
	}
	s.delivered.removeAbove(left.Xid)
	s.cursor = s.cursor.Clamp(left, s.epoch) // rule 20
	s.Logger.Warn("the server may have lost delivered rows (crash or failover): continuing after the last row that still exists", "last_row_left", left.ID)
	s.Deliver(feed.Batch{Cursor: s.cursor, Clamp: &left, Warming: s.isWarming()})
	return nil
}

// These are the values of Reset in a [feed.Batch] that does not continue the batch before it.
const (
	// ResetHistory says that the server may have lost delivered rows, or that reading the recent rows (Warm) took too
	// long and the listener has left out the rest of them.
	ResetHistory = "history"
	// ResetExpired says that retention may have deleted rows before the listener read them.
	ResetExpired = "expired"
)

// deliveredRows keeps the last delivered row of each of the transactions that were delivered last.
type deliveredRows struct {
	rows []cursor.Row
	next int // the index of the oldest row, once there are maxDelivered rows

	// floor is a transaction number. Each delivered transaction above it that was not lost has a row in rows.
	floor uint64
}

// maxDelivered bounds the rows that are kept. It is more than a crash normally loses with asynchronous commits.
const maxDelivered = 1 << 14

// begin keeps only the anchor of a cursor. The rows that were delivered before it are not known.
func (d *deliveredRows) begin(c cursor.Cursor) {
	*d = deliveredRows{rows: []cursor.Row{{Xid: c.AnchorXid(), ID: c.Anchor.ID, Tag: c.Anchor.Tag}}, floor: c.AnchorXid()}
}

func (d *deliveredRows) add(rows []row) {
	for i := range rows {
		row := &rows[i]
		if row.misplaced || i+1 < len(rows) && rows[i+1].Xid == row.Xid && !rows[i+1].misplaced {
			continue
		}
		if last := d.last(); last.Xid == row.Xid { // the transaction continues on this page
			*last = row.Row.Row
			continue
		}
		if len(d.rows) < maxDelivered {
			d.rows = append(d.rows, row.Row.Row)
			continue
		}
		d.floor = max(d.floor, d.rows[d.next].Xid)
		d.rows[d.next] = row.Row.Row
		d.next = (d.next + 1) % maxDelivered
	}
}

// last returns the row that was added last. There is always one, because removeAbove keeps the row that left returns.
func (d *deliveredRows) last() *cursor.Row { return &d.rows[(d.next+len(d.rows)-1)%len(d.rows)] }

// removeAbove removes the rows of transactions above xid. The other rows are kept, because the next crash may lose them
// too.
func (d *deliveredRows) removeAbove(xid uint64) {
	oldestFirst := slices.Concat(d.rows[d.next:], d.rows[:d.next])
	d.rows = slices.DeleteFunc(oldestFirst, func(row cursor.Row) bool { return row.Xid > xid })
	d.next = 0
}

// left returns a row of the highest kept transaction that the table still has. It ignores transactions below floor (rule
// 22), because a transaction above them may have been delivered and is no longer kept. A kept row below cursor.First
// stands for the database, the anchor of a cursor that has seen no row.
//
// The row is normally the kept one. If somebody has deleted the kept row, it is the row before it in the transaction, so
// that the other rows of the transaction are not delivered again. Such a row is of the kept transaction, and not of a
// later one with the same number, only if it has the created_at of the kept row: all rows of a transaction have the same
// unless the app sets it. The query compares (xid, id) so that it can only use the index on both columns.
func (d *deliveredRows) left(ctx context.Context, db querier) (row cursor.Row, found bool, err error) {
	xids, ids, tags := make([]uint64, len(d.rows)), make([]int64, len(d.rows)), make([]string, len(d.rows))
	for i, row := range d.rows {
		xids[i], ids[i], tags[i] = row.Xid, row.ID, row.Tag.String()
	}
	query := `SELECT kept.xid::text, coalesce(n.id, kept.id), coalesce(rowcast.anchor_tag(n.id, n.created_at), kept.tag)
		FROM unnest($1::text::xid8[], $2::bigint[], $3::text[]) kept (xid, id, tag)
		LEFT JOIN LATERAL (SELECT id, created_at FROM rowcast.notifications n
			WHERE xid >= kept.xid AND (xid, id) <= (kept.xid, kept.id) AND (` + assigned + `) ORDER BY xid DESC, id DESC LIMIT 1) n ON true
		WHERE kept.xid >= $4::text::xid8 AND kept.tag = CASE WHEN n.id IS NOT NULL THEN rowcast.anchor_tag(kept.id, n.created_at)
			WHEN kept.xid < $5::text::xid8 AND ` + ownDatabase + ` THEN rowcast.database_tag() END
		ORDER BY kept.xid DESC LIMIT 1`
	var xid, tag string
	args := []any{formatXids(xids), ids, tags, strconv.FormatUint(d.floor, 10), strconv.Itoa(cursor.First)}
	err = db.QueryRow(ctx, query, args...).Scan(&xid, &row.ID, &tag)
	if errors.Is(err, pgx.ErrNoRows) {
		return row, false, nil
	}
	if err == nil {
		row.Xid, err = strconv.ParseUint(xid, 10, 64)
	}
	if err == nil {
		row.Tag, err = cursor.ParseTag(tag)
	}
	if err != nil {
		return row, false, fmt.Errorf("find the last delivered row that still exists: %w", err)
	}
	return row, true, nil
}
