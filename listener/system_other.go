//go:build !linux

package listener

import (
	"net"
	"time"
)

// direct returns the connection as it is. The listener waits in a system call of its own only on Linux.
func direct(conn net.Conn) (net.Conn, error) { return conn, nil }

// setIdle does nothing, because the connection always waits in Go's poller.
func setIdle(net.Conn, bool) {}

// nap sleeps. On some systems, it can take a millisecond longer.
func nap(d time.Duration) { time.Sleep(d) }

// An idleMeter measures for which share of their time the CPUs are idle, but only on Linux. Here it measures nothing.
type idleMeter struct{}

// read returns 1, because the share is not known.
func (*idleMeter) read(time.Time) float64 { return 1 }
