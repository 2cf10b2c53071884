package stream

import (
	"math/rand/v2"
	"slices"
)

// A roster says which streams an event is for. It is guarded by the hub's lock. Adding and removing a stream costs the same however
// many streams there are: each one knows its places.
type roster struct {
	// parts are all streams, by the time of their heartbeat. An event for everyone is for all that are live.
	parts [slots]group
	// of are the streams of each recipient.
	of map[string]*group
}

// slots are the parts into which a heartbeat is spread. Each subscriber belongs to one.
const slots = 32

// A group is streams that something concerns together: first those that are live, then those that are joining.
type group struct {
	streams   []*subscriber
	live      int    // the number of streams that are live
	recipient string // that the streams have in common; "" in a part of the roster
	ended     bool   // none was added since Disconnect ended all of them
}

func (r *roster) init() {
	r.of = make(map[string]*group)
}

// admit adds a subscriber that is not live yet.
func (r *roster) admit(s *subscriber) {
	s.slot = rand.Uint32N(slots)
	s.places = make([]uint32, len(s.recipients))
	r.parts[s.slot].add(s)
	for _, recipient := range s.recipients {
		g := r.of[recipient]
		if g == nil {
			g = &group{recipient: recipient}
			r.of[recipient] = g
		}
		g.add(s)
	}
}

// register makes a subscriber live. It must be given the rest of what it is owed under the same lock.
func (r *roster) register(s *subscriber) {
	r.parts[s.slot].makeLive(s)
	for _, recipient := range s.recipients {
		r.of[recipient].makeLive(s)
	}
}

// remove forgets a subscriber, live or not.
func (r *roster) remove(s *subscriber) {
	r.parts[s.slot].remove(s)
	for _, recipient := range s.recipients {
		g := r.of[recipient]
		if g.remove(s); len(g.streams) == 0 {
			delete(r.of, recipient)
		}
	}
}

// place is where a subscriber keeps its index in the group. Its recipients are sorted.
func (g *group) place(s *subscriber) *uint32 {
	if g.recipient == "" {
		return &s.place
	}
	at, _ := slices.BinarySearch(s.recipients, g.recipient)
	return &s.places[at]
}

func (g *group) add(s *subscriber) {
	g.ended = false
	*g.place(s) = uint32(len(g.streams))
	g.streams = append(g.streams, s)
}

func (g *group) makeLive(s *subscriber) {
	g.swap(int(*g.place(s)), g.live)
	g.live++
}

func (g *group) remove(s *subscriber) {
	at := int(*g.place(s))
	if at < g.live {
		g.live--
		g.swap(at, g.live)
		at = g.live
	}
	last := len(g.streams) - 1
	g.swap(at, last)
	g.streams[last] = nil
	if g.streams = g.streams[:last]; cap(g.streams) > 64 && last < cap(g.streams)/4 {
		g.streams = slices.Clip(slices.Clone(g.streams))
	}
}

func (g *group) swap(i, j int) {
	if i == j {
		return
	}
	g.streams[i], g.streams[j] = g.streams[j], g.streams[i]
	*g.place(g.streams[i]), *g.place(g.streams[j]) = uint32(i), uint32(j)
}

// audience returns the live streams that an event for a recipient ("" is everyone) is for, in parts, and their number.
func (r *roster) audience(recipient string) (parts [][]*subscriber, n int) {
	if recipient != "" {
		g := r.of[recipient]
		if g == nil {
			return nil, 0
		}
		return slices.Collect(slices.Chunk(g.streams[:g.live], audiencePart)), g.live
	}
	parts = make([][]*subscriber, slots)
	for i := range parts {
		parts[i] = r.beatOf(uint64(i))
		n += len(parts[i])
	}
	return parts, n
}

// audiencePart is what one goroutine takes at a time.
const audiencePart = 128

// beatOf returns the live streams that have their heartbeat at a tick.
func (r *roster) beatOf(tick uint64) []*subscriber {
	g := &r.parts[tick%slots]
	return g.streams[:g.live]
}

// unended returns the streams of a recipient, live or not, for its caller to end all of them. Until one is added, it returns none
// after that: some may take a while to go, and the caller can be made to ask again and again.
func (r *roster) unended(recipient string) []*subscriber {
	g := r.of[recipient]
	if g == nil || g.ended {
		return nil
	}
	g.ended = true
	return slices.Clone(g.streams)
}

// all returns all streams, live or not.
func (r *roster) all() (all []*subscriber) {
	for i := range r.parts {
		all = append(all, r.parts[i].streams...)
	}
	return all
}

func (r *roster) isLive(s *subscriber) bool {
	return int(s.place) < r.parts[s.slot].live
}
