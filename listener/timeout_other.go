//go:build !linux

package listener

import (
	"syscall"
	"time"
)

// setUserTimeout has no counterpart here. The keep-alive and the timeout of every statement must do.
func setUserTimeout(syscall.Conn, time.Duration) error { return nil }
