package listener

import (
	"context"
	"fmt"
	"strconv"

	"rowcast/listener/cursor"
)

// resume finds out where to go on from: the listener's own cursor as long as its history is still this server's.
func (s *session) resume(ctx context.Context, db querier) (err error) {
	if s.epoch, err = readEpoch(ctx, db); err != nil {
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
		if now, err = warmer(ctx, db, now, s.Warm); err != nil {
			return err
		}
		s.warming = true
	}
	s.cursor, s.begun = now, true
	s.Deliver(Batch{Cursor: now, Warming: s.warming})
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

// warmQuery finds where about so many bytes ($2) of the newest rows begin. Below the horizon there may be millions that are deleted
// and not vacuumed yet.
const warmQuery = `SELECT min(xid)::text FROM (SELECT xid, sum(pg_column_size(data) + 300) OVER (ORDER BY xid DESC, id DESC) AS bytes
	FROM (SELECT xid, id, data FROM rowcast.notifications
		WHERE xid >= (SELECT horizon FROM rowcast.history WHERE one) AND xid < $1::text::xid8
		ORDER BY xid DESC, id DESC LIMIT $2 / 300) newest) sized WHERE bytes <= $2`

// warmer is a cursor that has not seen about so many bytes of the newest rows.
func warmer(ctx context.Context, db querier, now cursor.Cursor, bytes int64) (cursor.Cursor, error) {
	var oldest *string
	err := db.QueryRow(ctx, warmQuery, strconv.FormatUint(now.Xmax, 10), bytes).Scan(&oldest)
	if err != nil || oldest == nil {
		return now, err
	}
	xid, err := strconv.ParseUint(*oldest, 10, 64)
	return now.Before(xid), err
}

// recover goes on after the server has taken back rows that were told: from what is left of the cursor, or if nothing told is
// left, or nothing of it remembered, anew.
func (s *session) recover(ctx context.Context, db querier) error {
	left, found, err := s.told.standing(ctx, db)
	if err != nil {
		return err
	}
	s.told = told{}
	if found {
		s.told.rows = []cursor.Row{left} // should it crash again before more has been told
		s.cursor = s.cursor.Clamp(left, s.epoch)
		s.Logger.Warn("the server has taken back rows that were told", "last_that_stands", left.ID)
		s.Deliver(Batch{Cursor: s.cursor, Clamp: &left})
		return nil
	}
	now, err := s.now(ctx, db)
	if err != nil {
		return err
	}
	s.Logger.Warn("the server has taken back rows that were told, and none is left that is remembered: every stream is reset")
	s.cursor = now
	s.Deliver(Batch{Cursor: now, Reset: ResetHistory})
	return nil
}

// ResetHistory is a Batch's reason for not continuing: the server's history no longer holds what was told of it.
const ResetHistory = "history"

// told remembers the last row of each of the last transactions that were told.
type told struct {
	rows []cursor.Row
	next int // when it is full, the oldest
}

// remembered is how many: more than can be lost with asynchronous commits, and as much as a standby may lag in a second.
const remembered = 1 << 14

func (t *told) add(rows []Row) {
	for i, row := range rows {
		if i+1 < len(rows) && rows[i+1].Xid == row.Xid {
			continue
		}
		if len(t.rows) < remembered {
			t.rows = append(t.rows, row.Row)
			continue
		}
		t.rows[t.next] = row.Row
		t.next = (t.next + 1) % remembered
	}
}

// standing is the highest of them that is still there.
func (t *told) standing(ctx context.Context, db querier) (row cursor.Row, found bool, err error) {
	xids, ids, tags := make([]uint64, len(t.rows)), make([]int64, len(t.rows)), make([]string, len(t.rows))
	for i, row := range t.rows {
		xids[i], ids[i], tags[i] = row.Xid, row.ID, row.Tag.String()
	}
	const query = `SELECT n.xid::text, n.id FROM unnest($1::text::xid8[], $2::bigint[], $3::text[]) told (xid, id, tag),
		LATERAL (SELECT xid, id, created_at FROM rowcast.notifications n WHERE n.xid = told.xid AND n.id = told.id OFFSET 0) n
		WHERE rowcast.anchor_tag(n.id, n.created_at) = told.tag ORDER BY n.xid DESC LIMIT 1`
	result, err := db.Query(ctx, query, formatXids(xids), ids, tags)
	if err != nil {
		return row, false, fmt.Errorf("look for what is left: %w", err)
	}
	defer result.Close()
	for result.Next() {
		var xid string
		if err := result.Scan(&xid, &row.ID); err != nil {
			return row, false, err
		}
		if row.Xid, err = strconv.ParseUint(xid, 10, 64); err != nil {
			return row, false, err
		}
		found = true
	}
	if err := result.Err(); err != nil || !found {
		return row, false, err
	}
	for _, r := range t.rows {
		if r.Xid == row.Xid && r.ID == row.ID {
			return r, true, nil
		}
	}
	return row, false, nil
}
