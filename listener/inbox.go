package listener

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"github.com/jackc/pgx/v5/pgxpool"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql"
)

// An Inbox reads and changes the inboxes of users. It calls the SQL functions of the schema on connections of its own.
// It checks no credentials, so the caller must authenticate the user and know the user's groups.
type Inbox struct {
	pool    *pgxpool.Pool
	timeout time.Duration
	pooled  bool // the connections go through a transaction pooler; see Replayer.withConn
}

// inboxTimeout limits the time of a statement. If the listener's Timeout is shorter, that limit applies instead.
const inboxTimeout = 5 * time.Second

// inboxLockTimeout is the lock_timeout of a statement, in milliseconds. A transaction of the app may lock the inboxes
// of some users for long. Meanwhile, the requests of these users must not occupy all connections. The timeout is longer
// than the default of deadlock_timeout (1 s), so that PostgreSQL reports a deadlock as such.
const inboxLockTimeout = "1500"

// deadlockPause is the time between a deadlock and the next attempt. In this time, the other transaction can lock the row
// for which it has waited. Otherwise the next attempt could lock that row first, and end in a deadlock again.
const deadlockPause = 50 * time.Millisecond

// NewInbox returns an Inbox with the listener's configuration. It uses at most conns connections at a time. A
// connection is opened when it is needed, and closed after one to two minutes without use.
func (l *Listener) NewInbox(ctx context.Context, conns int) (*Inbox, error) {
	defaults(l)
	i := &Inbox{timeout: min(l.Timeout, inboxTimeout), pooled: l.PollOnly}
	var err error
	i.pool, err = l.newPool(ctx, "inbox", conns, func(ctx context.Context, conn *pgx.Conn) error {
		if err := checkPrimary(ctx, conn); err != nil {
			return err
		}
		milliseconds := settingsFor(majorVersion(conn), i.timeout)["statement_timeout"]
		_, err := conn.Exec(ctx, `SELECT pg_catalog.set_config('statement_timeout', $1, false),
			pg_catalog.set_config('lock_timeout', $2, false)`, milliseconds, inboxLockTimeout)
		return err
	})
	if err != nil {
		return nil, err
	}
	return i, nil
}

// Close closes the connections. It waits at most a second for running statements.
func (i *Inbox) Close() { closePools(i.pool) }

// Check returns [sql.ErrNoInbox] if the inbox is not installed. It returns an error of PostgreSQL if the role may not
// use the inbox.
func (i *Inbox) Check(ctx context.Context) error {
	return i.withConn(ctx, func(ctx context.Context, db querier) error { return sql.CheckInbox(ctx, db) })
}

// List returns a page of the inbox of a user as JSON: up to limit rows that are not archived, the newest rows first,
// with their state, the numbers of unseen and of unread rows (up to 100 each), and the cursor from which a stream
// continues. before is empty, or the value of before in the previous page. The page has no rows if none were sent to
// the user, the groups or everyone.
func (i *Inbox) List(ctx context.Context, user string, groups []string, limit int, before string) (json.RawMessage, error) {
	if before != "" && !isPageKey(before) {
		return nil, feed.Refused{Reason: `before must be the value of "before" in an earlier result`}
	}
	return i.call(ctx, "SELECT rowcast.inbox($1::text, $2::text[], $3::integer, $4::text)", user, notNil(groups), limit, orNull(before))
}

// Mark changes the state of the rows with the ids or, if ids is nil, of all rows that the cursor upTo has seen. Rows
// for other recipients than the user, the groups and everyone do not change. The result is JSON with the new counts.
func (i *Inbox) Mark(ctx context.Context, user string, groups []string, action string, ids []int64, upTo string) (json.RawMessage, error) {
	if upTo != "" && !isCursor(upTo) {
		return nil, feed.Refused{Reason: fmt.Sprintf(`malformed cursor "%.100s"`, upTo)}
	}
	return i.call(ctx, "SELECT rowcast.inbox_mark($1::text, $2::text, $3::text[], $4::bigint[], $5::text)", user, action, notNil(groups), ids, orNull(upTo))
}

