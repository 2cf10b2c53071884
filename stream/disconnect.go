package stream

import (
	"hash/maphash"
	"slices"
	"time"

	"rowcast/stream/sse"
)

// Disconnect ends the streams of a recipient: of a user, or of all who are in a group. Their clients are told so, and come back, if
// whoever answers them then lets them in. It returns how many there were that had not been ended before. For a recipient without
// streams, which any role of the database can name a million times, it costs very little.
func (h *Hub) Disconnect(recipient string) (ended int) {
	h.init()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disconnects.note(recipient)
	streams := h.roster.unended(recipient)
	if len(streams) == 0 {
		return 0
	}
	last := note(bye, &h.cursor, []byte(`{"reason": "disconnected", "expires_in": 0}`))
	for _, s := range streams {
		if s.end(h.goodbye(s, last)) {
			ended++
		}
	}
	h.Stats.Disconnected.Add(int64(ended))
	return ended
}

// disconnects remember when a recipient was last disconnected: a grant that was found out before that no longer counts. Any role of
// the database can disconnect any number of recipients, so they share a fixed number of places. In one that several share, the
// last disconnect stands for all of them: then a client is told to come back although nobody meant it, but none of those that
// were meant gets a stream.
type disconnects struct {
	begin time.Time
	seed  maphash.Seed
	last  []time.Duration // since begin, by the hash of the recipient; 0: never. Nil before the first disconnect
}

// disconnectPlaces are 512 KiB.
const disconnectPlaces = 1 << 16

// rememberDisconnects is for how long a disconnect counts: far more than it takes to find out whose a stream is.
const rememberDisconnects = time.Minute

func (d *disconnects) note(recipient string) {
	if d.last == nil {
		d.begin, d.seed = time.Now().Add(-1), maphash.MakeSeed()
		d.last = make([]time.Duration, disconnectPlaces)
	}
	*d.place(recipient) = time.Since(d.begin)
}

func (d *disconnects) place(recipient string) *time.Duration {
	return &d.last[maphash.String(d.seed, recipient)%disconnectPlaces]
}

// since reports whether one of a grant's recipients has been disconnected since the grant was known.
func (d *disconnects) since(grant Grant) bool {
	if d.last == nil || grant.Known.IsZero() {
		return false
	}
	known, now := grant.Known.Sub(d.begin), time.Since(d.begin)
	return slices.ContainsFunc(grant.Recipients(), func(recipient string) bool {
		last := *d.place(recipient)
		return last != 0 && last >= known && now-last <= rememberDisconnects
	})
}

// goodbye tells a subscriber from where and when to come back. No event may come after it: the cursor would be older than that.
func (h *Hub) goodbye(s *subscriber, last *frame) *frame {
	words := &frame{live: sse.AppendRetry(nil, h.jitter(h.Retry))}
	if h.roster.isLive(s) {
		words.live = append(words.live, last.live...)
	}
	return words
}
