package wire

import (
	"time"

	"golang.org/x/sys/unix"
)

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
