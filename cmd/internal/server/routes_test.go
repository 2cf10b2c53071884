package server

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/go-chi/chi/v5"
	"github.com/jackc/pgx/v5"

	"rowcast/stream"
)

// A handler that panics ends only its own request. The log contains the stack.
func TestPanicEndsOneRequest(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := New(&pgx.ConnConfig{}, slog.New(slog.NewTextHandler(&log, nil)))
	s.Routes = func(r chi.Router) {
		r.Get("/panic", func(w http.ResponseWriter, _ *http.Request) {
			_, _ = io.WriteString(w, "half")
			panic("oops")
		})
	}
	public, _ := s.routers()
	server := httptest.NewServer(public)
	get := func(path string) (string, error) {
		response, err := server.Client().Get(server.URL + path)
		if err != nil {
			return "", err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return string(body), err
	}
	if body, err := get("/panic"); err == nil {
		t.Errorf("/panic: got %q without an error, want an error, because the answer is incomplete", body)
	}
	for range 20 { // only some of these panics are logged
		_, _ = get("/panic")
	}
	if body, err := get("/healthz"); err != nil || body != "ok\n" {
		t.Errorf("/healthz after the panics: got %q, %v, want \"ok\\n\"", body, err)
	}
	server.Close()
	if got := log.String(); !strings.Contains(got, `msg="a request handler panicked" path=/panic panic=oops stack=`) || !strings.Contains(got, "routes_test.go") || strings.Count(got, "\n") > 10 {
		t.Errorf("got the log\n%s\nwant the panic with its stack, and at most 10 lines", got)
	}
}

// The answer to a request for many ranges of a script is the script. An answer with the ranges would be much longer.
func TestRangesOfScriptsAreIgnored(t *testing.T) {
	t.Parallel()
	public, _ := New(&pgx.ConnConfig{}, slog.New(slog.DiscardHandler)).routers()
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/rowcast.js", nil)
	r.Header.Set("Range", "bytes="+strings.Repeat("0-0,", 3000)+"0-0")
	w := httptest.NewRecorder()
	public.ServeHTTP(w, r)
	if w.Code != http.StatusOK || !bytes.Equal(w.Body.Bytes(), stream.Script) {
		t.Errorf("got the status %d and %d bytes, want 200 and the script of %d bytes", w.Code, w.Body.Len(), len(stream.Script))
	}
	if got := w.Header().Values("Accept-Ranges"); got != nil {
		t.Errorf("got Accept-Ranges: %q, want no such header", got)
	}
}

// A request for a path that an address does not serve is answered with the status 404 and a hint at what it serves.
func TestNotFound(t *testing.T) {
	t.Parallel()
	s := New(&pgx.ConnConfig{}, slog.New(slog.DiscardHandler))
	s.AdminListen = "127.0.0.1:9090"
	public, admin := s.routers()
	for _, tt := range []struct {
		router     http.Handler
		path, want string
	}{
		{public, "/metrics", "not found: the stream is at /events\n"},
		{admin, "/events", "not found: this address is for /healthz, /readyz, /metrics and /disconnect\n"},
	} {
		answer := httptest.NewRecorder()
		request := httptest.NewRequest(http.MethodGet, tt.path, nil)
		request.Host = "localhost"
		tt.router.ServeHTTP(answer, request)
		if answer.Code != http.StatusNotFound || answer.Body.String() != tt.want {
			t.Errorf("%s: got %d, %q, want 404, %q", tt.path, answer.Code, answer.Body, tt.want)
		}
	}
}

// Caches may not store an answer, except scripts. They may store a 404 and the answer of /healthz if no header forbids
// it.
func TestCachesMayStoreOnlyScripts(t *testing.T) {
	t.Parallel()
	s := New(&pgx.ConnConfig{}, slog.New(slog.DiscardHandler))
	all, _ := s.routers()
	s.AdminListen = "127.0.0.1:0"
	_, admin := s.routers()
	for _, tt := range []struct {
		handler      http.Handler
		method, path string
		status       int
		want         string
	}{
		{all, "GET", "/missing", 404, "no-store"},
		{all, "GET", "/inbox", 404, "no-store"},
		{all, "PUT", "/events", 405, "no-store"},
		{all, "GET", "/healthz", 200, "no-store"},
		{all, "GET", "/readyz", 503, "no-store"},
		{all, "GET", "/metrics", 200, "no-store"},
		{all, "GET", "/rowcast.js", 200, "no-cache"},
		{all, "GET", "/" + scriptName, 200, "public, max-age=31536000, immutable"},
		{admin, "GET", "/missing", 404, "no-store"},
		{admin, "GET", "/healthz", 200, "no-store"},
		{admin, "GET", "/disconnect", 405, "no-store"},
	} {
		r := httptest.NewRequestWithContext(t.Context(), tt.method, "http://localhost"+tt.path, nil)
		r.RemoteAddr = "127.0.0.1:1"
		w := httptest.NewRecorder()
		tt.handler.ServeHTTP(w, r)
		if got := w.Header().Get("Cache-Control"); w.Code != tt.status || got != tt.want {
			t.Errorf("%s %s: got the status %d and Cache-Control %q, want %d and %q", tt.method, tt.path, w.Code, got, tt.status, tt.want)
		}
	}
}
