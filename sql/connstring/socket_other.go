//go:build !linux

package connstring

import (
	"errors"
	"syscall"
	"time"
)

// SetUserTimeout does nothing, because only Linux has this option. On other systems, a dead peer is noticed by the
// keep-alives and the timeouts of statements.
func SetUserTimeout(syscall.Conn, time.Duration) error { return nil }

// checkPeer returns an error, because only Linux is supported. A connection without the check would be less secure.
func checkPeer(syscall.Conn, string) error {
	return errors.New("requirepeer is supported on Linux only: remove it")
}
