package stream

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream/sse"
)

// A Source is where a Hub reads rows that it no longer has in memory. Its errors are temporary: the Hub tries again while the client
// waits.
type Source interface {
	// CatchUp returns once everything that was committed before the call has been published.
	CatchUp(ctx context.Context) error

	// Page reads some of what from has not seen and to has, of the recipients and of everyone, in the order in which it is told
	// to a client that comes from there. next is the client's cursor after it: to itself if there is nothing more.
	Page(ctx context.Context, from, to cursor.Cursor, recipients []string) (rows []feed.Row, next cursor.Cursor, horizon uint64, err error)

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

func encode(r *feed.Row) *frame {
	f := &frame{row: r.Row, recipient: r.Recipient, cursor: r.Cursor}
	name, data := body(r)
	block := sse.Block{Name: name, Data: data}
	if len(data) > writeAtOnce {
		f.live = appendID(nil, r.Cursor)
		f.body = len(f.live)
		f.live, f.rest = block.Split(f.live)
		return f
	}
	f.live = appendID(make([]byte, 0, 96+len(name.String())+len(data)), r.Cursor)
	f.body = len(f.live)
	f.live = block.Append(f.live)
	return f
}

// body returns the name and the data that are sent: those of the row, or of the event that takes its place.
func body(r *feed.Row) (sse.Name, []byte) {
	switch {
	case r.Unreadable != "":
		return unreadable, fmt.Appendf(nil, `{"id": %d, "reason": %q}`, r.ID, r.Unreadable)
	case r.Data == nil && r.Size == 0:
		return tooLarge, fmt.Appendf(nil, `{"id": %d, "size": null}`, r.ID)
	case r.Data == nil:
		return tooLarge, fmt.Appendf(nil, `{"id": %d, "size": %d}`, r.ID, r.Size)
	}
	// The table and the listener refuse names that cannot be sent. Any other such name becomes that of a message.
	name, _ := sse.NewName(r.Event)
	return name, r.Data
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
