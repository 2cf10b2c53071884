package listener

import (
	"bytes"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
)

// A Row is one committed row of rowcast.notifications.
type Row struct {
	cursor.Row // its transaction, id and anchor tag

	Recipient string // "" is everyone: the table refuses an empty recipient
	Event     string
	Data      []byte // one line of JSON; nil if it is larger than MaxData, or Unreadable is set
	Size      int64  // of the data in bytes; 0 if it was not measured, as it is far too large

	// Unreadable says, if not empty, why the row could not be read: encoding, invalid, damaged, memory or timeout. Event and Data
	// are then empty.
	Unreadable string
	skipped    bool // nobody can be told: the recipient could not be read either, or the id
	misplaced  bool // the id is NULL or below 1: no cursor can be anchored in this row
	gone       bool // the row was deleted before it was read

	// Cursor is that of a reader who has been told everything up to and with this row.
	Cursor cursor.Cursor
}

// A Batch is what became visible since the batch before it.
type Batch struct {
	Rows []Row // in the order in which they are to be told; none if there was nothing new

	// Cursor is that of a reader who has been told this batch. While it is not whole, more of the same transaction follows.
	Cursor cursor.Cursor
	// Horizon is the transaction number below which retention has deleted.
	Horizon uint64
	// Warming says that the rows are from before the listener began: to be remembered for those who resume, and told to nobody.
	Warming bool
	// Clamp is set when the server has taken back some of what was told, and this batch goes on from what is left: all told
	// rows of higher transactions than this one's are gone, and those of the same epoch that resume must forget them, too.
	Clamp *cursor.Row
	// Reset says, if not empty, why this batch does not continue the one before: told rows may be gone, and others missed.
	Reset string
}

// A Message was sent by hand, with NOTIFY. Nothing of it is stored.
type Message struct {
	Recipient string // "" is everyone
	Event     string
	Data      []byte // one line of JSON
}

// isSound reports whether the event and data can be sent. The table refuses everything else, unless somebody has altered it: column
// data of type json, for example, can have line breaks. The table's bounds for lengths are checked in SQL.
func (r *Row) isSound() bool {
	return feed.CheckName(r.Event) == nil && bytes.IndexByte(r.Data, '\n') < 0 && bytes.IndexByte(r.Data, '\r') < 0
}

// isTrouble reports whether the row could not be read.
func (r *Row) isTrouble() bool { return r.Unreadable != "" || r.Data == nil && r.Size == 0 }
