package stream

import (
	"errors"
	"net"
	"os"
	"time"
)

// A socket is a connection taken over from net/http.
type socket struct {
	conn    net.Conn
	fd      descriptor
	timeout time.Duration // for taking no byte

	// Of stuck.
	acknowledged uint64
	silent       int // heartbeats
}

// A descriptor is a socket's, to be used directly. That is safe while the socket is not closed, which it is only after it was shut
// and nobody uses it any more.
type descriptor int32

// none is the descriptor of a sink that has none.
const none descriptor = -1

func newSocket(conn net.Conn, timeout time.Duration) *socket {
	s := &socket{conn: conn, fd: none, timeout: timeout}
	_ = conn.SetDeadline(time.Time{})
	if tcp, ok := conn.(*net.TCPConn); ok {
		// Heartbeats do its work, and Go's default closes idle connections of a busy machine.
		_ = tcp.SetKeepAlive(false)
		s.fd = descriptorOf(tcp)
		s.fd.holdLittle()
	}
	return s
}

// write is bounded by progress, not by completion: a slow client gets a large event, however long it takes.
func (s *socket) write(b []byte) error {
	n, err := s.fd.try(b)
	if b = b[n:]; err != nil || len(b) == 0 { // mostly: it takes no timer
		return err
	}
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
	taken, all := s.fd.acknowledged()
	if all || taken != s.acknowledged {
		s.acknowledged, s.silent = taken, 0
		return false
	}
	s.silent++
	return s.silent >= 2
}

// taken is how many bytes the client has taken so far, where the kernel tells.
func (s *socket) taken() uint64 {
	n, _ := s.fd.acknowledged()
	return n
}

// maxGarbage is how often a client may send something. It means nothing on a stream, and who goes on and on means harm.
const maxGarbage = 1024

func (s *socket) wait() {
	var buffer [64]byte
	for range maxGarbage {
		if _, err := s.conn.Read(buffer[:]); err != nil {
			return
		}
	}
}

// shut lets the client have what it is still sent, but the kernel not keep it for longer than a stream would.
func (s *socket) shut() {
	s.fd.expire(s.timeout)
	s.end()
}

// cut has the kernel drop, when the socket is closed, what the client has not taken, and reset the connection.
func (s *socket) cut() {
	if tcp, ok := s.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	s.end()
}

// end lets wait return, or the watcher notice, and a write that waits for the client end at once.
func (s *socket) end() {
	if s.fd == none {
		_ = s.conn.Close()
		return
	}
	s.fd.shut()
}

func (s *socket) close() { _ = s.conn.Close() }
