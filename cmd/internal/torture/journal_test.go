package torture_test

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/cursor"
)

// A key names a row: the number of its transaction in the journal, and its number in that. It stands in the row's data, because
// the server may draw an id twice when it has taken back an asynchronous commit.
type key struct{ tx, row int }

func (k key) String() string { return fmt.Sprintf("%d.%d", k.tx, k.row) }

func parseKey(text string) (k key, err error) {
	_, err = fmt.Sscanf(text, "%d.%d", &k.tx, &k.row)
	return k, err
}

// An outcome is how a transaction has ended, as far as its writer knows.
type outcome int

const (
	rolledBack outcome = iota // or still open, or never asked to commit
	committed                 // COMMIT has returned, or the table has told afterwards
	missing                   // COMMIT has failed, and the table did not have it afterwards
)

// A transaction is what its writer knows about it. The times are those of the journal's clock.
type transaction struct {
	number  int
	began   time.Duration // before its first statement
	ended   time.Duration // after COMMIT had returned
	outcome outcome
	async   bool         // synchronous_commit is off: the server may take it back when it crashes
	rows    []string     // recipients, by the number of the row; "" is everyone
	undone  map[int]bool // rows that were rolled back to a savepoint
}

// A journal is what the writers know, apart from the database.
type journal struct {
	zero time.Time

	mu           sync.Mutex
	transactions []*transaction
	crashes      []time.Duration // when the server may have taken back asynchronous commits
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

// A stored row is one that stands in the table at the end.
type stored struct {
	cursor.Row
	recipient string
}

// A truth is what the judge judges by.
type truth struct {
	transactions []*transaction
	rows         map[key]stored
	takenBack    map[int]bool // asynchronous commits that the server has taken back
}

// readTruth reads the table, and compares it with the journal.
func readTruth(ctx context.Context, conn *pgx.Conn, j *journal) (*truth, []string, error) {
	t := &truth{transactions: j.transactions, rows: map[key]stored{}, takenBack: map[int]bool{}}
	result, err := conn.Query(ctx, `SELECT data->>'k', xid::text::bigint, id, coalesce(recipient, ''), created_at FROM rowcast.notifications`)
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

// compare finds what the server has taken back, and what must not be: then it is the writers or the server that are wrong.
func (t *truth) compare(crashes []time.Duration) (disagreements []string) {
	want := 0
	for _, tx := range t.transactions {
		// A commit can have been seen, and told, before the server crashed and its writer heard of it.
		if tx.outcome != rolledBack && tx.async && len(tx.rows) > len(tx.undone) && !t.holds(tx) && crashedAfter(crashes, tx.began) {
			t.takenBack[tx.number] = true
			continue
		}
		for i, recipient := range tx.rows {
			row, found := t.rows[key{tx.number, i}]
			if should := tx.outcome == committed && !tx.undone[i]; found != should {
				disagreements = append(disagreements, fmt.Sprintf("row %d.%d: in the table: %t, committed: %t (async %t)", tx.number, i, found, should, tx.async))
			} else if found && row.recipient != recipient {
				disagreements = append(disagreements, fmt.Sprintf("row %d.%d: for %q, want %q", tx.number, i, row.recipient, recipient))
			}
			if found {
				want++
			}
		}
	}
	if want != len(t.rows) {
		disagreements = append(disagreements, fmt.Sprintf("%d rows in the table, of which the journal knows %d", len(t.rows), want))
	}
	return disagreements
}

// holds tells whether any row of a transaction stands.
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
