package listener

import (
	"context"
	"errors"

	"rowcast/listener/failures"
)

// errNoHistory says that somebody has emptied rowcast.history.
var errNoHistory = errors.New("rowcast.history has no row: run rowcast migrate")

// heedHistory takes notice of whether rowcast.history had its row when a page was read. Without it the listener goes on, and cursors
// count as expired if they have not seen everything below the oldest row.
func (l *Listener) heedHistory(p *page) {
	if p.historyLost {
		l.Failures.Warn(l.Logger, failures.History, errNoHistory,
			"rowcast.history is empty: run rowcast migrate; until then no rows are deleted, and old cursors are reset")
	} else if l.historyLost {
		l.Failures.Succeeded(failures.History)
	}
	l.historyLost = p.historyLost
}

// checkHistory returns errNoHistory if rowcast.history has no row. If another session has merely locked the row, it returns nil.
func checkHistory(ctx context.Context, db querier) error {
	var there bool
	err := db.QueryRow(ctx, "SELECT EXISTS (SELECT FROM rowcast.history WHERE one AND horizon IS NOT NULL)").Scan(&there)
	if err == nil && !there {
		return errNoHistory
	}
	return err
}
