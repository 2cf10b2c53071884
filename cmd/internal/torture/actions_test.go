package torture_test

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"
)

// actions are the ways in which a transaction inserts rows.
var actions = []action{
	{weight: 6, do: (*writer).few},
	{weight: 3, do: (*writer).many},
	{weight: 3, do: (*writer).bulk},
	{weight: 4, do: (*writer).savepoints},
	{weight: 3, do: (*writer).rollBack},
	{weight: 3, do: (*writer).holdOpen},
	{weight: 3, do: (*writer).readAndInsert, isolation: pgx.RepeatableRead},
	{weight: 3, do: (*writer).readAndInsert, isolation: pgx.Serializable},
	{weight: 3, do: (*writer).few, async: true},
	{weight: 1, do: (*writer).holdOpen, async: true},
}

// crashActions are the actions of the writers shortly before a crash of the server. Their commits are asynchronous.
var crashActions = []action{{weight: 1, do: (*writer).few, async: true}, {weight: 1, do: (*writer).savepoints, async: true}, {weight: 1, do: (*writer).rollBack, async: true}}

func (w *writer) few(ctx context.Context, tx pgx.Tx, t *transaction) error {
	for range 1 + w.random.IntN(4) {
		if err := w.insert(ctx, tx, t); err != nil {
			return err
		}
	}
	return nil
}

// many inserts rows with one statement. Some statements insert more rows than a page of the listener has.
func (w *writer) many(ctx context.Context, tx pgx.Tx, t *transaction) error {
	n := 2 + w.random.IntN(30)
	if w.random.IntN(20) == 0 {
		n = 700
	}
	recipients, events, data := make([]string, n), make([]string, n), make([]string, n)
	for i := range n {
		recipients[i], events[i], data[i] = w.row(t)
	}
	_, err := tx.Exec(ctx, `INSERT INTO rowcast.notifications (recipient, event, data)
		SELECT * FROM unnest($1::text[], $2::text[], $3::jsonb[])`, recipients, events, data)
	return err
}

func (w *writer) bulk(ctx context.Context, tx pgx.Tx, t *transaction) error {
	rows := make([][]any, 1+w.random.IntN(40))
	for i := range rows {
		recipient, event, data := w.row(t)
		rows[i] = []any{recipient, event, data}
	}
	_, err := tx.CopyFrom(ctx, pgx.Identifier{"rowcast", "notifications"}, []string{"recipient", "event", "data"}, pgx.CopyFromRows(rows))
	return err
}

// savepoints inserts rows after savepoints, and rolls back to some of them.
func (w *writer) savepoints(ctx context.Context, tx pgx.Tx, t *transaction) error {
	if w.random.IntN(2) == 0 {
		if err := w.few(ctx, tx, t); err != nil {
			return err
		}
	}
	for range 1 + w.random.IntN(4) {
		inner, err := tx.Begin(ctx)
		if err != nil {
			return err
		}
		before := len(t.rows)
		if err := w.few(ctx, inner, t); err != nil {
			return err
		}
		if w.random.IntN(2) == 0 {
			err = inner.Commit(ctx)
		} else {
			err = inner.Rollback(ctx)
			for i := before; i < len(t.rows); i++ {
				t.undone[i] = true
			}
		}
		if err != nil {
			return err
		}
	}
	return nil
}

func (w *writer) rollBack(ctx context.Context, tx pgx.Tx, t *transaction) error {
	if err := w.few(ctx, tx, t); err != nil {
		return err
	}
	return errRollBack
}

// holdOpen keeps its transaction open for up to three seconds.
func (w *writer) holdOpen(ctx context.Context, tx pgx.Tx, t *transaction) error {
	if err := w.few(ctx, tx, t); err != nil {
		return err
	}
	longest := []time.Duration{30 * time.Millisecond, 300 * time.Millisecond, 3 * time.Second}[w.random.IntN(3)]
	time.Sleep(time.Duration(w.random.Int64N(int64(longest))))
	if w.random.IntN(2) == 0 {
		return nil
	}
	return w.few(ctx, tx, t)
}

// readAndInsert reads before it inserts. It may fail with a serialization error.
func (w *writer) readAndInsert(ctx context.Context, tx pgx.Tx, t *transaction) error {
	var n int
	err := tx.QueryRow(ctx, `SELECT count(*) FROM (SELECT FROM rowcast.notifications WHERE recipient = $1 ORDER BY xid DESC LIMIT 50) newest`,
		user(w.random.IntN(users))).Scan(&n)
	if err != nil {
		return err
	}
	return w.few(ctx, tx, t)
}

// A pacing determines how fast all writers write. It changes every 0.2 to 3.2 s, because hubs wait for notifications
// at low rates and poll at high rates.
type pacing struct {
	mu    sync.Mutex
	until time.Time
	pace  time.Duration

	// asyncOnly makes all further transactions commit asynchronously, so that the server may lose some of them in a
	// crash.
	asyncOnly atomic.Bool
}

func (m *pacing) pause(random *rand.Rand) time.Duration {
	if m.asyncOnly.Load() {
		return 5 * time.Millisecond
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if time.Now().After(m.until) {
		m.until = time.Now().Add(200*time.Millisecond + time.Duration(random.Int64N(int64(3*time.Second))))
		m.pace = []time.Duration{2 * time.Millisecond, 40 * time.Millisecond, 100 * time.Millisecond, 600 * time.Millisecond}[random.IntN(4)]
	}
	return time.Duration(random.Int64N(int64(2 * m.pace)))
}

// holdTransactions runs one transaction after another until quiet is closed or it cannot connect. Each transaction
// creates a table, and so gets a transaction number. It stays open for the time that hold returns, or until quiet is
// closed, and then commits, unless its session ends before.
func holdTransactions(ctx context.Context, dsn string, quiet <-chan struct{}, hold func() time.Duration) {
	for {
		conn, err := connect(ctx, dsn)
		if err != nil {
			return
		}
		beginning, cancel := context.WithTimeout(ctx, limit)
		_, err = conn.Exec(beginning, "BEGIN; CREATE TEMPORARY TABLE written (n) ON COMMIT DROP AS SELECT 1")
		cancel()
		waiting, cancel := context.WithTimeout(ctx, hold())
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			if err == nil {
				_ = conn.PgConn().WaitForNotification(waiting) // returns when waiting or the session ends
			}
		}()
		select {
		case <-ended:
		case <-quiet:
			cancel()
			<-ended
		}
		cancel()
		if !conn.IsClosed() {
			ending, cancel := context.WithTimeout(ctx, limit)
			_, _ = conn.Exec(ending, "COMMIT")
			cancel()
		}
		_ = conn.Close(context.Background())
		select {
		case <-quiet:
			return
		default:
		}
	}
}
