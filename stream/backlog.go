package stream

import (
	"sync/atomic"

	"rowcast/listener/cursor"
)

// A backlog holds the events that are still to be written to a stream, and counts the memory that they use. A stream
// has a backlog only while a goroutine writes to its client. The backlog belongs to the stream's output.
type backlog struct {
	pending *pending
	frames  []*frame
	bytes   int // the sum of the lengths of frames

	// When a stream resumes from the Hub's memory, its first frames are sent with ids that are for this stream only.
	// replay computes these ids.
	replay      *cursor.Steps
	replayed    int // the number of frames whose ids replay computes
	maxIDLength int // an upper limit for the length of the id fields that replay computes

	buffer  []byte // the buffer of the goroutine that writes
	writing shared // the memory of the current write that other streams may hold, too; zero if there is none
	own     int    // the bytes of memory that are counted for this stream alone
}

// shared is memory that several streams may hold. It is counted once.
type shared struct {
	holders *atomic.Int32
	bytes   int
}

// goroutineSize is about the memory of a goroutine that writes to a client, in bytes.
const goroutineSize = 8 << 10

// writeSize is about the largest number of bytes that are written in one step, except for large events.
const writeSize = 32 << 10

// length returns the number of bytes that the client receives for frame i, or an upper limit if the frame is sent with
// an id that is for this stream only.
func (b *backlog) length(i int) int {
	f := b.frames[i]
	if i < b.replayed {
		return f.lengthWithID(b.maxIDLength)
	}
	return f.length()
}

// lengthAfterFirst returns the sum of the lengths of all frames except the first.
func (b *backlog) lengthAfterFirst() int {
	if len(b.frames) == 0 {
		return 0
	}
	return b.bytes - b.length(0)
}

// empty reports whether there are no frames. It may be called on nil.
func (b *backlog) empty() bool { return b == nil || len(b.frames) == 0 }

func (b *backlog) add(f *frame) {
	b.frames = append(b.frames, f)
	b.bytes += b.length(len(b.frames) - 1)
	b.pending.hold(&f.holders, f.held())
}

// beginWrite counts shared memory that is being written. The memory is counted until endWrite is called.
func (b *backlog) beginWrite(s shared) {
	b.pending.hold(s.holders, s.bytes)
	b.writing = s
}

// endWrite releases the memory that beginWrite counted, if there is any.
func (b *backlog) endWrite() {
	if b.writing.holders != nil {
		b.pending.release(b.writing.holders, b.writing.bytes)
		b.writing = shared{}
	}
}

// take removes the first frames and appends them to buffer, up to about writeSize bytes in all. A large event ends the
// chunk.
func (b *backlog) take(buffer []byte) chunk {
	next, taken := chunk{bytes: buffer}, 0
	for i, f := range b.frames {
		if len(next.bytes) > 0 && len(next.bytes)+b.length(i) > writeSize {
			break
		}
		b.bytes -= b.length(i)
		if i < b.replayed {
			next = f.appendWithID(next.bytes, b.replay.After(f.row))
		} else {
			next = f.appendLive(next.bytes)
		}
		taken++
		if next.large != nil {
			b.beginWrite(shared{&f.holders, f.held()})
		}
		b.pending.release(&f.holders, f.held())
		b.frames[i] = nil
		if next.large != nil {
			break
		}
	}
	b.replayed = max(0, b.replayed-taken)
	if b.frames = b.frames[taken:]; len(b.frames) == 0 {
		b.frames, b.replay = nil, nil
	}
	b.buffer = next.bytes
	return next
}

// count updates the memory that is counted for this stream alone.
func (b *backlog) count() {
	own := goroutineSize + cap(b.buffer) + 8*cap(b.frames)
	if b.replay != nil {
		own += 8 * (len(b.replay.From().Xip) + len(b.replay.To().Xip))
	}
	b.pending.add(own - b.own)
	b.own = own
}

// drop removes all frames and releases all memory that is counted.
func (b *backlog) drop() {
	for _, f := range b.frames {
		b.pending.release(&f.holders, f.held())
	}
	b.endWrite()
	b.pending.add(-b.own)
	*b = backlog{pending: b.pending}
}
