package stream_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"rowcast/listener/cursor"
	"rowcast/stream"
	"rowcast/stream/sse"
)

// greeted is a response that ends its stream as soon as that has said hello.
type greeted struct {
	header http.Header
	status int
	body   bytes.Buffer
	leave  context.CancelFunc
}

func (g *greeted) Header() http.Header    { return g.header }
func (g *greeted) WriteHeader(status int) { g.status = status }
func (g *greeted) Flush()                 {}

func (g *greeted) Write(b []byte) (int, error) {
	g.body.Write(b)
	if bytes.Contains(b, []byte("event: rowcast.hello\n")) {
		g.leave()
	}
	return len(b), nil
}

// FuzzServe: whatever a request brings, a stream begins with 200; it says hello to just its recipients, with a cursor of ours: the
// client's own, or one with a reset if that cannot be honoured. Nothing of the request becomes a field of the stream.
func FuzzServe(f *testing.F) {
	f.Add("", "", "alice", "team:7")
	f.Add(start.String(), "", "", "")
	f.Add("77-1042-1042--5be3b1f2-0c9a8e11", "x", "a\r\nevent: b", "a")
	f.Add("\r\nid: 1\n\ndata: x", "last_event_id=1&last_event_id=2", "\xff", "\x00")
	f.Add("", "last_event_id="+start.String(), "\u2028", "\ufeff")
	f.Add("", "last_event_id=%0d%0a;%zz&last_event_id=1-2", "<", "</script>")
	f.Add("9-0-9223372036854775807-.v_________v-5be3b1f2-00000000", "", "a", "b")
	hub := newFeed(f).hub
	f.Fuzz(func(t *testing.T, header, query, one, other string) {
		if len(one) > 256 || len(other) > 256 { // no recipient is longer
			return
		}
		ctx, leave := context.WithCancel(t.Context())
		defer leave()
		request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
		request.ProtoMajor = 2 // not to be hijacked
		request.URL.RawQuery = query
		request.Header["Last-Event-Id"] = []string{header}
		w := &greeted{header: http.Header{}, leave: leave}
		hub.Serve(w, request, stream.Grant{User: one, Groups: []string{other}})

		var names []string
		var hello sse.Event
		for e, err := range sse.Events(&w.body) {
			if err != nil {
				t.Fatal(err)
			}
			if names = append(names, e.Name); e.Name == "rowcast.hello" {
				hello = e
			}
		}
		want := []string{"rowcast.hello"}
		text := cmp.Or(header, request.URL.Query().Get("last_event_id"))
		c, err := cursor.Parse(text)
		honoured := err == nil && start.Covers(c)
		c.Epoch = start.Epoch // the source says that whatever is of another epoch stands
		if text != "" && !honoured {
			want = append(want, "rowcast.reset")
		}
		if w.status != http.StatusOK || w.header.Get("Content-Type") != "text/event-stream" || !slices.Equal(names, want) {
			t.Errorf("%q %q: got %d, %q, want %q", header, query, w.status, names, want)
		}
		if id, err := cursor.Parse(hello.LastID); text != "" && honoured && (err != nil || hello.LastID != c.String()) {
			t.Errorf("%q: the hello brings %q (%v, %v)", text, hello.LastID, id, err)
		}
		checkRecipients(t, hello.Data, one, other)
	})
}

// checkRecipients wants a hello's data to name those whose stream it is.
func checkRecipients(t *testing.T, data string, given ...string) {
	t.Helper()
	var got struct{ Recipients []string }
	if err := json.Unmarshal([]byte(data), &got); err != nil || strings.ContainsAny(data, "\r\n") {
		t.Fatalf("hello %q: %v", data, err)
	}
	if slices.ContainsFunc(given, func(r string) bool { return !utf8.ValidString(r) }) {
		return // JSON cannot say it; no recipient in the table is like that
	}
	given = slices.DeleteFunc(given, func(r string) bool { return r == "" })
	slices.Sort(given)
	if given = slices.Compact(given); !slices.Equal(got.Recipients, given) {
		t.Errorf("the stream is for %q, want %q", got.Recipients, given)
	}
}
