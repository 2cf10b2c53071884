package stream

import (
	"hash/maphash"
	"slices"
	"time"

	"rowcast/stream/sse"
)

// Disconnect ends the streams that this Hub has for a recipient, such as a user or a group. Clients of live streams
// receive rowcast.bye first. The clients reconnect, and get a stream again if they are authenticated again. Disconnect
// returns the number of streams that it ended. It does not count streams that were ending already.
//
// A call for a recipient without streams is cheap. It must be, because any role of the database can disconnect a
// million such recipients.
func (h *Hub) Disconnect(recipient string) (ended int) {
	h.init()
	st := h.state.Lock()
	defer h.state.Unlock()
	st.disconnects.add(recipient)
	streams := st.roster.toEnd(recipient)
	if len(streams) == 0 {
		return 0
	}
	last := note(eventBye, &st.cursor, []byte(`{"reason": "disconnected", "expires_in": 0}`))
	for _, s := range streams {
		if s.end(st.lastFrame(s, last)) {
			ended++
		}
	}
	h.Stats.Disconnected.Add(int64(ended))
	return ended
}

// A disconnects value records when each recipient was last disconnected, so that no stream is opened with a grant from
// before the disconnect. Because any role of the database can disconnect any number of recipients, recipients are
// hashed into a fixed number of places. If two recipients share a place, the disconnect of one counts for both. A
// client may then have to retry without need, but it never gets a stream that it must not get.
type disconnects struct {
	begin time.Time
	seed  maphash.Seed
	last  []time.Duration // by the hash of the recipient: the time from begin to the last disconnect; 0 means never
}

// disconnectPlaces is the number of places. They use 512 KiB.
const disconnectPlaces = 1 << 16

// disconnectLasts is the time for which a disconnect is kept. Grant.Known must not be longer ago.
const disconnectLasts = time.Minute

func (d *disconnects) add(recipient string) {
	if d.last == nil {
		d.begin, d.seed = time.Now().Add(-1), maphash.MakeSeed()
		d.last = make([]time.Duration, disconnectPlaces)
	}
	*d.place(recipient) = time.Since(d.begin)
}

func (d *disconnects) place(recipient string) *time.Duration {
	return &d.last[maphash.String(d.seed, recipient)%disconnectPlaces]
}

// since reports whether a recipient of a grant has been disconnected since Grant.Known. A disconnect that is longer ago
// than disconnectLasts does not count. If Known is zero, since returns false.
func (d *disconnects) since(grant Grant) bool {
	if d.last == nil || grant.Known.IsZero() {
		return false
	}
	known, now := grant.Known.Sub(d.begin), time.Since(d.begin)
	return slices.ContainsFunc(grant.Recipients(), func(recipient string) bool {
		last := *d.place(recipient)
		return last != 0 && last >= known && now-last <= disconnectLasts
	})
}

// lastFrame returns the last frame of a stream: a retry field and, on a live stream, an event whose id is the cursor to
// resume from. Events that are published later are not sent to the stream. The client receives them when it resumes.
func (st *state) lastFrame(s *subscriber, event *frame) *frame {
	last := &frame{live: sse.AppendRetry(nil, jitter(st.hub.Retry))}
	if st.roster.isLive(s) {
		last.live = append(last.live, event.live...)
	}
	return last
}
