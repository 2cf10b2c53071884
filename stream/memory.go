package stream

import (
	"slices"
	"sort"

	"rowcast/listener/cursor"
)

// A memory holds the most recent events, so that reconnecting needs no query. It is bounded by the bytes that it really takes.
type memory struct {
	limit int
	bytes int
	from  cursor.Cursor // what was seen before the oldest event here
	all   queue
	of    map[string]*queue // by recipient
}

// A queue is frames in the order in which they came.
type queue struct {
	recipient string
	frames    []*frame
}

// queueSize is about what a queue takes besides its recipient's text and its frames: itself, its entry in the map, and a small array.
const queueSize = 128

func (q *queue) push(f *frame) { q.frames = append(q.frames, f) }

// pop takes the oldest away. Appending moves the rest to the front once in a while.
func (q *queue) pop() *frame {
	f := q.frames[0]
	q.frames[0] = nil
	q.frames = q.frames[1:]
	return f
}

// begin forgets everything.
func (m *memory) begin(from cursor.Cursor) {
	*m = memory{limit: m.limit, from: from, of: make(map[string]*queue)}
}

// remember adds the frames of a batch and forgets the oldest frames beyond the limit.
func (m *memory) remember(frames ...*frame) {
	m.share(frames)
	for _, f := range frames {
		m.add(f)
	}
	for m.bytes > m.limit {
		m.forget()
	}
}

func (m *memory) add(f *frame) {
	q := m.of[f.recipient]
	if q == nil {
		q = &queue{recipient: f.recipient}
		m.of[f.recipient] = q
		m.bytes += queueSize + len(q.recipient)
	}
	f.recipient = q.recipient // one copy for all frames
	q.push(f)
	m.all.push(f)
	m.bytes += f.size()
}

func (m *memory) forget() {
	oldest := m.all.pop()
	m.bytes -= oldest.size()
	m.from = oldest.cursor
	oldest.cursor, oldest.listed = cursor.Cursor{}, 0 // a stream that is still owed the frame needs neither
	q := m.of[oldest.recipient]
	if q.pop(); len(q.frames) == 0 {
		m.bytes -= queueSize + len(q.recipient)
		delete(m.of, q.recipient)
	}
}

// share gives frames that follow each other one list of the transactions in flight. A list is counted for the newest frame that has
// it, which is forgotten last. A frame may have the first part of a newer one's list, if that is half of it or more.
func (m *memory) share(frames []*frame) {
	var of *frame // the frame that the list is counted for
	remembered := len(m.all.frames) > 0
	if remembered {
		of = m.all.frames[len(m.all.frames)-1]
	}
	for _, f := range slices.Backward(frames) {
		xip := f.cursor.Xip
		switch {
		case len(xip) == 0:
			f.cursor.Xip = nil // of what may be a large array
		case remembered && slices.Equal(xip, of.cursor.Xip):
			m.bytes -= of.listed
			f.cursor.Xip, f.listed, of.listed = of.cursor.Xip, of.listed, 0
			of, remembered = f, false
		case of != nil && !remembered && startsWith(of.cursor.Xip, xip):
			f.cursor.Xip = of.cursor.Xip[:len(xip):len(xip)]
		default:
			f.cursor.Xip = slices.Clone(xip)
			f.listed = 8 * cap(f.cursor.Xip)
			of, remembered = f, false
		}
	}
}

// startsWith reports whether part is the first half or more of list.
func startsWith(list, part []uint64) bool {
	return len(part) <= len(list) && 2*len(part) >= len(list) && slices.Equal(list[:len(part)], part)
}

// since is all of the events for some recipients and for everyone that a client can have missed, and some that it has seen: unseen
// sorts that out. It is made to be quick, as the hub stands still meanwhile. It is all there is only if the client's cursor covers from.
func (m *memory) since(c cursor.Cursor, recipients []string) []*frame {
	frames := m.of[""].since(nil, c)
	for _, r := range recipients {
		frames = m.of[r].since(frames, c)
	}
	return frames
}

// since appends the frames that came after the last one that the cursor covers: as it covers all before that, too, that is found
// by looking back in growing steps, and then between the last two.
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

// unseen is what a client has not seen of some frames, in the order in which it is told. It uses their slice.
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
