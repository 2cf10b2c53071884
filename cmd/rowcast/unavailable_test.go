package main_test

import (
	"context"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// With --unavailable-status, the hub answers with this status if it tells a client to retry later. The status of a
// denial, such as 401, stays the same.
func TestUnavailableStatus(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	app := newAuthApp(t, saying(500, ""))
	failing := startHub(t, dsn, "--unavailable-status=502", "--auth-url", app.URL)
	full := serve(t, dsn, "--unavailable-status=503", "--max-connections=1")
	full.streamOf(t, [2]string{"alice", ""})
	waits := waiting(t, newRefuser(t, "57P03").dsn(), "--unavailable-status=504") // PostgreSQL is starting
	stopping := drain(t, serve(t, dsn, "--unavailable-status=500", "--drain=6s"))
	for _, tt := range []struct {
		name   string
		hub    *hub
		query  string
		status int
	}{
		{"the hub stops", stopping, "?uid=bob", 500}, // first, before the hub has ended
		{"denied while the hub stops", stopping, "", 401},
		{"the app fails", failing, "", 502},
		{"the limit is reached", full, "?uid=bob", 503},
		{"the hub waits", waits, "?uid=bob", 504},
		{"denied while the app fails", failing, "?token=x", 400},
		{"denied while the limit is reached", full, "", 401},
		{"denied while the hub waits", waits, "", 401},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			got := ask(t, method, tt.hub.url+"/events"+tt.query, "Cookie", "session=x")
			if later := got.header.Get("Content-Type") == "text/event-stream"; got.status != tt.status || later != (tt.status >= 500) {
				t.Errorf("%s, %s: got %+v, want the status %d, and the type text/event-stream only if the client must retry later", tt.name, method, got, tt.status)
			}
		}
	}
}

// drain opens streams at a hub with a long --drain, and stops the hub. It returns when the hub is stopping.
func drain(t *testing.T, h *hub) *hub {
	t.Helper()
	for range 4 { // the hub ends the first one after about a fifth of --drain
		h.streamOf(t, [2]string{"carol", ""})
	}
	h.cancel()
	askUntil(t, h.url+"/readyz", `"ready":false`)
	return h
}

// unavailableHub starts a hub for nginx with --unavailable-status 503.
func unavailableHub(t *testing.T, dsn string, args ...string) *hub {
	t.Helper()
	return startHub(t, dsn, append([]string{"--insecure-uid=anywhere", "--listen", freeAddress(t), "--unavailable-status", "503"}, args...)...)
}

// While one hub stops, new clients get a stream of the other hub from nginx, at their first request and without delay.
func TestNginxTriesAnotherHub(t *testing.T) {
	t.Parallel()
	findNginx(t)
	dsn := dbtest.Database(t)
	stopping, other := unavailableHub(t, dsn, "--drain=6s"), unavailableHub(t, dsn)
	proxy := startNginx(t, strings.TrimPrefix(stopping.url, "http://"), strings.TrimPrefix(other.url, "http://"))
	drain(t, stopping)
	const clients = 10
	var waits []time.Duration
	for range clients {
		began := time.Now()
		wantStream(t, proxy)
		waits = append(waits, time.Since(began))
	}
	if got := ask(t, "GET", stopping.url+"/events?uid=alice"); got.status != 503 {
		t.Errorf("the first hub answers %d, want 503, because it is still stopping", got.status)
	}
	slices.Sort(waits)
	t.Logf("time until rowcast.hello: %v", waits)
	if half := waits[clients/2]; half > time.Second { // on a busy machine, some clients may wait longer
		t.Errorf("half of the clients waited at least %v for a stream, want at most 1s", half)
	}
	wantPassedOn(t, proxy)
}

// wantStream checks that a new client receives a stream as the answer to its first request.
func wantStream(t *testing.T, proxy *nginx) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	var first sse.Event
	visitor := eventSource{url: proxy.url + "/events?uid=alice", onEvent: func(e sse.Event) {
		if first = e; e.Name != "rowcast.void" {
			cancel()
		}
	}}
	if err := visitor.stream(ctx); first.Name != "rowcast.hello" {
		t.Errorf("got the event %v (error: %v), want rowcast.hello after rowcast.void", first, err)
	}
}

// wantPassedOn stops nginx. It checks that nginx answered each request for a stream with 200, and that it passed at
// least one request on to a second hub.
func wantPassedOn(t *testing.T, proxy *nginx) {
	t.Helper()
	proxy.stop()
	log, err := os.ReadFile(proxy.log)
	if err != nil {
		t.Fatal(err)
	}
	passedOn := 0
	for _, line := range lines(string(log)) {
		if strings.Contains(line, ", ") {
			passedOn++
		}
		if !strings.HasPrefix(line, "200 /events") {
			t.Errorf("the log of nginx has the line %q, want the status 200 for each stream", line)
		}
	}
	if passedOn == 0 {
		t.Errorf("nginx passed no request on to another hub, want at least 1:\n%s", log)
	}
}

// If no hub can open a stream, nginx answers with a stream that has only a retry time, after which an EventSource
// retries. The EventSource gets a stream when a hub can open one again.
func TestNginxAnswersIfNoHubIsLeft(t *testing.T) {
	t.Parallel()
	findNginx(t)
	dsn := dbtest.Database(t)
	var addresses []string
	for range 2 {
		h := unavailableHub(t, dsn, "--max-connections=1")
		h.streamOf(t, [2]string{"carol", ""})
		addresses = append(addresses, strings.TrimPrefix(h.url, "http://"))
	}
	proxy := startNginx(t, addresses...)
	got := ask(t, "GET", proxy.url+"/events?uid=alice")
	if got.status != 200 || got.header.Get("Content-Type") != "text/event-stream" || strings.TrimSpace(got.body) != "retry: 3000" {
		t.Errorf("got %+v, want 200, the type text/event-stream, and only \"retry: 3000\", which nginx sends itself", got)
	}
	h := &hub{url: proxy.url}
	greeted := h.reconnect(t, [2]string{"alice", ""})
	askUntil(t, "http://"+addresses[0]+"/metrics", `(?m)^rowcast_refused_total\{reason="streams"\} [2-9]`) // the requests of ask and of the EventSource
	h.disconnect(t, dsn, "carol")
	receive(t, greeted, "a stream for the client that was asked to retry")
	wantPassedOn(t, proxy)
}
