package stream

import (
	"slices"

	"rowcast/listener/cursor"
)

// epochs are the last recoveries of the server that a Hub has seen, in order. Each recovery ends the epoch that the
// previous recovery began. Several recoveries are kept, because a client may resume after several crashes.
type epochs []recovery

// maxRecoveries is the largest number of recoveries that are kept. Each uses about as much memory as a cursor. A client
// whose cursor is older is reset, unless the row that anchors the cursor still exists.
const maxRecoveries = 64

// A recovery records which delivered rows survived a crash recovery or failover.
type recovery struct {
	sent cursor.Cursor // describes the rows that the Hub had sent
	last *cursor.Row   // rows of transactions above this row's transaction are lost; nil if no row is lost
	next cursor.Tag    // the epoch that began
}

func (e *epochs) add(r recovery) {
	if len(*e) == maxRecoveries {
		*e = slices.Delete(*e, 0, 1)
	}
	*e = append(*e, r)
}

// forward converts a cursor of an earlier epoch to the current one. known is false if the epoch is not kept, or if the
// cursor has seen more than this Hub had sent, because the Hub does not know which of those rows survived.
func (e epochs) forward(c cursor.Cursor) (_ cursor.Cursor, known bool) {
	for _, r := range e { // rule 21 of package cursor
		if c.Epoch != r.sent.Epoch {
			continue
		}
		if !r.sent.Covers(c) { // rule 24 of package cursor
			return c, false
		}
		if c.Epoch = r.next; r.last != nil {
			c = c.Clamp(*r.last, r.next)
		}
		known = true
	}
	// Each recovery begins the epoch that the following recovery ends, so c is now of the current epoch.
	return c, known
}
