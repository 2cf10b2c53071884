package main_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// Clients that poll receive every row once and in order while hubs are restarted and killed. Half of the clients are
// behind an nginx that buffers. The requests of the others go first to a proxy that holds each response until its end,
// and from there to this nginx.
func TestPollingBehindProxiesThatBuffer(t *testing.T) {
	t.Parallel()
	c := newCast(t)
	held := holdResponses(t, c.nginx.url+"/buffered")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all []*roller
	var greeted, running sync.WaitGroup
	for i := range 60 {
		greeted.Add(1)
		r := &roller{t: t, greeted: sync.OnceFunc(greeted.Done)}
		polling, done := context.WithCancel(ctx)
		defer done()
		r.done, r.onEvent = done, r.record
		if r.url = c.nginx.url + "/buffered?uid=alice&poll=1"; i%2 == 0 {
			r.url = held + "?uid=alice&poll=1"
		}
		all = append(all, r)
		running.Go(func() {
			defer r.greeted()
			poll(polling, r)
		})
	}
	late := time.AfterFunc(2*waitLimit, cancel) // ends the clients if one of them is not greeted
	defer late.Stop()
	greeted.Wait()
	late.Stop()
	rows := c.roll()
	late.Reset(waitLimit) // ends the clients if one of them misses the last row
	running.Wait()
	answers := 0
	for i, r := range all {
		c.check(fmt.Sprintf("client %d", i), r.heard, rows)
		answers += r.streams
	}
	t.Logf("%d rows, to each of %d clients, in %d answers", rows, len(all), answers)
	if answers < 300 {
		t.Errorf("the clients received %d answers, want at least 300, which is 5 for each client on average", answers)
	}
}

// poll polls until ctx ends. If an answer would make an EventSource stop, poll fails the test and returns. poll waits
// only after an answer with the field retry, and after an error.
func poll(ctx context.Context, r *roller) {
	for ctx.Err() == nil {
		r.decoder.Retry = 0
		if err := r.stream(ctx); errors.Is(err, errFinal) {
			r.t.Error(err)
			return
		} else if err != nil {
			r.decoder.Retry = 100 * time.Millisecond
		}
		select {
		case <-ctx.Done():
		case <-time.After(r.decoder.Retry):
		}
	}
}

// A proxy that holds each response until its end sends nothing of an open stream, so clients behind it need polls.
func TestStreamBehindAProxyThatBuffers(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn)
	proxy := holdResponses(t, h.url+"/events")
	ctx, cancel := context.WithCancel(dbtest.Context(t))
	defer cancel()
	received := make(chan error, 1)
	stream := eventSource{url: proxy + "?uid=alice", onEvent: func(e sse.Event) { received <- fmt.Errorf("received %v", e) }}
	go func() { received <- stream.stream(ctx) }()
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_streams 1$`)
	polls := eventSource{url: proxy + "?uid=alice&poll=1", onEvent: func(sse.Event) {}}
	for range 2 { // the first answer has the cursor from which the second poll continues
		if err := polls.stream(ctx); err != nil {
			t.Fatal(err)
		}
		runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
	}
	select {
	case err := <-received:
		t.Errorf("the stream: %v, want nothing before its end", err)
	default:
	}
	cancel()
	receive(t, received, "the end of the stream")
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_streams_opened_total 1$`)
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_polls_total 2$`)
}

// holdResponses starts a proxy that sends a response only after the end of the response has arrived. It returns the URL
// of the proxy.
func holdResponses(t *testing.T, target string) string {
	t.Helper()
	server := httptest.NewServer(holding(t, target))
	t.Cleanup(server.Close)
	return server.URL + "/"
}

func holding(t *testing.T, target string) http.Handler {
	transport := new(http.Transport) // the end of another test's server can disturb requests through the default transport
	t.Cleanup(transport.CloseIdleConnections)
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		request, err := http.NewRequestWithContext(r.Context(), r.Method, target+"?"+r.URL.RawQuery, nil)
		if err != nil {
			t.Error(err)
			return
		}
		request.Header = r.Header.Clone()
		response, err := transport.RoundTrip(request)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		if err != nil {
			panic(http.ErrAbortHandler)
		}
		maps.Copy(w.Header(), response.Header)
		w.WriteHeader(response.StatusCode)
		_, _ = w.Write(body)
	})
}

// Behind a proxy that holds each response until its end, rowcast.js polls, and the page receives each row once.
func testBuffered(t *testing.T, chromium browser) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn)
	s := newStageWith(t, holding(t, h.url+"/events"))
	s.page = chromium.profile(t).open(t, s.URL)
	s.await("window.listen")
	value[bool](s.page, "listen('/events?uid=alice', {}), true")
	s.await("states.at(-1) === 'open buffered'")
	for n := 1; n <= 5; n++ {
		runSQL(t, dsn, fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '%d'), ('bob', '0')`, n))
		if n != 2 { // the rows 2 and 3 may come in one answer
			s.await(fmt.Sprintf("heard.length === %d", n))
		}
	}
	s.want("heard.map(([, data]) => data)", []any{1., 2., 3., 4., 5.})
	s.want("states", []any{"retrying timeout", "open buffered"})
}

// Polls that wait do not count as idle connections, so more polls can wait than there may be idle connections.
func TestManyPollsWait(t *testing.T) {
	t.Parallel()
	const files, polls = 256, 40 // a hub that may open 256 files allows 32 idle connections
	dsn := dbtest.Database(t)
	_, url := spawnServeWith(t, files, dsn, "--heartbeat=5m")
	client := http.Client{Transport: &http.Transport{}, Timeout: 4 * waitLimit}
	t.Cleanup(client.CloseIdleConnections)
	present := firstPoll(t, url)
	answers := make(chan error, polls)
	for i := range polls {
		go func() {
			response, err := client.Get(url + "/events?uid=alice&poll=1&last_event_id=" + present)
			if err == nil {
				defer response.Body.Close()
				var text []byte
				if text, err = io.ReadAll(response.Body); err == nil && !strings.Contains(string(text), "data: 1\n") {
					err = fmt.Errorf("got %q, want the row", text)
				}
			}
			answers <- err
		}()
		askUntil(t, url+"/metrics", fmt.Sprintf(`(?m)^rowcast_streams %d$`, i+1))
	}
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
	for range polls {
		if err, _ := receive(t, answers, "the answer to a poll"); err != nil {
			t.Error(err)
		}
	}
}

// firstPoll polls without a cursor. It returns the last id in the answer. A poll with this id waits for later rows.
func firstPoll(t *testing.T, url string) (id string) {
	t.Helper()
	var decoder sse.Decoder
	for _, err := range decoder.Events(strings.NewReader(ask(t, http.MethodGet, url+"/events?uid=alice&poll=1").body)) {
		if err != nil {
			t.Fatal(err)
		}
	}
	return decoder.LastID
}
