package torture_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/cursor"
)

// A key identifies a row by the number of its transaction in the journal and its number in the transaction. It is part
// of the row's data, because the server may assign an id again after it has lost an asynchronous commit in a crash.
type key struct{ tx, row int }

func (k key) String() string { return fmt.Sprintf("%d.%d", k.tx, k.row) }

func parseKey(text string) (k key, err error) {
	_, err = fmt.Sscanf(text, "%d.%d", &k.tx, &k.row)
	return k, err
}

// An outcome is the end of a transaction, as far as its writer knows.
type outcome int

const (
	rolledBack outcome = iota // the transaction was rolled back, is still open, or was never committed
	committed                 // COMMIT has succeeded, or the table contained the rows afterwards
	missing                   // the connection was lost during COMMIT, and the table did not contain the rows afterwards
)

// A transaction records what its writer knows about it. Times are measured from the start of the journal.
type transaction struct {
	number  int
	began   time.Duration // the time before the first statement
	ended   time.Duration // the time at which the writer knew the outcome; 0 for rolledBack
	outcome outcome
	async   bool         // synchronous_commit is off, so the server may lose the transaction in a crash
	rows    []string     // the recipient of each row
	undone  map[int]bool // rows that were rolled back to a savepoint
}

// A journal keeps the transactions of all writers in memory, outside of the database that it is compared with.
type journal struct {
	zero time.Time

	mu           sync.Mutex
	transactions []*transaction
	crashes      []time.Duration // the times at which the server may have lost asynchronous commits
}

func newJournal() *journal { return &journal{zero: time.Now()} }

func (j *journal) now() time.Duration { return time.Since(j.zero) }

func (j *journal) begin(async bool) *transaction {
	j.mu.Lock()
	defer j.mu.Unlock()
	t := &transaction{number: len(j.transactions), async: async, undone: map[int]bool{}}
	j.transactions = append(j.transactions, t)
	t.began = j.now()
	return t
}

func (j *journal) crashed() {
	j.mu.Lock()
	defer j.mu.Unlock()
	j.crashes = append(j.crashes, j.now())
}

// A stored row is a row that the table contains at the end of the test.
type stored struct {
	cursor.Row
	recipient string
}

// A truth has the transactions and the rows with which a checker compares a record.
type truth struct {
	transactions []*transaction
	rows         map[key]stored
	lost         map[int]bool // the numbers of the transactions that the server has lost
}

// readTruth reads the table, and compares it with the journal.
func readTruth(ctx context.Context, conn *pgx.Conn, j *journal) (*truth, []string, error) {
	t := &truth{transactions: j.transactions, rows: map[key]stored{}, lost: map[int]bool{}}
	result, err := conn.Query(ctx, `SELECT data->>'k', xid::text::bigint, id, recipient, created_at FROM rowcast.notifications`)
	if err != nil {
		return nil, nil, err
	}
	defer result.Close()
	y2000 := time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC).UnixMicro()
	for result.Next() {
		var name string
		var row stored
		var created time.Time
		if err := result.Scan(&name, &row.Xid, &row.ID, &row.recipient, &created); err != nil {
			return nil, nil, err
		}
		row.Tag = cursor.AnchorTag(row.ID, created.UnixMicro()-y2000)
		k, err := parseKey(name)
		if err != nil {
			return nil, nil, err
		}
		t.rows[k] = row
	}
	return t, t.compare(j.crashes), result.Err()
}

// compare compares the table with the journal. It records in lost the transactions that the server has lost in crashes,
// and returns all other differences.
func (t *truth) compare(crashes []time.Duration) (disagreements []string) {
	known := 0
	for _, tx := range t.transactions {
		// A crash can lose a commit before its writer gets an answer. A hub may already have sent the rows.
		if tx.outcome != rolledBack && tx.async && len(tx.rows) > len(tx.undone) && !t.holds(tx) && crashedAfter(crashes, tx.began) {
			t.lost[tx.number] = true
			continue
		}
		for i, recipient := range tx.rows {
			row, found := t.rows[key{tx.number, i}]
			if should := tx.outcome == committed && !tx.undone[i]; found != should {
				disagreements = append(disagreements, fmt.Sprintf("row %d.%d: in the table: %t, want %t (async: %t)", tx.number, i, found, should, tx.async))
			} else if found && row.recipient != recipient {
				disagreements = append(disagreements, fmt.Sprintf("row %d.%d: the recipient in the table is %q, want %q", tx.number, i, row.recipient, recipient))
			}
			if found {
				known++
			}
		}
	}
	if known != len(t.rows) {
		disagreements = append(disagreements, fmt.Sprintf("%d rows in the table, but only %d of them in the journal", len(t.rows), known))
	}
	return disagreements
}

// holds reports whether the table contains a row of a transaction.
func (t *truth) holds(tx *transaction) bool {
	for i := range tx.rows {
		if _, found := t.rows[key{tx.number, i}]; found {
			return true
		}
	}
	return false
}

func crashedAfter(crashes []time.Duration, at time.Duration) bool {
	return len(crashes) > 0 && crashes[len(crashes)-1] > at
}
