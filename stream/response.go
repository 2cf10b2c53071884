package stream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// isDirect tells whether a connection can be taken over: written to directly, plain HTTP/1.1 costs a sixth of the memory and two
// thirds of the CPU.
func isDirect(r *http.Request) bool { return r.ProtoMajor == 1 && r.TLS == nil }

// open writes the head of the response, and what comes first, and returns the way to the client, nil if it has gone. The head is
// net/http's own. A connection that is taken over ends the body by its end, without chunks, which every proxy passes on at once.
func (h *Hub) open(w http.ResponseWriter, r *http.Request, direct bool, first []byte) (out sink, socket descriptor, taken bool) {
	setHeaders(w.Header())
	control := http.NewResponseController(w)
	if direct {
		w.Header().Set("Transfer-Encoding", "identity")
	}
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(first) // Flush has the error
	if err := control.Flush(); err != nil {
		if errors.Is(err, http.ErrNotSupported) { // else the client has gone already
			if logger, ok := h.unstreamed.Allow(h.Logger); ok {
				logger.Error("the response cannot be streamed: is it wrapped in a middleware?", "error", err)
			}
		}
		return nil, none, false
	}
	if direct {
		if conn, _, err := control.Hijack(); err == nil {
			s := newSocket(conn, 2*h.Heartbeat)
			return s, s.fd, true
		}
	}
	return newResponse(r.Context(), w, control, 2*h.Heartbeat), none, false
}

// A response is a stream over TLS or HTTP/2, written through net/http.
type response struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	gone    <-chan struct{}
	ended   chan struct{}

	mu      sync.Mutex
	writing bool
	closed  bool
}

func newResponse(ctx context.Context, w http.ResponseWriter, control *http.ResponseController, timeout time.Duration) *response {
	return &response{w: w, control: control, timeout: timeout, gone: ctx.Done(), ended: make(chan struct{})}
}

func (r *response) stuck() bool { return false }

// progress is how much must be taken within the timeout: net/http does not tell of less.
const progress = 16 << 10

func (r *response) write(b []byte) error {
	for len(b) > 0 {
		if err := r.allow(true); err != nil {
			return err
		}
		n, err := r.w.Write(b[:min(len(b), progress)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	if err := r.control.Flush(); err != nil {
		return err
	}
	return r.allow(false)
}

// allow begins or ends the time that the client has to take something. HTTP/2 resets a stream whose deadline passes, even if
// nothing is being written.
func (r *response) allow(writing bool) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return net.ErrClosed
	}
	r.writing = writing
	if !writing {
		return r.setDeadline(time.Time{})
	}
	return r.setDeadline(time.Now().Add(r.timeout))
}

func (r *response) setDeadline(t time.Time) error {
	if err := r.control.SetWriteDeadline(t); !errors.Is(err, http.ErrNotSupported) {
		return err
	}
	return nil
}

func (r *response) wait() {
	select {
	case <-r.gone:
	case <-r.ended:
	}
}

// shut lets wait return; net/http ends the stream when the handler has, and needs a moment for it. A write that waits for the
// client ends at once.
func (r *response) shut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.closed {
		return
	}
	r.closed = true
	close(r.ended)
	if r.writing {
		_ = r.setDeadline(time.Now())
	} else {
		_ = r.setDeadline(time.Now().Add(r.timeout))
	}
}

// cut can do no more: net/http closes a connection as soon as a write fails, and tells nobody before that.
func (r *response) cut() { r.shut() }

func (r *response) close() {}
