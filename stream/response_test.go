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

// If a middleware keeps responses from being streamed, the hub logs that, at a limited rate, and opens no stream.
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
	const message = "the response cannot be streamed; a middleware may wrap the ResponseWriter without Unwrap"
	if got := strings.Count(log.String(), message); got < 1 || got > 10 || f.hub.Stats.Streams.Load() != 0 {
		t.Errorf("%d streams; %d of 100 requests are logged, want 1 to 10:\n%s", f.hub.Stats.Streams.Load(), got, log.String())
	}
}
