package torture_test

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"math/rand/v2"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
	"rowcast/listener/feed"
)

// A writer runs one transaction after another on its own connection.
type writer struct {
	journal *journal
	dsn     string
	random  *rand.Rand
	pacing  *pacing
	conn    *pgx.Conn
	errs    func(error) // reports an unexpected error
}

// An action is a way in which a transaction inserts rows. If do returns an error, the transaction is rolled back.
type action struct {
	weight    int
	isolation pgx.TxIsoLevel
	async     bool
	do        func(*writer, context.Context, pgx.Tx, *transaction) error
}

// errRollBack is what an action returns to have its transaction rolled back.
var errRollBack = errors.New("roll back")

// run writes until quiet is closed or the writer cannot connect.
func (w *writer) run(ctx context.Context, quiet <-chan struct{}) {
	defer func() {
		if w.conn != nil {
			_ = w.conn.Close(context.Background())
		}
	}()
	for {
		select {
		case <-quiet:
			return
		case <-time.After(w.pacing.pause(w.random)):
		}
		if !w.connect(ctx) {
			return
		}
		w.next(ctx)
	}
}

// next runs a transaction.
func (w *writer) next(parent context.Context) {
	ctx, cancel := context.WithTimeout(parent, limit)
	defer cancel()
	switch {
	case w.pacing.asyncOnly.Load():
		w.transaction(ctx, choose(w.random, crashActions))
	case w.random.IntN(3) == 0:
		w.single(ctx)
	default:
		w.transaction(ctx, choose(w.random, actions))
	}
	if ctx.Err() != nil && parent.Err() == nil {
		w.errs(fmt.Errorf("a transaction has not ended after %v", limit))
	}
}

// connect connects if there is no open connection. It reports whether the writer is connected.
func (w *writer) connect(ctx context.Context) bool {
	var err error
	if w.conn != nil && !w.conn.IsClosed() {
		return true
	}
	w.conn, err = connect(ctx, w.dsn)
	if err != nil && ctx.Err() == nil {
		w.errs(err)
	}
	return err == nil
}

// connect opens a connection to a database. After a failure it tries again, until ctx ends or limit has passed.
func connect(ctx context.Context, dsn string) (*pgx.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	for {
		conn, err := pgx.Connect(ctx, dsn)
		if err == nil {
			return conn, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("connect to the database: %w", err)
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// single inserts a row without BEGIN and COMMIT.
func (w *writer) single(ctx context.Context) {
	t := w.journal.begin(false)
	w.settle(ctx, t, w.insert(ctx, w.conn, t))
}

func (w *writer) transaction(ctx context.Context, d action) {
	t := w.journal.begin(d.async)
	tx, err := w.conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: d.isolation})
	if err == nil && d.async {
		_, err = tx.Exec(ctx, "SET LOCAL synchronous_commit = off")
	}
	if err == nil {
		err = d.do(w, ctx, tx, t)
	}
	if err == nil {
		w.settle(ctx, t, tx.Commit(ctx))
		return
	}
	w.check(err)
	if tx != nil {
		_ = tx.Rollback(ctx)
	}
}

// check reports an error that PostgreSQL has sent, except a serialization failure and an error that ended the session.
func (w *writer) check(err error) {
	var pgErr *pgconn.PgError
	if errors.As(err, &pgErr) && pgErr.Code != "40001" && pgErr.Severity != "FATAL" {
		w.errs(err)
	}
}

// settle records the outcome of a transaction. If the connection was lost before the answer to COMMIT, settle looks for
// the rows in the table. That is safe, because the connections of writers are lost only when the server restarts or
// recovers from a crash. The old session has then ended, and cannot commit later.
func (w *writer) settle(ctx context.Context, t *transaction, err error) {
	var pgErr *pgconn.PgError
	if err != nil && (!errors.As(err, &pgErr) || pgErr.Severity == "FATAL") {
		_ = w.conn.Close(ctx)
		if !w.connect(ctx) {
			return
		}
		var found bool
		err = w.conn.QueryRow(ctx, `SELECT EXISTS (SELECT FROM rowcast.notifications WHERE data->>'k' LIKE $1)`, fmt.Sprintf("%d.%%", t.number)).Scan(&found)
		if err == nil && !found {
			w.note(t, missing)
			return
		}
	}
	if err != nil {
		w.check(err)
		if w.conn.IsClosed() { // the connection was lost again
			w.settle(ctx, t, err)
		}
		return
	}
	w.note(t, committed)
}

func (w *writer) note(t *transaction, how outcome) {
	w.journal.mu.Lock()
	defer w.journal.mu.Unlock()
	t.outcome, t.ended = how, w.journal.now()
}

type executor interface {
	Exec(ctx context.Context, sql string, args ...any) (pgconn.CommandTag, error)
}

func (w *writer) insert(ctx context.Context, on executor, t *transaction) error {
	recipient, event, data := w.row(t)
	_, err := on.Exec(ctx, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ($1, $2, $3)`, recipient, event, data)
	return err
}

// row adds a row with a random recipient and random data to a transaction, and returns its columns.
func (w *writer) row(t *transaction) (recipient, event, data string) {
	k := key{t.number, len(t.rows)}
	recipient = feed.Everyone
	if w.random.IntN(6) > 0 {
		recipient = user(w.random.IntN(users + unusedUsers))
	}
	t.rows = append(t.rows, recipient)
	size := w.random.IntN(200)
	switch w.random.IntN(100) {
	case 0:
		size = w.random.IntN(40_000)
	case 1:
		size = 0
	}
	pad := make([]byte, size)
	for i := range pad {
		pad[i] = byte('0' + w.random.IntN(75))
		if pad[i] == '\\' {
			pad[i] = '!'
		}
	}
	return recipient, eventOf(k), fmt.Sprintf(`{"k": %q, "sum": %d, "pad": %q}`, k, crc32.ChecksumIEEE(pad), pad)
}

// eventOf returns the event name of a row. The client checks that it receives this name.
func eventOf(k key) string { return []string{"message", "notify", "naïve: é"}[(k.tx+k.row)%3] }

const (
	users       = 10
	unusedUsers = 4 // recipients without a client
)

func user(n int) string { return fmt.Sprintf("user %d", n) }

func choose(random *rand.Rand, among []action) action {
	sum := 0
	for _, d := range among {
		sum += d.weight
	}
	at := random.IntN(sum)
	for _, d := range among {
		if at -= d.weight; at < 0 {
			return d
		}
	}
	panic("unreachable")
}
