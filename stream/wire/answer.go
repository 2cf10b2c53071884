package wire

import (
	"net/http"
	"strconv"
	"time"
)

// An Answer is the Conn of a response that ends soon. It holds the first bytes, so a short response is sent in one
// piece with a Content-Length, and its connection can be used again. A longer response is sent while it is written.
type Answer struct {
	*response
	begun bool   // the head of the response has been sent; guarded by mu
	held  []byte // what has been written before the response begins
}

// maxHeld is the largest number of bytes that an Answer holds. The socket's buffer usually has space for them.
const maxHeld = 16 << 10

// NewAnswer returns an Answer. Nothing is sent before Finish, unless the response is long. NewAnswer removes the
// deadline for writing, because the first byte may be written much later, and HTTP/2 would reset the stream.
func NewAnswer(w http.ResponseWriter, r *http.Request, timeout time.Duration) *Answer {
	ignoreBody(w, r)
	control := http.NewResponseController(w)
	_ = control.SetWriteDeadline(time.Time{})
	return &Answer{response: newResponse(r.Context(), w, control, timeout)}
}

// Write holds b, or sends it if the response is long.
func (a *Answer) Write(b []byte) error {
	if len(a.held)+len(b) <= maxHeld && !a.hasBegun() {
		a.held = append(a.held, b...)
		return nil
	}
	if !a.begin() {
		return a.response.Write(b)
	}
	held := a.held
	a.held = nil
	if err := a.response.Write(held); err != nil {
		return err
	}
	return a.response.Write(b)
}

// begin reports whether this is its first call.
func (a *Answer) begin() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	first := !a.begun
	a.begun = true
	return first
}

func (a *Answer) hasBegun() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.begun
}

// Shutdown makes a write that is in progress fail. Finish can still send what is held.
func (a *Answer) Shutdown() {
	if a.hasBegun() {
		a.response.Shutdown()
	}
}

// Abort does the same as Shutdown.
func (a *Answer) Abort() { a.Shutdown() }

// IsEmpty reports whether nothing has been written.
func (a *Answer) IsEmpty() bool { return len(a.held) == 0 && !a.hasBegun() }

// Replace replaces what is held. It has no effect if the response has begun.
func (a *Answer) Replace(b []byte) { a.held = b }

// Finish sends the response if it is short, with a status. If the response has begun, Finish does nothing, and net/http
// sends the end of the response when the handler returns. No Write may follow.
func (a *Answer) Finish(status int) {
	if !a.begin() {
		return
	}
	_ = a.setDeadline(time.Now().Add(a.timeout))
	a.w.Header().Set("Content-Length", strconv.Itoa(len(a.held)))
	a.w.WriteHeader(status)
	_, _ = a.w.Write(a.held)
	// An error of Flush needs no action: either the client has disconnected, or w cannot flush and net/http sends the
	// response when the handler returns.
	_ = a.control.Flush()
}
