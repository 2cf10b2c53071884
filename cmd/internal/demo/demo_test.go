package demo

import (
	"net"
	"os"
	"syscall"
	"testing"
)

// An error that says that an address is in use is recognized by its number, also on Windows.
func TestAddressIsInUse(t *testing.T) {
	t.Parallel()
	for number, want := range map[syscall.Errno]bool{syscall.EADDRINUSE: true, 10048: true, syscall.EACCES: false, 10013: false} {
		err := &net.OpError{Op: "listen", Net: "tcp", Err: os.NewSyscallError("bind", number)}
		if got := isInUse(err); got != want {
			t.Errorf("%v (%d): is in use: %t, want %t", err, number, got, want)
		}
	}
}
