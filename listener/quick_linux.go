package listener

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// The functions in this file make system calls that return at once, without announcing them to the Go runtime. An
// announced system call wakes a thread of the runtime (sysmon), which then wakes up again and again while the program
// does something or waits in the kernel: every 20 µs at first, and less often after a millisecond. With ten rows a
// second, that thread used a quarter of the hub's CPU.

// quickRead reads from a socket in non-blocking mode.
func quickRead(socket int, p []byte) (int, error) { return quick(unix.SYS_READ, socket, p) }

// quickWrite writes to a socket in non-blocking mode.
func quickWrite(socket int, p []byte) (int, error) { return quick(unix.SYS_WRITE, socket, p) }

func quick(call uintptr, fd int, p []byte) (int, error) {
	n, _, failure := unix.RawSyscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(p))), uintptr(len(p)))
	if failure != 0 {
		return 0, failure
	}
	return int(n), nil
}

// quickEpollCtl changes what an epoll instance watches.
func quickEpollCtl(epoll uintptr, operation int, fd uintptr, event unix.EpollEvent) error {
	_, _, failure := unix.RawSyscall6(unix.SYS_EPOLL_CTL, epoll, uintptr(operation), fd, uintptr(unsafe.Pointer(&event)), 0, 0)
	if failure != 0 {
		return failure
	}
	return nil
}

// quickEpollWait returns the events that an epoll instance has for now, in the array of events.
func quickEpollWait(epoll uintptr, events []unix.EpollEvent) []unix.EpollEvent {
	n, _, failure := unix.RawSyscall6(unix.SYS_EPOLL_PWAIT, epoll, uintptr(unsafe.Pointer(unsafe.SliceData(events))), uintptr(len(events)), 0, 0, 0)
	if failure != 0 {
		return nil
	}
	return events[:n]
}
