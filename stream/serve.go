package stream

import (
	"errors"
	"net/http"
	"sync/atomic"
	"time"

	"rowcast/listener/cursor"
	"rowcast/stream/sse"
	"rowcast/stream/wire"
)

// Serve answers a request with a stream of the events for the recipients of a grant and for everyone, or with "retry
// later" if the stream cannot be opened now. The caller must have authenticated the request. Serve sets the headers of
// the response and keeps other headers that are set already, such as the headers for CORS.
//
// [Limits] by address use the request's RemoteAddr, with a port or without. Behind a proxy, the caller must put the
// client's address there.
//
// The stream continues from the client's cursor, which is the Last-Event-ID header, or else the query parameter
// last_event_id or lastEventId, in upper or lower case. Of several values, the last one that is not empty applies. If
// the stream cannot continue from the cursor, a rowcast.reset event says why. The status of a stream is 200, because an
// EventSource that receives any other status does not reconnect. The status of "retry later" can be changed, see
// [Hub.UnavailableStatus].
//
// With the query parameter poll=1, the response is the answer to a poll instead. The answer is a short stream. It ends
// after some or all of the events that the client has missed, the next events, a heartbeat, rowcast.bye or
// rowcast.reset. Without a cursor, it ends after rowcast.hello. If poll has another value than 1, the status is 400.
//
// The response to a HEAD request has the status and the headers of the response to GET for a stream, except Connection
// and Transfer-Encoding. It has no body. A HEAD request opens no stream and begins no poll. So with poll=1, its status
// does not say whether the hub can read missed rows.
func (h *Hub) Serve(w http.ResponseWriter, r *http.Request, grant Grant) {
	h.init()
	poll, ok := isPoll(r)
	if !ok {
		w.Header().Set("Cache-Control", "no-store")
		http.Error(w, "poll must be 1: leave the parameter out to get a stream", http.StatusBadRequest)
		return
	}
	s := newSubscriber(h, grant, h.Limits.ownerOf(grant.User, r))
	if refused, wait := h.admit(s, grant, r.Method != http.MethodHead, poll); refused != nil {
		refused.Add(1)
		h.retryLater(w, wait)
		return
	}
	if r.Method == http.MethodHead {
		setHeaders(w.Header())
		return
	}
	if poll {
		setHeaders(w.Header())
		h.poll(w, r, s, grant)
		return
	}
	resume := clientCursorOf(r)
	var first []byte
	// Without a takeover, the stream begins in the goroutine of join, because a write through net/http may have to wait.
	if wire.CanTakeOver(r) {
		first = h.beginAtOnce(s, resume)
	}
	setHeaders(w.Header())
	conn, err := wire.Open(w, r, first, 2*h.Heartbeat)
	if err != nil {
		h.logUnstreamed(err)
		s.abandonJoin()
		h.remove(s)
		return
	}
	s.attach(conn)
	if first != nil {
		s.begin()
	} else {
		go h.join(s, resume, readerOf(grant.User, r))
	}
	h.watcher.Watch(conn, s)
}

// admit adds a stream. If add is false, it only checks whether the stream can be opened. If the stream cannot be opened
// now, admit returns the counter of the reason and the mean time after which the client retries. A poll needs no lease,
// because its waiting time ends with its grant (see pollTime).
func (h *Hub) admit(s *subscriber, grant Grant, add, poll bool) (refused *atomic.Int64, wait time.Duration) {
	st := h.state.Lock()
	defer h.state.Unlock()
	if !st.begun || st.stopping || st.disconnects.since(grant) {
		return &h.Stats.Refused.Unavailable, 2 * h.Retry
	}
	if refused := st.exceeded(s.owner); refused != nil {
		return refused, 10 * h.Retry // the other streams may stay open for a while
	}
	if !add {
		return nil, 0
	}
	st.roster.add(s)
	st.counts.add(s.owner, 1)
	h.Stats.Streams.Add(1)
	if poll {
		h.Stats.Polls.Add(1)
		return nil, 0
	}
	st.addLease(s, grant)
	h.Stats.Opened.Add(1)
	return nil, 0
}

