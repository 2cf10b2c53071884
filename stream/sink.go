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

	// Of try, which is called for every event and must not allocate.
	attempt func(fd uintptr) bool
	bytes   []byte
	wrote   int
	err     error

	// Of stuck.
	acknowledged uint64
	silent       int // heartbeats
}

func newSocket(conn net.Conn, timeout time.Duration) *socket {
	s := &socket{conn: conn, timeout: timeout}
	_ = conn.SetDeadline(time.Time{})
	if tcp, ok := conn.(*net.TCPConn); ok {
		// Heartbeats do its work, and Go's default closes idle connections of a busy machine.
		_ = tcp.SetKeepAlive(false)
		if raw, err := tcp.SyscallConn(); err == nil && canTry {
			s.raw, s.attempt = raw, s.tryOnce
		}
	}
	return s
}

func (s *socket) try(b []byte) (int, error) {
	if s.raw == nil {
		return 0, nil
	}
	s.bytes = b
	if err := s.raw.Write(s.attempt); err != nil {
		return 0, err
	}
	return s.wrote, s.err
}

func (s *socket) tryOnce(fd uintptr) (done bool) {
	s.wrote, s.err = tryWrite(fd, s.bytes)
	s.bytes = nil
	return true
}

// write is bounded by progress, not by completion: a slow client gets a large event, however long it takes.
func (s *socket) write(b []byte) error {
	for before := s.taken(); ; {
		if err := s.conn.SetWriteDeadline(time.Now().Add(s.timeout)); err != nil {
			return err
		}
		n, err := s.conn.Write(b)
		b = b[n:]
		if err == nil {
			return s.conn.SetWriteDeadline(time.Time{})
		}
		if !errors.Is(err, os.ErrDeadlineExceeded) {
			return err
		}
		// The kernel may take nothing more until a third of its buffer is free, which is long after the client took some.
		now := s.taken()
		if n == 0 && now == before {
			return err
		}
		before = now
	}
}

// stuck notices clients that have vanished or do not read, while what they are sent still fits in the kernel.
func (s *socket) stuck() bool {
	if s.raw == nil {
		return false
	}
	taken, all := acknowledged(s.raw)
	if all || taken != s.acknowledged {
		s.acknowledged, s.silent = taken, 0
		return false
	}
	s.silent++
	return s.silent >= 2
}

// taken is how many bytes the client has taken so far, where the kernel tells.
func (s *socket) taken() uint64 {
	if s.raw == nil {
		return 0
	}
	n, _ := acknowledged(s.raw)
	return n
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

	mu      sync.Mutex
	writing bool
	closed  bool
}

func newResponse(ctx context.Context, w http.ResponseWriter, control *http.ResponseController, timeout time.Duration) *response {
	return &response{w: w, control: control, timeout: timeout, gone: ctx.Done(), ended: make(chan struct{})}
}

func (r *response) try([]byte) (int, error) { return 0, nil }
func (r *response) stuck() bool             { return false }

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

// close lets wait return; net/http ends the stream when the handler has, and needs a moment for it. A write that waits for the
// client ends at once.
func (r *response) close() {
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
