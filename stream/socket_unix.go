//go:build unix

package stream

import (
	"errors"

	"golang.org/x/sys/unix"
)

// canTry says that a socket can be written to without waiting.
const canTry = true

// tryWrite writes what the socket's buffer takes.
func tryWrite(fd uintptr, b []byte) (int, error) {
	for {
		n, err := unix.Write(int(fd), b)
		switch {
		case errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN):
			return 0, nil
		default:
			return max(n, 0), err
		}
	}
}
