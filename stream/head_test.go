package stream_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/stream"
)

// The response to a HEAD request has no body, and is sent at once. The client would mistake a body for the next
// response.
func TestHEAD(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	for _, proto := range []string{"1.0", "1.1"} {
		c := sendRaw(t, f.site, "HEAD / HTTP/"+proto+"\r\nHost: x\r\nConnection: close\r\n\r\n")
		if got := c.response.Header.Get("Content-Type"); got != "text/event-stream" {
			t.Errorf("Content-Type: got %q, want text/event-stream", got)
		}
		if rest, err := io.ReadAll(c.body); len(rest) > 0 || err != nil {
			t.Errorf("got %q, %v, want no body", rest, err)
		}
	}
	eventually(t, "no stream is left", func() bool { return f.hub.Stats.Streams.Load() == 0 })
}

// The response to a HEAD request has the status and the headers of the response to a GET request, except Date and
// Connection, whether a stream can be opened or not. If no stream can be opened, the status is UnavailableStatus.
func TestHEADAnswersAsGET(t *testing.T) {
	t.Parallel()
	sites := map[string]struct {
		open    func(t *testing.T, hub *stream.Hub) *site
		refused bool
	}{
		"open": {func(t *testing.T, hub *stream.Hub) *site {
			return serveFeed(t, func(s *site) { s.hub.UnavailableStatus = hub.UnavailableStatus }).site
		}, false},
		"full": {func(t *testing.T, hub *stream.Hub) *site {
			f := serveFeed(t, func(s *site) { s.hub.UnavailableStatus, s.hub.Limits.Streams = hub.UnavailableStatus, 1 })
			listen(t, f.site, "alice").hello()
			return f.site
		}, true},
		"not begun": {func(t *testing.T, hub *stream.Hub) *site {
			s := &site{hub: hub}
			s.open(t)
			return s
		}, true},
		"stopped": {func(t *testing.T, hub *stream.Hub) *site {
			f := serveFeed(t, func(s *site) { s.hub.UnavailableStatus = hub.UnavailableStatus })
			f.stop()
			return f.site
		}, true},
	}
	for name, tt := range sites {
		for status, want := range map[int]int{0: 200, 200: 200, 503: 503} {
			t.Run(fmt.Sprint(name, " ", status), func(t *testing.T) {
				t.Parallel()
				s := tt.open(t, &stream.Hub{Source: &source{}, UnavailableStatus: status})
				if !tt.refused {
					want = http.StatusOK
				}
				get, head := headOf(t, s, http.MethodGet), headOf(t, s, http.MethodHead)
				if get.StatusCode != want || head.StatusCode != want {
					t.Errorf("got the status %d for GET and %d for HEAD, want %d", get.StatusCode, head.StatusCode, want)
				}
				if get.Header.Get("Content-Type") != "text/event-stream" || !reflect.DeepEqual(get.Header, head.Header) {
					t.Errorf("got the headers %v for GET and %v for HEAD, want the same headers, and text/event-stream", get.Header, head.Header)
				}
			})
		}
	}
}

// headOf returns the response to a request, without its body and without the headers Date and Connection.
func headOf(t *testing.T, s *site, method string) *http.Response {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, method, s.url+"?recipient=alice", nil)
	if err != nil {
		t.Fatal(err)
	}
	transport := new(http.Transport) // the end of another test's server can disturb requests through the default transport
	defer transport.CloseIdleConnections()
	response, err := transport.RoundTrip(request)
	if err != nil {
		t.Fatal(err)
	}
	_ = response.Body.Close()
	response.Header.Del("Date")
	response.Header.Del("Connection")
	return response
}

// A HEAD request opens no stream, so its grant is not renewed.
func TestHEADRenewsNoGrant(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t)
		stop := run(t, f.hub.Run)
		defer stop()
		f.hub.Serve(httptest.NewRecorder(), httptest.NewRequest(http.MethodHead, "/", nil), stream.Grant{
			User:    "alice",
			Expires: time.Now().Add(time.Second),
			Renew: func(context.Context) (time.Time, bool) {
				t.Error("the grant was renewed, want no renewal")
				return time.Time{}, false
			},
		})
		if opened := f.hub.Stats.Opened.Load(); opened != 0 {
			t.Errorf("%d streams were opened, want none", opened)
		}
		time.Sleep(time.Minute) // in the bubble
	})
}
