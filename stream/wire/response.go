package wire

import (
	"context"
	"errors"
	"net"
	"net/http"
	"sync"
	"time"
)

// A response is the Conn of a stream that is written through net/http, because the stream is over TLS or HTTP/2, or
// because its connection cannot be taken over.
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

// Direct returns the zero Direct, because net/http cannot write without waiting.
func (r *response) Direct() Direct { return Direct{} }

// minProgress is how many bytes a client must accept within the timeout. Data is written in pieces of at most this
// size, because net/http does not show the progress within a piece.
const minProgress = 16 << 10

func (r *response) Write(b []byte) error {
	for len(b) > 0 {
		if err := r.setWriting(true); err != nil {
			return err
		}
		n, err := r.w.Write(b[:min(len(b), minProgress)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	if err := r.control.Flush(); err != nil {
		return err
	}
	return r.setWriting(false)
}

// setWriting sets the deadline of a write before the write, and removes the deadline after it. A deadline that passes
// between two writes would make HTTP/2 reset the stream.
func (r *response) setWriting(writing bool) error {
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

// Stalled returns false. A write that makes no progress fails at its deadline.
func (r *response) Stalled() bool { return false }

// wait returns when the client has disconnected or the stream has ended.
func (r *response) wait() {
	select {
	case <-r.gone:
	case <-r.ended:
	}
}

// Shutdown lets the handler return, after which net/http ends the stream. If no write is in progress, net/http has the
// timeout to send the end. A write that waits for the client fails at once.
func (r *response) Shutdown() {
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

// Abort does the same as Shutdown.
func (r *response) Abort() { r.Shutdown() }

// Close does nothing, because net/http owns the connection.
func (r *response) Close() {}
