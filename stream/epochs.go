package stream

import (
	"slices"

	"rowcast/listener/cursor"
)

// epochs are the last endings of an epoch that a Hub has seen, each the next one's beginning: a client may come back several
// crashes later.
type epochs []ending

// rememberedEpochs is how many: each takes as much memory as a cursor. Who was away for longer is reset, unless the row in which
// its cursor is anchored still stands.
const rememberedEpochs = 64

// An ending is what became of what had been told when the server had recovered.
type ending struct {
	by   cursor.Cursor // what had been told here
	row  *cursor.Row   // of that, all of higher transactions than this row's was taken back; nil: nothing a cursor claims was
	next cursor.Tag
}

func (e *epochs) end(last ending) {
	if len(*e) == rememberedEpochs {
		*e = slices.Delete(*e, 0, 1)
	}
	*e = append(*e, last)
}

// forward is what is left of a cursor of an earlier epoch in the present one. It is not known of a cursor that has seen more than
// had been told here: what other hubs told may stand.
func (e epochs) forward(c cursor.Cursor) (_ cursor.Cursor, known bool) {
	for _, ended := range e {
		if c.Epoch != ended.by.Epoch {
			continue
		}
		if !ended.by.Covers(c) {
			return c, false
		}
		if c.Epoch = ended.next; ended.row != nil {
			c = c.Clamp(*ended.row, ended.next)
		}
		known = true
	}
	// The endings are a chain: who has come upon it has followed it to its end.
	return c, known
}
