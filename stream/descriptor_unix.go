//go:build unix

package stream

import (
	"errors"
	"net"

	"golang.org/x/sys/unix"
)

func descriptorOf(conn *net.TCPConn) (d descriptor) {
	d = none
	if raw, err := conn.SyscallConn(); err == nil {
		_ = raw.Control(func(fd uintptr) { d = descriptor(fd) })
	}
	return d
}

// try writes what the socket's buffer takes.
func (d descriptor) try(b []byte) (int, error) {
	if d == none {
		return 0, nil
	}
	for {
		n, err := unix.Write(int(d), b)
		switch {
		case err == nil:
			return n, nil
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		default:
			return max(n, 0), err
		}
	}
}

func (d descriptor) shut() { _ = unix.Shutdown(int(d), unix.SHUT_RDWR) }
