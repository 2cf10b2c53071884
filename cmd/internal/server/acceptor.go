package server

import (
	"errors"
	"log/slog"
	"net"

	"rowcast/listener/failures"
)

// An acceptor is a listening socket that records its failures. After one, net/http accepts again: it pauses for 5 ms, doubled up to 1 s.
type acceptor struct {
	net.Listener
	logger   *slog.Logger
	failures *failures.Record
}

// Accept returns the next connection.
func (a acceptor) Accept() (net.Conn, error) {
	conn, err := a.Listener.Accept()
	switch {
	case err == nil:
		a.failures.Succeeded(failures.Accept)
	case !errors.Is(err, net.ErrClosed):
		a.failures.Warn(a.logger, failures.Accept, err, "cannot accept connections")
	}
	return conn, err
}
