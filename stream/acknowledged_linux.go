package stream

import (
	"time"

	"golang.org/x/sys/unix"
)

// acknowledged is how many bytes the client has acknowledged so far, and whether that is all there were.
//
// TCP_USER_TIMEOUT would give up a client by itself. But it reckons from the first time that the client's window was closed, until
// one opens in which the next whole segment of up to 64 KB fits: it ends clients that take a little all the time.
func (d descriptor) acknowledged() (n uint64, all bool) {
	info, err := unix.GetsockoptTCPInfo(int(d), unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0, true
	}
	return info.Bytes_acked, info.Unacked == 0 && info.Notsent_bytes == 0
}

// expire has the kernel give up the client if it takes nothing for so long, also once the socket is closed and nobody can ask any
// more: else it tries for minutes.
func (d descriptor) expire(after time.Duration) {
	_ = unix.SetsockoptInt(int(d), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(after.Milliseconds()))
}

// unsent is about how many bytes the kernel takes that it cannot send yet. Without a bound it takes up to 4 MB for each client that
// once was fast.
const unsent = 64 << 10

// holdLittle bounds what the kernel holds for the client. What is on its way to the client does not count, so this makes no client slow.
func (d descriptor) holdLittle() {
	_ = unix.SetsockoptInt(int(d), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT, unsent)
}
