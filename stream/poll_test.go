package stream_test

import (
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream"
	"rowcast/stream/sse"
)

// A pollAnswer is the answer to a poll.
type pollAnswer struct {
	*http.Response
	text   string
	reused bool // the request used the connection of an earlier one
}

// poll sends a poll and reads the answer. An empty id means that the poll has no cursor.
func poll(t testing.TB, client *http.Client, address, id string, recipients ...string) pollAnswer {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	var a pollAnswer
	ctx = httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{GotConn: func(c httptrace.GotConnInfo) { a.reused = c.Reused }})
	query := url.Values{"poll": {"1"}, "recipient": recipients}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address+"/?"+query.Encode(), nil)
	if err != nil {
		t.Fatal(err)
	}
	if id != "" {
		request.Header.Set("Last-Event-ID", id)
	}
	if a.Response, err = client.Do(request); err != nil {
		t.Fatal(err)
	}
	defer a.Body.Close()
	body, err := io.ReadAll(a.Body)
	if err != nil {
		t.Fatal(err)
	}
	a.text = string(body)
	return a
}

// events returns all events of the answer except rowcast.void and rowcast.hello, and the last id.
func (a pollAnswer) events(t testing.TB) (events []sse.Event, last string) {
	t.Helper()
	var decoder sse.Decoder
	for e, err := range decoder.Events(strings.NewReader(a.text)) {
		if err != nil {
			t.Fatal(err)
		}
		if e.Name != "rowcast.void" && e.Name != "rowcast.hello" {
			events = append(events, e)
		}
	}
	return events, decoder.LastID
}

// newPoller returns an HTTP client with connections of its own.
func newPoller(t testing.TB) *http.Client {
	transport := &http.Transport{}
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// The first answer has the cursor, and each further answer has the events that the client has missed. The answers have
// a length, so the client can use its connection again. They have no retry field, so the client polls again at once.
func TestPoll(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	client := newPoller(t)
	first := poll(t, client, f.url, "", "alice")
	want := void(start.String()) + hello(start.String(), "alice")
	one, other, two := f.publish("alice", "notify", "1"), f.publish("bob", "notify", "x"), f.publish(everyone, "message", "2")
	rows := want + "event: notify\ndata: 1\nid: " + one.Cursor.String() + "\n\ndata: 2\nid: " + two.Cursor.String() + "\n\n"
	later := void(other.Cursor.String()) + hello(other.Cursor.String(), "alice") + "data: 2\nid: " + two.Cursor.String() + "\n\n"
	reset := "event: rowcast.void\ndata: {}\n\nevent: rowcast.hello\ndata: {\"recipients\":[\"alice\"],\"heartbeat\":15}\n\n" +
		"event: rowcast.reset\ndata: {\"reason\": \"malformed\"}\nid: " + f.now.String() + "\n\n"
	for _, tt := range []struct {
		name, want string
		got        pollAnswer
	}{
		{"without a cursor", want, first},
		{"two missed rows", rows, poll(t, client, f.url, start.String(), "alice")},
		{"one missed row", later, poll(t, client, f.url, other.Cursor.String(), "alice")},
		{"reset", reset, poll(t, client, f.url, "nonsense", "alice")},
	} {
		h := tt.got.Header
		if tt.got.StatusCode != 200 || h.Get("Content-Type") != "text/event-stream" || h.Get("Cache-Control") != "no-store, no-transform" ||
			h.Get("Content-Length") != strconv.Itoa(len(tt.want)) || tt.got.text != tt.want {
			t.Errorf("%s: got the status %s, the headers %v and the body %q, want 200, the headers of a stream with Content-Length %d, and %q",
				tt.name, tt.got.Status, h, tt.got.text, len(tt.want), tt.want)
		}
		if reused := tt.name != "without a cursor"; tt.got.reused != reused {
			t.Errorf("%s: the connection was used before: %v, want %v", tt.name, tt.got.reused, reused)
		}
	}
	if s := &f.hub.Stats; s.Polls.Load() != 4 || s.Opened.Load() != 0 || s.Streams.Load() != 0 || s.Resets.Load() != 1 {
		t.Errorf("counted %d polls, %d opened streams, %d streams that are open now, and %d resets, want 4, 0, 0 and 1",
			s.Polls.Load(), s.Opened.Load(), s.Streams.Load(), s.Resets.Load())
	}
}

// A poll that has nothing to deliver waits for the first event, and then for the rest of a burst. If no event comes,
// the poll is answered after a heartbeat interval, with the current cursor.
func TestPollWaits(t *testing.T) {
	t.Parallel()
	tests := map[string]struct {
		publish func(*fakeFeed)
		after   time.Duration
		events  []string
	}{
		"a burst with a long row":  {tooLong, 3005 * time.Millisecond, []string{"1"}},
		"nothing":                  {func(*fakeFeed) {}, 15 * time.Second, []string{`{"behind": 12}`}},
		"a row for others":         {func(f *fakeFeed) { f.publish("bob", "message", "1") }, 15 * time.Second, []string{`{"behind": 12}`}},
		"a row":                    {func(f *fakeFeed) { f.publish("alice", "message", "1") }, 3005 * time.Millisecond, []string{"1"}},
		"a burst":                  {burst, 3005 * time.Millisecond, []string{"1", "2", "3"}},
		"a message":                {func(f *fakeFeed) { f.hub.Send(feed.Message{Recipient: "alice", Data: []byte("m")}) }, 3005 * time.Millisecond, []string{"m"}},
		"all streams are reset":    {func(f *fakeFeed) { f.hub.Publish(feed.Batch{Cursor: f.now, Reset: "history"}) }, 3005 * time.Millisecond, []string{`{"reason": "history"}`}},
		"the user is disconnected": {func(f *fakeFeed) { f.hub.Disconnect("alice") }, 3005 * time.Millisecond, []string{`{"reason": "disconnected", "expires_in": 0}`}},
		"more than the backlog":    {func(f *fakeFeed) { f.publish("alice", "message", strings.Repeat("x", 300)); burst(f) }, 3005 * time.Millisecond, []string{strings.Repeat("x", 300), "1", "2"}},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFeed(t, func(s *site) { s.hub.Backlog = 100 })
				defer run(t, f.hub.Run)()
				r := recordPoll(t, f.site, f.now.String(), stream.Grant{User: "alice"})
				time.Sleep(3 * time.Second) // in the bubble
				f.hub.Publish(feed.Batch{Cursor: f.now})
				tt.publish(f)
				r.awaitEnd(t)
				var got []string
				for _, e := range r.events() {
					got = append(got, e.Data)
				}
				if tt.after != r.took() || !slices.Equal(got, tt.events) {
					t.Errorf("got the answer %q after %v, want the events %q after %v", r.text(), r.took(), tt.events, tt.after)
				}
			})
		})
	}
}

