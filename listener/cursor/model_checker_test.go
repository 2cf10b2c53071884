package cursor_test

import (
	"fmt"
	"slices"
	"testing"

	"rowcast/listener/cursor"
)

// A finding is a fault that the model has found.
type finding struct {
	what   string
	client *client
	row    *row // nil if the finding is not about a row
}

func (f finding) String() string {
	switch {
	case f.client == nil:
		return f.what
	case f.row == nil:
		return fmt.Sprintf("client %v: %s", f.client.recipients, f.what)
	}
	return fmt.Sprintf("client %v: %s: row %d of transaction %d", f.client.recipients, f.what, f.row.ID, f.row.Xid)
}

// breaksPromise reports whether the finding is about a row: the row is lost, repeated, not due or out of order.
func (f finding) breaksPromise() bool { return f.row != nil }

// checkClient checks the rows that a client has received since its first event id, or since its last reset. The client
// must have received each row that was committed for its recipients in this time, once. It must not have received a
// foreign row. It may have received a row that a crash has lost. The rows of a transaction must be in the order of
// their ids. If a transaction began after another one had committed, its rows must come later. To be independent of the
// code under test, checkClient uses the model's times and row.serial, and no cursors.
func checkClient(c *client, table []*row) (findings []finding) {
	find := func(what string, r *row) { findings = append(findings, finding{what, c, r}) }
	due := map[int]bool{}
	for _, r := range table {
		due[r.serial] = c.concerns(r) && !c.baseline[r.serial] && !r.foreign
	}
	received, last, youngest := map[int]bool{}, map[*transaction]int64{}, int64(0)
	for _, r := range c.received {
		switch {
		case received[r.serial]:
			find("repeated", r)
		case !due[r.serial] && !(r.of.lost && c.concerns(r)):
			find("not due", r)
		case r.ID < last[r.of]:
			find("delivered after a row of its transaction with a higher id", r)
		case r.of.ended < youngest:
			find("delivered after a row of a transaction that began later", r) // that began when the transaction of r had ended
		}
		received[r.serial], last[r.of], youngest = true, r.ID, max(youngest, r.of.began)
	}
	for _, r := range table {
		if due[r.serial] && !received[r.serial] {
			find("lost", r)
		}
	}
	return findings
}

func TestCheckClient(t *testing.T) {
	t.Parallel()
	first := &transaction{began: 1, ended: 4, committed: true}
	overlapping := &transaction{began: 2, ended: 5, committed: true} // runs at the same time as the transaction first
	later := &transaction{began: 6, ended: 7, committed: true}
	failed := &transaction{began: 6, ended: 8}
	lost := &transaction{began: 6, ended: 9, committed: true, lost: true}
	of := func(of *transaction, xid uint64, id int64, recipient string) *row {
		return &row{Row: cursor.Row{Xid: xid, ID: id}, serial: int(id), recipient: recipient, of: of}
	}
	var (
		old    = of(first, 10, 1, "alice")
		a, b   = of(first, 10, 2, "alice"), of(first, 10, 4, everyone)
		c      = of(overlapping, 11, 3, "team:7")
		d      = of(later, 12, 5, "alice")
		bobs   = of(later, 12, 6, "bob")
		aborts = of(failed, 13, 7, "alice")
		gone   = of(lost, 14, 8, "alice")
	)
	for name, test := range map[string]struct {
		received []*row
		want     []string
	}{
		"all rows":                               {[]*row{a, b, c, d}, nil},
		"overlapping transactions":               {[]*row{c, a, b, d}, nil},
		"a transaction in the middle of another": {[]*row{a, c, b, d}, nil},
		"a row that was lost in a crash later":   {[]*row{a, b, c, d, gone}, nil},
		"a lost row":                             {[]*row{a, b, d}, []string{"lost 3"}},
		"no rows":                                {nil, []string{"lost 2", "lost 4", "lost 3", "lost 5"}},
		"a repeated row":                         {[]*row{a, b, c, d, c}, []string{"repeated 3"}},
		"a swap in a transaction":                {[]*row{b, a, c, d}, []string{"delivered after a row of its transaction with a higher id 2"}},
		"a swap of transactions":                 {[]*row{a, b, d, c}, []string{"delivered after a row of a transaction that began later 3"}},
		"a row of another recipient":             {[]*row{a, b, c, d, bobs}, []string{"not due 6"}},
		"a row that was there before":            {[]*row{old, a, b, c, d}, []string{"not due 1"}},
		"a row that was rolled back":             {[]*row{a, b, c, d, aborts}, []string{"not due 7"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			alice := &client{recipients: []string{everyone, "alice", "team:7"}, baseline: map[int]bool{1: true}, received: test.received}
			var got []string
			for _, f := range checkClient(alice, []*row{old, a, b, c, d, bobs}) {
				got = append(got, fmt.Sprint(f.what, " ", f.row.ID))
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q", got, test.want)
			}
		})
	}
}
