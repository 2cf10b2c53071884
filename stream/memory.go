package stream

import (
	"slices"
	"sort"

	"rowcast/listener/cursor"
)

// A memory holds the most recent events, so that reconnecting needs no query. It is bounded in bytes.
type memory struct {
	limit int
	bytes int
	from  cursor.Cursor // what was seen before the oldest event here
	all   queue
	of    map[string]*queue // by recipient
}

// A queue is frames in the order in which they came.
type queue struct {
	frames []*frame
}

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

// remember adds a frame and forgets the oldest beyond the limit.
func (m *memory) remember(f *frame) {
	q := m.of[f.recipient]
	if q == nil {
		q = &queue{}
		m.of[f.recipient] = q
	}
	q.push(f)
	m.all.push(f)
	m.bytes += f.size()
	for m.bytes > m.limit {
		m.forget()
	}
}

func (m *memory) forget() {
	oldest := m.all.pop()
	m.bytes -= oldest.size()
	m.from = oldest.cursor
	q := m.of[oldest.recipient]
	q.pop()
	if len(q.frames) == 0 {
		delete(m.of, oldest.recipient)
	}
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

func lengthOf(frames []*frame) (n int) {
	for _, f := range frames {
		n += f.length()
	}
	return n
}
