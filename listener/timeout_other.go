//go:build !linux

package listener

import (
	"syscall"
	"time"
)

// userTimeout has no counterpart here; the keep-alive and the timeout of every statement must do.
func userTimeout(time.Duration) func(network, address string, conn syscall.RawConn) error { return nil }
