package auth

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/listener/failures"
	"rowcast/stream"
)

// A fakeApp is an App whose endpoint is a function, without a network, for use in synctest bubbles.
type fakeApp struct {
	App
	log       *bytes.Buffer
	requests  atomic.Int32
	last      atomic.Pointer[http.Header] // of the last request
	mayAnswer chan struct{}               // if not nil, each answer waits for a value from it
	answer    func(cookie string) string  // returns the body of the answer, "" for the status 503, or "401" for the status 401
}

func newFakeApp(answer func(cookie string) string) *fakeApp {
	a := &fakeApp{log: &bytes.Buffer{}, answer: answer}
	a.URL, a.Grace = &url.URL{Scheme: "http", Host: "app.example", Path: "/auth"}, time.Minute
	a.Transport, a.Failures, a.Logger = a, &failures.Record{}, slog.New(slog.NewTextHandler(a.log, nil)) // a TextHandler serialises its writes
	return a
}

func (a *fakeApp) RoundTrip(r *http.Request) (*http.Response, error) {
	a.requests.Add(1)
	a.last.Store(&r.Header)
	if a.mayAnswer != nil {
		select {
		case <-a.mayAnswer:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	status, text := http.StatusOK, a.answer(r.Header.Get("Cookie"))
	switch text {
	case "":
		status = http.StatusServiceUnavailable
	case "401":
		status = http.StatusUnauthorized
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(text))}, nil
}

// acceptCookie accepts every request. The cookie is the user's id.
func acceptCookie(cookie string) string { return acceptance(cookie, 300) }

// acceptance returns the body of an answer that accepts a user.
func acceptance(user string, seconds int, groups ...string) string {
	list := "null"
	if len(groups) > 0 {
		list = `["` + strings.Join(groups, `","`) + `"]`
	}
	return fmt.Sprintf(`{"recipient": %q, "groups": %s, "expires_in": %d}`, user, list, seconds)
}

// newRequest returns a request for a stream. Headers are given as name, value, name, value.
func newRequest(ctx context.Context, headers ...string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// withCookie authenticates a request with a cookie.
func (a *fakeApp) withCookie(t *testing.T, cookie string) (stream.Grant, error) {
	return a.Authenticate(newRequest(t.Context(), "Cookie", cookie))
}

// An answer that accepts a client is kept for a second, for the same credentials, Host and client address. A denial is
// not kept.
func TestAnswersAreCached(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeApp(acceptCookie)
		wantRequests := func(when string, want int32) {
			t.Helper()
			if got := a.requests.Swap(0); got != want {
				t.Errorf("%s: %d requests, want %d", when, got, want)
			}
		}
		for range 3 {
			if grant, err := a.withCookie(t, "alice"); err != nil || grant.User != "alice" {
				t.Errorf("got %+v, %v, want the user alice", grant, err)
			}
		}
		wantRequests("three tabs", 1)
		if grant, err := a.withCookie(t, "bob"); err != nil || grant.User != "bob" {
			t.Errorf("got %+v, %v, want the user bob", grant, err)
		}
		wantRequests("another cookie", 1)
		for i, headers := range [][]string{{"Authorization", "x"}, {"X-Forwarded-For", "192.0.2.1"}, {"Authorization", "x", "X-Forwarded-For", "192.0.2.1"}} {
			if _, err := a.Authenticate(newRequest(t.Context(), append(headers, "Cookie", "alice")...)); err != nil {
				t.Error(err)
			}
			wantRequests(fmt.Sprintf("other header %d", i), 1)
		}
		onAnother := newRequest(t.Context(), "Cookie", "alice")
		onAnother.Host = "tenant.example"
		_, _ = a.Authenticate(onAnother)
		wantRequests("another Host", 1)
		fromAnother := newRequest(t.Context(), "Cookie", "alice")
		fromAnother.RemoteAddr = "198.51.100.1:1"
		_, _ = a.Authenticate(fromAnother)
		wantRequests("another address", 1)

		time.Sleep(time.Second - time.Nanosecond)
		_, _ = a.withCookie(t, "alice")
		wantRequests("within a second", 0)
		time.Sleep(time.Nanosecond)
		a.answer = func(string) string { return "401" }
		for range 2 {
			_, err := a.withCookie(t, "alice")
			if denied, ok := errors.AsType[Denial](err); !ok || denied.Status != http.StatusUnauthorized {
				t.Errorf("after a second: got the status %d and the error %v, want 401", denied.Status, err)
			}
		}
		wantRequests("denied twice", 2)
	})
}

