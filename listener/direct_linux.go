package listener

import (
	"crypto/tls"
	"errors"
	"io"
	"net"
	"os"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// A directConn is a connection that waits in a system call of its own (ppoll), which blocks the thread. A connection of
// package net waits in Go's poller instead. Then, whenever bytes arrive, two or three threads of the program wake up
// and pass the work on. For the short answer to a fetch, that costs more CPU than reading the rows.
//
// If rows seldom come, waits in Go's poller cost less (see setIdle). While a system call blocks a thread, a thread of
// the Go runtime wakes up again and again to check whether other goroutines need the processor: about fifty times in
// the first milliseconds, and then less often.
type directConn struct {
	net.Conn // closed, but its addresses can still be read
	socket   *os.File
	in, out  half
}

// A half is one direction of a directConn.
type half struct {
	mu     sync.Mutex // held by the Read or Write that uses the socket
	ready  bool       // whether the socket is probably ready; mu guards it
	socket syscall.RawConn
	events int16
	opened time.Time

	// These fields may be changed while a Read or Write waits. After a change, interrupt ends the wait.
	deadline atomic.Int64 // in nanoseconds since opened, so that it does not move if the clock is set; 0 if there is none
	closed   atomic.Bool

	waiting atomic.Bool
	file    *os.File        // an eventfd, which interrupt makes readable
	event   syscall.RawConn // of file

	// Only the half that reads uses these fields.
	idle  atomic.Bool // whether to wait in Go's poller
	epoll epoll
}

// direct replaces a TCP connection or a Unix socket by a directConn. It returns other connections as they are, because
// they may do more than read and write.
func direct(conn net.Conn) (net.Conn, error) {
	var source syscall.Conn
	switch conn := conn.(type) {
	case *net.TCPConn:
		source = conn
	case *net.UnixConn:
		source = conn
	default:
		return conn, nil
	}
	socket, err := duplicate(source)
	if err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	_ = conn.Close() // the socket stays open
	c := &directConn{Conn: conn, socket: socket}
	if err = errors.Join(c.in.open(socket, unix.POLLIN), c.out.open(socket, unix.POLLOUT)); err == nil {
		err = c.in.epoll.open(c.in.socket, c.in.event)
	}
	if err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

// duplicate returns a socket as a file. The socket is in non-blocking mode. It is in blocking mode while os.NewFile
// runs, because otherwise Go's poller would watch the file.
func duplicate(conn syscall.Conn) (*os.File, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return nil, err
	}
	var fd int
	var failure error
	err = raw.Control(func(original uintptr) {
		if failure = unix.SetNonblock(int(original), false); failure == nil {
			fd, failure = unix.FcntlInt(original, unix.F_DUPFD_CLOEXEC, 0)
		}
	})
	if err = errors.Join(err, failure); err != nil {
		return nil, err
	}
	file := os.NewFile(uintptr(fd), "socket")
	if err := unix.SetNonblock(fd, true); err != nil {
		return nil, errors.Join(err, file.Close())
	}
	return file, nil
}

func (h *half) open(socket *os.File, events int16) (err error) {
	h.events, h.opened = events, time.Now()
	if h.socket, err = socket.SyscallConn(); err != nil {
		return err
	}
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("eventfd", err)
	}
	h.file = os.NewFile(uintptr(fd), "eventfd")
	h.event, err = h.file.SyscallConn()
	return err
}

func (c *directConn) Read(p []byte) (int, error) {
	if len(p) == 0 {
		return 0, nil
	}
	n, err := c.in.use(func(fd int) (int, error) {
		n, err := quickRead(fd, p)
		c.in.ready = n == len(p) // there may be more
		return n, os.NewSyscallError("read", err)
	})
	switch {
	case err != nil:
		return n, c.failure("read", err)
	case n == 0:
		return 0, io.EOF
	}
	return n, nil
}

func (c *directConn) Write(p []byte) (done int, err error) {
	for err == nil && done < len(p) {
		var n int
		n, err = c.out.use(func(fd int) (int, error) {
			n, err := quickWrite(fd, p[done:])
			c.out.ready = err == nil
			return n, os.NewSyscallError("write", err)
		})
		done += n
	}
	return done, c.failure("write", err)
}

// use calls do, which reads from the socket or writes to it. While the socket is not ready, use waits and calls do
// again.
func (h *half) use(do func(fd int) (int, error)) (n int, err error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for {
		if err := h.check(); err != nil {
			return 0, err
		}
		if !h.ready {
			h.wait()
		}
		closed := h.socket.Control(func(fd uintptr) { n, err = do(int(fd)) })
		switch {
		case closed != nil:
			return 0, net.ErrClosed
		case !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR):
			return max(n, 0), err
		}
	}
}

// check returns the error of a connection that is closed or whose deadline has passed.
func (h *half) check() error {
	switch deadline := h.deadline.Load(); {
	case h.closed.Load():
		return net.ErrClosed
	case deadline != 0 && int64(time.Since(h.opened)) >= deadline:
		return os.ErrDeadlineExceeded
	}
	return nil
}

// wait returns when the socket is ready, when the deadline passes, or when interrupt is called. It may also return
// earlier.
func (h *half) wait() {
	h.waiting.Store(true)
	defer h.waiting.Store(false)
	if h.check() != nil { // a change before waiting was set has not interrupted this wait
		return
	}
	if h.idle.Load() {
		h.waitInPoller()
	} else {
		h.waitInKernel()
	}
}

