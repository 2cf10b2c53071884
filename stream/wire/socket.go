package wire

import (
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"time"
)

// A socket is a connection that was taken over from net/http.
type socket struct {
	conn    net.Conn
	raw     syscall.RawConn // nil if the connection cannot be used without waiting
	timeout time.Duration

	acknowledged uint64 // the bytes that the client had acknowledged at the last call of Stalled
	stalled      int    // consecutive calls of Stalled without progress
}

func newSocket(conn net.Conn, timeout time.Duration) *socket {
	s := &socket{conn: conn, timeout: timeout}
	_ = conn.SetDeadline(time.Time{})
	if tcp, ok := conn.(*net.TCPConn); ok {
		// Heartbeats find dead clients. Go's default keep-alive can close idle connections when the machine is busy.
		_ = tcp.SetKeepAlive(false)
		s.raw = rawOf(tcp)
		s.control(limitUnsent)
	}
	return s
}

// LimitUnsent limits the bytes that the kernel holds for a client before it can send them. Without this limit, the
// kernel may accept nothing until a third of a large buffer is free. A write through net/http then reaches its deadline,
// although a slow client accepts bytes all the time. Open limits the connections that it takes over. A server calls
// LimitUnsent for each connection, with or without TLS, because net/http writes the answers to polls, and streams over
// TLS and HTTP/2. On systems other than Linux, LimitUnsent does nothing.
func LimitUnsent(conn net.Conn) {
	if over, ok := conn.(interface{ NetConn() net.Conn }); ok { // a *tls.Conn
		conn = over.NetConn()
	}
	if tcp, ok := conn.(*net.TCPConn); ok {
		(&socket{raw: rawOf(tcp)}).control(limitUnsent)
	}
}

func (s *socket) Direct() Direct { return Direct{s.raw} }

// control calls f with the descriptor of the socket, if there is one and it is open.
func (s *socket) control(f func(fd int)) {
	if s.raw != nil {
		_ = s.raw.Control(func(fd uintptr) { f(int(fd)) })
	}
}

// Write fails when the client accepts nothing for the timeout. The time for all of b is not limited, so a slow client
// can receive a large event.
func (s *socket) Write(b []byte) error {
	n, err := s.Direct().Try(b)
	if b = b[n:]; err != nil || len(b) == 0 { // the usual case, which needs no timer
		return err
	}
	for before := s.accepted(); ; {
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
		// The kernel may accept nothing until a third of its buffer is free. The client may have accepted bytes long
		// before that.
		now := s.accepted()
		if n == 0 && now == before {
			return err
		}
		before = now
	}
}

// Stalled reports whether the client has acknowledged nothing since the second call before this one, although there was
// something to acknowledge. It finds clients that have vanished or do not read. Write does not notice them while the
// kernel's buffer has space. On systems other than Linux, Stalled always returns false.
func (s *socket) Stalled() bool {
	acknowledged, all := s.progress()
	if all || acknowledged != s.acknowledged {
		s.acknowledged, s.stalled = acknowledged, 0
		return false
	}
	s.stalled++
	return s.stalled >= 2
}

// progress returns the number of bytes that the client has acknowledged, and whether it has acknowledged all that was
// written.
func (s *socket) progress() (bytes uint64, all bool) {
	all = true
	s.control(func(fd int) { bytes, all = acknowledged(fd) })
	return bytes, all
}

func (s *socket) accepted() uint64 {
	bytes, _ := s.progress()
	return bytes
}

// maxReceived is the number of reads of data after which a client is disconnected. A client has nothing to send on a
// stream.
const maxReceived = 1024

// wait returns when the client has disconnected, the stream has ended or the client has sent too much.
func (s *socket) wait() {
	var buffer [64]byte
	for range maxReceived {
		if _, err := s.conn.Read(buffer[:]); err != nil {
			return
		}
	}
}

// Shutdown ends the stream. The kernel still sends what was written before. On Linux, the kernel drops it when the
// client accepts nothing for the timeout.
func (s *socket) Shutdown() {
	s.control(func(fd int) { dropAfter(fd, s.timeout) })
	s.end()
}

// Abort makes Close drop what the client has not accepted, and reset the connection.
func (s *socket) Abort() {
	if tcp, ok := s.conn.(*net.TCPConn); ok {
		_ = tcp.SetLinger(0)
	}
	s.end()
}

// end ends reads and writes that wait for the client. A Watcher notices that the stream has ended.
func (s *socket) end() {
	if s.raw == nil {
		_ = s.conn.Close()
		return
	}
	s.control(shutdown)
}

func (s *socket) Close() { _ = s.conn.Close() }

// A Direct writes to a connection without waiting. The zero Direct writes nothing. A caller can keep the Direct next to
// its own data of the stream. A write then reads one cache line less than a write through the Conn.
type Direct struct {
	raw syscall.RawConn
}

// DirectTo returns a Direct for a file or a socket.
func DirectTo(raw syscall.RawConn) Direct { return Direct{raw} }

// An attempt is one call of write(2). Attempts are kept in a pool because a closure for each write would be an
// allocation.
type attempt struct {
	b    []byte
	n    int
	err  error
	call func(fd uintptr)
}

var attempts = sync.Pool{New: func() any {
	a := new(attempt)
	a.call = func(fd uintptr) { a.n, a.err = writeNow(int(fd), a.b) }
	return a
}}

// Try writes as much of b as is possible without waiting, and returns the number of bytes written.
//
// It uses RawConn.Control, which keeps the descriptor open during the call. RawConn.Write would also prepare to wait,
// and take a lock that is not needed because only one goroutine writes.
func (d Direct) Try(b []byte) (n int, err error) {
	if d.raw == nil {
		return 0, nil
	}
	a := attempts.Get().(*attempt)
	a.b = b
	if err = d.raw.Control(a.call); err == nil {
		n, err = a.n, a.err
	}
	a.b = nil
	attempts.Put(a)
	return n, err
}
