//go:build !unix

package wire

import (
	"net"
	"syscall"
)

// rawOf returns nil. On this system, a Direct writes nothing, and a goroutine writes each event.
func rawOf(*net.TCPConn) syscall.RawConn { return nil }

func writeNow(int, []byte) (int, error) { return 0, nil }

func shutdown(int) {}
