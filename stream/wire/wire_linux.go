package wire

import (
	"errors"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A poller waits for all sockets with one goroutine, by epoll. The goroutine runs while the poller has sockets. A
// goroutine for each socket would need as much memory as the rest of a stream.
type poller[T any] struct {
	mu      sync.Mutex
	epoll   *os.File
	watched []watched[T] // the sockets, by the key that epoll returns
	free    []int32      // unused keys
	buffer  [1 << 10]byte
}

// watched is a socket in the poller. Its zero value is unused.
type watched[T any] struct {
	socket *socket
	stream T
	gone   func(T)
	reads  int // the number of reads that returned data
}

// add begins to watch a socket. It reports whether that was possible.
func (p *poller[T]) add(s *socket, stream T, gone func(T)) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	if s.raw == nil || !p.open() {
		return false
	}
	if len(p.free) == 0 {
		p.watched = append(p.watched, watched[T]{})
		p.free = append(p.free, int32(len(p.watched)-1))
	}
	key := p.free[len(p.free)-1]
	p.free = p.free[:len(p.free)-1]
	p.watched[key] = watched[T]{socket: s, stream: stream, gone: gone}
	event := unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: key}
	if err := p.control(s, unix.EPOLL_CTL_ADD, &event); err != nil {
		p.remove(key)
		return false
	}
	return true
}

// open creates the epoll instance and starts run, unless that has been done. It reports whether the instance exists.
func (p *poller[T]) open() bool {
	if p.epoll != nil {
		return true
	}
	fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return false
	}
	_ = unix.SetNonblock(fd, true) // so that the Go runtime waits for events without blocking a thread
	p.epoll = os.NewFile(uintptr(fd), "epoll")
	go p.run(p.epoll)
	return true
}

// control changes what epoll watches. Both descriptors are used inside calls of RawConn.Control, so both are open.
func (p *poller[T]) control(s *socket, op int, event *unix.EpollEvent) error {
	epoll, err := p.epoll.SyscallConn()
	if err != nil {
		return err
	}
	var ctlErr, epollErr error
	rawErr := s.raw.Control(func(fd uintptr) {
		epollErr = epoll.Control(func(epfd uintptr) { ctlErr = unix.EpollCtl(int(epfd), op, int(fd), event) })
	})
	return errors.Join(rawErr, epollErr, ctlErr)
}

// remove frees a key. When the last key is freed, run ends.
func (p *poller[T]) remove(key int32) {
	p.watched[key] = watched[T]{}
	p.free = append(p.free, key)
	if len(p.free) == len(p.watched) {
		_ = p.epoll.Close()
		p.epoll, p.watched, p.free = nil, nil, nil
	}
}

func (p *poller[T]) run(epoll *os.File) {
	raw, err := epoll.SyscallConn()
	if err != nil {
		return // closed already
	}
	var events [128]unix.EpollEvent
	for {
		var n int
		err := raw.Read(func(fd uintptr) (done bool) {
			n, _ = unix.EpollWait(int(fd), events[:], 0)
			return n > 0
		})
		if err != nil {
			return
		}
		for _, e := range events[:n] {
			p.ready(e.Fd)
		}
	}
}

// ready reads from a socket. If the client has disconnected or sent too much, or if the stream has ended, ready stops
// watching the socket and calls gone. The key always belongs to a watched socket, because only ready removes sockets
// that were added, and epoll returns each socket once in a batch of events.
func (p *poller[T]) ready(key int32) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w := &p.watched[key]
	n, err := p.read(w.socket)
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return
	}
	if w.reads++; n > 0 && w.reads < maxReceived {
		return
	}
	gone, stream := w.gone, w.stream
	_ = p.control(w.socket, unix.EPOLL_CTL_DEL, nil)
	p.remove(key)
	go gone(stream)
}

func (p *poller[T]) read(s *socket) (n int, err error) {
	rawErr := s.raw.Control(func(fd uintptr) { n, err = unix.Read(int(fd), p.buffer[:]) })
	return n, errors.Join(rawErr, err)
}

// acknowledged returns the number of bytes that the client has acknowledged, and whether it has acknowledged all that
// was written.
//
// TCP_USER_TIMEOUT would end the connection of a stalled client by itself. It is not used for that, because its time
// begins when the client's window first closes, and ends only when the window has space for the next whole segment of
// up to 64 KB. So it would disconnect clients that slowly accept bytes all the time.
func acknowledged(fd int) (bytes uint64, all bool) {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, true
	}
	return info.Bytes_acked, info.Unacked == 0 && info.Notsent_bytes == 0
}

// dropAfter makes the kernel end the connection when the client accepts nothing for the timeout, also after the socket
// has been closed. By default, the kernel would try for minutes.
func dropAfter(fd int, timeout time.Duration) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(timeout.Milliseconds()))
}

// maxUnsent is about the number of bytes that the kernel accepts before it can send them. By default it accepts up to 4
// MB for each client that was fast once.
const maxUnsent = 64 << 10

// limitUnsent limits the memory that the kernel holds for the client. Bytes on their way to the client do not count, so
// the limit slows no client down.
func limitUnsent(fd int) {
	_ = unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, maxUnsent)
}
