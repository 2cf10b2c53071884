package stream_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"

	"rowcast/stream"
)

// limited serves a feed with limits. The header From of a request sets the address of its client.
func limited(t *testing.T, limits stream.Limits) *fakeFeed {
	f := newFeed(t, func(s *site) { s.hub.Limits = limits })
	run(t, f.hub.Run)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.RemoteAddr = r.Header.Get("From")
		f.ServeHTTP(w, r)
	}))
	t.Cleanup(server.Close)
	f.url = server.URL
	return f
}

// openFrom opens a stream for a user from the given client address.
func openFrom(t *testing.T, f *fakeFeed, address, user string) *client {
	t.Helper()
	return open(t, f.site, request{recipients: []string{user, "team:7"}, head: http.Header{"From": {address}}})
}

// When a limit is reached, further clients get the response "retry later", so an EventSource reconnects. Open streams
// continue. When one of them ends, a new client gets its place.
func TestLimits(t *testing.T) {
	t.Parallel()
	type visitor struct{ address, user string }
	tests := map[string]struct {
		limits   stream.Limits
		open     []visitor
		refused  []visitor
		others   []visitor
		counting func(*stream.Refusals) *atomic.Int64
	}{
		"limit in total": {
			stream.Limits{Streams: 2},
			[]visitor{{"192.0.2.1:1", "alice"}, {"192.0.2.2:1", "bob"}},
			[]visitor{{"192.0.2.3:1", "carol"}, {"192.0.2.1:1", "alice"}},
			nil,
			func(r *stream.Refusals) *atomic.Int64 { return &r.Streams },
		},
		"limit of a user": {
			stream.Limits{User: 2},
			[]visitor{{"192.0.2.1:1", "alice"}, {"192.0.2.2:1", "alice"}},
			[]visitor{{"192.0.2.3:1", "alice"}},
			[]visitor{{"192.0.2.1:1", "bob"}, {"192.0.2.1:1", "carol"}, {"192.0.2.1:1", "team:7"}}, // groups do not count as users
			func(r *stream.Refusals) *atomic.Int64 { return &r.User },
		},
		"limit of an IPv4 address": {
			stream.Limits{Address: 2},
			[]visitor{{"192.0.2.1:1", "alice"}, {"192.0.2.1:2", "bob"}},
			[]visitor{{"192.0.2.1:3", "carol"}, {"192.0.2.1", "carol"}, {"[::ffff:192.0.2.1]:4", "carol"}},
			[]visitor{{"192.0.2.2:1", "alice"}},
			func(r *stream.Refusals) *atomic.Int64 { return &r.Address },
		},
		"limit of an IPv6 network": {
			stream.Limits{Address: 2},
			[]visitor{{"[2001:db8:1:2::1]:1", "alice"}, {"[2001:db8:1:2:ffff::2]:1", "bob"}},
			[]visitor{{"[2001:db8:1:2::3]:1", "carol"}, {"2001:db8:1:2::4", "carol"}, {"[2001:db8:1:2::3%eth0]:1", "carol"}},
			[]visitor{{"[2001:db8:1:3::1]:1", "alice"}, {"[::ffff:192.0.2.1]:4", "alice"}, {"nonsense", "x"}, {"", "y"}, {"", "z"}},
			func(r *stream.Refusals) *atomic.Int64 { return &r.Address },
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := limited(t, tt.limits)
			var in []*client
			for _, w := range append(tt.open, tt.others...) {
				c := openFrom(t, f, w.address, w.user)
				c.hello()
				in = append(in, c)
			}
			for i, w := range tt.refused {
				wantRetryMuchLater(t, openFrom(t, f, w.address, w.user))
				if got := tt.counting(&f.hub.Stats.Refused).Load(); got != int64(i+1) {
					t.Errorf("%v: %d requests are counted as refused, want %d", w, got, i+1)
				}
			}
			f.publish(everyone, "message", "1")
			for _, c := range in {
				c.wantData("1")
			}
			in[0].close()
			eventually(t, "a stream has ended", func() bool { return f.hub.Stats.Streams.Load() == int64(len(in)-1) })
			first := tt.refused[0]
			openFrom(t, f, first.address, first.user).hello()
			wantRetryMuchLater(t, openFrom(t, f, first.address, first.user))
		})
	}
}

// wantRetryMuchLater checks that the response is an empty stream with a longer retry time than usual.
func wantRetryMuchLater(t *testing.T, c *client) {
	t.Helper()
	if c.response.StatusCode != http.StatusOK || c.response.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("got %s, %v, want 200 and an event stream", c.response.Status, c.response.Header)
	}
	wantRetry(t, c.line(), 30*time.Second)
	if rest, err := io.ReadAll(c.body); len(rest) > 0 || err != nil {
		t.Errorf("got %q, %v after the retry field, want the end", rest, err)
	}
}
