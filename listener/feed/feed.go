package feed

import "rowcast/listener/cursor"

// A Row is one committed row of rowcast.notifications.
type Row struct {
	cursor.Row // its transaction, id and anchor tag

	Recipient string // "" is everyone
	Event     string
	// Data is one line of JSON. It is nil if it is larger than the listener's MaxData, or if Unreadable is set. The receiver may
	// keep it, so the sender must not change it afterwards. The receiver does not change it.
	Data []byte
	Size int64 // of the data in bytes; 0 if it is too large to be measured

	// Unreadable is the reason why the row could not be read: encoding, invalid, damaged, memory or timeout. Event and Data are then
	// empty. It is empty for all other rows.
	Unreadable string

	// Cursor is the cursor of a reader who has received all rows up to this one.
	Cursor cursor.Cursor
}

// A Batch has the rows that became visible since the batch before it.
type Batch struct {
	Rows []Row // in the order in which they must be sent; empty if there was nothing new

	// Cursor is the cursor of a reader who has received this batch. If it is not whole, more rows of the same transaction follow.
	Cursor cursor.Cursor
	// Horizon is the transaction number below which retention has deleted rows.
	Horizon uint64
	// Warming reports that the rows were committed before the listener began. They are for clients that resume, and are not sent to
	// others.
	Warming bool
	// Clamp is set when a crash of the server has lost delivered rows, and the batch continues after the rows that are left. Rows of
	// higher transactions than this row's are lost, and clients of the same epoch that resume must forget them, too.
	Clamp *cursor.Row
	// Reset, if not empty, says why this batch does not continue the one before: delivered rows may be lost, and others missed.
	Reset string
}

// A Message was sent by hand with NOTIFY. It is not stored.
type Message struct {
	Recipient string // "" is everyone
	Event     string
	Data      []byte // one line of JSON
}
