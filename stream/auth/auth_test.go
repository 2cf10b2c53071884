package auth

import (
	"bytes"
	"context"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/stream"
)

// Repeated denials and repeated failures do not fill the log. The next log line says how many lines were left out.
func TestRepeatedLogLinesAreLeftOut(t *testing.T) {
	t.Parallel()
	for _, answer := range []error{unauthorized("no"), errEndpoint} {
		t.Run(answer.Error(), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { testLeftOut(t, answer) })
		})
	}
}

func testLeftOut(t *testing.T, answer error) {
	var log bytes.Buffer
	h := Handler{Hub: &stream.Hub{}, Logger: slog.New(slog.NewTextHandler(&log, nil))}
	h.Authenticate = func(*http.Request) (stream.Grant, error) { return stream.Grant{}, answer }
	h.once.Do(func() {
		h.denials.Every, h.denials.Burst = time.Minute, 2
		h.failures.Every, h.failures.Burst = time.Minute, 2
	})
	for _, step := range []struct {
		requests, lines int
		leftOut         string
	}{{5, 2, ""}, {3, 1, "left_out=3 "}, {1, 1, "left_out=2 "}, {1, 1, ""}} {
		log.Reset()
		for range step.requests {
			h.ServeHTTP(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/events", nil))
		}
		got := log.String()
		if strings.Count(got, "\n") != step.lines || !strings.Contains(got, step.leftOut) ||
			step.leftOut == "" && strings.Contains(got, "left_out=") {
			t.Errorf("%d requests: got the log %s, want %d lines with %q (if empty, without left_out)", step.requests, got, step.lines, step.leftOut)
		}
		time.Sleep(time.Minute)
	}
}

// A client that has disconnected is not answered with 200, because it may have closed only its side of the connection.
func TestDisconnectedClientIsNotAccepted(t *testing.T) {
	t.Parallel()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	h := Handler{Hub: &stream.Hub{}, Logger: slog.New(slog.DiscardHandler)}
	h.Authenticate = func(r *http.Request) (stream.Grant, error) { return stream.Grant{}, r.Context().Err() }
	w := httptest.NewRecorder()
	h.ServeHTTP(w, httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", nil))
	if w.Code != 499 || h.Stats.Unavailable.Load() != 0 {
		t.Errorf("got the status %d and %d clients told to retry later, want 499 and none", w.Code, h.Stats.Unavailable.Load())
	}
}
