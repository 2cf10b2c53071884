package feed

import (
	"time"

	"rowcast/listener/cursor"
)

// A Row is one committed row of rowcast.notifications.
type Row struct {
	cursor.Row // its transaction, id and anchor tag

	Recipient string // [Everyone], a user, a group, a topic, or a result of [InboxOf]
	Event     string
	// Data is one line of JSON. It is nil if it is larger than the listener's MaxData, or if Unreadable is set. The
	// receiver may keep it, so nobody may change it afterwards.
	Data []byte
	Size int64 // the size of the data in bytes; 0 if it is too large to be measured, or if Unreadable is set

	// Unreadable is the reason why the row could not be read: encoding, invalid, damaged, memory or timeout. Event and
	// Data are then empty. Unreadable is empty for all other rows.
	Unreadable string

	// CreatedAt is the row's created_at, in UTC. It is zero if created_at is NULL or infinite. The table refuses such a
	// row, unless the table was altered.
	CreatedAt time.Time

	// Cursor is the cursor of a reader that has received all rows up to this one.
	Cursor cursor.Cursor
}

// A Batch has the next rows that the listener has read. It is a batch as package cursor defines it, or a part of such a
// batch: if very many rows have become visible at once, they come in several Batches. So a Batch can end in the middle
// of a transaction.
type Batch struct {
	// Rows are in the order in which they must be sent. The slice is empty if there is nothing new to send. The receiver
	// must copy the rows that it needs later, because the listener overwrites them.
	Rows []Row

	// Cursor is the cursor of a reader that has received this batch. If it is not whole, more rows of the same
	// transaction may follow.
	Cursor cursor.Cursor
	// Horizon is the transaction number below which retention may have deleted rows. It is 0 if it was not read.
	Horizon uint64
	// Warming reports that the listener still reads rows that were committed before it began. A hub should accept no
	// clients until it has received a batch without Warming.
	Warming bool
	// Clamp is set if the server has lost delivered rows in a crash or failover, or may have lost them. It is the highest
	// delivered row that still exists, or else the anchor with which the listener began. The batch continues after it.
	// The delivered rows of transactions above the transaction of Clamp count as lost. Clients' cursors of the earlier
	// epoch must be clamped too ([cursor.Cursor.Clamp]).
	Clamp *cursor.Row
	// Reset, if not empty, is the reason why this batch does not continue the batch before it: delivered rows may be
	// lost, or rows between the two batches may be missing.
	Reset string
}

// A Message was sent with NOTIFY. It is not stored.
type Message struct {
	Recipient string // [Everyone], a user, a group or a topic
	Event     string
	Data      []byte // one line of JSON
}
