//go:build !linux

package stream

import (
	"syscall"
	"time"
)

// setUserTimeout has no counterpart here: a client that vanished is noticed when its socket's buffer is full.
func setUserTimeout(syscall.RawConn, time.Duration) {}
