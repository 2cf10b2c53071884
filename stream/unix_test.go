//go:build unix

package stream_test

import (
	"errors"
	"time"

	"golang.org/x/sys/unix"
)

// limitBuffer sets the size of a socket's receive buffer, and limits packets to 1,400 bytes, as on a usual network.
func limitBuffer(fd uintptr, size int) error {
	const packet = 1400
	return errors.Join(
		unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_MAXSEG, packet),
		unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, size))
}

func writeTo(fd int, b []byte) (int, error) { return unix.Write(fd, b) }

// stopProcess pauses a process.
func stopProcess(pid int) error { return unix.Kill(pid, unix.SIGSTOP) }

func killProcess(pid int) error { return unix.Kill(pid, unix.SIGKILL) }

// cpu returns the CPU time that this process has used, in user mode and in total.
func cpu() (user, all time.Duration) {
	var used unix.Rusage
	_ = unix.Getrusage(unix.RUSAGE_SELF, &used)
	user = time.Duration(used.Utime.Nano())
	return user, user + time.Duration(used.Stime.Nano())
}
