package torture_test

import (
	"slices"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
)

// example returns five committed transactions, one transaction that was rolled back, and a record without faults. The
// third and the fourth transaction overlap.
func example() (*truth, *record) {
	t := &truth{rows: map[key]stored{}, lost: map[int]bool{}}
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
	add(101, 3, 4, "alice", "bob", feed.Everyone)
	add(102, 5, 8, "alice", "alice")
	add(103, 6, 7, "alice")
	add(104, 9, 10, feed.Everyone)
	t.transactions = append(t.transactions, &transaction{number: 5, began: 1, ended: 2, rows: []string{"alice"}})
	r := &record{uid: "alice", hello: cursor.Cursor{Xmax: 101}, helloAt: 2}
	for _, k := range []key{{1, 0}, {1, 2}, {3, 0}, {2, 0}, {2, 1}, {4, 0}} {
		r.deliveries = append(r.deliveries, delivery{key: k, id: t.rows[k].ID})
	}
	return t, r
}

func TestChecker(t *testing.T) {
	t.Parallel()
	valid := cursor.Cursor{Xmax: 103, Anchor: cursor.Anchor{ID: 22, Tag: cursor.AnchorTag(22, 0)}}.String()
	invalid := cursor.Cursor{Xmax: 103, Anchor: cursor.Anchor{ID: 99, Tag: cursor.AnchorTag(99, 0)}}.String()
	for _, test := range []struct {
		name   string
		change func(*truth, *record)
		want   []string
	}{
		{"nothing wrong", func(*truth, *record) {}, nil},
		{"a loss", func(_ *truth, r *record) { r.deliveries = slices.Delete(r.deliveries, 3, 4) }, []string{loss}},
		{"no deliveries", func(_ *truth, r *record) { r.deliveries = nil }, []string{loss, loss, loss, loss, loss, loss}},
		{"a loss of the first row after the hello", func(_ *truth, r *record) { r.deliveries = r.deliveries[1:] }, []string{loss}},
		{"a loss of a row whose transaction began after the hello, although its xid is below the xmax of the hello", func(_ *truth, r *record) {
			r.hello.Xmax = 200
			r.deliveries = r.deliveries[:5]
		}, []string{loss}},
		{"a repetition", func(_ *truth, r *record) { r.deliveries = append(r.deliveries, r.deliveries[5]) }, []string{repetition}},
		{"a row that the cursor of the hello contains", func(_ *truth, r *record) {
			r.deliveries = slices.Insert(r.deliveries, 0, delivery{key: key{0, 0}, id: 1})
		}, []string{repetition}},
		{"a row that the hello seems to contain, but the server lost the row that anchors the hello", func(t *truth, r *record) {
			t.lost[5] = true
			r.hello.Anchor = cursor.Anchor{ID: 99, Tag: cursor.AnchorTag(99, 0)}
			r.deliveries = slices.Insert(r.deliveries, 0, delivery{key: key{0, 0}, id: 1})
		}, nil},
		{"two rows of a transaction in the wrong order", func(_ *truth, r *record) { swap(r, 3, 4) }, []string{idOrder}},
		{"overlapping transactions in another order", func(_ *truth, r *record) {
			swap(r, 2, 3)
			swap(r, 3, 4)
		}, nil},
		{"consecutive transactions in the wrong order", func(_ *truth, r *record) { swap(r, 4, 5) }, []string{causalOrder}},
		{"a row of another recipient", func(_ *truth, r *record) {
			r.deliveries = slices.Insert(r.deliveries, 1, delivery{key: key{1, 1}, id: 12})
		}, []string{wrongRecipient}},
		{"an uncommitted row", func(_ *truth, r *record) {
			r.deliveries = append(r.deliveries, delivery{key: key{5, 0}, id: 51})
		}, []string{uncommitted}},
		{"a row that the server lost in a crash", func(t *truth, r *record) {
			t.lost[5] = true
			r.deliveries = append(r.deliveries, delivery{key: key{5, 0}, id: 51})
		}, nil},
		{"a row with a wrong id", func(_ *truth, r *record) { r.deliveries[2].id = 99 }, []string{wrongID}},
		{"a reset although the server has lost nothing", func(_ *truth, r *record) {
			r.resets = []discontinuity{{reason: "history", cursor: invalid}}
		}, []string{unjustified}},
		{"a reset although the server has the row that anchors the cursor", func(t *truth, r *record) {
			t.lost[5] = true
			r.resets = []discontinuity{{reason: "history", cursor: valid}}
		}, []string{unjustified}},
		{"a justified reset, and losses before it", func(t *truth, r *record) {
			t.lost[5] = true
			r.resets = []discontinuity{{reason: "history", cursor: invalid, at: 6}}
			r.deliveries = r.deliveries[2:]
		}, nil},
		{"a loss after a reset", func(t *truth, r *record) {
			t.lost[5] = true
			r.resets = []discontinuity{{reason: "history", cursor: invalid, at: 6}}
			r.deliveries = r.deliveries[:5]
		}, []string{loss}},
	} {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			truth, record := example()
			test.change(truth, record)
			var got []string
			faults := truth.check(record)
			for _, f := range faults {
				got = append(got, f.kind)
			}
			if !slices.Equal(got, test.want) {
				t.Errorf("got faults of the kinds %q, want %q: %v", got, test.want, faults)
			}
		})
	}
}

func swap(r *record, a, b int) { r.deliveries[a], r.deliveries[b] = r.deliveries[b], r.deliveries[a] }

func TestJournalAgainstTable(t *testing.T) {
	t.Parallel()
	for _, test := range []struct {
		name   string
		change func(*truth)
		want   int
		lost   int
	}{
		{"nothing wrong", func(*truth) {}, 0, 0},
		{"a committed row is missing", func(t *truth) { delete(t.rows, key{0, 0}) }, 1, 0},
		{"a lost asynchronous commit from before a crash", func(t *truth) {
			t.transactions[0].async = true
			delete(t.rows, key{0, 0})
		}, 0, 1},
		{"a lost asynchronous commit whose writer got no answer", func(t *truth) {
			t.transactions[0].async, t.transactions[0].outcome = true, missing
			delete(t.rows, key{0, 0})
		}, 0, 1},
		{"a lost asynchronous commit from after the crash", func(t *truth) {
			t.transactions[4].async = true
			delete(t.rows, key{4, 0})
		}, 1, 0},
		{"a row that was rolled back", func(t *truth) { t.rows[key{5, 0}] = stored{recipient: "alice"} }, 1, 0},
		{"a row that no writer has written", func(t *truth) { t.rows[key{6, 0}] = stored{} }, 1, 0},
		{"a row with another recipient", func(t *truth) { t.rows[key{0, 0}] = stored{} }, 1, 0},
	} {
		truth, _ := example()
		test.change(truth)
		got := truth.compare([]time.Duration{8})
		if len(got) != test.want || len(truth.lost) != test.lost {
			t.Errorf("%s: got differences %q and %d lost transactions, want %d differences and %d lost transactions", test.name, got, len(truth.lost), test.want, test.lost)
		}
	}
}
