package server

import (
	"bytes"
	"context"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/jackc/pgx/v5"
)

// It says that it listens only when a client that comes at once gets a stream, not a "come back later".
func TestListeningIsSaidOnceStreamsCanBeOpened(t *testing.T) {
	t.Parallel()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := New(&pgx.ConnConfig{}, slog.New(slog.NewTextHandler(&log, nil)))
		var told net.Addr
		s.Listening = func(addr net.Addr) { told = addr }
		running, cancel := context.WithCancel(t.Context())
		began := make(chan struct{})
		go s.announce(running, began, []*httpServer{{socket: socket}})

		synctest.Wait()
		if told != nil || log.Len() > 0 {
			t.Errorf("before the first batch it said: %s", log.String())
		}
		close(began)
		synctest.Wait()
		if want := "msg=listening addr=" + socket.Addr().String() + "\n"; told != socket.Addr() || !strings.HasSuffix(log.String(), want) {
			t.Errorf("got %s, want %s", log.String(), want)
		}
		cancel()
		synctest.Wait()
		if want := "msg=stopping streams=0\n"; !strings.HasSuffix(log.String(), want) {
			t.Errorf("got %s, want %s", log.String(), want)
		}
	})
}
