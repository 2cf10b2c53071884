package listener

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
)

// A Replayer reads for one subscriber at a time what its cursor has not seen. It holds nothing between two pages: an open query
// for a slow client would hold back vacuum and block DDL, and behind that every INSERT.
type Replayer struct {
	listener  *Listener
	pool      *pgxpool.Pool
	notifying *pgxpool.Pool // of Disconnect alone, which must not wait for replays
	limits    limits
	reader    func(runner) *reader
	levels    levels
	timeout   time.Duration
	// pooled says that settings must be made in every transaction, since the connection is somebody else's in the next.
	pooled bool
}

// NewReplayer makes a Replayer that uses at most conns connections at a time, and one more for Disconnect, with the listener's
// configuration. A connection is opened when it is needed and closed after a minute without use.
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
	return &Replayer{
		listener: l, pool: pool, notifying: notifying, limits: l.limits(), reader: l.reader, timeout: l.Timeout, pooled: l.PollOnly,
	}, nil
}

// CatchUp is [Listener.CatchUp].
func (r *Replayer) CatchUp(ctx context.Context) error { return r.listener.CatchUp(ctx) }

// newPool makes a pool of connections for a purpose. begin does what a connection of ours alone needs besides our settings.
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

// epochKey is where a connection remembers its epoch: recovery ends every connection. Only the listener begins an epoch, and gives its
// rows and cursors to the hub under it: one that a replay's connection began would be unknown to the hub.
const epochKey = "rowcast.epoch"

// Close ends the connections. For a server that does not answer, whom the pool would wait for, it waits no longer than a second.
func (r *Replayer) Close() {
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		r.notifying.Close()
		r.pool.Close()
	}()
	select {
	case <-closed:
	case <-time.After(time.Second):
	}
}

// ErrEpoch says that PostgreSQL has recovered since the cursor to which one wants to read: ask again with a newer one.
var ErrEpoch = errors.New("the server has recovered in the meantime")

// Page reads what from has not seen and to has, of the recipients and of everyone, up to the limits of the listener. The
// cursor that it returns is that of a subscriber who has been told the rows: to itself once there is nothing more.
// horizon is as in [feed.Batch].
func (r *Replayer) Page(ctx context.Context, from, to cursor.Cursor, recipients []string) (rows []feed.Row, next cursor.Cursor, horizon uint64, err error) {
	q := request{query: replayQuery, from: from, epoch: to.Epoch, snapshot: &to, own: []any{distinct(recipients)}, level: r.levels.of(from)}
	var p page
	err = r.with(ctx, to.Epoch, func(run runner) error {
		p, err = r.reader(run).page(q)
		return err
	})
	if err != nil {
		return nil, cursor.Cursor{}, 0, fmt.Errorf("replay: %w", err)
	}
	next = to
	if p.more {
		next = from
		if len(p.rows) > 0 {
			next = p.rows[len(p.rows)-1].Cursor
		}
		r.levels.set(next, q.level.after(&p, r.limits.pageRows))
	}
	return p.deliverable(), next, p.horizon, nil
}

// distinct are the recipients, each once: each is read by itself.
func distinct(recipients []string) []string {
	return slices.Compact(slices.Sorted(slices.Values(recipients)))
}

// IsValid reports whether a cursor of another epoch is valid in the epoch of now: whether its anchor still exists.
func (r *Replayer) IsValid(ctx context.Context, c, now cursor.Cursor) (stands bool, err error) {
	err = r.with(ctx, now.Epoch, func(run runner) error {
		return run(func(ctx context.Context, db querier) error {
			stands, err = isAnchorValid(ctx, db, c)
			return err
		})
	})
	if err != nil {
		return false, fmt.Errorf("check cursor: %w", err)
	}
	return stands, nil
}

// with lends a connection of an epoch.
func (r *Replayer) with(ctx context.Context, epoch cursor.Tag, use func(runner) error) error {
	// Waiting for a connection is waiting for one's turn, and takes as long as it takes.
	conn, err := r.pool.Acquire(ctx)
	if err != nil {
		return err
	}
	defer conn.Release()
	if !r.pooled && conn.Conn().PgConn().CustomData()[epochKey] != epoch {
		_ = conn.Conn().Close(ctx) // else the pool would keep it
		return ErrEpoch
	}
	return use(func(statement func(context.Context, querier) error) error {
		ctx, cancel := context.WithTimeout(ctx, r.timeout)
		defer cancel()
		if !r.pooled {
			return statement(ctx, conn)
		}
		return inTransaction(ctx, conn.Conn(), r.timeout, func(tx querier) error {
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
