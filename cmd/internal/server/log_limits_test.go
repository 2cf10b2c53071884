package server

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/stream"
	"rowcast/stream/auth"
)

// Clients can cause only a few lines in the log, and denials do not push out lines about an authentication that fails.
func TestClientsCauseFewLinesInTheLog(t *testing.T) {
	t.Parallel()
	const times = 2000
	var text bytes.Buffer
	s := New(&pgx.ConnConfig{}, slog.New(slog.NewTextHandler(&text, nil)))
	server, err := s.newServer(context.Background(), "127.0.0.1:0", http.NotFoundHandler(), s.lobby)
	if err != nil {
		t.Fatal(err)
	}
	_ = server.socket.Close()
	s.others = func(context.Context, string) error { return errors.New("away") }
	ask := func(method, path string, handler http.HandlerFunc) {
		handler(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
	}
	for range times {
		server.http.ErrorLog.Print("http: TLS handshake error from \x1b[2J")
		s.Events.Authenticate = func(*http.Request) (stream.Grant, error) {
			return stream.Grant{}, auth.Denial{Status: 401, Reason: "no"}
		}
		ask(http.MethodGet, "/events", s.Events.ServeHTTP)
		ask(http.MethodPost, "/disconnect?recipient=alice", s.disconnect)
	}
	for range times {
		s.Events.Authenticate = func(*http.Request) (stream.Grant, error) { return stream.Grant{}, errors.New("away") }
		ask(http.MethodGet, "/events", s.Events.ServeHTTP)
	}
	for message, most := range map[string]int{
		"an HTTP connection failed": 10, "a stream was denied": 200, "other hubs were not told to disconnect": 10,
		"cannot authenticate a request for a stream": 200,
	} {
		if got := strings.Count(text.String(), message); got < 1 || got > most {
			t.Errorf("%q is in the log %d times, want 1 to %d", message, got, most)
		}
	}
	if strings.Contains(text.String(), "\x1b") {
		t.Error("a control character is in the log")
	}
}
