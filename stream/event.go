package stream

import (
	"fmt"
	"iter"
	"slices"
	"sync/atomic"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream/sse"
)

// The names of the hub's own events.
var (
	eventVoid       = sse.MustName("rowcast.void")
	eventHello      = sse.MustName("rowcast.hello")
	eventBeat       = sse.MustName("rowcast.beat")
	eventReset      = sse.MustName("rowcast.reset")
	eventBye        = sse.MustName("rowcast.bye")
	eventTooLarge   = sse.MustName("rowcast.toolarge")
	eventUnreadable = sse.MustName("rowcast.unreadable")
	eventInbox      = sse.MustName("rowcast.inbox")
)

// The reasons why a stream cannot continue from the client's cursor, as the data of rowcast.reset names them.
const (
	resetMalformed = "malformed" // the text is not a cursor, is too long, or lists too many transactions in flight
	resetExpired   = "expired"   // retention may have deleted rows that the client has not received
	resetHistory   = "history"   // the cursor is of another database, or has seen rows that the server may have lost
	resetAhead     = "ahead"     // the cursor has seen transactions that this database does not have
)

// A frame is an encoded event. Streams that receive the same published event share one frame.
type frame struct {
	row       cursor.Row
	recipient string
	cursor    cursor.Cursor
	live      []byte       // the block as live streams receive it, without the bytes of large
	large     []byte       // the data of a large event, which is not copied; nil for other events
	head      int          // the length of what comes before large in live
	common    int          // the length of what comes before the id field in live; these bytes are the same for all streams
	listed    int          // the bytes of the cursor's list of transactions that are counted for this frame (see memory.share)
	holders   atomic.Int32 // the number of backlogs and writes that hold the frame
}

// A chunk is what is written to a stream in one step: its three parts in order.
type chunk struct {
	bytes []byte
	large []byte // the data of a large event, or nil
	end   []byte // the end of the block of large, or nil
}

func (c chunk) length() int { return len(c.bytes) + len(c.large) + len(c.end) }

// parts returns the slices to write, in order.
func (c chunk) parts() [][]byte { return [][]byte{c.bytes, c.large, c.end} }

// encode returns the frame of a row.
func encode(r *feed.Row) *frame {
	f := &frame{row: r.Row, recipient: r.Recipient, cursor: r.Cursor}
	name, data := nameAndData(r)
	block := sse.Block{Name: name, Time: timeOf(r), Data: data}
	size := 96 + len(name.String()) + len(data) // enough for most cursors
	if !block.Time.IsZero() {
		size += len("time: 1764383642123\n")
	}
	if len(data) > writeSize {
		if f.live, f.large = block.Split(nil); f.large != nil {
			f.head = len(f.live)
			f.live = append(f.live, '\n')
		}
	} else {
		f.live = block.AppendFields(make([]byte, 0, size))
	}
	f.common = len(f.live)
	f.live = endBlock(f.live, &r.Cursor)
	return f
}

// latest is the latest time that a Date in JavaScript can have, in milliseconds since 1970.
const latest = 8_640_000_000_000_000

// timeOf returns when the row was created. It returns the zero Time, so that the event has no time, if JavaScript has
// no Date for that time. A page that formats an invalid Date fails.
func timeOf(r *feed.Row) time.Time {
	if r.CreatedAt.UnixMilli() > latest {
		return time.Time{}
	}
	return r.CreatedAt
}

// nameAndData returns the event's name and data. A row that cannot be sent is replaced by an event that says so.
func nameAndData(r *feed.Row) (sse.Name, []byte) {
	switch {
	case r.Unreadable != "":
		return eventUnreadable, fmt.Appendf(nil, `{"id": %d, "reason": %q}`, r.ID, r.Unreadable)
	case r.Data == nil && r.Size == 0:
		return eventTooLarge, fmt.Appendf(nil, `{"id": %d, "size": null}`, r.ID)
	case r.Data == nil:
		return eventTooLarge, fmt.Appendf(nil, `{"id": %d, "size": %d}`, r.ID, r.Size)
	case feed.IsInbox(r.Recipient):
		return eventInbox, r.Data
	}
	// The table and the listener refuse names that cannot be sent. If such a name arrives here, NewName returns the zero
	// Name, which means "message".
	name, _ := sse.NewName(r.Event)
	return name, r.Data
}

// note returns the frame of an event that belongs to no row: an event of the hub or a NOTIFY message.
func note(name sse.Name, id *cursor.Cursor, data []byte) *frame {
	f := &frame{live: sse.Block{Name: name, Data: data}.AppendFields(nil)}
	f.common = len(f.live)
	f.live = endBlock(f.live, id)
	return f
}

