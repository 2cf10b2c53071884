package wire

import (
	"sync"
	"syscall"
)

// A Direct writes to a connection without waiting. The zero Direct writes nothing. A caller with thousands of streams
// can keep the Direct of a stream beside its own data of the stream. Otherwise each write would read one more cache
// line, from the Conn.
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
