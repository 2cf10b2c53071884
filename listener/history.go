package listener

import (
	"context"
	"errors"

	"rowcast/listener/failures"
)

// errNoHistory reports that rowcast.history has no row with a horizon, because another session has deleted or changed
// the row.
var errNoHistory = errors.New("rowcast.history has no row: run rowcast migrate")

// observeHistory records whether rowcast.history had its row when a page was read. Without the row, the listener
// continues with a guess of the horizon: the oldest transaction that has rows in rowcast.notifications, or the xmin of
// the snapshot if there are no rows.
func (l *Listener) observeHistory(p *page) {
	if p.historyLost {
		l.Failures.Warn(l.Logger, failures.History, errNoHistory,
			"rowcast.history is empty: run rowcast migrate; until then no rows are deleted, and old cursors are reset")
	} else if l.historyLost {
		l.Failures.Succeeded(failures.History)
	}
	l.historyLost = p.historyLost
}

// checkHorizon reports whether retention may have deleted rows that the listener has not read. This can happen if the
// listener was disconnected or slow for longer than rows are kept. The listener then continues after the rows that are
// visible now, and drops the page. If the horizon is only a guess, checkHorizon returns false. It also returns false if
// the page ends below the horizon: the cursor after the page is below the horizon too, so the next page is checked.
func (s *session) checkHorizon(ctx context.Context, p *page) (outrun bool, err error) {
	if p.historyLost || s.cursor.SeenBelow(p.horizon) || !p.end.SeenBelow(p.horizon) {
		return false, nil
	}
	s.Logger.Warn("retention may have deleted rows that this hub has not read: resetting all streams", "horizon", p.horizon)
	return true, s.link.bounded(ctx, s.restart(ResetExpired))
}

// checkHistory returns errNoHistory if rowcast.history has no row with a horizon. It returns nil if another session has
// merely locked the row.
func checkHistory(ctx context.Context, db querier) error {
	var there bool
	err := db.QueryRow(ctx, "SELECT EXISTS (SELECT FROM rowcast.history WHERE singleton AND horizon IS NOT NULL)").Scan(&there)
	if err == nil && !there {
		return errNoHistory
	}
	return err
}
