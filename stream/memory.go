package stream

import (
	"slices"
	"sort"

	"rowcast/listener/cursor"
)

// A memory holds the events of the most recent rows, so that most clients resume without a query. Its limit is for an
// estimate of the memory that the events use, which is more than the length of their texts.
type memory struct {
	limit int
	bytes int
	from  cursor.Cursor     // the memory has all events after this cursor
	all   queue             // all events
	of    map[string]*queue // the events of each recipient
}

// A queue holds frames in the order of their arrival.
type queue struct {
	recipient string
	frames    []*frame
}

// queueSize is roughly the number of bytes that a queue needs besides its recipient's text and its frames: for the
// struct, its entry in the map and a small array.
const queueSize = 128

func (q *queue) push(f *frame) { q.frames = append(q.frames, f) }

// pop removes and returns the oldest frame. Its place in the array is freed when push next reallocates the array.
func (q *queue) pop() *frame {
	f := q.frames[0]
	q.frames[0] = nil
	q.frames = q.frames[1:]
	return f
}

// begin removes everything. The Hub calls it at the start, after a reset and in a new epoch (rule 23 of
// package cursor).
func (m *memory) begin(from cursor.Cursor) {
	*m = memory{limit: m.limit, from: from, of: make(map[string]*queue)}
}

// add adds the frames of a batch and removes the oldest frames beyond the limit.
func (m *memory) add(frames ...*frame) {
	m.share(frames)
	for _, f := range frames {
		m.push(f)
	}
	for m.bytes > m.limit {
		m.pop()
	}
}

func (m *memory) push(f *frame) {
	q := m.of[f.recipient]
	if q == nil {
		q = &queue{recipient: f.recipient}
		m.of[f.recipient] = q
		m.bytes += queueSize + len(q.recipient)
	}
	f.recipient = q.recipient // one copy of the text for all frames
	q.push(f)
	m.all.push(f)
	m.bytes += f.size()
}

func (m *memory) pop() {
	oldest := m.all.pop()
	m.bytes -= oldest.size()
	m.from = oldest.cursor
	oldest.cursor, oldest.listed = cursor.Cursor{}, 0 // a backlog that still holds the frame needs neither
	q := m.of[oldest.recipient]
	if q.pop(); len(q.frames) == 0 {
		m.bytes -= queueSize + len(q.recipient)
		delete(m.of, q.recipient)
	}
}

// share lets consecutive frames share one list of the transactions in flight. The list is counted for the newest of
// these frames, which is removed last. A frame may share the beginning of a newer frame's list if that is at least half
// of the list.
func (m *memory) share(frames []*frame) {
	var owner *frame              // the frame for which the list is counted
	kept := len(m.all.frames) > 0 // the owner is an older frame that is in the memory already
	if kept {
		owner = m.all.frames[len(m.all.frames)-1]
	}
	for _, f := range slices.Backward(frames) {
		xip := f.cursor.Xip
		switch {
		case len(xip) == 0:
			f.cursor.Xip = nil // an empty slice could keep a large array in memory
		case kept && slices.Equal(xip, owner.cursor.Xip):
			m.bytes -= owner.listed
			f.cursor.Xip, f.listed, owner.listed = owner.cursor.Xip, owner.listed, 0
			owner, kept = f, false
		case owner != nil && !kept && beginsWith(owner.cursor.Xip, xip):
			f.cursor.Xip = owner.cursor.Xip[:len(xip):len(xip)]
		default:
			f.cursor.Xip = slices.Clone(xip)
			f.listed = 8 * cap(f.cursor.Xip)
			owner, kept = f, false
		}
	}
}

// beginsWith reports whether part is the beginning of list and at least half of it.
func beginsWith(list, part []uint64) bool {
	return len(part) <= len(list) && 2*len(part) >= len(list) && slices.Equal(list[:len(part)], part)
}

// since returns all events for the recipients that a client at a cursor may have missed, and some events that the
// client has seen, which unseen removes. It must be quick, because the Hub is locked. The result is complete only if
// the cursor covers m.from.
func (m *memory) since(c cursor.Cursor, recipients []string) (frames []*frame) {
	for _, r := range recipients {
		frames = m.of[r].since(frames, c)
	}
	return frames
}

// since appends the frames whose cursors are not covered by c. They are the newest frames. So since searches for the
// first of them backwards in growing steps, and then by bisection between the last two steps.
func (q *queue) since(frames []*frame, c cursor.Cursor) []*frame {
	if q == nil {
		return frames
	}
	missed := func(f *frame) bool { return !c.Covers(f.cursor) }
	begin, end := len(q.frames), len(q.frames)
	for step := 1; begin > 0 && missed(q.frames[begin-1]); step *= 2 {
		begin, end = max(begin-step, 0), begin
	}
	begin += sort.Search(end-begin, func(i int) bool { return missed(q.frames[begin+i]) })
	return append(frames, q.frames[begin:]...)
}

// unseen returns the frames that a client at a cursor has not seen, in the order in which they must be sent. It deletes
// the other frames from the slice that it is given.
func unseen(c cursor.Cursor, frames []*frame) []*frame {
	frames = slices.DeleteFunc(frames, func(f *frame) bool { return c.Seen(f.row.Xid, f.row.ID) })
	compare := func(a, b *frame) int { return a.row.Compare(b.row) }
	if !c.Whole() {
		compare = func(a, b *frame) int { return c.Compare(a.row, b.row) }
	}
	if !slices.IsSortedFunc(frames, compare) {
		slices.SortFunc(frames, compare)
	}
	return frames
}
