package stream

import (
	"maps"
	"slices"
	"time"

	"rowcast/stream/sse"
)

// Disconnect ends the streams of a recipient: of a user, or of all who are in a group. Their clients are told so, and come back, if
// whoever answers them then lets them in. It returns how many there were that had not been ended before.
func (h *Hub) Disconnect(recipient string) (ended int) {
	h.init()
	h.mu.Lock()
	defer h.mu.Unlock()
	h.disconnects.note(recipient)
	last := note(bye, &h.cursor, []byte(`{"reason": "disconnected", "expires_in": 0}`))
	for _, s := range h.roster.streamsOf(recipient) {
		if s.end(h.goodbye(s, last)) {
			ended++
		}
	}
	h.Stats.Disconnected.Add(int64(ended))
	return ended
}

// disconnects are the last ones: what was found out before, and is only now told to the hub, no longer counts.
type disconnects struct {
	of    map[string]time.Time // by recipient
	swept time.Time
}

// rememberDisconnects is for how long at least: far more than it takes to find out whose a stream is.
const rememberDisconnects = time.Minute

func (d *disconnects) note(recipient string) {
	now := time.Now()
	if d.of == nil {
		d.of = make(map[string]time.Time)
	}
	if now.Sub(d.swept) > rememberDisconnects { // not each time: any role of the database can disconnect thousands
		maps.DeleteFunc(d.of, func(_ string, at time.Time) bool { return now.Sub(at) > rememberDisconnects })
		d.swept = now
	}
	d.of[recipient] = now
}

// since tells whether one of a grant's recipients has been disconnected since the grant was known.
func (d disconnects) since(grant Grant) bool {
	return !grant.Known.IsZero() && slices.ContainsFunc(grant.Recipients(), func(r string) bool { return !d.of[r].Before(grant.Known) })
}

// goodbye tells a subscriber from where and when to come back. No event may come after it: the cursor would be older than that.
func (h *Hub) goodbye(s *subscriber, last *frame) *frame {
	words := &frame{live: sse.AppendRetry(nil, h.jitter(h.Retry))}
	if h.roster.isLive(s) {
		words.live = append(words.live, last.live...)
	}
	return words
}
