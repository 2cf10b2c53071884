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

// resume finds out where to go on from: the listener's own cursor as long as its history is still this server's.
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
	stands, err := anchorStands(ctx, db, s.cursor)
	if err != nil {
		return err
	}
	if stands {
		s.cursor.Epoch = s.epoch
		return nil
	}
	return s.recover(ctx, db)
}

// start begins with what is visible now, or if the listener is to be warm so far back that it will have read as much as that.
func (s *session) start(ctx context.Context, db querier) error {
	now, err := s.now(ctx, db)
	if err != nil {
		return err
	}
	if s.Warm > 0 {
		earlier, err := warmer(ctx, db, now, s.Warm)
		switch {
		case err == nil:
			now, s.warmUntil = earlier, time.Now().Add(3*s.Timeout)
		case reasonOf(err) == "":
			return err
		default:
			s.Logger.Warn("recent rows cannot be found: beginning without them", "error", err)
		}
	}
	s.cursor, s.begun = now, true
	s.told.begin(now)
	s.Deliver(feed.Batch{Cursor: now, Warming: s.isWarming()})
	return nil
}

// isWarming reports whether what is read is from before the listener began.
func (l *Listener) isWarming() bool { return !l.warmUntil.IsZero() }

// endWarming begins with what is visible now, as recent rows take too long to read.
func (s *session) endWarming(ctx context.Context) error {
	s.warmUntil = time.Time{}
	s.Logger.Warn("recent rows take too long to read: beginning without the rest of them")
	return s.bounded(ctx, s.restart)
}

// restart goes on from what is visible now. No cursor from before stands.
func (s *session) restart(ctx context.Context, db querier) error {
	now, err := s.now(ctx, db)
	if err != nil {
		return err
	}
	s.told.begin(now)
	s.cursor = now
	s.Deliver(feed.Batch{Cursor: now, Reset: ResetHistory})
	return nil
}

// now is the cursor that has seen what is visible.
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

// warmQuery finds the oldest of the newest transactions whose rows have at most so many bytes ($2) together. A transaction counts as a
// whole: one that is larger would have to be read from its first row on. Each row counts 300 bytes or more, so the last of the rows that
// are looked at is beyond the limit. Below the horizon there may be millions of rows that are deleted and not vacuumed yet.
const warmQuery = `SELECT xid::text FROM (SELECT xid, sum(pg_column_size(data) + 300) OVER (ORDER BY xid DESC, id DESC) AS bytes
	FROM (SELECT xid, id, data FROM rowcast.notifications
		WHERE xid >= coalesce((` + horizon + `), 3)::text::xid8 AND xid < $1::text::xid8
		ORDER BY xid DESC, id DESC LIMIT $2 / 300 + 1) newest) sized
	GROUP BY xid HAVING max(bytes) <= $2 ORDER BY sized.xid LIMIT 1`

// warmer returns the cursor of a reader who has not seen the newest transactions, up to so many bytes.
func warmer(ctx context.Context, db querier, now cursor.Cursor, bytes int64) (cursor.Cursor, error) {
	var oldest string
	err := db.QueryRow(ctx, warmQuery, strconv.FormatUint(now.Xmax, 10), bytes).Scan(&oldest)
	if errors.Is(err, pgx.ErrNoRows) {
		return now, nil
	}
	if err != nil {
		return now, fmt.Errorf("find recent rows: %w", err)
	}
	xid, err := strconv.ParseUint(oldest, 10, 64)
	return now.Before(xid), err
}

// recover goes on after the server has taken back rows that were told: from what is left of the cursor, or if nothing told is
// left, or nothing of it remembered, anew.
func (s *session) recover(ctx context.Context, db querier) error {
	left, found, err := s.told.standing(ctx, db)
	if err != nil {
		return err
	}
	if found {
		s.told.forgetAbove(left.Xid)
		s.cursor = s.cursor.Clamp(left, s.epoch)
		s.Logger.Warn("the server has taken back rows that were told", "last_that_stands", left.ID)
		s.Deliver(feed.Batch{Cursor: s.cursor, Clamp: &left, Warming: s.isWarming()})
		return nil
	}
	s.Logger.Warn("the server has taken back rows that were told, and none is left that is remembered: every stream is reset")
	return s.restart(ctx, db)
}

// ResetHistory is the Reset of a [feed.Batch] for not continuing: the server's history no longer holds what was told of it.
const ResetHistory = "history"

// told remembers the last row of each of the last transactions that were told.
type told struct {
	rows []cursor.Row
	next int // when it is full, the oldest

	// Above floor the cursor claims nothing that is not in rows.
	floor uint64
}

// remembered is how many: more than can be lost with asynchronous commits, and as much as a standby may lag in a second.
const remembered = 1 << 14

// begin forgets all but what the cursor is anchored in: of what was before that, nothing is known.
func (t *told) begin(c cursor.Cursor) {
	*t = told{rows: []cursor.Row{{Xid: c.AnchorXid(), ID: c.Anchor.ID, Tag: c.Anchor.Tag}}, floor: c.AnchorXid()}
}

func (t *told) add(rows []row) {
	for i, row := range rows {
		if row.misplaced || i+1 < len(rows) && rows[i+1].Xid == row.Xid && !rows[i+1].misplaced {
			continue
		}
		if len(t.rows) < remembered {
			t.rows = append(t.rows, row.Row.Row)
			continue
		}
		t.floor = max(t.floor, t.rows[t.next].Xid)
		t.rows[t.next] = row.Row.Row
		t.next = (t.next + 1) % remembered
	}
}

// forgetAbove keeps of them, as the next crash may take back more, those of transactions up to xid.
func (t *told) forgetAbove(xid uint64) {
	oldestFirst := slices.Concat(t.rows[t.next:], t.rows[:t.next])
	t.rows = slices.DeleteFunc(oldestFirst, func(row cursor.Row) bool { return row.Xid > xid })
	t.next = 0
}

// standing is the highest of them that is still there, if there is none above it that might be, too: the anchor of a cursor that
// has seen no row is the database.
func (t *told) standing(ctx context.Context, db querier) (row cursor.Row, found bool, err error) {
	xids, ids, tags := make([]uint64, len(t.rows)), make([]int64, len(t.rows)), make([]string, len(t.rows))
	for i, row := range t.rows {
		xids[i], ids[i], tags[i] = row.Xid, row.ID, row.Tag.String()
	}
	query := `SELECT told.xid::text, told.id, told.tag FROM unnest($1::text::xid8[], $2::bigint[], $3::text[]) told (xid, id, tag)
		LEFT JOIN LATERAL (SELECT id, created_at FROM rowcast.notifications n WHERE n.xid = told.xid AND n.id = told.id
			AND (` + assigned + `) OFFSET 0) n ON true
		WHERE told.xid >= $4::text::xid8 AND told.tag =
			CASE WHEN told.xid >= $5::text::xid8 THEN rowcast.anchor_tag(n.id, n.created_at) ELSE rowcast.database_tag() END
		ORDER BY told.xid DESC, told.id DESC LIMIT 1`
	var xid, tag string
	err = db.QueryRow(ctx, query, formatXids(xids), ids, tags, strconv.FormatUint(t.floor, 10), strconv.Itoa(cursor.First)).Scan(&xid, &row.ID, &tag)
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
		return row, false, fmt.Errorf("look for what is left: %w", err)
	}
	return row, true, nil
}