// tooLong publishes three rows. The second row does not fit into a backlog of 100 bytes that already has a row.
func tooLong(f *fakeFeed) {
	for _, data := range []string{"1", strings.Repeat("x", 200), "3"} {
		f.publish("alice", "message", data)
	}
}

func burst(f *fakeFeed) {
	for _, data := range []string{"1", "2", "3"} {
		f.publish("alice", "message", data)
	}
}

// took returns the time of the last write.
func (r *recorder) took() time.Duration {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.writes[len(r.writes)-1].at
}

// Polls without events and polls with recent events do not call the Source. Each answer moves the client's cursor, so
// the memory of the hub is always enough.
func TestPollsNeedNoQuery(t *testing.T) {
	t.Parallel()
	used := func() error { t.Error("the Source was called, want no call"); return errors.New("unexpected") }
	f := serveFeed(t, func(s *site) {
		s.hub.Heartbeat, s.hub.Memory = 20*time.Millisecond, 4<<10 // the memory holds the last few events
		s.hub.Source = &source{
			catchUp: func(context.Context) error { return used() },
			valid:   func(context.Context) (bool, error) { return false, used() },
			page: func(context.Context, cursor.Cursor, cursor.Cursor) ([]feed.Row, cursor.Cursor, uint64, error) {
				return nil, cursor.Cursor{}, 0, used()
			},
		}
	})
	client := newPoller(t)
	_, id := poll(t, client, f.url, "", "alice").events(t)
	received := 0
	for i := range 100 {
		for range 5 {
			f.publish("bob", "message", "1") // the memory drops these events soon, so alice's cursor must move past them
		}
		if i%10 == 0 {
			f.publish("alice", "message", "1")
		}
		var events []sse.Event
		if events, id = poll(t, client, f.url, id, "alice").events(t); len(events) > 0 && events[0].Name == "message" {
			received++
		}
	}
	if received != 10 {
		t.Errorf("received %d rows in 100 answers, want 10", received)
	}
	if n := f.hub.Stats.Resets.Load() + f.hub.Stats.Pages.Load(); n > 0 {
		t.Errorf("got %d resets and reads of pages from the Source in all, want none", n)
	}
}

