package stream

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"rowcast/listener/cursor"
	"rowcast/stream/sse"
)

// An Event is a stored notification.
type Event struct {
	cursor.Row // its transaction, id and anchor tag

	Recipient string // "" is everyone
	Name      string
	Data      []byte // the Hub takes it over, to append to; nil if it is too large to be sent; a rowcast.toolarge event takes its place
	Size      int64  // of the data in bytes; 0 if it is too large to be measured

	// Unreadable says, if not empty, why the notification could not be read. A rowcast.unreadable event takes its place.
	Unreadable string

	// Cursor is that of a reader who has been told everything up to and with this event.
	Cursor cursor.Cursor
}

// A Batch is what became visible since the batch before it.
type Batch struct {
	Events []Event // in the order in which they are to be told

	// Cursor is that of a reader who has been told this batch. While it is not whole, more of the same transaction follows.
	Cursor cursor.Cursor
	// Horizon is the transaction number below which old notifications have been deleted.
	Horizon uint64
	// Warming says that the events are from before the Hub began: they are remembered for those who resume, and sent to nobody.
	Warming bool
	// Clamp is set when the database has taken back all that was told of higher transactions than this row's, and the batch goes
	// on from what is left. Those who resume from that time forget it, too.
	Clamp *cursor.Row
	// Reset says, if not empty, why this batch does not continue the one before. Every stream is told.
	Reset string
}

// A Message is not stored: it reaches those who are there, and leaves their cursors alone.
type Message struct {
	Recipient string // "" is everyone
	Name      string
	Data      []byte
}

// A Source is where a Hub reads what it no longer has in memory. Its errors are taken to pass: the Hub tries again for as long as
// the client waits.
type Source interface {
	// CatchUp returns once everything that was committed before the call has been published.
	CatchUp(ctx context.Context) error

	// Page reads some of what from has not seen and to has, of the recipients and of everyone, in the order in which it is told
	// to a client that comes from there. next is the client's cursor after it: to itself if there is nothing more.
	Page(ctx context.Context, from, to cursor.Cursor, recipients []string) (events []Event, next cursor.Cursor, horizon uint64, err error)

	// Stands tells whether c, of an earlier epoch than now, still holds: whether none of the numbers that it claims is drawn again.
	Stands(ctx context.Context, c, now cursor.Cursor) (bool, error)
}

// The events that are ours.
var (
	void       = sse.MustName("rowcast.void")
	hello      = sse.MustName("rowcast.hello")
	beat       = sse.MustName("rowcast.beat")
	reset      = sse.MustName("rowcast.reset")
	bye        = sse.MustName("rowcast.bye")
	tooLarge   = sse.MustName("rowcast.toolarge")
	unreadable = sse.MustName("rowcast.unreadable")
)

// Why a client's cursor is not honoured, as the data of rowcast.reset says it.
const (
	resetMalformed = "malformed" // no cursor of ours
	resetExpired   = "expired"   // older than what is kept
	resetHistory   = "history"   // of another database, or of a history that the server has taken back
	resetAhead     = "ahead"     // has seen what this database has not
)

// A frame is an event encoded, once for all its subscribers.
type frame struct {
	row       cursor.Row
	recipient string
	cursor    cursor.Cursor
	live      []byte       // as it is sent to those who are live
	rest      []byte       // of a large event: its data and what comes after, so that there is one copy of it in all
	body      int          // where live's id ends and what is the same for everybody begins
	listed    int          // bytes of the cursor's list that are counted for this frame, see memory.share
	holders   atomic.Int32 // streams that are owed it
}

// overhead is about what a frame costs in memory besides its bytes: itself and its places in two queues.
const overhead = 256

// size is what a frame costs in memory, in bytes.
func (f *frame) size() int { return f.held() + f.listed }

// held is what a frame costs in memory that is remembered no more. It never changes.
func (f *frame) held() int { return cap(f.live) + cap(f.rest) + overhead }

// fit gives back memory that a frame with a long id would keep and not use.
func (f *frame) fit() *frame {
	if spare := cap(f.live) - len(f.live); spare > 64 && spare > len(f.live)/8 {
		f.live = slices.Clone(f.live)
	}
	return f
}

// length is what it is on the way, in bytes.
func (f *frame) length() int { return len(f.live) + len(f.rest) }

// replayed is the frame with the id that it has for one client: what is to be written, appended to b, and after that.
func (f *frame) replayed(b []byte, c cursor.Cursor) (first, then []byte) {
	return append(appendID(b, c), f.live[f.body:]...), f.rest
}

// replayedLength is what frames are on the way with ids that are no longer than that, in bytes.
func replayedLength(frames []*frame, longest int) (n int) {
	for _, f := range frames {
		n += f.length() - f.body + longest
	}
	return n
}

// longestID returns a length in bytes that no id along the steps exceeds. Between the ends an id names one more transaction and row than
// at the ends, and its list has only what one of the two has.
func longestID(steps *cursor.Steps) int {
	const more = 48
	longest := len(appendID(nil, steps.To)) + more
	if len(steps.From.Xip) > 0 {
		longest += len(appendID(nil, steps.From))
	}
	return longest
}

// appendID appends a cursor as an id: its text has nothing that could end the line.
func appendID(b []byte, c cursor.Cursor) []byte {
	b = append(b, "id: "...)
	b = c.Append(b)
	return append(b, '\n')
}

func encode(e *Event) *frame {
	f := &frame{row: e.Row, recipient: e.Recipient, cursor: e.Cursor}
	name, data := e.body()
	block := sse.Block{Name: name, Data: data}
	if len(data) > writeAtOnce {
		f.live = appendID(nil, e.Cursor)
		f.body = len(f.live)
		f.live, f.rest = block.Split(f.live)
		return f
	}
	f.live = appendID(make([]byte, 0, 96+len(name.String())+len(data)), e.Cursor)
	f.body = len(f.live)
	f.live = block.Append(f.live)
	return f
}

// body returns the name and the data that are sent: the event's own, or those of the event that takes its place.
func (e *Event) body() (sse.Name, []byte) {
	switch {
	case e.Unreadable != "":
		return unreadable, fmt.Appendf(nil, `{"id": %d, "reason": %q}`, e.ID, e.Unreadable)
	case e.Data == nil && e.Size == 0:
		return tooLarge, fmt.Appendf(nil, `{"id": %d, "size": null}`, e.ID)
	case e.Data == nil:
		return tooLarge, fmt.Appendf(nil, `{"id": %d, "size": %d}`, e.ID, e.Size)
	}
	// The table has refused names that cannot be sent. Any other such name becomes that of a message.
	name, _ := sse.NewName(e.Name)
	return name, e.Data
}

// note is a frame without a row: of ours, or by hand.
func note(name sse.Name, id *cursor.Cursor, data []byte) *frame {
	f := &frame{}
	if id != nil {
		f.live = appendID(f.live, *id)
	}
	f.live = sse.Block{Name: name, Data: data}.Append(f.live)
	return f
}
