//go:build !linux

package listener

import (
	"syscall"
	"time"
)

// setUserTimeout does nothing, because only Linux has this option. Here the keep-alive and the timeouts of statements
// notice a dead peer.
func setUserTimeout(syscall.Conn, time.Duration) error { return nil }
