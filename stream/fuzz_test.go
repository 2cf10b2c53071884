package stream_test

import (
	"bytes"
	"cmp"
	"context"
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"net/url"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"unicode/utf8"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream"
	"rowcast/stream/sse"
)

// A helloOnly is a response whose client disconnects after rowcast.hello.
type helloOnly struct {
	header http.Header
	status int
	body   bytes.Buffer
	leave  context.CancelFunc
}

func (g *helloOnly) Header() http.Header    { return g.header }
func (g *helloOnly) WriteHeader(status int) { g.status = status }
func (g *helloOnly) Flush()                 {}

func (g *helloOnly) Write(b []byte) (int, error) {
	g.body.Write(b)
	if bytes.Contains(b, []byte("event: rowcast.hello\n")) {
		g.leave()
	}
	return len(b), nil
}

// FuzzServe checks the beginning of streams, and the answers to polls, for any request. The status is 200, or 400 if
// the parameter poll has another value than 1. rowcast.hello names the grant's recipients. If a stream or a poll
// continues from the client's cursor, the id of rowcast.hello is this cursor with the hub's epoch, and the poll ends
// with a heartbeat. Otherwise, if the client sent a cursor, rowcast.reset follows. Besides rowcast.void, there are no
// other events, whatever the request contains.
func FuzzServe(f *testing.F) {
	f.Add("", "", "alice", "team:7")
	f.Add(start.String(), "", "", "")
	f.Add("77-1042-1042--5be3b1f2-0c9a8e11", "x", "a\r\nevent: b", "a")
	f.Add("\r\nid: 1\n\ndata: x", "last_event_id=1&last_event_id=2", "\xff", "\x00")
	f.Add("", "last_event_id="+start.String(), "\u2028", "\ufeff")
	f.Add("", "last_event_id=%0d%0a;%zz&last_event_id=1-2", "<", "</script>")
	f.Add("", "lastEventId=x&lastEventID="+start.String()+"&last_event_id=", "a", "b")
	f.Add("", "last_event_id="+start.String()+"&x=%zz&lastEventId=%zz", "a", "b")
	f.Add("9-0-9223372036854775807-.v_________v-5be3b1f2-00000000", "", "a", "b")
	f.Add("", "", "alice", "*")
	f.Add("", "", "rowcast.inbox:alice", "rowcast.inbox#0")
	f.Add("", "poll=1", "alice", "team:7")
	f.Add(start.String(), "poll=1&p%6Fll=1&poll=%zz", "alice", "")
	f.Add("77-1042-1042--5be3b1f2-0c9a8e11", "poll=1", "a", "b")
	f.Add("", "poll=1&last_event_id=x", "a", "b")
	f.Add(start.String(), "poll=1&poll", "a", "b")
	f.Add("", "poll=true", "a", "b")
	f.Fuzz(func(t *testing.T, header, query, user, group string) {
		if len(user) > 256 || len(group) > 256 { // a recipient has at most 256 bytes
			return
		}
		// In a bubble, a poll without events waits for no real time.
		synctest.Test(t, func(t *testing.T) { checkServe(t, header, query, user, group) })
	})
}

func checkServe(t *testing.T, header, query, user, group string) {
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	request := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	request.ProtoMajor = 2 // over HTTP/2, Serve writes through w
	request.URL.RawQuery = query
	request.Header["Last-Event-Id"] = []string{header}
	w := &helloOnly{header: http.Header{}, leave: leave}
	newFeed(t).hub.Serve(w, request, stream.Grant{User: user, Groups: []string{group}})

	poll, ok := pollInQuery(query)
	switch {
	case ok:
		checkRecipients(t, checkBeginning(t, w, header, query, poll).Data, user, group)
	case w.status != http.StatusBadRequest || !strings.HasPrefix(w.body.String(), "poll must be 1"):
		t.Errorf("%q: got the status %d and the answer %q, want 400 and an answer that begins with \"poll must be 1\"", query, w.status, w.body.String())
	}
}

// checkBeginning checks the status, the headers and the events of a stream or of the answer to a poll. It returns
// rowcast.hello.
func checkBeginning(t *testing.T, w *helloOnly, header, query string, poll bool) (hello sse.Event) {
	t.Helper()
	wantWholeBlocks(t, w.body.String())
	var names []string
	for e, err := range sse.Events(&w.body) {
		if err != nil {
			t.Fatal(err)
		}
		if names = append(names, e.Name); e.Name == "rowcast.hello" {
			hello = e
		}
	}
	want := []string{"rowcast.void", "rowcast.hello"}
	text := cmp.Or(header, lastInQuery(query))
	c, err := cursor.Parse(text)
	valid := err == nil && start.Covers(c)
	c.Epoch = start.Epoch // the hub converts a cursor of another epoch, because the Source says that it is valid
	switch {
	case text != "" && !valid:
		want = append(want, "rowcast.reset")
	case text != "" && poll:
		want = append(want, "rowcast.beat")
	}
	if w.status != http.StatusOK || w.header.Get("Content-Type") != "text/event-stream" || !slices.Equal(names, want) {
		t.Errorf("%q %q: got the status %d, the headers %v and the events %q, want 200, text/event-stream and %q",
			header, query, w.status, w.header, names, want)
	}
	if text != "" && valid && hello.LastID != c.String() {
		t.Errorf("%q: rowcast.hello has the id %q, want %s", text, hello.LastID, c)
	}
	return hello
}

// pollInQuery reports whether a query asks for a poll. ok is false if the parameter poll has another value than 1. A
// parameter that cannot be decoded does not count.
func pollInQuery(query string) (poll, ok bool) {
	values, _ := url.ParseQuery(query)
	for _, value := range values["poll"] {
		if value != "1" {
			return false, false
		}
		poll = true
	}
	return poll, true
}

// lastInQuery returns the last value that is not empty among the query parameters for the cursor. For a value that
// cannot be decoded, it returns "unreadable", which is no cursor.
func lastInQuery(query string) (last string) {
	for parameter := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(parameter, "=")
		name, nameErr := url.QueryUnescape(name)
		if nameErr != nil || !strings.EqualFold(name, "last_event_id") && !strings.EqualFold(name, "lastEventId") {
			continue
		}
		text, err := url.QueryUnescape(value)
		if err != nil {
			text = "unreadable"
		}
		last = cmp.Or(text, last)
	}
	return last
}

// checkRecipients checks that the data of rowcast.hello names the recipients that were given, except feed.Everyone and
// the recipients of inbox events, which rowcast.hello never names.
func checkRecipients(t *testing.T, data string, given ...string) {
	t.Helper()
	var got struct{ Recipients []string }
	if err := json.Unmarshal([]byte(data), &got); err != nil || strings.ContainsAny(data, "\r\n") {
		t.Fatalf("the data of rowcast.hello is %q (%v), want one line of JSON", data, err)
	}
	if slices.ContainsFunc(given, func(r string) bool { return !utf8.ValidString(r) }) {
		return // JSON and the table cannot contain invalid UTF-8
	}
	given = slices.DeleteFunc(given, func(r string) bool { return r == "" || r == feed.Everyone || feed.IsInbox(r) })
	slices.Sort(given)
	if given = slices.Compact(given); !slices.Equal(got.Recipients, given) {
		t.Errorf("rowcast.hello names the recipients %q, want %q", got.Recipients, given)
	}
}
