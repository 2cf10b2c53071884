package stream

import "iter"

// A run is frames for the same subscribers that follow each other: they are written as one.
type run struct {
	frames []*frame
	bytes  []byte
	rest   []byte // comes after bytes: of a large event, which is a run of its own
}

// runOf is a run of one frame.
func runOf(f *frame) *run { return &run{[]*frame{f}, f.live, f.rest} }

// runs divides frames into runs of about as much as is written in one go.
func runs(frames []*frame) iter.Seq[*run] {
	return func(yield func(*run) bool) {
		for len(frames) > 0 {
			n, size := 1, frames[0].length()
			for n < len(frames) && frames[n].recipient == frames[0].recipient && size+frames[n].length() <= writeAtOnce {
				size += frames[n].length()
				n++
			}
			r := run{frames[:n], frames[0].live, frames[0].rest}
			if n > 1 {
				r.bytes = make([]byte, 0, size)
				for _, f := range r.frames {
					r.bytes = append(r.bytes, f.live...)
				}
			}
			if !yield(&r) {
				return
			}
			frames = frames[n:]
		}
	}
}
