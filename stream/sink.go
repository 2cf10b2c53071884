package stream

import (
	"context"
	"errors"
	"net"
	"net/http"
	"os"
	"sync"
	"syscall"
	"time"
)

// open writes the head of the response and returns the way to the client, nil if it has gone. The head is net/http's own. After
// it, plain HTTP/1.1 connections are taken over: written to directly they cost a sixth of the memory and two thirds of the CPU.
// Their body ends with the connection, without chunks, which every proxy passes on at once.
func (h *Hub) open(w http.ResponseWriter, r *http.Request) (out sink, direct bool) {
	setHeaders(w.Header())
	control := http.NewResponseController(w)
	direct = r.ProtoMajor == 1 && r.TLS == nil
	if direct {
		w.Header().Set("Transfer-Encoding", "identity")
	}
	w.WriteHeader(http.StatusOK)
	if err := control.Flush(); err != nil {
		if errors.Is(err, http.ErrNotSupported) { // else the client has gone already
			h.Logger.Error("the response cannot be streamed: is it wrapped in a middleware?", "error", err)
		}
		return nil, false
	}
	if direct {
		if conn, _, err := control.Hijack(); err == nil {
			return newSocket(conn, 2*h.Heartbeat), true
		}
	}
	return newResponse(r.Context(), w, control, 2*h.Heartbeat), false
}

// A socket is a connection taken over from net/http.
type socket struct {
	conn    net.Conn
	raw     syscall.RawConn // nil where there is no writing without waiting
	timeout time.Duration   // for taking no byte
}

func newSocket(conn net.Conn, timeout time.Duration) *socket {
	s := &socket{conn: conn, timeout: timeout}
	_ = conn.SetDeadline(time.Time{})
	if tcp, ok := conn.(*net.TCPConn); ok {
		// Heartbeats do its work, and Go's default closes idle connections of a busy machine.
		_ = tcp.SetKeepAlive(false)
		if raw, err := tcp.SyscallConn(); err == nil && canTry {
			s.raw = raw
			setUserTimeout(raw, timeout)
		}
	}
	return s
}

func (s *socket) try(b []byte) (n int, err error) {
	if s.raw == nil {
		return 0, nil
	}
	if waitErr := s.raw.Write(func(fd uintptr) bool {
		n, err = tryWrite(fd, b)
		return true
	}); waitErr != nil {
		return 0, waitErr
	}
	return n, err
}

// write is bounded by progress, not by completion: a slow client gets a large event, however long it takes.
func (s *socket) write(b []byte) error {
	for {
		if err := s.conn.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
			return err
		}
		n, err := s.conn.Write(b)
		b = b[n:]
		if err == nil {
			return s.conn.SetWriteDeadline(time.Time{})
		}
		if n == 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
	}
}

// wait reads, to notice the end. What a client sends on a stream means nothing.
func (s *socket) wait() {
	var buffer [64]byte
	for range 1024 { // who goes on and on means harm
		if _, err := s.conn.Read(buffer[:]); err != nil {
			break
		}
	}
	s.close()
}

func (s *socket) close() { _ = s.conn.Close() }

// A response is a stream over TLS or HTTP/2, written through net/http.
type response struct {
	w       http.ResponseWriter
	control *http.ResponseController
	timeout time.Duration
	gone    <-chan struct{}
	ended   chan struct{}
	once    sync.Once
}

func newResponse(ctx context.Context, w http.ResponseWriter, control *http.ResponseController, timeout time.Duration) *response {
	return &response{w: w, control: control, timeout: timeout, gone: ctx.Done(), ended: make(chan struct{})}
}

func (r *response) try([]byte) (int, error) { return 0, nil }

// progress is how much must be taken within the timeout: net/http does not tell of less.
const progress = 16 << 10

func (r *response) write(b []byte) error {
	for len(b) > 0 {
		if err := r.control.SetWriteDeadline(time.Now().Add(r.timeout)); err != nil && !errors.Is(err, http.ErrNotSupported) {
			return err
		}
		n, err := r.w.Write(b[:min(len(b), progress)])
		if err != nil {
			return err
		}
		b = b[n:]
	}
	return r.control.Flush()
}

func (r *response) wait() {
	select {
	case <-r.gone:
	case <-r.ended:
	}
}

// close lets wait return; net/http ends the stream when the handler has.
func (r *response) close() {
	r.once.Do(func() {
		close(r.ended)
		// A write that waits for the client must end, too.
		_ = r.control.SetWriteDeadline(time.Now())
	})
}
