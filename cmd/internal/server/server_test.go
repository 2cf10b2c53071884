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

	"rowcast/listener/feed"
)

// The server announces its address as soon as clients can open streams, and not before.
func TestAnnounce(t *testing.T) {
	t.Parallel()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer socket.Close()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		s := New(&pgx.ConnConfig{}, slog.New(slog.NewTextHandler(&log, nil)))
		var announced net.Addr
		s.Listening = func(addr net.Addr) { announced = addr }
		running, cancel := context.WithCancel(t.Context())
		go s.announce(running, []*httpServer{{socket: socket}})

		s.Hub.Publish(feed.Batch{Warming: true})
		synctest.Wait()
		if announced != nil || log.Len() > 0 {
			t.Errorf("announced %v and logged %q before clients could open streams, want no address and no line", announced, log.String())
		}
		s.Hub.Publish(feed.Batch{})
		synctest.Wait()
		if want := "msg=listening addr=" + socket.Addr().String() + "\n"; announced != socket.Addr() || !strings.HasSuffix(log.String(), want) {
			t.Errorf("announced %v and logged %q, want %v and a line that ends with %q", announced, log.String(), socket.Addr(), want)
		}
		cancel()
		synctest.Wait()
		if want := "msg=stopping streams=0\n"; !strings.HasSuffix(log.String(), want) {
			t.Errorf("logged %q, want a last line that ends with %q", log.String(), want)
		}
	})
}
