package stream_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"regexp"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
	"rowcast/stream"
)

// When a hub stops, each live stream receives a new retry time and a cursor, and then ends without an error. This holds
// over plain HTTP/1.1, over TLS and over HTTP/2. New clients are answered with "retry later" and the status 200,
// because an EventSource does not reconnect after any other status.
func TestStopping(t *testing.T) {
	t.Parallel()
	tests := map[string]func(t *testing.T, f *fakeFeed) *client{
		"plain":             func(t *testing.T, f *fakeFeed) *client { return listen(t, f.site, "alice") },
		"HTTP/1.1 over TLS": func(t *testing.T, f *fakeFeed) *client { return listenTLS(t, f, false, "alice") },
		"HTTP/2":            func(t *testing.T, f *fakeFeed) *client { return listenTLS(t, f, true, "alice") },
	}
	for name, open := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := newFeed(t, func(s *site) { s.hub.Drain = 2 * time.Second })
			stop := f.open(t)
			c := open(t, f)
			c.hello()
			f.publish("bob", "message", "1")
			f.publish("alice", "message", "2")
			c.wantData("2")
			if !f.hub.Ready() {
				t.Error("the hub is not ready before it stops, want ready")
			}
			c.decoder.Retry = 0
			stop()
			if f.hub.Ready() {
				t.Error("the hub is ready after it has stopped, want not ready")
			}
			if got := c.want("rowcast.beat"); got.LastID != f.now.String() || c.decoder.Retry < 1500*time.Millisecond {
				t.Errorf("the last event is %v with the retry time %v, want the id %s and at least 1.5 s", got, c.decoder.Retry, f.now)
			}
			c.wantEnd()
			if got := f.hub.Stats.Streams.Load(); got != 0 {
				t.Errorf("%d streams are left, want none", got)
			}
			wantRetryLater(t, open(t, f))
		})
	}
}

func wantRetryLater(t *testing.T, c *client) {
	t.Helper()
	if c.response.StatusCode != http.StatusOK || c.response.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("got %s, %v, want 200 and an event stream", c.response.Status, c.response.Header)
	}
	all, err := io.ReadAll(c.body)
	if err != nil || !regexp.MustCompile(`^retry: [0-9]{4}\n$`).Match(all) {
		t.Errorf("got %q, %v, want only a retry field", all, err)
	}
}

// Before the first batch, a hub has no cursor, so it accepts no streams.
func TestBeforeTheFirstBatch(t *testing.T) {
	t.Parallel()
	s := &site{hub: &stream.Hub{Source: &source{}}}
	s.open(t)
	if s.hub.Ready() {
		t.Error("the hub is ready before the first batch, want not ready")
	}
	wantRetryLater(t, listen(t, s, "alice"))
	wantRetryLater(t, resume(t, s, start.String(), "alice"))
	if got := s.hub.Stats.Refused.Unavailable.Load(); got != 2 {
		t.Errorf("%d requests are counted as refused, want 2", got)
	}
	if got := s.hub.Behind(); got != 0 {
		t.Errorf("Behind is %v, want 0", got)
	}
	s.hub.Publish(feed.Batch{Cursor: start})
	if !s.hub.Ready() {
		t.Error("the hub is not ready after the first batch, want ready")
	}
	if got := listen(t, s).hello(); got != start.String() {
		t.Errorf("rowcast.hello has the id %s, want %s", got, start)
	}
}

// The streams of a hub that stops end at different times, so that their clients do not all reconnect at once.
func TestStreamsEndSpreadOverDrain(t *testing.T) {
	t.Parallel()
	const drain = 20 * time.Second
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t, func(s *site) { s.hub.Drain = drain })
		stop := run(t, f.hub.Run)
		var all []*recorder
		for range 200 {
			all = append(all, record(t, f.site, ""))
		}
		synctest.Wait()
		began := time.Now()
		stop()
		if took := time.Since(began); took < drain/2 || took > drain {
			t.Errorf("stopped after %v, want at most %v and at least half of it", took, drain)
		}
		ended := map[time.Duration]int{}
		for _, r := range all {
			r.awaitEnd(t)
			beats := r.times("rowcast.beat")
			if len(beats) != 1 || !strings.HasSuffix(r.text(), "}\nid: "+start.String()+"\n\n") {
				t.Fatalf("got %q, want one heartbeat at the end", r.text())
			}
			ended[beats[0]]++
		}
		if len(ended) < 50 {
			t.Errorf("200 streams ended at %d different times, want at least 50", len(ended))
		}
	})
}

// Pending events are sent before a stream ends, if the client accepts them during Drain. A stream that is joining ends
// without an event.
func TestStoppingSendsPendingEvents(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		f.hub.Source.(*source).catchUp = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		slow, dead := record(t, f.site, "", "alice"), record(t, f.site, "", "alice")
		ahead := start
		ahead.Xmax += 100
		waiting := record(t, f.site, ahead.String())
		synctest.Wait()
		resumeWrites, free := slow.stall(), dead.stall()
		f.publish("alice", "message", "1")
		f.publish("alice", "message", "2")
		time.AfterFunc(heartbeat/2, resumeWrites)
		f.stop()
		waiting.awaitEnd(t)
		slow.awaitEnd(t)
		free() // on a real connection, the write would have failed by now
		dead.awaitEnd(t)
		got := slow.events()
		if len(got) != 3 || got[0].Data != "1" || got[1].Data != "2" || got[2].Name != "rowcast.beat" || got[2].LastID != f.now.String() {
			t.Errorf("got %v, want the two pending events and then a heartbeat", got)
		}
		if got := waiting.text(); strings.Trim(got, ":\n") != "" {
			t.Errorf("the stream that is joining received %q, want only comments", got)
		}
	}, func(s *site) { s.hub.Drain = heartbeat })
}

func TestStoppingWhileAStreamOpens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t)
		stop := run(t, f.hub.Run)
		r, resumeWrites := recordStalled(t, f.site, "", "alice")
		synctest.Wait()
		stop()
		resumeWrites()
		r.awaitEnd(t)
		if got := r.events(); len(got) > 0 {
			t.Errorf("got the events %v, want none", got)
		}
	})
}

// The cursor at the end of a stream belongs to the last event that was sent, even while many events are published.
func TestTheLastCursorIsExact(t *testing.T) {
	t.Parallel()
	f := newFeed(t, func(s *site) { s.hub.Drain = 200 * time.Millisecond })
	stop := f.open(t)
	var clients []*client
	for range 60 {
		c := listen(t, f.site, "alice")
		c.hello()
		clients = append(clients, c)
	}
	stopped := make(chan struct{})
	var all sync.WaitGroup
	all.Go(func() {
		for i := 1; ; i++ {
			select {
			case <-stopped:
				return
			default:
				f.publish("alice", "message", fmt.Sprint(i))
			}
		}
	})
	for _, c := range clients {
		all.Go(func() {
			last := ""
			for e, err, ok := c.next(); ok && err == nil; e, err, ok = c.next() {
				if e.Name == "message" {
					last = e.Data
				}
			}
			if got := fmt.Sprint(parse(t, c.decoder.LastID).AnchorXid() - start.AnchorXid()); got != last && last != "" {
				t.Errorf("the last cursor belongs to event %s, want event %s, which was received last", got, last)
			}
		})
	}
	stop()
	close(stopped)
	dbtest.Wait(t, all.Wait, "the end of every stream")
}
