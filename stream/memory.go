package stream

import (
	"slices"

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

// unseen is what a client has not seen of the events for its recipients and for everyone, in the order in which it is told.
// That is all there is only if the client's cursor covers from.
func (m *memory) unseen(c cursor.Cursor, recipients []string) (frames []*frame) {
	frames = m.unseenOf(frames, c, "")
	for _, r := range recipients {
		frames = m.unseenOf(frames, c, r)
	}
	slices.SortFunc(frames, func(a, b *frame) int { return c.Compare(a.row, b.row) })
	return frames
}

func (m *memory) unseenOf(frames []*frame, c cursor.Cursor, recipient string) []*frame {
	q := m.of[recipient]
	if q == nil {
		return frames
	}
	for _, f := range slices.Backward(q.frames) {
		if !c.Seen(f.row.Xid, f.row.ID) {
			frames = append(frames, f)
		} else if c.Covers(f.cursor) {
			break // and so everything before it
		}
	}
	return frames
}