// A client that polls in a loop works with a limit of one stream. No poll is refused because the poll before it still
// counts.
func TestPollsAndLimits(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) {
		s.hub.Limits, s.hub.Heartbeat = stream.Limits{User: 1, Address: 1, Streams: 1}, 20*time.Millisecond
	})
	for range 50 { // each over a new connection
		client := newPoller(t)
		if a := poll(t, client, f.url, f.now.String(), "alice"); !strings.Contains(a.text, "rowcast.beat") {
			t.Fatalf("got %q, want a heartbeat", a.text)
		}
		client.CloseIdleConnections()
	}
}

// While a poll waits, it counts for the limits. A further poll gets the answer "retry later".
func TestWaitingPollCounts(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Limits.User, s.hub.UnavailableStatus = 1, 503 })
	waiting := make(chan pollAnswer, 1)
	go func() { waiting <- poll(t, newPoller(t), f.url, f.now.String(), "alice") }()
	eventually(t, "the poll waits", func() bool { return f.hub.Stats.Streams.Load() == 1 })
	if a := poll(t, newPoller(t), f.url, f.now.String(), "alice"); a.StatusCode != 503 || !regexp.MustCompile(`^retry: \d+\n$`).MatchString(a.text) {
		t.Errorf("got %s, %q, want 503 and only a retry field", a.Status, a.text)
	}
	f.publish("alice", "message", "1")
	if a := <-waiting; !strings.Contains(a.text, "data: 1\n") {
		t.Errorf("got %q, want the row", a.text)
	}
	if n := f.hub.Stats.Refused.User.Load(); n != 1 {
		t.Errorf("%d requests are counted as refused, want 1", n)
	}
}

// A poll ends when its grant ends, without rowcast.bye. The grant is not renewed.
func TestPollEndsWithItsGrant(t *testing.T) {
	t.Parallel()
	for name, renew := range map[string]func(context.Context) (time.Time, bool){
		"a token": nil,
		"an app": func(context.Context) (time.Time, bool) {
			t.Error("the grant was renewed, want no renewal")
			return time.Time{}, true
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				f := newFeed(t)
				defer run(t, f.hub.Run)()
				r := recordPoll(t, f.site, f.now.String(), stream.Grant{User: "alice", Expires: time.Now().Add(4 * time.Second), Renew: renew})
				r.awaitEnd(t)
				if want := void(start.String()) + hello(start.String(), "alice") + "event: rowcast.beat\ndata: {\"behind\": 4}\nid: " + start.String() + "\n\n"; r.text() != want || r.took() != 4*time.Second {
					t.Errorf("got %q after %v, want %q after 4s", r.text(), r.took(), want)
				}
			})
		})
	}
}

// When the hub stops, waiting polls are answered with a retry field and the cursor. Later polls are refused.
func TestPollsEndWhenTheHubStops(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, func(s *site) { s.hub.UnavailableStatus = 503 })
		stop := run(t, f.hub.Run)
		r := recordPoll(t, f.site, f.now.String(), stream.Grant{User: "alice"})
		synctest.Wait()
		stop()
		r.awaitEnd(t)
		if want := `^` + regexp.QuoteMeta(void(start.String())+hello(start.String(), "alice")) + `retry: \d+\nevent: rowcast.beat\n`; !regexp.MustCompile(want).MatchString(r.text()) {
			t.Errorf("got %q, want a match of %q", r.text(), want)
		}
		late := recordPoll(t, f.site, f.now.String(), stream.Grant{User: "alice"})
		late.awaitEnd(t)
		if !strings.HasPrefix(late.text(), "retry: ") || late.status() != 503 {
			t.Errorf("got %d, %q after the stop, want 503 and a retry field", late.status(), late.text())
		}
	})
}

