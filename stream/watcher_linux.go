package stream

import (
	"errors"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// A watcher notices when clients go, for all sockets with one goroutine: one for each would cost as much memory as all the rest of a
// stream. It runs while there is a socket to watch.
type watcher struct {
	gone func(*subscriber) // is called in a goroutine of its own, once for each

	mu      sync.Mutex
	epoll   *os.File
	watched []watched // by descriptor
	count   int
}

// watched is a socket's subscriber, and how often its client has sent something.
type watched struct {
	s       *subscriber
	garbage int
}

// watch begins to watch a socket. It returns false if that cannot be done here.
func (w *watcher) watch(socket descriptor, s *subscriber) bool {
	if socket == none {
		return false
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.epoll == nil {
		fd, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
		if err != nil {
			return false
		}
		_ = unix.SetNonblock(fd, true) // so that Go waits for it as for a connection, and holds no thread
		w.epoll = os.NewFile(uintptr(fd), "epoll")
		go w.run(w.epoll)
	}
	for len(w.watched) <= int(socket) {
		w.watched = append(w.watched, watched{})
	}
	w.watched[socket] = watched{s: s}
	w.count++
	err := w.control(unix.EPOLL_CTL_ADD, int32(socket), &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLRDHUP, Fd: int32(socket)})
	if err != nil {
		w.forget(int32(socket))
	}
	return err == nil
}

func (w *watcher) control(op int, fd int32, event *unix.EpollEvent) (err error) {
	raw, err := w.epoll.SyscallConn()
	if err != nil {
		return err
	}
	controlErr := raw.Control(func(epoll uintptr) { err = unix.EpollCtl(int(epoll), op, int(fd), event) })
	return errors.Join(controlErr, err)
}

// forget ends the watching of a socket, and with the last one the watcher's run.
func (w *watcher) forget(fd int32) {
	w.watched[fd] = watched{}
	w.count--
	if w.count == 0 {
		_ = w.epoll.Close()
		w.epoll, w.watched = nil, nil
	}
}

func (w *watcher) run(epoll *os.File) {
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
			w.heard(e.Fd)
		}
	}
}

// heard reads what has come: mostly the end.
func (w *watcher) heard(fd int32) {
	w.mu.Lock()
	defer w.mu.Unlock()
	of := &w.watched[fd]
	var buffer [1 << 10]byte
	n, err := unix.Read(int(fd), buffer[:])
	if errors.Is(err, unix.EAGAIN) || errors.Is(err, unix.EINTR) {
		return
	}
	if of.garbage++; n > 0 && of.garbage < maxGarbage {
		return
	}
	s := of.s
	_ = w.control(unix.EPOLL_CTL_DEL, fd, nil)
	w.forget(fd)
	go w.gone(s)
}
