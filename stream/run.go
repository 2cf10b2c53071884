package stream

import "iter"

// A run is frames for the same subscribers that follow each other: they are written as one.
type run struct {
	frames []*frame
	bytes  []byte
}

// runOf is a run of one frame.
func runOf(f *frame) *run { return &run{[]*frame{f}, f.live} }

// runs divides frames into runs of about as much as is written in one go.
func runs(frames []*frame) iter.Seq[*run] {
	return func(yield func(*run) bool) {
		for len(frames) > 0 {
			n, size := 1, len(frames[0].live)
			for n < len(frames) && frames[n].recipient == frames[0].recipient && size+len(frames[n].live) <= writeAtOnce {
				size += len(frames[n].live)
				n++
			}
			r := run{frames[:n], frames[0].live}
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
