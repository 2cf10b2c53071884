package cursor_test

import (
	"testing"

	"rowcast/listener/cursor"
)

// Clamp removes the lost transactions from a cursor, because the server can assign their numbers again. It keeps the
// other transactions.
func TestClamp(t *testing.T) {
	t.Parallel()
	left := cursor.Row{Xid: 100, ID: 7, Tag: 9}
	for _, test := range []struct {
		name          string
		before, after cursor.Cursor
	}{
		{"the cursor is above the row that still exists", cursor.Cursor{Xmax: 110, Xip: []uint64{90, 105}, Anchor: cursor.Anchor{ID: 20, Tag: 1}}, cursor.Cursor{Xmax: 101, Xip: []uint64{90}, Anchor: cursor.Anchor{ID: 7, Tag: 9}}},
		{"a transaction above the row is half-delivered", cursor.Cursor{Xmax: 110, Xid: 110, ID: 20}, cursor.Cursor{Xmax: 101, Anchor: cursor.Anchor{ID: 7, Tag: 9}}},
		{"a transaction below the row is half-delivered", cursor.Cursor{Xmax: 110, Xid: 95, ID: 5}, cursor.Cursor{Xmax: 101, Xid: 95, ID: 5, Anchor: cursor.Anchor{ID: 7, Tag: 9}}},
		{"the cursor is below the row that still exists", cursor.Cursor{Xmax: 90, Xip: []uint64{80}}, cursor.Cursor{Xmax: 90, Xip: []uint64{80}}},
		{"the transaction of the row is half-delivered", cursor.Cursor{Xmax: 100, Xid: 100, ID: 7}, cursor.Cursor{Xmax: 100, Xid: 100, ID: 7}},
	} {
		test.after.Epoch = 3
		if got := test.before.Clamp(left, 3); got.String() != test.after.String() {
			t.Errorf("%s: got %v, want %v", test.name, got, test.after)
		}
		for xid := left.Xid + 1; xid < 120; xid++ {
			if test.before.Clamp(left, 3).Seen(xid, 1) {
				t.Errorf("%s: the clamped cursor claims transaction %d, want it to claim none above %d", test.name, xid, left.Xid)
			}
		}
	}
}
