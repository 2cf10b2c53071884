package listener_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A sparseWriter makes random transactions, one at a time. Some consist of one statement. The others can have
// savepoints that are released or rolled back, statements with two inserts, and a two-phase commit.
type sparseWriter struct {
	conn    *pgx.Conn
	tracker *tracker
	pause   time.Duration // the upper bound of a random pause
	count   int           // the number of rows so far

	sent       []string // the recipients of the rows of this transaction
	kept       []string // the recipients in sent whose savepoints were not rolled back
	savepoints []int    // for each open savepoint, the length of kept when it began
}

// transact makes one transaction and returns the recipients of the rows that it has committed. The pauses spread its
// inserts and commits over the time in which the hub polls, takes the park lock and sleeps.
func (w *sparseWriter) transact(ctx context.Context) (committed []string, err error) {
	w.sent, w.kept, w.savepoints = nil, nil, nil
	w.linger()
	if rand.N(4) == 0 {
		if err := w.do(ctx, w.insert()); err != nil {
			return nil, err
		}
		return w.sent, nil
	}
	if err := w.do(ctx, "BEGIN"); err != nil {
		return nil, err
	}
	for range 1 + rand.N(4) {
		if err := w.step(ctx); err != nil {
			return nil, err
		}
	}
	w.linger()
	kept, err := w.end(ctx)
	if err != nil {
		return nil, err
	}
	if !kept {
		w.kept = nil
	}
	w.tracker.rolledBack(slices.DeleteFunc(w.sent, func(sent string) bool { return slices.Contains(w.kept, sent) }))
	return w.kept, nil
}

// linger sleeps for a random time, or not at all, so that the steps of the writer come at random times.
func (w *sparseWriter) linger() {
	if rand.N(3) > 0 {
		time.Sleep(rand.N(w.pause))
	}
}

// adapt makes the pauses shorter if a hub has taken the park lock since the previous transaction, and longer otherwise.
// As a result, many inserts come just when a hub takes the lock.
func (w *sparseWriter) adapt(lockTaken bool) {
	if lockTaken {
		w.pause -= w.pause / 16
	} else {
		w.pause += w.pause / 16
	}
}

func (w *sparseWriter) do(ctx context.Context, sql string) error {
	_, err := w.conn.Exec(ctx, sql, pgx.QueryExecModeSimpleProtocol)
	return err
}

// insert returns a statement that inserts a row with a recipient that no other row has. It adds the row to the tracker.
func (w *sparseWriter) insert() string {
	w.count++
	recipient := fmt.Sprint("row ", w.count)
	w.tracker.send(recipient)
	w.sent, w.kept = append(w.sent, recipient), append(w.kept, recipient)
	return fmt.Sprintf("INSERT INTO rowcast.notifications (recipient, data) VALUES ('%s', '1') RETURNING id", recipient)
}

func (w *sparseWriter) step(ctx context.Context) error {
	switch choice, open := rand.N(8), len(w.savepoints); {
	case choice == 0:
		w.linger()
		return nil
	case choice == 1:
		w.savepoints = append(w.savepoints, len(w.kept))
		return w.do(ctx, "SAVEPOINT s")
	case choice == 2 && open > 0:
		w.savepoints = w.savepoints[:open-1]
		return w.do(ctx, "RELEASE SAVEPOINT s")
	case choice == 3 && open > 0:
		w.kept = w.kept[:w.savepoints[open-1]:w.savepoints[open-1]]
		return w.do(ctx, "ROLLBACK TO SAVEPOINT s")
	case choice == 4:
		return w.do(ctx, fmt.Sprintf("WITH one AS (%s), two AS (%s) SELECT FROM one, two", w.insert(), w.insert()))
	}
	return w.do(ctx, w.insert())
}

// end commits, in one phase or in two, or rolls back. It reports whether the transaction was committed.
func (w *sparseWriter) end(ctx context.Context) (kept bool, err error) {
	switch rand.N(8) {
	case 0:
		return false, w.do(ctx, "ROLLBACK")
	case 1:
		return w.prepare(context.WithoutCancel(ctx)) // the end of the test must not leave a prepared transaction
	}
	return true, w.do(ctx, "COMMIT")
}

// prepare commits in two phases. It reports false if the transaction has sent a NOTIFY, because PREPARE then fails and
// rolls it back.
func (w *sparseWriter) prepare(ctx context.Context) (kept bool, err error) {
	name := fmt.Sprintf("%d %d", w.conn.PgConn().PID(), w.count)
	err = w.do(ctx, fmt.Sprintf("PREPARE TRANSACTION '%s'", name))
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "0A000" { // feature_not_supported
		return false, nil
	}
	if err != nil {
		return false, err
	}
	w.linger()
	return true, w.do(ctx, fmt.Sprintf("COMMIT PREPARED '%s'", name))
}