// While the database cannot be read, a poll that needs it waits for a heartbeat interval. Then it gets the answer
// "retry later", and is counted as refused. A HEAD request begins no poll, so it is answered at once, as for a stream.
func TestPollDuringAnOutage(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, func(s *site) {
			s.hub.Memory, s.hub.UnavailableStatus = 1, 503
			s.hub.Source = &source{page: func(context.Context, cursor.Cursor, cursor.Cursor) ([]feed.Row, cursor.Cursor, uint64, error) {
				return nil, cursor.Cursor{}, 0, errors.New("no database")
			}}
		})
		defer run(t, f.hub.Run)()
		f.publish("alice", "message", "1")
		r := recordPoll(t, f.site, start.String(), stream.Grant{User: "alice"})
		r.awaitEnd(t)
		if !regexp.MustCompile(`^retry: \d+\n$`).MatchString(r.text()) || r.status() != 503 || r.took() != 15*time.Second {
			t.Errorf("got %d, %q after %v, want 503 and only a retry field after 15s", r.status(), r.text(), r.took())
		}
		if s := &f.hub.Stats; s.Polls.Load() != 1 || s.Refused.Unavailable.Load() != 1 {
			t.Errorf("counted %d polls and %d requests that were refused because the hub was unavailable, want 1 and 1", s.Polls.Load(), s.Refused.Unavailable.Load())
		}
		gone := recordPoll(t, f.site, start.String(), stream.Grant{User: "alice"})
		synctest.Wait()
		gone.disconnect() // the client may have closed only its side of the connection
		gone.awaitEnd(t)
		if refused := f.hub.Stats.Refused.Unavailable.Load(); gone.status() != stream.StatusDisconnected || gone.text() != "" || refused != 1 {
			t.Errorf("after a disconnect: got %d, %q and %d refused requests, want 499, no text and 1", gone.status(), gone.text(), refused)
		}
		w, head, began := httptest.NewRecorder(), httptest.NewRequestWithContext(t.Context(), http.MethodHead, "/?poll=1", nil), time.Now()
		head.Header.Set("Last-Event-ID", start.String())
		f.hub.Serve(w, head, stream.Grant{User: "alice"})
		if polls := f.hub.Stats.Polls.Load(); w.Code != http.StatusOK || time.Since(began) > 0 || polls != 2 {
			t.Errorf("HEAD: got %d after %v, with %d polls counted, want 200 at once and 2 polls", w.Code, time.Since(began), polls)
		}
	})
}

// A poll whose client needs longer than a heartbeat interval to accept its missed rows is answered. It is not counted as
// refused.
func TestPollOfASlowClient(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, func(s *site) { s.hub.Backlog = 30 << 10 })
		defer run(t, f.hub.Run)()
		first := text(20 << 10)
		f.publish("alice", "message", first)
		f.publish("alice", "message", text(20<<10)) // does not fit into the same answer
		r := newRecorder()
		resumeWrites := r.stall()
		r.request(t, f.site, "/?poll=1", start.String(), stream.Grant{User: "alice"})
		time.Sleep(20 * time.Second) // in the bubble
		resumeWrites()
		r.awaitEnd(t)
		if events := r.events(); len(events) != 1 || events[0].Data != first {
			t.Errorf("got %d events, want the first row", len(events))
		}
		if s := &f.hub.Stats; s.Replayed.Load() != 1 || s.Refused.Unavailable.Load() != 0 {
			t.Errorf("counted %d replayed events and %d refused requests, want 1 and none", s.Replayed.Load(), s.Refused.Unavailable.Load())
		}
	})
}

// The missed rows of a poll do not count as replayed if their write fails, even if it fails after the end of the poll's
// time.
func TestPollWhoseConnectionFails(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, func(s *site) { s.hub.Backlog = 30 << 10 })
		defer run(t, f.hub.Run)()
		for range 2 {
			f.publish("alice", "message", text(20<<10)) // both do not fit into one answer
		}
		r := newRecorder()
		resumeWrites := r.stall()
		r.request(t, f.site, "/?poll=1", start.String(), stream.Grant{User: "alice"})
		time.Sleep(20 * time.Second) // in the bubble; a poll lasts for 15 s
		r.disconnect()
		resumeWrites()
		r.awaitEnd(t)
		if s := &f.hub.Stats; s.Replayed.Load() != 0 || s.Refused.Unavailable.Load() != 0 {
			t.Errorf("counted %d replayed events and %d refused requests, want none", s.Replayed.Load(), s.Refused.Unavailable.Load())
		}
	})
}

// A value of the parameter poll other than 1 is an error. Otherwise a client that wants to poll would get a stream, and
// would wait for its end in vain.
func TestPollParameter(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	for query, want := range map[string]int{"poll=1": 200, "poll=1&poll=1": 200, "poll=0": 400, "poll": 400, "poll=true": 400, "poll=1&poll=2": 400} {
		response, err := newPoller(t).Get(f.url + "/?" + query)
		if err != nil {
			t.Fatal(err)
		}
		_ = response.Body.Close()
		if response.StatusCode != want {
			t.Errorf("%s: got %s, want %d", query, response.Status, want)
		}
	}
}
