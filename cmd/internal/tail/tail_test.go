package tail

import (
	"net"
	"os"
	"syscall"
	"testing"
)

// A refused connection is recognized by its error number, also on Windows.
func TestConnectionIsRefused(t *testing.T) {
	t.Parallel()
	for number, want := range map[syscall.Errno]bool{syscall.ECONNREFUSED: true, 10061: true, syscall.ETIMEDOUT: false, 10060: false} {
		err := &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", number)}
		if got := isRefused(err); got != want {
			t.Errorf("%v (%d): is refused: %t, want %t", err, number, got, want)
		}
	}
}
