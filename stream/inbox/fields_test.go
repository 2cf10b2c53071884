package inbox_test

import (
	"context"
	"encoding/json"
	"net/http/httptest"
	"testing"

	"rowcast/stream/inbox"
)

// Negative numbers in the fields of a Handler mean the default: a user's requests are answered, also while another
// request of the user runs.
func TestNegativeFieldsMeanTheDefault(t *testing.T) {
	t.Parallel()
	began, end := make(chan struct{}, 2), make(chan struct{})
	h := handler(t, store{list: func(ctx context.Context, _ string) (json.RawMessage, error) {
		began <- struct{}{}
		<-end
		return json.RawMessage("{}"), ctx.Err()
	}}, func(h *inbox.Handler) { h.Calls, h.PerUser, h.Timeout, h.Answers = -1, -1, -1, -1 })
	answers := make(chan *httptest.ResponseRecorder, 2)
	for range 2 {
		go func() { answers <- get(t, h, "alice") }()
	}
	for range 2 {
		receive(t, began, "a call of List")
	}
	close(end)
	for range 2 {
		if w := receive(t, answers, "an answer"); w.Code != 200 {
			t.Errorf("got %d %s, want 200", w.Code, w.Body)
		}
	}
}
