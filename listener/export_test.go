package listener

import (
	"context"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
)

// Queries of the package, for tests.
var (
	EndQuery  = endQuery
	WarmQuery = warmQuery
	RowQuery  = measuredQuery
)

var (
	FetchQuery  = fetchQuery.full
	FetchList   = fetchQuery.list
	NearQuery   = nearQuery.full
	NearList    = nearQuery.list
	ReplayQuery = replayQuery.full
	ReplayList  = replayQuery.list
)

// QueryArgs returns the arguments of one of the queries above that read a page. The recipients of a replay are passed
// as extra.
func QueryArgs(query string, c cursor.Cursor, snapshot *cursor.Cursor, rows int, extra ...any) []any {
	near := pageQuery{near: query == NearQuery || query == NearList}
	args := append(request{query: near, from: c, snapshot: snapshot}.args(rows), extra...)
	if query == FetchQuery || query == NearQuery || query == ReplayQuery {
		args = append(args, level(rows).inline(), 1<<20)
	}
	return args
}

// Connect opens a session with the listener's settings.
func (l *Listener) Connect(ctx context.Context) (*pgx.Conn, error) {
	defaults(l)
	return l.connect(ctx, "test", nil)
}

// OpenLink opens the connection on which Run reads rows and receives notifications.
func (l *Listener) OpenLink(ctx context.Context) (*pgx.Conn, error) {
	defaults(l)
	k, err := l.openLink(ctx)
	if err != nil {
		return nil, err
	}
	return k.conn, nil
}

// ParseMessage parses the payload of a NOTIFY message.
var ParseMessage = parseMessage

// Round deletes one portion of old rows, as Run does. But Round does not replace a MinAge of 0 by the default.
func (r *Retention) Round(ctx context.Context) (int64, error) {
	setPositive(&r.Rows, 1000)
	defaults(r.Listener)
	defer r.disconnect()
	return r.round(ctx)
}

// Settled observes the xmin of a round, and returns the transaction below which rows may be deleted.
func (r *Retention) Settled(t *testing.T, xmin uint64) uint64 {
	t.Helper()
	if err := r.observe(strconv.FormatUint(xmin, 10)); err != nil {
		t.Fatal(err)
	}
	return r.settled
}

// Page reads a page of the rows that a cursor has not seen, and returns the rows. The parameter rows is the level: how
// many rows each arm of the query may return (see page.go).
func (l *Listener) Page(ctx context.Context, conn *pgx.Conn, from cursor.Cursor, rows int) ([]feed.Row, error) {
	r := l.reader(func(statement func(context.Context, querier) error) error { return statement(ctx, conn) })
	p, err := r.fetch(request{query: fetchQuery, from: from, level: level(rows)})
	return p.deliverable(nil), err
}

// DialFunc returns the function with which the listener opens its connections.
func (l *Listener) DialFunc() (pgconn.DialFunc, error) {
	defaults(l)
	config, err := l.connConfig("test")
	if err != nil {
		return nil, err
	}
	return config.DialFunc, nil
}

// SetListenPause sets for how long the listener does not listen after a notification has ended its session.
func SetListenPause(l *Listener, d time.Duration) { l.listenPause = d }