// The app receives the purpose of a request, and how the client has reached the hub. A renewal is never answered from
// the cache, and its answer opens no other stream. So an app can extend a user's session when the user opens a stream,
// and not at a renewal.
func TestTheAppReceivesThePurpose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeApp(func(string) string { return acceptance("alice", 100) })
		a.UserAgent = "rowcast/v1"
		want := func(when string, requests int32, headers ...string) {
			t.Helper()
			if got := a.requests.Load(); got != requests {
				t.Errorf("%s: %d requests, want %d", when, got, requests)
			}
			for i := 0; i < len(headers); i += 2 {
				if got := a.last.Load().Get(headers[i]); got != headers[i+1] {
					t.Errorf("%s: %s is %q, want %q", when, headers[i], got, headers[i+1])
				}
			}
		}
		forged := []string{"X-Forwarded-Proto", "gopher", "X-Forwarded-Host", "evil.example", "Rowcast-Check", "renew", "User-Agent", "browser"}
		r := newRequest(t.Context(), append(forged, "Cookie", "session")...)
		grant, err := a.Authenticate(r)
		if err != nil {
			t.Fatal(err)
		}
		want("a new stream", 1, "User-Agent", "rowcast/v1", "Rowcast-Check", "open", "X-Forwarded-Proto", "http", "X-Forwarded-Host", r.Host)
		time.Sleep(time.Until(grant.Expires))
		if _, ok := grant.Renew(t.Context()); !ok {
			t.Error("Renew ended the stream, want it to continue")
		}
		want("a renewal", 2, "User-Agent", "rowcast/v1", "Rowcast-Check", "renew", "X-Forwarded-Proto", "http", "X-Forwarded-Host", r.Host)
		_, _ = a.Authenticate(r)
		want("a new stream after the renewal", 3, "Rowcast-Check", "open")

		r.TLS = &tls.ConnectionState{}
		_, _ = a.Authenticate(r)
		want("over TLS", 4, "X-Forwarded-Proto", "https", "X-Forwarded-Host", r.Host)
		a.TrustForwarded = true
		_, _ = a.Authenticate(r)
		want("through a trusted proxy", 5, "X-Forwarded-Proto", "gopher", "X-Forwarded-Host", "evil.example")
		_, _ = a.withCookie(t, "another session")
		want("through a trusted proxy without the headers", 6, "X-Forwarded-Proto", "http", "X-Forwarded-Host", "example.com")
	})
}

// The cache has a maximum size. When it is full, expired answers are removed first.
func TestCacheIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var c cache
		key := func(i int) [32]byte { return credentials{cookie: fmt.Sprint(i)}.hash() }
		for i := range cacheSize - 1 {
			c.put(key(i), answer{})
		}
		time.Sleep(2 * cacheTime)
		for i := range cacheSize + 5 {
			c.put(key(cacheSize+i), answer{})
			if n := len(c.answers); n > cacheSize {
				t.Fatalf("the cache has %d answers, want at most %d", n, cacheSize)
			}
			if _, kept := c.get(key(cacheSize)); !kept && i < cacheSize {
				t.Fatalf("after %d more answers, an answer that has not expired was removed, want only expired answers removed", i)
			}
		}
	})
}

