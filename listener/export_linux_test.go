package listener

import (
	"net"
	"time"
)

// Nap sleeps as the listener does between two polls.
var Nap = nap

// Direct replaces a connection as the listener does for the connection on which it reads rows.
var Direct = direct

// ReadDeadline returns the read deadline that a connection returned by Direct keeps.
func ReadDeadline(conn net.Conn) time.Duration {
	return time.Duration(conn.(*directConn).in.deadline.Load())
}
