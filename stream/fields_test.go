package stream_test

import (
	"math"
	"net/http/httptest"
	"testing"
	"time"

	"rowcast/stream"
)

// A Hub works with any numbers in its fields: a negative number means the default, and a very large number does not
// overflow. Streams continue while a client is slow, and clients that must retry later are told a time.
func TestHubAcceptsAnyNumbers(t *testing.T) {
	t.Parallel()
	const day = 24 * time.Hour
	for name, tt := range map[string]struct {
		number           int
		heartbeat, retry time.Duration
	}{
		"negative": {-1, 15 * time.Second, 3 * time.Second},
		"lowest":   {math.MinInt, 15 * time.Second, 3 * time.Second},
		"highest":  {math.MaxInt, day, day},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			n := tt.number
			f := serveFeed(t, func(s *site) {
				h := s.hub
				h.Heartbeat, h.Retry, h.UnavailableStatus = time.Duration(n), time.Duration(n), n
				h.Backlog, h.Pending, h.Page, h.Memory, h.Reads = n, n, n, n, n
				h.Limits = stream.Limits{Streams: n, User: n, Address: n}
				if n < 0 { // a long Drain is no mistake
					h.Drain = time.Duration(n)
				}
			})
			if f.hub.Heartbeat != tt.heartbeat || f.hub.Retry != tt.retry {
				t.Errorf("got the Heartbeat %v and the Retry %v, want %v and %v", f.hub.Heartbeat, f.hub.Retry, tt.heartbeat, tt.retry)
			}
			c := listen(t, f.site, "alice")
			c.hello()
			large := text(24 << 20) // more than the kernel's buffers hold
			f.publish("alice", "message", large)
			f.publish("alice", "message", "1")
			c.wantData(large)
			c.wantData("1")

			w := httptest.NewRecorder()
			f.hub.RetryLater(w)
			if w.Code != 200 {
				t.Errorf("retry later: got the status %d, want 200", w.Code)
			}
			c.close()
			eventually(t, "the stream ends", func() bool { return f.hub.Stats.Streams.Load() == 0 })
		})
	}
}
