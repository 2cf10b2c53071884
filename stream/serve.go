package stream

import (
	"cmp"
	"net/http"
	"sync/atomic"
	"time"

	"rowcast/listener/cursor"
	"rowcast/stream/sse"
)

// Serve answers a request with a stream of what is for the grant's recipients, and for everyone. That the request has a right to it
// is the caller's to know. It sets the response's headers but leaves those that are there, as for CORS.
//
// To [Limits], the address is the request's RemoteAddr: what stands behind proxies must have
// put the client's own there, with a port or without.
//
// The client's cursor is the Last-Event-ID header or, without one, the last_event_id query parameter. One that cannot be
// honoured is answered with a rowcast.reset event that says why, never with an error: an EventSource that meets any status
// but 200 does not come back.
func (h *Hub) Serve(w http.ResponseWriter, r *http.Request, grant Grant) {
	h.init()
	if r.Method == http.MethodHead { // has no body that could be streamed
		setHeaders(w.Header())
		return
	}
	s := h.newSubscriber(grant)
	s.holder = h.Limits.holderOf(grant.User, r)
	if refused, wait := h.admit(s, grant); refused != nil {
		refused.Add(1)
		h.comeBackLater(w, wait)
		return
	}
	claim, direct := claimOf(r), isDirect(r)
	claim.by = readerOf(grant.User, r)
	var first []byte
	if direct { // else writing could have to wait
		first = h.welcome(s, claim)
	}
	out, socket, direct := h.open(w, r, direct, first)
	if out == nil {
		s.giveUp()
		h.remove(s)
		return
	}
	s.attach(out, socket)
	if first != nil {
		s.goOn()
	} else {
		go h.join(s, claim)
	}
	wait := func() {
		out.wait()
		h.gone(s)
	}
	if !direct {
		wait()
	} else if !h.watcher.watch(socket, s) {
		go wait() // net/http's goroutine has grown large and its buffers, too: they are given back
	}
}

func (h *Hub) newSubscriber(grant Grant) *subscriber {
	s := &subscriber{hub: h, user: grant.User, recipients: grant.Recipients(), joining: true, busy: true}
	s.quiet.L = &s.mu
	return s
}

// gone ends a stream whose client has gone or that has been closed.
func (h *Hub) gone(s *subscriber) {
	s.finish()
	h.remove(s)
	s.out.close()
}

// remove forgets a subscriber.
func (h *Hub) remove(s *subscriber) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.roster.remove(s)
	h.census.count(s.holder, -1)
	h.endLease(s)
	h.Stats.Streams.Add(-1)
}

// admit counts a stream in, unless there can be none now. Then it says where that is counted, and after which time to come back.
func (h *Hub) admit(s *subscriber, grant Grant) (refused *atomic.Int64, wait time.Duration) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if !h.begun || h.stopping || h.disconnects.since(grant) {
		return &h.Stats.Refused.Away, 2 * h.Retry
	}
	if refused := h.exceeded(s.holder); refused != nil {
		return refused, 10 * h.Retry // what others must leave is not soon there
	}
	h.roster.admit(s)
	h.census.count(s.holder, 1)
	h.lease(s, grant)
	h.Stats.Streams.Add(1)
	h.Stats.Opened.Add(1)
	return nil, 0
}

// ComeBackLater answers with an empty stream, which an EventSource comes back from, unlike from any status but 200: for what will
// pass, such as when nobody can say who this is.
func (h *Hub) ComeBackLater(w http.ResponseWriter) {
	h.init()
	h.comeBackLater(w, 2*h.Retry)
}

func (h *Hub) comeBackLater(w http.ResponseWriter, wait time.Duration) {
	setHeaders(w.Header())
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(append(sse.AppendRetry(nil, h.jitter(wait)), '\n'))
}

// setHeaders says what this is, and each of the others keeps some proxy from holding it back.
func setHeaders(header http.Header) {
	header.Set("Content-Type", "text/event-stream")
	header.Set("Cache-Control", "no-store, no-transform")
	header.Set("X-Accel-Buffering", "no")
}

// maxCursor is the longest text, in bytes, that is parsed as a cursor. Every cursor of ours is shorter: cursor.Parse refuses more than
// cursor.MaxInFlight transactions in flight.
const maxCursor = 16 << 10

func claimOf(r *http.Request) claim {
	text := cmp.Or(r.Header.Get("Last-Event-ID"), r.URL.Query().Get("last_event_id"))
	if text == "" {
		return claim{}
	}
	if len(text) > maxCursor {
		return claim{given: true, malformed: true}
	}
	c, err := cursor.Parse(text)
	return claim{cursor: c, given: true, malformed: err != nil}
}