func (h *half) waitInKernel() {
	var timeout *unix.Timespec
	if deadline := h.deadline.Load(); deadline != 0 {
		t := unix.NsecToTimespec(max(0, deadline-int64(time.Since(h.opened))))
		timeout = &t
	}
	_ = h.socket.Control(func(socket uintptr) {
		_ = h.event.Control(func(event uintptr) {
			fds := []unix.PollFd{{Fd: int32(socket), Events: h.events}, {Fd: int32(event), Events: unix.POLLIN}}
			if n, err := unix.Ppoll(fds, timeout, nil); err == nil && n > 0 && fds[1].Revents != 0 {
				resetEvent(event)
			}
		})
	})
}

// waitInPoller waits for the epoll instance, which Go's poller watches.
func (h *half) waitInPoller() {
	var until time.Time
	if deadline := h.deadline.Load(); deadline != 0 {
		until = h.opened.Add(time.Duration(deadline))
	}
	_ = h.epoll.file.SetReadDeadline(until)
	h.epoll.watch(h.socket, uint32(h.events)|unix.EPOLLONESHOT)
	isWatched := true
	_ = h.epoll.raw.Read(func(fd uintptr) (ready bool) {
		_ = h.event.Control(func(event uintptr) {
			var events [2]unix.EpollEvent
			for _, e := range quickEpollWait(fd, events[:]) {
				ready = true
				if e.Fd == int32(event) {
					resetEvent(event)
				} else {
					isWatched = false
				}
			}
		})
		return ready
	})
	if isWatched {
		h.epoll.watch(h.socket, 0)
	}
}

func resetEvent(event uintptr) {
	var count [8]byte
	_, _ = unix.Read(int(event), count[:])
}

// setIdle says how the next Reads of a connection wait. If idle is true, they wait in Go's poller. It has an effect if
// the connection, or the connection below TLS, is a directConn.
func setIdle(conn net.Conn, idle bool) {
	if secure, ok := conn.(*tls.Conn); ok {
		conn = secure.NetConn()
	}
	if c, ok := conn.(*directConn); ok {
		c.in.idle.Store(idle)
	}
}

// An epoll is an epoll instance that Go's poller watches. It always watches an eventfd, but a socket only during
// waitInPoller. If Go's poller watched the socket itself, arriving bytes would wake the poller even while the connection
// waits in ppoll.
type epoll struct {
	file *os.File
	raw  syscall.RawConn
}

func (e *epoll) open(socket, event syscall.RawConn) error {
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return os.NewSyscallError("epoll_create1", err)
	}
	err = unix.SetNonblock(fd, true) // Go's poller watches only a file in non-blocking mode
	e.file = os.NewFile(uintptr(fd), "epoll")
	if err != nil {
		return os.NewSyscallError("fcntl", err)
	}
	if err = e.file.SetReadDeadline(time.Time{}); err != nil { // Go's poller does not watch the file
		return err
	}
	if e.raw, err = e.file.SyscallConn(); err != nil {
		return err
	}
	return errors.Join(e.control(unix.EPOLL_CTL_ADD, event, unix.EPOLLIN), e.control(unix.EPOLL_CTL_ADD, socket, 0))
}

// watch sets the events of a socket that the instance reports. It fails only if the connection is closed.
func (e *epoll) watch(socket syscall.RawConn, events uint32) {
	_ = e.control(unix.EPOLL_CTL_MOD, socket, events)
}

func (e *epoll) control(operation int, file syscall.RawConn, events uint32) error {
	var closed, failed error
	err := e.raw.Control(func(epoll uintptr) {
		closed = file.Control(func(fd uintptr) {
			failed = quickEpollCtl(epoll, operation, fd, unix.EpollEvent{Events: events, Fd: int32(fd)})
		})
	})
	return errors.Join(err, closed, os.NewSyscallError("epoll_ctl", failed))
}

func (h *half) setDeadline(t time.Time) {
	var deadline int64
	if !t.IsZero() {
		const most = 1 << 62 // about 146 years
		deadline = max(1, int64(time.Since(h.opened)+min(time.Until(t), most)))
	}
	h.deadline.Store(deadline)
	h.interrupt()
}

// interrupt ends the present wait, if there is one.
func (h *half) interrupt() {
	if h.waiting.Load() {
		_, _ = h.file.Write([]byte{1, 0, 0, 0, 0, 0, 0, 0}) // the kernel adds this number to the count of the eventfd
	}
}

func (h *half) close() error {
	h.closed.Store(true)
	h.interrupt()
	err := h.file.Close()
	if h.epoll.file != nil {
		err = errors.Join(err, h.epoll.file.Close())
	}
	return err
}

// Close closes the connection. It ends a Read and a Write that wait.
func (c *directConn) Close() error {
	return c.failure("close", errors.Join(c.in.close(), c.out.close(), c.socket.Close()))
}

func (c *directConn) SetReadDeadline(t time.Time) error  { c.in.setDeadline(t); return nil }
func (c *directConn) SetWriteDeadline(t time.Time) error { c.out.setDeadline(t); return nil }

func (c *directConn) SetDeadline(t time.Time) error {
	return errors.Join(c.SetReadDeadline(t), c.SetWriteDeadline(t))
}

func (c *directConn) failure(operation string, err error) error {
	if err == nil {
		return nil
	}
	return &net.OpError{Op: operation, Net: c.LocalAddr().Network(), Source: c.LocalAddr(), Addr: c.RemoteAddr(), Err: err}
}