// endBlock appends the end of a block: the id field, unless id is nil, and an empty line.
func endBlock(b []byte, id *cursor.Cursor) []byte {
	if id != nil {
		b = appendID(b, *id)
	}
	return append(b, '\n')
}

// appendID appends a cursor as an id field. The text of a cursor contains no line break.
func appendID(b []byte, c cursor.Cursor) []byte {
	b = append(b, "id: "...)
	b = c.Append(b)
	return append(b, '\n')
}

// frameOverhead is roughly the number of bytes that a frame needs in addition to its text: for the struct and its
// entries in two queues.
const frameOverhead = 256

// held returns the bytes of memory of a frame without its cursor. The result does not change during the life of a
// frame.
func (f *frame) held() int { return cap(f.live) + cap(f.large) + frameOverhead }

// size returns the bytes of memory of a frame with its cursor.
func (f *frame) size() int { return f.held() + f.listed }

// trim releases unused capacity, which is large if the id is long, and returns the frame.
func (f *frame) trim() *frame {
	if spare := cap(f.live) - len(f.live); spare > 64 && spare > len(f.live)/8 {
		f.live = slices.Clone(f.live)
	}
	return f
}

// length returns the number of bytes that a live stream receives.
func (f *frame) length() int { return len(f.live) + len(f.large) }

// lengthWithID returns the number of bytes of the frame if its id field is idLength bytes long.
func (f *frame) lengthWithID(idLength int) int {
	return f.common + len(f.large) + idLength + len("\n")
}

// appendLive appends the frame to b as live streams receive it.
func (f *frame) appendLive(b []byte) chunk { return f.cut(append(b, f.live...), len(b)) }

// appendWithID appends the frame to b with the id that it has for one client that resumes.
func (f *frame) appendWithID(b []byte, c cursor.Cursor) chunk {
	return f.cut(endBlock(append(b, f.live[:f.common]...), &c), len(b))
}

// cut returns the chunk for b. The last block of b begins at the index begin, and is the frame without the bytes of
// large. If the event is large, cut divides b into the bytes before the data and the end after the data.
func (f *frame) cut(b []byte, begin int) chunk {
	if f.large == nil {
		return chunk{bytes: b}
	}
	at := begin + f.head
	return chunk{b[:at], f.large, b[at:]}
}

// lengthWithIDs returns the number of bytes that the frames would have if each id field had idLength bytes.
func lengthWithIDs(frames []*frame, idLength int) (n int) {
	for _, f := range frames {
		n += f.lengthWithID(idLength)
	}
	return n
}

// maxIDLength returns an upper limit, in bytes, for the length of an id field with a cursor between the first and the
// last cursor of the steps. Such a cursor lists only transactions that the first or the last cursor lists. Besides, it
// names one more transaction and one more row.
func maxIDLength(steps *cursor.Steps) int {
	const more = 48
	length := len(appendID(nil, steps.To())) + more
	if len(steps.From().Xip) > 0 {
		length += len(appendID(nil, steps.From()))
	}
	return length
}

// A run holds consecutive frames for the same streams. They are written together.
type run struct {
	chunk
	frames  []*frame
	holders atomic.Int32 // for several frames: the number of streams to which the run is being written
}

// newRun joins frames. A frame of a large event must be the only one.
func newRun(frames ...*frame) *run {
	r := &run{frames: frames, chunk: frames[0].cut(frames[0].live, 0)}
	if len(frames) == 1 {
		return r
	}
	size := 0
	for _, f := range frames {
		size += len(f.live)
	}
	r.bytes = make([]byte, 0, size)
	for _, f := range frames {
		r.bytes = append(r.bytes, f.live...)
	}
	return r
}

// shared returns the memory that is held while the run is being written.
func (r *run) shared() shared {
	if len(r.frames) == 1 {
		return shared{&r.frames[0].holders, r.frames[0].held()}
	}
	return shared{&r.holders, cap(r.bytes)}
}

// runs divides frames where the recipient changes, and into parts of at most writeSize bytes. A larger frame is a part
// of its own.
func runs(frames []*frame) iter.Seq[[]*frame] {
	return func(yield func([]*frame) bool) {
		for len(frames) > 0 {
			n, size := 1, frames[0].length()
			for n < len(frames) && frames[n].recipient == frames[0].recipient && size+frames[n].length() <= writeSize {
				size += frames[n].length()
				n++
			}
			if !yield(frames[:n]) {
				return
			}
			frames = frames[n:]
		}
	}
}
