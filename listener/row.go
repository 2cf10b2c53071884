package listener

import (
	"bytes"

	"rowcast/listener/feed"
)

// A row is a row of the table while it is being read.
type row struct {
	feed.Row

	skipped   bool // the row is not delivered, because its recipient or id is invalid or cannot be read
	misplaced bool // the id is NULL or below 1, so the row cannot be the anchor of a cursor
	gone      bool // the row was deleted before it was read
}

// isSound reports whether the event and data can be sent. The table refuses other values, unless it was altered. For
// example, a column data of type json can have line breaks. The bounds for lengths are checked in SQL.
func (r *row) isSound() bool {
	return feed.CheckName(r.Event) == nil && bytes.IndexByte(r.Data, '\n') < 0 && bytes.IndexByte(r.Data, '\r') < 0
}

// isTrouble reports whether the row could not be read, or had data too large to be measured.
func (r *row) isTrouble() bool { return r.Unreadable != "" || r.Data == nil && r.Size == 0 }
