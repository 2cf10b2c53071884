//go:build !linux

package stream

import "time"

// acknowledged is not known here: a client that vanished or does not read is noticed when its socket's buffer is full.
func (descriptor) acknowledged() (n uint64, all bool) { return 0, true }

// expire cannot be said here: the kernel goes by its own times.
func (descriptor) expire(time.Duration) {}

// holdLittle cannot be said here: the kernel holds what its buffers take.
func (descriptor) holdLittle() {}
