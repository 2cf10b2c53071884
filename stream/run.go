package stream

import (
	"iter"
	"sync/atomic"
)

// A run is frames for the same subscribers that follow each other: they are written as one.
type run struct {
	frames  []*frame
	bytes   []byte
	rest    []byte       // comes after bytes: of a large event, which is a run of its own
	holders atomic.Int32 // streams that bytes are being written to, if there are several frames
}

// shared is the memory that is held while the run is being written.
func (r *run) shared() shared {
	if len(r.frames) == 1 {
		return shared{&r.frames[0].holders, r.frames[0].held()}
	}
	return shared{&r.holders, cap(r.bytes)}
}

// runOf lays frames together.
func runOf(frames ...*frame) *run {
	r := &run{frames: frames, bytes: frames[0].live, rest: frames[0].rest}
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

// runs divides frames where the recipient changes, and into about as much as is written in one go.
func runs(frames []*frame) iter.Seq[[]*frame] {
	return func(yield func([]*frame) bool) {
		for len(frames) > 0 {
			n, size := 1, frames[0].length()
			for n < len(frames) && frames[n].recipient == frames[0].recipient && size+frames[n].length() <= writeAtOnce {
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
