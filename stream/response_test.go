package stream_test

import (
	"bytes"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rowcast/stream"
)

// Behind a middleware that cannot stream no request gets a stream, and the log says so a few times only.
func TestResponsesThatCannotBeStreamedDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	f := newFeed(t, func(s *site) { s.hub.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 100 {
		wrapped := struct{ http.ResponseWriter }{httptest.NewRecorder()} // without Flush
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.ProtoMajor = 2 // not to be hijacked
		f.hub.Serve(wrapped, r, stream.Grant{User: "alice"})
	}
	const says = "the response cannot be streamed; a middleware may wrap the ResponseWriter without Unwrap"
	if got := strings.Count(log.String(), says); got < 1 || got > 10 || f.hub.Stats.Streams.Load() != 0 {
		t.Errorf("%d streams; %d of 100 are logged, want 1 to 10:\n%s", f.hub.Stats.Streams.Load(), got, log.String())
	}
}
