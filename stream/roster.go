package stream

import (
	"math/rand/v2"
	"slices"
)

// A roster holds the open streams, by recipient and by the time of their heartbeat. It belongs to the state of a Hub.
// The mean time to add or remove a stream does not depend on the number of streams, because each stream knows its
// indexes.
type roster struct {
	parts      [slots]group      // all streams, by their slot
	recipients map[string]*group // the streams of each recipient
	open       int               // the number of streams
}

// slots is the number of parts into which a heartbeat interval is divided. Each stream has its heartbeats in one of
// these parts.
const slots = 32

// A seat holds the data of a stream that belongs to the Hub's state, such as its place in the roster. Only code that
// has locked the state uses it.
type seat struct {
	indexes []uint32 // the stream's indexes in the groups of its recipients
	lease   *lease   // nil if the grant of the stream does not end, and for a poll
	slot    uint32   // the part of the roster that the stream is in
	index   uint32   // the stream's index in that part of the roster
	active  uint64   // the tick at which something was last sent to the live stream, or 0
}

// A group holds the streams of one recipient or slot: first the live streams, then the streams that are joining.
type group struct {
	streams   []*subscriber
	live      int    // the number of live streams
	recipient string // "" for the group of a slot
	ended     bool   // Disconnect has ended all streams, and no stream was added since
}

func (r *roster) init() { r.recipients = make(map[string]*group) }

// add adds a stream that is not live yet.
func (r *roster) add(s *subscriber) {
	s.seat.slot = rand.Uint32N(slots)
	s.seat.indexes = make([]uint32, len(s.recipients))
	r.parts[s.seat.slot].add(s)
	for _, recipient := range s.recipients {
		g := r.recipients[recipient]
		if g == nil {
			g = &group{recipient: recipient}
			r.recipients[recipient] = g
		}
		g.add(s)
	}
	r.open++
}

// makeLive makes a stream live. Only state.goLive calls it. state.goLive also gives the stream the events that its
// client has missed.
func (r *roster) makeLive(s *subscriber) {
	r.parts[s.seat.slot].makeLive(s)
	for _, recipient := range s.recipients {
		r.recipients[recipient].makeLive(s)
	}
}

// remove removes a stream, live or not.
func (r *roster) remove(s *subscriber) {
	r.parts[s.seat.slot].remove(s)
	for _, recipient := range s.recipients {
		g := r.recipients[recipient]
		if g.remove(s); len(g.streams) == 0 {
			delete(r.recipients, recipient)
		}
	}
	r.open--
}

// audience returns the live streams that receive an event for a recipient, in parts, and their number.
func (r *roster) audience(recipient string) (parts [][]*subscriber, n int) {
	g := r.recipients[recipient]
	if g == nil {
		return nil, 0
	}
	return slices.Collect(slices.Chunk(g.streams[:g.live], audiencePart)), g.live
}

// audiencePart is the largest number of streams in a part of a recipient's audience. A goroutine sends to one part
// after another.
const audiencePart = 128

// inSlot returns the live streams that have their heartbeat at a tick.
func (r *roster) inSlot(tick uint64) []*subscriber {
	g := &r.parts[tick%slots]
	return g.streams[:g.live]
}

// toEnd returns the streams of a recipient, live or not, for a caller that ends all of them. Until a stream is added,
// further calls return no streams. This keeps repeated calls cheap: ended streams may take a while to close, and any
// role of the database can make the Hub call toEnd again and again.
func (r *roster) toEnd(recipient string) []*subscriber {
	g := r.recipients[recipient]
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

func (r *roster) isLive(s *subscriber) bool { return int(s.seat.index) < r.parts[s.seat.slot].live }

func (g *group) add(s *subscriber) {
	g.ended = false
	*g.index(s) = uint32(len(g.streams))
	g.streams = append(g.streams, s)
}

func (g *group) makeLive(s *subscriber) {
	g.swap(int(*g.index(s)), g.live)
	g.live++
}

func (g *group) remove(s *subscriber) {
	at := int(*g.index(s))
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
	*g.index(g.streams[i]), *g.index(g.streams[j]) = uint32(i), uint32(j)
}

// index returns the place where a stream stores its index in the group. The recipients of a stream are sorted.
func (g *group) index(s *subscriber) *uint32 {
	if g.recipient == "" {
		return &s.seat.index
	}
	at, _ := slices.BinarySearch(s.recipients, g.recipient)
	return &s.seat.indexes[at]
}
