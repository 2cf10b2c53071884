package stream_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// A ledger records what happened in a database: the transactions with their times, by a clock of the test, and the rows
// that the table has at the end. The data of each row is the number of its transaction and the row's number in it, for
// example [12, 3].
type ledger struct {
	mu    sync.Mutex
	clock int
	began []int // by transaction: the time before its first statement was sent
	ended []int // by transaction: the time after its commit was confirmed; 0 if it was not

	rows []committed
	at   map[[2]int]int // index in rows, by data
}

// A committed row is in the table at the end.
type committed struct {
	data      [2]int
	id        int64
	recipient string
}

// begin records a transaction before its first statement is sent, and returns its number.
func (h *ledger) begin() int {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	h.began, h.ended = append(h.began, h.clock), append(h.ended, 0)
	return len(h.began) - 1
}

// end records that the commit of a transaction was confirmed.
func (h *ledger) end(transaction int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.clock++
	h.ended[transaction] = h.clock
}

// read reads the rows of the table.
func (h *ledger) read(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	found, err := conn.Query(dbtest.Context(t), `SELECT data, id, coalesce(recipient, '') FROM rowcast.notifications`)
	if err != nil {
		t.Fatal(err)
	}
	h.rows, err = pgx.CollectRows(found, func(r pgx.CollectableRow) (c committed, err error) {
		var data []byte
		if err := r.Scan(&data, &c.id, &c.recipient); err != nil {
			return c, err
		}
		return c, json.Unmarshal(data, &c.data)
	})
	if err != nil {
		t.Fatal(err)
	}
	h.at = make(map[[2]int]int)
	for i, r := range h.rows {
		h.at[r.data] = i
	}
}

// check returns what is wrong with the events that a client received since the first row. The client must receive each
// committed row for its recipients and for everyone exactly once, and nothing else. The id of each event must begin
// with the id of its row. The rows of a transaction must come in the order of their ids. If transaction B began after the
// commit of transaction A had been confirmed, the rows of B must come after the rows of A.
func (h *ledger) check(recipients []string, received []sse.Event) (wrong []string) {
	count := make([]int, len(h.rows))
	last, youngest := map[int]int64{}, 0
	for _, e := range received {
		var data [2]int
		at, ok := -1, json.Unmarshal([]byte(e.Data), &data) == nil
		if ok {
			at, ok = h.at[data]
		}
		if !ok {
			wrong = append(wrong, fmt.Sprintf("received an event that is not a committed row: %s %s", e.Name, e.Data))
			continue
		}
		r := h.rows[at]
		if count[at]++; count[at] > 1 {
			wrong = append(wrong, "received twice: "+e.Data)
		}
		if r.recipient != everyone && !slices.Contains(recipients, r.recipient) {
			wrong = append(wrong, "received a row for another recipient: "+e.Data)
		}
		if id := fmt.Sprint(r.id); len(e.LastID) <= len(id) || e.LastID[:len(id)+1] != id+"-" {
			wrong = append(wrong, fmt.Sprintf("the event id %[1]s does not begin with the row's id %[2]d", e.LastID, r.id))
		}
		if r.id < last[data[0]] {
			wrong = append(wrong, "received out of order in its transaction: "+e.Data)
		}
		if ended := h.ended[data[0]]; ended > 0 && ended < youngest {
			wrong = append(wrong, "received after a row of a transaction that began after this row was committed: "+e.Data)
		}
		last[data[0]], youngest = r.id, max(youngest, h.began[data[0]])
	}
	for i, r := range h.rows {
		if count[i] == 0 && (r.recipient == everyone || slices.Contains(recipients, r.recipient)) {
			wrong = append(wrong, fmt.Sprintf("lost: %v", r.data))
		}
	}
	return wrong
}

// check finds a row that came after a row of a later transaction, but only if the commit of the earlier transaction was
// confirmed. If the connection was lost during the commit, nobody knows whether the commit or the later transaction was
// first.
func TestLedgerChecksCausalOrder(t *testing.T) {
	t.Parallel()
	for _, confirmed := range []bool{false, true} {
		h := &ledger{
			rows: []committed{{[2]int{0, 1}, 1, everyone}, {[2]int{1, 1}, 2, everyone}},
			at:   map[[2]int]int{{0, 1}: 0, {1, 1}: 1},
		}
		if earlier := h.begin(); confirmed {
			h.end(earlier)
		}
		h.end(h.begin())
		wrong := h.check(nil, []sse.Event{{Data: "[1, 1]", LastID: "2-1"}, {Data: "[0, 1]", LastID: "1-1"}})
		if found := len(wrong) == 1 && strings.HasPrefix(wrong[0], "received after a row of a transaction"); found != confirmed || !confirmed && len(wrong) > 0 {
			t.Errorf("commit confirmed: %t: got the faults %q, want one about the order only if the commit was confirmed", confirmed, wrong)
		}
	}
}

// A session is a connection whose transactions are recorded.
type session struct {
	*ledger
	conn        *pgx.Conn
	transaction int // the number of the open transaction, or -1
	rows        int // the number of rows in the transaction, including rows that were rolled back
	saved       bool
}

func (h *ledger) session(conn *pgx.Conn) *session {
	return &session{ledger: h, conn: conn, transaction: -1}
}

func (s *session) exec(ctx context.Context, sql string, args ...any) error {
	if _, err := s.conn.Exec(ctx, sql, args...); err != nil {
		return fmt.Errorf("%s: %w", sql, err)
	}
	return nil
}

// open begins a transaction.
func (s *session) open(ctx context.Context) error {
	s.transaction, s.rows, s.saved = s.begin(), 0, false
	return s.exec(ctx, "BEGIN")
}

// insert inserts a row for each recipient with one statement, which is a transaction of its own if none is open.
func (s *session) insert(ctx context.Context, recipients ...string) error {
	alone := s.transaction < 0
	if alone {
		s.transaction, s.rows = s.begin(), 0
	}
	err := s.exec(ctx, `INSERT INTO rowcast.notifications (recipient, event, data)
		SELECT r, 'notify', jsonb_build_array($2::int, $3::int + n) FROM unnest($1::text[]) WITH ORDINALITY u (r, n) ORDER BY n`,
		recipients, s.transaction, s.rows)
	s.rows += len(recipients)
	if alone && err == nil {
		s.end(s.transaction)
		s.transaction = -1
	}
	return err
}

// copy inserts a row for each recipient with COPY.
func (s *session) copy(ctx context.Context, recipients ...string) error {
	_, err := s.conn.CopyFrom(ctx, pgx.Identifier{"rowcast", "notifications"}, []string{"recipient", "data"},
		pgx.CopyFromSlice(len(recipients), func(i int) ([]any, error) {
			s.rows++
			return []any{recipients[i], []int{s.transaction, s.rows}}, nil
		}))
	return err
}

func (s *session) commit(ctx context.Context) error {
	err := s.exec(ctx, "COMMIT")
	if err == nil {
		s.end(s.transaction)
		s.transaction = -1
	}
	return err
}

func (s *session) rollback(ctx context.Context) error {
	s.transaction = -1
	return s.exec(ctx, "ROLLBACK")
}
