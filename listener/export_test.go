package listener

import (
	"context"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/cursor"
)

// FetchQuery and ReplayQuery are what is read from the table, for tests of their plans.
const (
	FetchQuery  = fetchQuery
	ReplayQuery = replayQuery
)

// QueryArgs are the first six arguments of both.
func QueryArgs(c cursor.Cursor, snapshot *cursor.Cursor, rows int) []any {
	return limits{pageRows: rows}.args(c, snapshot)
}

// Connect opens a session with the listener's settings.
func (l *Listener) Connect(ctx context.Context) (*pgx.Conn, error) {
	defaults(l)
	return l.connect(ctx, l.connConfig("test"))
}

// ParseMessage reads what was sent by hand.
var ParseMessage = parseMessage

// Round deletes one portion.
func (r *Retention) Round(ctx context.Context) (int64, error) {
	setDefault(&r.Rows, 5000)
	return r.round(ctx)
}
