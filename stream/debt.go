package stream

import (
	"sync/atomic"

	"rowcast/listener/cursor"
)

// A debt is what a subscriber is owed, and the memory that is held for that. A subscriber has one only while somebody writes to it.
// It is guarded by the subscriber's lock.
type debt struct {
	pending *pending
	backlog []*frame
	bytes   int // of the backlog, as they are sent

	// replay computes the ids of the first frames of the backlog, which are this client's own.
	replay   *cursor.Steps
	replayed int // the number of these frames
	longest  int // the length of the longest id that replay can have

	buffer []byte // of drain

	writing shared // what is being written, if other streams may have it too
	own     int    // bytes that are counted for this subscriber alone
}

// shared is memory that several streams hold. It is counted once for all.
type shared struct {
	holders *atomic.Int32
	bytes   int
}

// drainSize is about what a goroutine that writes to a client takes, in bytes.
const drainSize = 8 << 10

// length is what a frame of the backlog is on the way, in bytes.
func (d *debt) length(i int) int {
	f := d.backlog[i]
	if i < d.replayed {
		return f.length() - f.body + d.longest
	}
	return f.length()
}

// add appends a frame to the backlog.
func (d *debt) add(f *frame) {
	d.backlog = append(d.backlog, f)
	d.bytes += d.length(len(d.backlog) - 1)
	d.pending.hold(&f.holders, f.held())
}

// write notes that shared memory is being written.
func (d *debt) write(s shared) {
	d.pending.hold(s.holders, s.bytes)
	d.writing = s
}

// written notes that it has been.
func (d *debt) written() {
	if d.writing.holders != nil {
		d.pending.release(d.writing.holders, d.writing.bytes)
		d.writing = shared{}
	}
}

// take appends the next frames of the backlog to the buffer, up to about as much as is written in one go. then is what comes after the
// buffer: of a large event, which is not copied.
func (d *debt) take(buffer []byte) (_, then []byte) {
	taken := 0
	for i, f := range d.backlog {
		if len(buffer) > 0 && len(buffer)+d.length(i) > writeAtOnce {
			break
		}
		d.bytes -= d.length(i)
		if i < d.replayed {
			buffer, then = f.replayed(buffer, d.replay.After(f.row))
		} else {
			buffer, then = append(buffer, f.live...), f.rest
		}
		taken++
		if then != nil {
			d.write(shared{&f.holders, f.held()})
		}
		d.pending.release(&f.holders, f.held())
		d.backlog[i] = nil
		if then != nil {
			break
		}
	}
	d.replayed = max(0, d.replayed-taken)
	if d.backlog = d.backlog[taken:]; len(d.backlog) == 0 {
		d.backlog, d.replay = nil, nil
	}
	d.buffer = buffer
	return buffer, then
}

// count counts what this subscriber alone holds.
func (d *debt) count() {
	own := drainSize + cap(d.buffer) + 8*cap(d.backlog)
	if d.replay != nil {
		own += 8 * (len(d.replay.From.Xip) + len(d.replay.To.Xip))
	}
	d.pending.add(own - d.own)
	d.own = own
}

// forgive gives everything back.
func (d *debt) forgive() {
	for _, f := range d.backlog {
		d.pending.release(&f.holders, f.held())
	}
	d.written()
	d.pending.add(-d.own)
	*d = debt{pending: d.pending}
}
