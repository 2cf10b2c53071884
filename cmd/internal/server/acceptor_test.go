package server

import (
	"bytes"
	"log/slog"
	"net"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/failures"
)

// A deadSocket has no connections. Accept fails as often as fails says, and then reports that the socket is closed.
type deadSocket struct {
	net.Listener
	fails int
}

func (d *deadSocket) Accept() (net.Conn, error) {
	if d.fails--; d.fails < 0 {
		return nil, net.ErrClosed
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
}

func (d *deadSocket) Close() error { return nil }

// Connections that cannot be accepted, for example because the process has no descriptor left, are logged and counted.
func TestAcceptThatFailsIsShown(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := New(&pgx.ConnConfig{}, slog.New(slog.NewTextHandler(&log, nil)))
	server, err := s.newServer(t.Context(), "127.0.0.1:0", http.NotFoundHandler(), s.lobby)
	if err != nil {
		t.Fatal(err)
	}
	_ = server.socket.Close()
	socket, recorded := server.socket.(acceptor)
	if !recorded {
		t.Fatalf("the socket is a %T, want an acceptor", server.socket)
	}
	synctest.Test(t, func(t *testing.T) { // net/http sleeps between two attempts
		socket.Listener = &deadSocket{fails: 20}
		_ = server.http.Serve(socket)
		if got := s.Failures.Of(failures.Accept); got.Total != 20 || !got.Failing() {
			t.Errorf("got %+v, want 20 failures", got)
		}
	})
	const line = `level=WARN msg="cannot accept connections" error="accept tcp: accept4: too many open files"`
	if n := strings.Count(log.String(), line); n < 5 || n > 10 {
		t.Errorf("%d lines, want 5 and some later ones: %s", n, log.String())
	}
}
