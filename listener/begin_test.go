package listener_test

import (
	"bytes"
	"context"
	"net"
	"testing"
	"time"

	"rowcast/sql/dbtest"
)

// A swallowing is a connection that does not send a LISTEN, as if the network had failed. It closes swallowed instead.
type swallowing struct {
	net.Conn
	swallowed chan struct{}
}

func (s swallowing) Write(p []byte) (int, error) {
	if !bytes.Contains(p, []byte("LISTEN")) {
		return s.Conn.Write(p)
	}
	close(s.swallowed)
	return len(p), nil
}

// Run ends at once if its context ends while PostgreSQL does not answer the first statement of the session.
func TestEndsWhileASessionBegins(t *testing.T) {
	t.Parallel()
	l := newListener(t, dbtest.Database(t))
	l.Timeout = time.Hour
	swallowed := make(chan struct{})
	dial := (&net.Dialer{}).DialContext
	l.Config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
		conn, err := dial(ctx, network, address)
		return swallowing{conn, swallowed}, err
	}
	ctx, stop := context.WithCancel(t.Context())
	defer stop()
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	dbtest.Receive(t, swallowed, "LISTEN")
	stop()
	_ = dbtest.Receive(t, ended, "the end of Run")
}
