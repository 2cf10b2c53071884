package stream

import (
	"math/rand/v2"
	"slices"
)

// A roster is who is to be told what. It is guarded by the hub's lock.
type roster struct {
	// joining are the streams that are not live yet.
	joining map[*subscriber]struct{}
	// live are all others, by the time of their heartbeat: who is for everyone is for all of them.
	live [slots][]*subscriber
	// of are those who are live, by recipient.
	of map[string][]*subscriber
}

// slots are the parts into which a heartbeat is spread: each subscriber has its own.
const slots = 32

func (r *roster) init() {
	r.joining = make(map[*subscriber]struct{})
	r.of = make(map[string][]*subscriber)
}

// register makes a subscriber live. It must be given the rest of what it is owed under the same lock.
func (r *roster) register(s *subscriber) {
	delete(r.joining, s)
	s.slot = rand.Uint32N(slots)
	r.live[s.slot] = append(r.live[s.slot], s)
	for _, recipient := range s.recipients {
		r.of[recipient] = append(r.of[recipient], s)
	}
}

// audience are those who are live and to be told what is for a recipient ("" is everyone), in parts, and their number.
func (r *roster) audience(recipient string) (parts [][]*subscriber, n int) {
	if recipient != "" {
		of := r.of[recipient]
		return slices.Collect(slices.Chunk(of, audiencePart)), len(of)
	}
	for _, part := range r.live {
		n += len(part)
	}
	return r.live[:], n
}

// audiencePart is what one goroutine takes at a time.
const audiencePart = 128

// remove forgets a subscriber, live or not.
func (r *roster) remove(s *subscriber) {
	if _, joining := r.joining[s]; joining {
		delete(r.joining, s)
		return
	}
	r.live[s.slot] = without(r.live[s.slot], s)
	for _, recipient := range s.recipients {
		if left := without(r.of[recipient], s); len(left) > 0 {
			r.of[recipient] = left
		} else {
			delete(r.of, recipient)
		}
	}
}

// without takes one out; the order of the others is nobody's.
func without(of []*subscriber, s *subscriber) []*subscriber {
	at := slices.Index(of, s)
	last := len(of) - 1
	of[at], of[last] = of[last], nil
	if of = of[:last]; cap(of) > 64 && len(of) < cap(of)/4 {
		of = slices.Clip(slices.Clone(of))
	}
	return of
}

// streamsOf are the streams of a recipient, live or not.
func (r *roster) streamsOf(recipient string) []*subscriber {
	streams := slices.Clone(r.of[recipient])
	for s := range r.joining {
		if slices.Contains(s.recipients, recipient) {
			streams = append(streams, s)
		}
	}
	return streams
}

// all are the streams, live or not.
func (r *roster) all() []*subscriber {
	var all []*subscriber
	for s := range r.joining {
		all = append(all, s)
	}
	for _, live := range r.live {
		all = append(all, live...)
	}
	return all
}

func (r *roster) isLive(s *subscriber) bool {
	_, joining := r.joining[s]
	return !joining
}