// Expired answers are removed from the cache, even if no other answer is added. Otherwise, a user who sends many
// requests with different topics would use memory of the hub forever.
func TestExpiredAnswersAreRemoved(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeApp(acceptCookie)
		for _, cookie := range []string{"alice", "bob"} {
			_, _ = a.withCookie(t, cookie)
			time.Sleep(cacheTime / 2)
		}
		if _, _ = a.withCookie(t, "bob"); a.requests.Load() != 2 {
			t.Errorf("%d requests for two users, want 2: an answer that has not expired was removed", a.requests.Load())
		}
		time.Sleep(2 * cacheTime)
		a.cache.mu.Lock()
		defer a.cache.mu.Unlock()
		if n := len(a.cache.answers); n > 0 {
			t.Errorf("the cache still has %d answers that have expired, want 0", n)
		}
	})
}

// An answer with a very long header is an error. The header does not use much memory.
func TestAHeaderOfTheAppIsBounded(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for range 20_000 {
			w.Header().Add("X", "")
		}
		_, _ = io.WriteString(w, acceptance("alice", 300))
	}))
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	app := &App{URL: at, Logger: slog.New(slog.DiscardHandler), Failures: &failures.Record{}}
	if _, err := app.Authenticate(newRequest(t.Context(), "Cookie", "session")); !errors.Is(err, errEndpoint) {
		t.Errorf("got the error %v, want %v", err, errEndpoint)
	}
}

// Requests with the same credentials at the same time share one request to the app. If the first client disconnects,
// the other clients still get the answer.
func TestConcurrentRequestsShareOne(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeApp(acceptCookie)
		a.mayAnswer = make(chan struct{})
		var tabs sync.WaitGroup
		ctx, disconnect := context.WithCancel(t.Context())
		tabs.Go(func() {
			if _, err := a.Authenticate(newRequest(ctx, "Cookie", "alice")); !errors.Is(err, context.Canceled) {
				t.Errorf("the client that disconnected: got %v, want %v", err, context.Canceled)
			}
		})
		synctest.Wait()
		for range 5 {
			tabs.Go(func() {
				if grant, err := a.withCookie(t, "alice"); err != nil || grant.User != "alice" {
					t.Errorf("got %+v, %v, want the user alice", grant, err)
				}
			})
		}
		synctest.Wait()
		if got := a.requests.Load(); got != 1 {
			t.Errorf("%d requests for six streams at the same time, want 1", got)
		}
		disconnect()
		synctest.Wait()
		close(a.mayAnswer)
		tabs.Wait()
	})
}

// At most 24 requests for new streams run at once, and no client waits longer than Timeout.
func TestRequestsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeApp(acceptCookie)
		a.mayAnswer = make(chan struct{})
		var all sync.WaitGroup
		var accepted atomic.Int32
		reasons := make(chan string, 100)
		for i := range 100 {
			all.Go(func() {
				if err := a.authenticateFrom(t, fmt.Sprintf("192.0.2.%d:1", i), fmt.Sprint(i)); err != nil {
					reasons <- err.Error()
				} else {
					accepted.Add(1)
				}
			})
		}
		wantRequests := func(want int32) {
			t.Helper()
			synctest.Wait()
			if got := a.requests.Load(); got != want {
				t.Errorf("the app received %d requests, want %d", got, want)
			}
		}
		wantRequests(24)
		a.mayAnswer <- struct{}{}
		wantRequests(25)
		began := time.Now()
		all.Wait()
		if took := time.Since(began); took != 5*time.Second || accepted.Load() != 1 {
			t.Errorf("the clients without an answer waited for %v, and %d of all clients were accepted, want 5s and 1", took, accepted.Load())
		}
		close(reasons)
		for reason := range reasons {
			if want := "no answer within 5s (requests running: "; !strings.Contains(reason, want) {
				t.Errorf("got %q, want a reason that contains %q", reason, want)
			}
		}
	})
}

