//go:build !linux

package stream

// acknowledged is not known here: a client that vanished or does not read is noticed when its socket's buffer is full.
func (descriptor) acknowledged() (n uint64, all bool) { return 0, true }
