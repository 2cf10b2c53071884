//go:build !linux

package wire

import "time"

// acknowledged cannot ask this system, and reports that all bytes are acknowledged. A client that does not read is
// found when the buffer of its socket is full.
func acknowledged(int) (bytes uint64, all bool) { return 0, true }

// dropAfter does nothing on this system. The kernel uses its own timeouts.
func dropAfter(int, time.Duration) {}

// limitUnsent does nothing on this system. The kernel's buffers are the limit.
func limitUnsent(int) {}

// A poller watches no sockets on this system. Instead, a goroutine waits for each client.
type poller[T any] struct{}

func (*poller[T]) add(*socket, T, func(T)) bool { return false }