// If a client disconnects before the app has answered and before Timeout, the Handler does not log or count that. If
// the client is still connected at Timeout, the Handler logs and counts that it could not be authenticated.
func TestDisconnectBeforeTheAnswer(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		a := newFakeApp(acceptCookie)
		a.mayAnswer = make(chan struct{})
		h := Handler{Hub: &stream.Hub{}, Authenticate: a.App.Authenticate, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		for _, tt := range []struct {
			disconnectAfter time.Duration // Timeout is 5s
			log             string
			unavailable     int64
		}{
			{4 * time.Second, "", 0},
			{6 * time.Second, "no answer within 5s (requests running: 1)", 1},
		} {
			began := time.Now()
			ctx, disconnect := context.WithTimeout(t.Context(), tt.disconnectAfter)
			h.ServeHTTP(httptest.NewRecorder(), newRequest(ctx, "Cookie", fmt.Sprint(tt.disconnectAfter)))
			disconnect()
			if took := time.Since(began); took != min(tt.disconnectAfter, 5*time.Second) {
				t.Errorf("disconnected after %v: ServeHTTP took %v, want %v", tt.disconnectAfter, took, min(tt.disconnectAfter, 5*time.Second))
			}
			if got := log.String(); !strings.Contains(got, tt.log) || tt.log == "" && got != "" || h.Stats.Unavailable.Load() != tt.unavailable {
				t.Errorf("disconnected after %v: got %d requests counted and the log %q, want %d and %q in the log (if empty, no log)", tt.disconnectAfter, h.Stats.Unavailable.Load(), got, tt.unavailable, tt.log)
			}
		}
		synctest.Wait()
		time.Sleep(time.Minute) // wait until the request to the app has ended
	})
}

// A body that does not end does not delay an answer.
func TestABodyOfTheAppThatDoesNotEnd(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusUnauthorized)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}))
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	app := &App{URL: at, Timeout: time.Minute, Logger: slog.New(slog.DiscardHandler), Failures: &failures.Record{}}
	began := time.Now()
	if _, err := app.Authenticate(newRequest(t.Context(), "Cookie", "session")); err == nil {
		t.Error("got no error for the status 401, want an error")
	}
	if took := time.Since(began); took > 30*time.Second {
		t.Errorf("the answer took %v, want less than a second", took)
	}
}

// The connection to the app is used again after every answer, also if the hub does not need the body.
func TestConnectionToTheAppIsUsedAgain(t *testing.T) {
	t.Parallel()
	var connections atomic.Int32
	server := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		status, _ := strconv.Atoi(r.Header.Get("Cookie"))
		w.WriteHeader(status)
		_, _ = io.WriteString(w, strings.Repeat("x", 8<<10))
	}))
	server.Config.ConnState = func(_ net.Conn, state http.ConnState) {
		if state == http.StateNew {
			connections.Add(1)
		}
	}
	server.Start()
	t.Cleanup(server.Close)
	at, err := url.Parse(server.URL)
	if err != nil {
		t.Fatal(err)
	}
	app := &App{URL: at, Logger: slog.New(slog.DiscardHandler), Failures: &failures.Record{}}
	for _, status := range []string{"200", "302", "401", "403", "404", "500"} {
		usesAgain := func() bool {
			var used int32
			for range 2 {
				used = connections.Load()
				if _, err := app.Authenticate(newRequest(t.Context(), "Cookie", status)); err == nil {
					t.Errorf("status %s: got no error, want an error", status)
				}
			}
			return connections.Load() == used
		}
		// If the rest of an answer arrives too late, which can happen on a busy machine, the connection is closed.
		for tries := 1; !usesAgain(); tries++ {
			if tries == 10 {
				t.Errorf("status %s: the connection was not used again in %d tries, want it used again", status, tries)
				break
			}
		}
	}
}
