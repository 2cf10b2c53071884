package listener

import (
	"bytes"

	"rowcast/listener/feed"
)

// A row is a row while it is read.
type row struct {
	feed.Row

	skipped   bool // nobody receives the row: the recipient or the id is invalid or could not be read
	misplaced bool // the id is NULL or below 1: no cursor can be anchored in this row
	gone      bool // the row was deleted before it was read
}

// isSound reports whether the event and data can be sent. The table refuses everything else, unless somebody has altered it: column
// data of type json, for example, can have line breaks. The table's bounds for lengths are checked in SQL.
func (r *row) isSound() bool {
	return feed.CheckName(r.Event) == nil && bytes.IndexByte(r.Data, '\n') < 0 && bytes.IndexByte(r.Data, '\r') < 0
}

// isTrouble reports whether the row could not be read.
func (r *row) isTrouble() bool { return r.Unreadable != "" || r.Data == nil && r.Size == 0 }
