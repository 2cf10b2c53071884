// Package wire writes streams to the connections of their clients.
//
// [Open] begins the response. It takes a plain HTTP/1.1 connection over from net/http, because writing to the socket
// directly costs about a sixth of the memory and two thirds of the CPU of writing through net/http. Other streams are
// written through net/http: streams over TLS or HTTP/2, and streams whose connection cannot be taken over. A [Watcher]
// notices when clients disconnect.
//
// The package uses the descriptor of a socket only inside calls of [syscall.RawConn]. The Go runtime keeps the
// descriptor open during each call, so a write cannot reach a socket that was opened later under the same number.
package wire

import (
	"net/http"
	"time"
)

// A Conn is the connection of one stream to its client. Only one goroutine at a time may call Write, or Try of the
// Direct. Only one goroutine at a time may call Stalled. Shutdown and Abort may be called at any time before Close.
type Conn interface {
	// Direct returns the Direct of the connection.
	Direct() Direct
	// Write writes all of b. It fails when the client makes no progress for the timeout.
	Write(b []byte) error
	// Stalled is called once each heartbeat interval. It reports whether there was something to accept and the client
	// has accepted nothing during the last two intervals. Through net/http, and on systems other than Linux, it
	// always returns false, and a Write fails instead.
	Stalled() bool
	// Shutdown ends the stream. The client still receives what was written before, unless it accepts nothing for the
	// timeout of Open. Through net/http, a Write that is in progress fails.
	Shutdown()
	// Abort ends the stream. If the connection was taken over, Close then drops what the client has not accepted.
	Abort()
	// Close releases the connection. It must be the last call.
	Close()
}

// CanTakeOver reports whether Open tries to take over the connection of a request from net/http.
func CanTakeOver(r *http.Request) bool { return r.ProtoMajor == 1 && r.TLS == nil }

// Open writes the head of the response, which net/http formats, and the first bytes of the body. timeout is the time
// after which a Write fails if the client accepts nothing. On a connection that is taken over, the body ends with the
// connection. It is not chunked, because some proxies delay chunks. Open fails on such a connection if the client does not
// accept the first bytes within the timeout. Open fails with an error that is [http.ErrNotSupported] if w cannot flush.
func Open(w http.ResponseWriter, r *http.Request, first []byte, timeout time.Duration) (Conn, error) {
	control := http.NewResponseController(w)
	takeOver := CanTakeOver(r)
	if takeOver {
		w.Header().Set("Transfer-Encoding", "identity")
		_ = control.SetWriteDeadline(time.Now().Add(timeout)) // newSocket removes it
	}
	ignoreBody(w, r)
	w.WriteHeader(http.StatusOK)
	_, _ = w.Write(first) // Flush returns an error of this write
	if err := control.Flush(); err != nil {
		return nil, err
	}
	if takeOver {
		if conn, _, err := control.Hijack(); err == nil {
			return newSocket(conn, timeout), nil
		}
	}
	return newResponse(r.Context(), w, control, timeout), nil
}

// ignoreBody makes sure that the response begins even if the client has announced a body and does not send it. Before
// the response, net/http reads a body, unless the connection is closed after the response. No timeout of a write limits
// this read.
func ignoreBody(w http.ResponseWriter, r *http.Request) {
	if r.ProtoMajor == 1 && r.ContentLength != 0 {
		w.Header().Set("Connection", "close")
	}
}

// A Watcher notices when clients disconnect. T identifies a stream. Gone must be set before the first call of Watch.
// Gone is called once for each stream. For a stream through net/http, Watch calls Gone. For any other stream, a
// separate goroutine calls Gone.
type Watcher[T any] struct {
	Gone func(T)

	poller poller[T]
}

// Watch makes sure that Gone is called when the client has disconnected or the stream has ended. For a connection that
// was taken over, Watch returns at once. For any other connection, Watch returns after the call of Gone, because
// net/http ends the stream when the handler returns.
func (w *Watcher[T]) Watch(conn Conn, stream T) {
	switch c := conn.(type) {
	case *response:
		c.wait()
		w.Gone(stream)
	case *socket:
		if !w.poller.add(c, stream, w.Gone) {
			go func() { // Watch returns, so that net/http's goroutine ends and frees its large buffers
				c.wait()
				w.Gone(stream)
			}()
		}
	}
}
