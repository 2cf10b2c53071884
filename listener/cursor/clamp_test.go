package cursor_test

import (
	"testing"

	"rowcast/listener/cursor"
)

// Clamp removes the lost transactions from a cursor, because the server will assign their numbers again, and keeps
// the others.
func TestClamp(t *testing.T) {
	t.Parallel()
	left := cursor.Row{Xid: 100, ID: 7, Tag: 9}
	for _, test := range []struct {
		name          string
		before, after cursor.Cursor
	}{
		{"above", cursor.Cursor{Xmax: 110, Xip: []uint64{90, 105}, Anchor: cursor.Anchor{ID: 20, Tag: 1}}, cursor.Cursor{Xmax: 101, Xip: []uint64{90}, Anchor: cursor.Anchor{ID: 7, Tag: 9}}},
		{"half-delivered above", cursor.Cursor{Xmax: 110, Xid: 110, ID: 20}, cursor.Cursor{Xmax: 101, Anchor: cursor.Anchor{ID: 7, Tag: 9}}},
		{"half-delivered below", cursor.Cursor{Xmax: 110, Xid: 95, ID: 5}, cursor.Cursor{Xmax: 101, Xid: 95, ID: 5, Anchor: cursor.Anchor{ID: 7, Tag: 9}}},
		{"below", cursor.Cursor{Xmax: 90, Xip: []uint64{80}}, cursor.Cursor{Xmax: 90, Xip: []uint64{80}}},
		{"in the middle of the transaction", cursor.Cursor{Xmax: 100, Xid: 100, ID: 7}, cursor.Cursor{Xmax: 100, Xid: 100, ID: 7}},
	} {
		test.after.Epoch = 3
		if got := test.before.Clamp(left, 3); got.String() != test.after.String() {
			t.Errorf("%s: got %v, want %v", test.name, got, test.after)
		}
		for xid := left.Xid + 1; xid < 120; xid++ {
			if test.before.Clamp(left, 3).Seen(xid, 1) {
				t.Errorf("%s: still claims transaction %d", test.name, xid)
			}
		}
	}
}
