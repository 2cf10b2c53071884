package server

import (
	"log/slog"
	"net"
	"net/http"
	"syscall"
	"testing"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sys/unix"
)

// The kernel holds at most 64 KiB of unsent bytes for each connection. Otherwise a client that slowly reads the answer
// to a poll would be disconnected.
func TestUnsentBytesAreLimited(t *testing.T) {
	t.Parallel()
	s := New(&pgx.ConnConfig{}, slog.New(slog.DiscardHandler))
	server, err := s.newServer(t.Context(), "127.0.0.1:0", http.NotFoundHandler(), s.idle)
	if err != nil {
		t.Fatal(err)
	}
	defer server.socket.Close()
	client, err := net.Dial("tcp", server.address().String())
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	conn, err := server.socket.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	raw, err := conn.(syscall.Conn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var got int
	controlErr := raw.Control(func(fd uintptr) { got, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_NOTSENT_LOWAT) })
	if got != 64<<10 || err != nil || controlErr != nil {
		t.Errorf("got the limit %d, %v, %v, want 65536 and no error", got, err, controlErr)
	}
}
