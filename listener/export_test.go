package listener

import (
	"context"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener/cursor"
)

// What is read from the table, for tests of the plans.
var (
	FetchQuery  = fetchQuery
	ReplayQuery = replayQuery
	EndQuery    = endQuery
	WarmQuery   = warmQuery
)

// QueryArgs are the first six arguments of FetchQuery and ReplayQuery.
func QueryArgs(c cursor.Cursor, snapshot *cursor.Cursor, rows int) []any {
	return limits{pageRows: rows}.args(c, snapshot)
}

// Connect opens a session with the listener's settings.
func (l *Listener) Connect(ctx context.Context) (*pgx.Conn, error) {
	defaults(l)
	return l.connect(ctx, "test", nil)
}

// ParseMessage reads what was sent by hand.
var ParseMessage = parseMessage

// Round deletes one portion.
func (r *Retention) Round(ctx context.Context) (int64, error) {
	setDefault(&r.Rows, 1000)
	defaults(r.Listener)
	defer r.disconnect()
	return r.round(ctx)
}

// Page reads a page of what a cursor has not seen, and returns its rows.
func (l *Listener) Page(ctx context.Context, conn *pgx.Conn, from cursor.Cursor) ([]Row, error) {
	p, err := l.limits().fetch(ctx, conn, fetchQuery, from, 0, nil)
	return p.rows, err
}

// DialFunc returns the function that makes the listener's connections.
func (l *Listener) DialFunc() (pgconn.DialFunc, error) {
	defaults(l)
	config, err := l.connConfig("test")
	if err != nil {
		return nil, err
	}
	return config.DialFunc, nil
}
