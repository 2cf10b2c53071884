package listener

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/listener/guard"
	"rowcast/sql"
)

// A Replayer reads the rows that the cursor of a client has not seen. It keeps no query open between two pages: an
// open query for a slow client would hold back vacuum and block DDL, and DDL that waits blocks every INSERT.
type Replayer struct {
	listener  *Listener
	pool      *pgxpool.Pool
	notifying *pgxpool.Pool // used only by Disconnect, which must not wait for replays
	levels    levels
}

// NewReplayer returns a Replayer with the listener's configuration. It uses at most conns connections at a time, and
// one more for Disconnect. A connection is opened when it is needed, and closed after one to two minutes without use.
func (l *Listener) NewReplayer(ctx context.Context, conns int) (*Replayer, error) {
	defaults(l)
	pool, err := l.newPool(ctx, "replay", conns, func(ctx context.Context, conn *pgx.Conn) error {
		epoch, err := readEpoch(ctx, conn)
		conn.PgConn().CustomData()[epochKey] = epoch
		return err
	})
	if err != nil {
		return nil, err
	}
	notifying, err := l.newPool(ctx, "disconnect", 1, func(context.Context, *pgx.Conn) error { return nil })
	if err != nil {
		pool.Close()
		return nil, err
	}
	return &Replayer{listener: l, pool: pool, notifying: notifying}, nil
}

// CatchUp calls [Listener.CatchUp].
func (r *Replayer) CatchUp(ctx context.Context) error { return r.listener.CatchUp(ctx) }

// disconnectChannel and disconnectedChannel carry requests to close the streams of a recipient. On disconnectChannel,
// any role may send the recipient as the payload. On disconnectedChannel, a hub that has closed its own streams of the
// recipient sends the name of its listener and the recipient.
const (
	disconnectChannel   = sql.Channel + ".disconnect"
	disconnectedChannel = sql.Channel + ".disconnected"
)

// Disconnect asks all other listeners of this database to close the streams of a recipient, with [Listener.Disconnect].
// The Replayer's own listener ignores the request: its hub has closed the streams already, and clients may have
// reconnected with a new authentication when the request comes back. Listeners with PollOnly do not receive
// the request. Disconnect returns once the request is committed.
func (r *Replayer) Disconnect(ctx context.Context, recipient string) error {
	ctx, cancel := context.WithTimeout(ctx, r.listener.Timeout)
	defer cancel()
	err := r.notify(ctx, recipient)
	if isUntranslatable(err) {
		err = r.notify(ctx, quoted+strconv.QuoteToASCII(recipient))
	}
	if err != nil {
		return fmt.Errorf("notify %s: %w", disconnectedChannel, err)
	}
	return nil
}

// quoted comes before a recipient that is sent as a Go string literal in ASCII, because its name has no form in the
// encoding of the database. No name of a recipient contains a control character.
const quoted = "\x01"

// notify sends the name of the listener and a recipient.
func (r *Replayer) notify(ctx context.Context, recipient string) error {
	// The names are qualified, because behind a pooler the connection does not have the listener's settings.
	const notify = "SELECT pg_catalog.pg_notify($1::pg_catalog.text, $2::pg_catalog.text)"
	_, err := r.notifying.Exec(ctx, notify, disconnectedChannel, r.listener.name+" "+recipient)
	return err
}

// parseDisconnected returns the name of the listener and the recipient in a payload that notify has sent. The recipient
// is "" if it cannot be read.
func parseDisconnected(payload string) (by, recipient string) {
	by, recipient, _ = strings.Cut(payload, " ")
	if literal, ok := strings.CutPrefix(recipient, quoted); ok {
		recipient, _ = strconv.Unquote(literal)
	}
	return by, recipient
}

// newPool returns a pool of connections for a purpose. begin is called for each new connection after the settings were
// applied. It is not called with PollOnly.
func (l *Listener) newPool(
	ctx context.Context, purpose string, conns int, begin func(context.Context, *pgx.Conn) error,
) (*pgxpool.Pool, error) {
	first, err := l.connConfig(purpose)
	if err != nil {
		return nil, err
	}
	config, err := pgxpool.ParseConfig(first.ConnString())
	if err != nil {
		return nil, err
	}
	config.ConnConfig = first
	config.BeforeConnect = func(_ context.Context, next *pgx.ConnConfig) error {
		fresh, err := l.connConfig(purpose)
		if err == nil {
			*next = *fresh
		}
		return err
	}
	config.MaxConns = int32(conns)
	config.MinConns, config.MinIdleConns = 0, 0
	config.MaxConnIdleTime = time.Minute
	if !l.PollOnly {
		config.AfterConnect = func(ctx context.Context, conn *pgx.Conn) error {
			if err := prepare(ctx, conn, l.Timeout); err != nil {
				return err
			}
			return begin(ctx, conn)
		}
	}
	return pgxpool.NewWithConfig(ctx, config)
}

// epochKey is the key of the epoch in the custom data of a connection. The epoch is read once, because a recovery ends
// every connection. A connection for replays does not begin an epoch: only the listener does, so that the hub knows
// each epoch from the listener's batches.
const epochKey = "rowcast.epoch"

// Close closes the connections. It waits for at most a second.
func (r *Replayer) Close() { closePools(r.notifying, r.pool) }

// closePools closes pools. It waits for at most a second, because a pool would wait for a server that does not answer.
func closePools(pools ...*pgxpool.Pool) {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for _, pool := range pools {
			pool.Close()
		}
	}()
	select {
	case <-closed:
	case <-time.After(time.Second):
	}
}

