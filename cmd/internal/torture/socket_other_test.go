//go:build !unix

package torture_test

import "syscall"

// narrow does nothing on this system.
func narrow(string, string, syscall.RawConn) error { return nil }
