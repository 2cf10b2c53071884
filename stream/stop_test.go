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

// While a hub stops, over every protocol: a stream is told from where and when to come back, and ends as one does that is
// complete; who comes is told when to come back, with 200, since an EventSource would take any other status for final.
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
			f := newFeed(t, func(s *site) { s.hub.Drain = 300 * time.Millisecond })
			stop := f.open(t)
			c := open(t, f)
			c.hello()
			f.tell("bob", "message", "1")
			f.tell("alice", "message", "2")
			c.wantTold("2")
			if !f.hub.Ready() {
				t.Error("it is not ready")
			}
			c.decoder.Retry = 0
			stop()
			if f.hub.Ready() {
				t.Error("it is still ready")
			}
			if got := c.want("rowcast.beat"); got.LastID != f.now.String() || c.decoder.Retry < 1500*time.Millisecond {
				t.Errorf("last words: %v, retry %v", got, c.decoder.Retry)
			}
			c.wantEnd()
			if got := f.hub.Stats.Streams.Load(); got != 0 {
				t.Errorf("%d streams are left", got)
			}
			wantComeBackLater(t, open(t, f))
		})
	}
}

func wantComeBackLater(t *testing.T, c *client) {
	t.Helper()
	if c.response.StatusCode != http.StatusOK || c.response.Header.Get("Content-Type") != "text/event-stream" {
		t.Errorf("got %s, %v", c.response.Status, c.response.Header)
	}
	all, err := io.ReadAll(c.body)
	if err != nil || !regexp.MustCompile(`^retry: [0-9]{4}\n\n$`).Match(all) {
		t.Errorf("got %q, %v", all, err)
	}
}

// A hub that has not begun has no cursor to give.
func TestBeforeTheFirstBatch(t *testing.T) {
	t.Parallel()
	s := &site{hub: &stream.Hub{Source: &source{}}}
	s.open(t)
	if s.hub.Ready() {
		t.Error("it is ready")
	}
	wantComeBackLater(t, listen(t, s, "alice"))
	wantComeBackLater(t, resume(t, s, start.String(), "alice"))
	if got := s.hub.Stats.Refused.Unavailable.Load(); got != 2 {
		t.Errorf("%d were refused, want 2", got)
	}
	if got := s.hub.Behind(); got != 0 {
		t.Errorf("behind %v", got)
	}
	s.hub.Publish(feed.Batch{Cursor: start})
	if !s.hub.Ready() {
		t.Error("it is not ready")
	}
	if got := listen(t, s).hello(); got != start.String() {
		t.Errorf("got %s, want %s", got, start)
	}
}

// The clients of a hub that stops must not all come to another at once.
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
			t.Errorf("stopped after %v, want about %v", took, drain)
		}
		ended := map[time.Duration]int{}
		for _, r := range all {
			r.awaitEnd(t)
			beats := r.times("rowcast.beat")
			if len(beats) != 1 || !strings.HasSuffix(r.text(), "}\n\n") {
				t.Fatalf("got %q, want last words", r.text())
			}
			ended[beats[0]]++
		}
		if len(ended) < 50 {
			t.Errorf("200 streams ended at %d instants", len(ended))
		}
	})
}

// Who is owed something is told that first, if it takes it while the hub drains.
func TestStoppingTellsWhatIsOwed(t *testing.T) {
	t.Parallel()
	inBubble(t, func(t *testing.T, f *fakeFeed) {
		f.hub.Source.(*source).catchUp = func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() }
		slow, dead := record(t, f.site, "", "alice"), record(t, f.site, "", "alice")
		ahead := start
		ahead.Xmax += 100
		waiting := record(t, f.site, ahead.String())
		synctest.Wait()
		goOn, free := slow.stall(), dead.stall()
		f.tell("alice", "message", "1")
		f.tell("alice", "message", "2")
		time.AfterFunc(heartbeat/2, goOn)
		f.stop()
		waiting.awaitEnd(t)
		slow.awaitEnd(t)
		free() // a socket's write would have ended
		dead.awaitEnd(t)
		if got := fmt.Sprint(slow.events()); !strings.Contains(got, "message 1") || !strings.Contains(got, "message 2") ||
			!strings.Contains(got, "message 2} {"+f.now.String()+" rowcast.beat") {
			t.Errorf("got %v", got)
		}
		if got := waiting.text(); strings.Trim(got, ":\n") != "" {
			t.Errorf("got %q", got)
		}
	}, func(s *site) { s.hub.Drain = heartbeat })
}

// A stream that is being opened when the hub stops is ended as well.
func TestStoppingWhileAStreamOpens(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		f := newFeed(t)
		stop := run(t, f.hub.Run)
		r, goOn := recordStalled(t, f.site, "", "alice")
		synctest.Wait()
		stop()
		goOn()
		r.awaitEnd(t)
		if got := r.events(); len(got) > 0 {
			t.Errorf("got %v", got)
		}
	})
}

// The last words' cursor is neither older nor newer than what was told, however much is going on.
func TestLastWordsAreExact(t *testing.T) {
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
				f.tell("alice", "message", fmt.Sprint(i))
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
				t.Errorf("told up to %s, the cursor says %s", last, got)
			}
		})
	}
	stop()
	close(stopped)
	dbtest.Wait(t, all.Wait, "every client to be at the end of its stream")
}