// ErrEpoch reports that the hub's cursor and the connection are of different epochs. The caller must try again with the
// hub's present cursor.
var ErrEpoch = errors.New("another epoch has begun since the cursor was read or the connection was opened")

// Page reads the rows for the recipients that end has seen and from has not seen, up to the listener's limits. The rows
// for everyone are read if [feed.Everyone] is among the recipients. next is the cursor of a client that has received
// the rows (rule 8). If there are no more rows, next equals end. horizon is as in [feed.Batch].
func (r *Replayer) Page(ctx context.Context, from, end cursor.Cursor, recipients []string) (rows []feed.Row, next cursor.Cursor, horizon uint64, err error) {
	q := request{query: replayQuery, from: from, epoch: end.Epoch, snapshot: &end, extra: []any{distinct(recipients)}, level: r.levels.get(from)}
	var p page
	err = r.withConn(ctx, end.Epoch, func(run runner) error {
		p, err = r.listener.reader(run).page(q)
		if !isUntranslatable(err) {
			return err
		}
		if recipients, err = storable(run, recipients); err != nil {
			return err
		}
		q.extra = []any{distinct(recipients)}
		p, err = r.listener.reader(run).page(q)
		return err
	})
	if err != nil {
		return nil, cursor.Cursor{}, 0, fmt.Errorf("replay: %w", err)
	}
	next = end
	if p.more {
		next = from
		if len(p.rows) > 0 {
			next = p.rows[len(p.rows)-1].Cursor
		}
		r.levels.set(next, q.level.after(&p, r.listener.PageRows))
	}
	return p.deliverable(nil), next, p.horizon, nil
}

// storable returns the recipients whose text has a form in the encoding of the database. There are no rows for the
// other recipients, and PostgreSQL refuses a query that names one. Text in ASCII has a form in every encoding.
func storable(run runner, recipients []string) (all []string, err error) {
	for _, recipient := range recipients {
		if !strings.ContainsFunc(recipient, func(r rune) bool { return r > unicode.MaxASCII }) {
			all = append(all, recipient)
			continue
		}
		err := run(func(ctx context.Context, db querier) error {
			var sent bool
			return db.QueryRow(ctx, "SELECT $1::text IS NOT NULL", recipient).Scan(&sent)
		})
		switch {
		case err == nil:
			all = append(all, recipient)
		case !isUntranslatable(err):
			return nil, err
		}
	}
	return all, nil
}

// distinct returns the recipients without duplicates. The query reads the rows of each recipient separately.
func distinct(recipients []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(recipients)))
}

// IsValid reports whether c, a cursor of an earlier epoch, is valid in the epoch of now. A cursor is valid if its
// anchor still exists. IsValid checks no other row.
func (r *Replayer) IsValid(ctx context.Context, c, now cursor.Cursor) (valid bool, err error) {
	err = r.withConn(ctx, now.Epoch, func(run runner) error {
		return run(func(ctx context.Context, db querier) error {
			valid, err = isAnchorValid(ctx, db, c)
			return err
		})
	})
	if err != nil {
		return false, fmt.Errorf("check cursor: %w", err)
	}
	return valid, nil
}

// withConn calls use with a runner for a free connection, and waits for one if all are busy. withConn returns ErrEpoch
// if the connection is of another epoch. With PollOnly, every transaction applies the settings itself, because the
// connections may go through a transaction pooler.
func (r *Replayer) withConn(ctx context.Context, epoch cursor.Tag, use func(runner) error) error {
	// Waiting for a free connection has no time limit of its own.
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if !r.listener.PollOnly && conn.Conn().PgConn().CustomData()[epochKey] != epoch {
		_ = conn.Conn().Close(ctx) // so that the pool does not use the connection again
		return ErrEpoch
	}
	return use(func(statement func(context.Context, querier) error) error {
		ctx, cancel := context.WithTimeout(ctx, r.listener.Timeout)
		defer cancel()
		if !r.listener.PollOnly {
			return statement(ctx, conn)
		}
		return inTransaction(ctx, conn.Conn(), r.listener.Timeout, func(tx querier) error {
			now, err := readEpoch(ctx, tx)
			if err != nil {
				return err
			}
			if now != epoch {
				return ErrEpoch
			}
			return statement(ctx, tx)
		})
	})
}

// levels keep the level of each replay between two pages, by the place where the next page begins. A replay is
// identified only by this place, because a Replayer keeps no other record of a replay.
type levels struct{ at guard.Value[map[place]level] }

// A place is the last row of a page.
type place struct {
	xid uint64
	id  int64
}

// maxLevels bounds the number of places for which a level is kept. A replay whose place was removed continues at
// firstLevel.
const maxLevels = 4096

// get returns the level at which a replay continues from a cursor.
func (l *levels) get(from cursor.Cursor) level {
	now := firstLevel
	l.at.Do(func(at *map[place]level) {
		if kept, ok := (*at)[place{from.Xid, from.ID}]; ok {
			now = kept
		}
	})
	return now
}

// set keeps the level at which a replay continues from a cursor. It keeps nothing for a cursor at the end of a
// transaction.
func (l *levels) set(from cursor.Cursor, now level) {
	if from.Whole() {
		return
	}
	l.at.Do(func(at *map[place]level) {
		if *at == nil {
			*at = make(map[place]level)
		}
		for some := range *at {
			if len(*at) < maxLevels {
				break
			}
			delete(*at, some)
		}
		(*at)[place{from.Xid, from.ID}] = now
	})
}
