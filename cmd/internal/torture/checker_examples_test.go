package torture_test

import (
	"slices"
	"testing"
	"time"

	"rowcast/listener/cursor"
)

// example is a history of five transactions, one after another but for the third and fourth, which overlap.
func example() (*truth, *record) {
	t := &truth{rows: map[key]stored{}, takenBack: map[int]bool{}}
	add := func(xid uint64, began, ended time.Duration, recipients ...string) {
		number := len(t.transactions)
		tx := &transaction{number: number, began: began, ended: ended, outcome: committed, rows: recipients}
		t.transactions = append(t.transactions, tx)
		for i, recipient := range recipients {
			id := int64(10*number + i + 1)
			t.rows[key{number, i}] = stored{cursor.Row{Xid: xid, ID: id, Tag: cursor.AnchorTag(id, 0)}, recipient}
		}
	}
	add(100, 1, 2, "alice")
	add(101, 3, 4, "alice", "bob", "")
	add(102, 5, 8, "alice", "alice")
	add(103, 6, 7, "alice")
	add(104, 9, 10, "")
	t.transactions = append(t.transactions, &transaction{number: 5, began: 1, ended: 2, rows: []string{"alice"}})
	r := &record{uid: "alice", hello: cursor.Cursor{Xmax: 101}, helloAt: 2}
	for _, k := range []key{{1, 0}, {1, 2}, {3, 0}, {2, 0}, {2, 1}, {4, 0}} {
		r.deliveries = append(r.deliveries, delivery{key: k, id: t.rows[k].ID})
	}
	return t, r
}

func TestJudge(t *testing.T) {
	t.Parallel()
	stands := cursor.Cursor{Xmax: 103, Anchor: cursor.Anchor{ID: 22, Tag: cursor.AnchorTag(22, 0)}}.String()
	gone := cursor.Cursor{Xmax: 103, Anchor: cursor.Anchor{ID: 99, Tag: cursor.AnchorTag(99, 0)}}.String()
	for _, test := range []struct {
		name string
		harm func(*truth, *record)
		want []string
	}{
		{"nothing wrong", func(*truth, *record) {}, nil},
		{"a loss", func(_ *truth, r *record) { r.deliveries = slices.Delete(r.deliveries, 3, 4) }, []string{loss}},
		{"nothing at all", func(_ *truth, r *record) { r.deliveries = nil }, []string{loss, loss, loss, loss, loss, loss}},
		{"the first row lost that the hello had not seen", func(_ *truth, r *record) { r.deliveries = r.deliveries[1:] }, []string{loss}},
		{"a loss of what an earlier epoch's hello seems to have seen", func(_ *truth, r *record) {
			r.hello.Xmax = 200
			r.deliveries = r.deliveries[:5]
		}, []string{loss}},
		{"a repetition", func(_ *truth, r *record) { r.deliveries = append(r.deliveries, r.deliveries[5]) }, []string{repetition}},
		{"what the hello had seen", func(_ *truth, r *record) {
			r.deliveries = slices.Insert(r.deliveries, 0, delivery{key: key{0, 0}, id: 1})
		}, []string{repetition}},
		{"what seems to be the same, of which the server took back the first", func(t *truth, r *record) {
			t.takenBack[5] = true
			r.hello.Anchor = cursor.Anchor{ID: 99, Tag: cursor.AnchorTag(99, 0)}
			r.deliveries = slices.Insert(r.deliveries, 0, delivery{key: key{0, 0}, id: 1})
		}, nil},
		{"a swap in a transaction", func(_ *truth, r *record) { swap(r, 3, 4) }, []string{idOrder}},
		{"a swap of transactions that overlap", func(_ *truth, r *record) {
			swap(r, 2, 3)
			swap(r, 3, 4)
		}, nil},
		{"a swap of transactions, one after another", func(_ *truth, r *record) { swap(r, 4, 5) }, []string{causalOrder}},
		{"a row of somebody else", func(_ *truth, r *record) {
			r.deliveries = slices.Insert(r.deliveries, 1, delivery{key: key{1, 1}, id: 12})
		}, []string{stranger}},
		{"an uncommitted row", func(_ *truth, r *record) {
			r.deliveries = append(r.deliveries, delivery{key: key{5, 0}, id: 51})
		}, []string{uncommitted}},
		{"a row that the server took back", func(t *truth, r *record) {
			t.takenBack[5] = true
			r.deliveries = append(r.deliveries, delivery{key: key{5, 0}, id: 51})
		}, nil},
		{"another row's id", func(_ *truth, r *record) { r.deliveries[2].id = 99 }, []string{wrongID}},
		{"a reset for nothing", func(_ *truth, r *record) {
			r.resets = []discontinuity{{reason: "history", cursor: gone}}
		}, []string{unexcused}},
		{"a reset though the anchor stands", func(t *truth, r *record) {
			t.takenBack[5] = true
			r.resets = []discontinuity{{reason: "history", cursor: stands}}
		}, []string{unexcused}},
		{"a reset for what was taken back, and what was lost before it", func(t *truth, r *record) {
			t.takenBack[5] = true
			r.resets = []discontinuity{{reason: "history", cursor: gone, at: 6}}
			r.deliveries = r.deliveries[2:]
		}, nil},
		{"a loss after a reset", func(t *truth, r *record) {
			t.takenBack[5] = true
			r.resets = []discontinuity{{reason: "history", cursor: gone, at: 6}}
			r.deliveries = r.deliveries[:5]
		}, []string{loss}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			truth, record := example()
			test.harm(truth, record)
			var got []string
			faults := truth.judge(record)
			for _, f := range faults {
				got = append(got, f.kind)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got %q, want %q: %v", got, test.want, faults)
			}
		})
	}
}

func swap(r *record, a, b int) { r.deliveries[a], r.deliveries[b] = r.deliveries[b], r.deliveries[a] }

func TestJournalAgainstTable(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name      string
		harm      func(*truth)
		want      int
		takenBack int
	}{
		{"nothing wrong", func(*truth) {}, 0, 0},
		{"a committed row is missing", func(t *truth) { delete(t.rows, key{0, 0}) }, 1, 0},
		{"an asynchronous commit from before a crash", func(t *truth) {
			t.transactions[0].async = true
			delete(t.rows, key{0, 0})
		}, 0, 1},
		{"one whose writer did not hear of it", func(t *truth) {
			t.transactions[0].async, t.transactions[0].outcome = true, missing
			delete(t.rows, key{0, 0})
		}, 0, 1},
		{"an asynchronous commit from after the crash", func(t *truth) {
			t.transactions[4].async = true
			delete(t.rows, key{4, 0})
		}, 1, 0},
		{"a row that was rolled back", func(t *truth) { t.rows[key{5, 0}] = stored{recipient: "alice"} }, 1, 0},
		{"a row that nobody wrote", func(t *truth) { t.rows[key{6, 0}] = stored{} }, 1, 0},
		{"another recipient", func(t *truth) { t.rows[key{0, 0}] = stored{} }, 1, 0},
	} {
		truth, _ := example()
		test.harm(truth)
		got := truth.compare([]time.Duration{8})
		if len(got) != test.want || len(truth.takenBack) != test.takenBack {
			t.Errorf("%s: got %q and %d taken back, want %d and %d", test.name, got, len(truth.takenBack), test.want, test.takenBack)
		}
	}
}
