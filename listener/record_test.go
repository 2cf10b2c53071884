package listener_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/feed"
)

// A record has the transactions of some writers, and the order in which they began and ended. Tests use it to check
// which rows were delivered, and in which order.
type record struct {
	clock atomic.Int64

	mu    sync.Mutex
	of    map[int64]*transaction // the transaction of each row, by the id of the row
	pages []renderedPage
}

// A transaction has the times, by the clock of the record, at which a writer's transaction began and ended. Its rows
// must be delivered before the rows of every transaction that began after its end.
type transaction struct {
	began, ended int64
	committed    bool
}

// A renderedPage has the rows that one statement saw, and the cursor that rowcast.cursor() returned in it.
type renderedPage struct {
	cursor string
	shows  []int64
}

// write runs several writers at the same time. Each writer makes a number of random transactions.
func (c *record) write(t *testing.T, dsn string, writers, transactions int) {
	c.of = map[int64]*transaction{}
	var all sync.WaitGroup
	for range writers {
		conn := connect(t, dsn)
		all.Go(func() {
			for range transactions {
				if err := c.transact(limited(t), conn); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	await(t, "the writers", &all)
}

// transact makes a transaction that may insert rows and render pages, and then commits or rolls back. The transaction
// takes a while, so that other transactions begin and end meanwhile.
func (c *record) transact(ctx context.Context, conn *pgx.Conn) error {
	tx := &transaction{began: c.clock.Add(1)}
	isolation := []pgx.TxIsoLevel{pgx.ReadCommitted, pgx.ReadCommitted, pgx.RepeatableRead}
	running, err := conn.BeginTx(ctx, pgx.TxOptions{IsoLevel: isolation[rand.N(len(isolation))]})
	if err != nil {
		return err
	}
	for range rand.N(6) {
		time.Sleep(rand.N(3 * time.Millisecond))
		if rand.N(4) == 0 {
			err = c.render(ctx, running)
		} else {
			err = c.savepoint(ctx, running, tx)
		}
		if err != nil {
			return err
		}
	}
	time.Sleep(rand.N(8 * time.Millisecond))
	if rand.N(6) == 0 {
		return running.Rollback(ctx)
	}
	if err := running.Commit(ctx); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	tx.ended, tx.committed = c.clock.Add(1), true
	return nil
}

// savepoint inserts rows, sometimes in a savepoint, which is sometimes rolled back.
func (c *record) savepoint(ctx context.Context, running pgx.Tx, tx *transaction) error {
	if rand.N(3) > 0 {
		return c.insert(ctx, running, tx)
	}
	inner, err := running.Begin(ctx)
	if err != nil {
		return err
	}
	if rand.N(2) == 0 {
		if err := c.insert(ctx, inner, &transaction{}); err != nil {
			return err
		}
		return inner.Rollback(ctx)
	}
	if err := c.insert(ctx, inner, tx); err != nil {
		return err
	}
	return inner.Commit(ctx)
}

func (c *record) insert(ctx context.Context, running pgx.Tx, tx *transaction) error {
	const insert = `INSERT INTO rowcast.notifications (recipient, data)
		SELECT recipient, to_jsonb(recipient) FROM unnest($1::text[]) recipient RETURNING id`
	recipients := make([]string, 1+rand.N(3))
	for i := range recipients {
		recipients[i] = []string{"a", "b", "c", feed.Everyone}[rand.N(4)]
	}
	rows, err := running.Query(ctx, insert, recipients)
	if err != nil {
		return err
	}
	ids, err := pgx.CollectRows(rows, pgx.RowTo[int64])
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, id := range ids {
		c.of[id] = tx
	}
	return err
}

// render reads the rows of a web page and its cursor in one statement.
func (c *record) render(ctx context.Context, running pgx.Tx) error {
	var page renderedPage
	const query = `SELECT rowcast.cursor(), ARRAY(SELECT id FROM rowcast.notifications)`
	if err := running.QueryRow(ctx, query).Scan(&page.cursor, &page.shows); err != nil {
		return err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.pages = append(c.pages, page)
	return nil
}

// committed returns the ids of the committed rows, sorted.
func (c *record) committed() (ids []int64) {
	for id, tx := range c.of {
		if tx.committed {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids
}

// ids returns the ids of rows, sorted.
func ids(rows []feed.Row) (ids []int64) {
	for _, row := range rows {
		ids = append(ids, row.ID)
	}
	slices.Sort(ids)
	return ids
}

// check returns an error unless rows are exactly the wanted rows, each once, in an order that is allowed. The rows in
// the parameter before were delivered earlier.
func (c *record) check(before, rows []feed.Row, want []int64) error {
	if got := ids(rows); !slices.Equal(got, want) {
		return fmt.Errorf("got rows %v, want %v", got, want)
	}
	var latest *transaction // the delivered transaction that began last
	last := map[uint64]int64{}
	for _, row := range slices.Concat(before, rows) {
		tx := c.of[row.ID]
		if latest != nil && tx.ended < latest.began {
			return fmt.Errorf("row %d was delivered after a row of a transaction that began only when row %[1]d had been committed", row.ID)
		}
		if row.ID < last[row.Xid] {
			return fmt.Errorf("row %d was delivered after row %d of its transaction", row.ID, last[row.Xid])
		}
		last[row.Xid] = row.ID
		if latest == nil || tx.began > latest.began {
			latest = tx
		}
	}
	return nil
}

// concern returns the rows that are for everyone or for one of the recipients.
func concern(rows []feed.Row, recipients []string) (found []feed.Row) {
	for _, row := range rows {
		if row.Recipient == feed.Everyone || slices.Contains(recipients, row.Recipient) {
			found = append(found, row)
		}
	}
	return found
}
