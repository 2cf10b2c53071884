package stream_test

import (
	"net/http"
	"testing"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// TestResetComesBeforeItsCursor: a client that is cut off before the reset must come back with the cursor it had, or it would
// never hear of it.
func TestResetComesBeforeItsCursor(t *testing.T) {
	t.Parallel()
	_, url := serve(t, dbtest.Database(t))
	response, err := http.Get(url + "?recipient=alice&last_event_id=nonsense")
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for event, err := range sse.Events(response.Body) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Name == "rowcast.reset" {
			if event.LastID == "" {
				t.Error("the reset has no id")
			}
			return
		}
		if event.LastID != "" {
			t.Fatalf("%s came with or after id %s, before the reset", event.Name, event.LastID)
		}
	}
	t.Error("the stream ended without a reset")
}
