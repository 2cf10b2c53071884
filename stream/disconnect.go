package stream

import "rowcast/stream/sse"

// Disconnect ends the streams of a recipient: of a user, or of all who are in a group. Their clients are told so, and come back, if
// whoever answers them then lets them in. It returns how many there were that had not been ended before.
func (h *Hub) Disconnect(recipient string) (ended int) {
	h.init()
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, s := range h.roster.streamsOf(recipient) {
		if s.end(h.goodbye(s, note(bye, &h.cursor, []byte(`{"reason": "disconnected", "expires_in": 0}`)))) {
			ended++
		}
	}
	h.Stats.Disconnected.Add(int64(ended))
	return ended
}

// goodbye tells a subscriber from where and when to come back. No event may come after it: the cursor would be older than that.
func (h *Hub) goodbye(s *subscriber, last *frame) *frame {
	words := &frame{live: sse.AppendRetry(nil, h.jitter(h.Retry))}
	if h.roster.isLive(s) {
		words.live = append(words.live, last.live...)
	}
	return words
}