// Undo undoes a change that has marked rows as read or archived, except for rows that were changed since. undo is the
// value of undo in a result of Mark. The result says whether anything was undone: the database keeps only the last ten
// of these changes of a user, and undoes only the newest change with upTo of each action.
func (i *Inbox) Undo(ctx context.Context, user string, groups []string, undo string) (json.RawMessage, error) {
	if !undoForm.MatchString(undo) {
		return nil, feed.Refused{Reason: "malformed undo"}
	}
	return i.call(ctx, "SELECT rowcast.inbox_undo($1::text, $2::text, $3::text[])", user, undo, notNil(groups))
}

// The functions of the inbox refuse malformed values with an error. PostgreSQL writes each error to its log, with the
// value, so any user could fill the log. List, Mark and Undo therefore check the same forms before they call a function.
var (
	pageKeyForm = regexp.MustCompile(`^[0-9]{1,18}\.[0-9]{1,19}$`)
	undoForm    = regexp.MustCompile(`^[1-9][0-9]{0,17}$`)
)

func isPageKey(text string) bool {
	_, id, _ := strings.Cut(text, ".")
	_, err := strconv.ParseInt(id, 10, 64)
	return err == nil && pageKeyForm.MatchString(text)
}

// isCursor reports whether rowcast.cursor_snapshot() can read a text. Unlike [cursor.Parse], that function refuses
// transaction numbers of more than 18 digits.
func isCursor(text string) bool {
	c, err := cursor.Parse(text)
	return err == nil && c.Xmax < 1e18
}

// notNil returns the groups as an array that is not NULL.
func notNil(groups []string) []string { return append([]string{}, groups...) }

// orNull returns a pointer to text, or nil, which means NULL, if text is empty.
func orNull(text string) *string {
	if text == "" {
		return nil
	}
	return &text
}

// call returns the result of a query, which has one row with a jsonb value. If PostgreSQL ends the statement because of
// a deadlock, it has also undone the statement, so call runs it again, up to twice. A deadlock is possible because an
// app that deletes many rows may lock them in another order than the functions of the inbox.
func (i *Inbox) call(ctx context.Context, query string, arguments ...any) (result json.RawMessage, err error) {
	run := func(ctx context.Context, db querier) error {
		var text []byte
		err := db.QueryRow(ctx, query, arguments...).Scan(&text)
		result = text
		return err
	}
	err = i.withConn(ctx, run)
	for tries := 1; codeOf(err) == "40P01" && tries < 3; tries++ { // deadlock_detected
		select {
		case <-ctx.Done():
			return nil, ctx.Err()
		case <-time.After(deadlockPause):
		}
		err = i.withConn(ctx, run)
	}
	if err != nil {
		return nil, refusedValue(err)
	}
	return result, nil
}

// withConn calls use with a free connection, and waits for one if all are busy.
func (i *Inbox) withConn(ctx context.Context, use func(context.Context, querier) error) error {
	conn, err := i.pool.Acquire(ctx)
	if err != nil {
		return fmt.Errorf("connect for an inbox: %w", err)
	}
	defer conn.Release()
	ctx, cancel := context.WithTimeout(ctx, i.timeout)
	defer cancel()
	if !i.pooled {
		return use(ctx, conn)
	}
	return inTransaction(ctx, conn.Conn(), i.timeout, func(tx querier) error {
		var set string
		if err := tx.QueryRow(ctx, "SELECT pg_catalog.set_config('lock_timeout', $1, true)", inboxLockTimeout).Scan(&set); err != nil {
			return err
		}
		return use(ctx, tx)
	})
}

// refusedValue returns a [feed.Refused] for an error with which a function of the inbox refuses an argument, and any
// other error unchanged. rowcast.cursor() fails with SQLSTATE 55000 on a standby, too, but withConn returns another error
// before a function of the inbox is called on a standby.
func refusedValue(err error) error {
	failed, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	refused := feed.Refused{Reason: strings.TrimPrefix(failed.Message, "rowcast: ")}
	switch failed.Code {
	case "22023": // invalid_parameter_value
		return refused
	case "55000": // object_not_in_prerequisite_state: the cursor is from another history, or ahead of the database
		refused.Stale = true
		return refused
	case "22021", "22P05": // the text has no form in the encoding of the database
		return feed.Refused{Reason: "a value contains characters that the database cannot store"}
	}
	return err
}