// beginAtOnce makes a stream live, unless goLiveAtOnce reports that it cannot. It returns the first bytes of the stream,
// which Serve writes together with the head of the response. If the stream is not live, beginAtOnce returns nil, and
// Serve starts join.
func (h *Hub) beginAtOnce(s *subscriber, resume clientCursor) []byte {
	c, missed, ok := h.goLiveAtOnce(s, resume)
	if !ok {
		return nil
	}
	first := append([]byte(opening), h.hello(&c, s)...)
	if missed == 0 {
		return first
	}
	next, ok := s.next(first, nil)
	if !ok { // the stream has been closed meanwhile
		return first
	}
	h.Stats.Replayed.Add(int64(missed))
	return next.bytes
}

// maxAtOnce is the largest number of bytes of missed events that are written together with the head of the response.
// The socket's buffer usually has space for them, so the write does not wait for the client.
const maxAtOnce = 16 << 10

// goLiveAtOnce makes a stream live if its client sent no cursor, because such a client has missed nothing. It also makes
// a stream live if the client can continue from its cursor, and has missed only few events, which are all in memory. ok
// is false if the stream is not live, which is always so while the Hub's cursor is not whole (see lockWhole). c is the
// cursor at which the stream begins. missed is the number of missed events.
func (h *Hub) goLiveAtOnce(s *subscriber, resume clientCursor) (c cursor.Cursor, missed int, ok bool) {
	st := h.state.Lock()
	defer h.state.Unlock()
	now := st.cursor
	if !now.Whole() {
		return now, 0, false
	}
	if !resume.given {
		st.goLive(s, nil, nil)
		return now, 0, true
	}
	c = resume.cursor
	if resume.malformed || c.Epoch != now.Epoch || !c.SeenBelow(st.horizon) || !now.Covers(c) || !c.Covers(st.memory.from) {
		return c, 0, false
	}
	frames, steps := st.memory.since(c, s.recipients), cursor.NewSteps(c, now)
	if len(frames) > maxUnderLock || lengthWithIDs(frames, maxIDLength(steps)) > maxAtOnce {
		return c, 0, false // join searches the frames
	}
	frames = unseen(c, frames)
	st.goLive(s, frames, steps)
	st.limitPending()
	return c, len(frames), true
}

// gone ends a stream whose client has disconnected or that has been closed.
func (h *Hub) gone(s *subscriber) {
	conn := s.finish()
	h.remove(s)
	conn.Close()
}

func (h *Hub) remove(s *subscriber) {
	st := h.state.Lock()
	defer h.state.Unlock()
	st.roster.remove(s)
	st.counts.add(s.owner, -1)
	st.removeLease(s)
	h.Stats.Streams.Add(-1)
}

// logUnstreamed logs an error of wire.Open if the response cannot be streamed. Any other error means that the client
// has disconnected, or has not accepted the first bytes in time.
func (h *Hub) logUnstreamed(err error) {
	if !errors.Is(err, http.ErrNotSupported) {
		return
	}
	if logger, ok := h.unstreamed.Allow(h.Logger); ok {
		logger.Error("the response cannot be streamed; a middleware may wrap the ResponseWriter without Unwrap", "error", err)
	}
}

// RetryLater answers with an empty stream that says after which time the client must retry. It is for temporary
// conditions, such as an authentication service that does not answer. The status is [Hub.UnavailableStatus].
func (h *Hub) RetryLater(w http.ResponseWriter) {
	h.init()
	h.retryLater(w, 2*h.Retry)
}

func (h *Hub) retryLater(w http.ResponseWriter, wait time.Duration) {
	setHeaders(w.Header())
	w.WriteHeader(h.UnavailableStatus)
	// No empty line follows, because some clients report an event with empty data for each empty line.
	_, _ = w.Write(sse.AppendRetry(nil, jitter(wait)))
}

// setHeaders sets the content type, and headers that keep proxies from buffering, compressing or storing the stream.
func setHeaders(header http.Header) {
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store, no-transform")
	header.Set("X-Accel-Buffering", "no")
}
