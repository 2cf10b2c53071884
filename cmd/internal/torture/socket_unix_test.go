//go:build unix

package torture_test

import (
	"errors"
	"syscall"
)

// narrow makes the receive buffer and the segments of a slow client's connection small. Otherwise the kernel would hold
// the events, and the backlog of the hub would not grow.
func narrow(_, _ string, raw syscall.RawConn) (err error) {
	controlErr := raw.Control(func(fd uintptr) {
		err = errors.Join(
			syscall.SetsockoptInt(int(fd), syscall.SOL_SOCKET, syscall.SO_RCVBUF, 2048),
			syscall.SetsockoptInt(int(fd), syscall.IPPROTO_TCP, syscall.TCP_MAXSEG, 500))
	})
	return errors.Join(controlErr, err)
}
