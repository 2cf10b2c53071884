package auth

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/listener/failures"
	"rowcast/stream"
)

// askedApp is an app without a network, for bubbles of synctest: it answers at once, or when it may.
type askedApp struct {
	App
	log    *bytes.Buffer
	asked  atomic.Int32
	may    chan struct{}              // nil: at once
	answer func(cookie string) string // what it says, or "" for 503
}

func newAskedApp(answer func(cookie string) string) *askedApp {
	a := &askedApp{log: &bytes.Buffer{}, answer: answer}
	a.URL, a.Grace = &url.URL{Scheme: "http", Host: "app.example", Path: "/auth"}, time.Minute
	a.Transport, a.Failures, a.Logger = a, &failures.Record{}, slog.New(slog.NewTextHandler(a.log, nil)) // one write at a time
	return a
}

func (a *askedApp) RoundTrip(r *http.Request) (*http.Response, error) {
	a.asked.Add(1)
	if a.may != nil {
		select {
		case <-a.may:
		case <-r.Context().Done():
			return nil, r.Context().Err()
		}
	}
	status, text := http.StatusOK, a.answer(r.Header.Get("Cookie"))
	switch text {
	case "":
		status = http.StatusServiceUnavailable
	case "no":
		status = http.StatusUnauthorized
	}
	return &http.Response{StatusCode: status, Body: io.NopCloser(strings.NewReader(text))}, nil
}

// theCookie lets everybody in as his cookie says.
func theCookie(cookie string) string { return says(cookie, 300) }

func says(user string, seconds int, groups ...string) string {
	list := "null"
	if len(groups) > 0 {
		list = `["` + strings.Join(groups, `","`) + `"]`
	}
	return fmt.Sprintf(`{"recipient": %q, "groups": %s, "expires_in": %d}`, user, list, seconds)
}

// requestBy is a request for a stream, with headers: name, value.
func requestBy(ctx context.Context, headers ...string) *http.Request {
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", nil)
	for i := 0; i < len(headers); i += 2 {
		r.Header.Set(headers[i], headers[i+1])
	}
	return r
}

// by asks for a stream by a cookie.
func (a *askedApp) by(t *testing.T, cookie string) (stream.Grant, error) {
	return a.Authenticate(requestBy(t.Context(), "Cookie", cookie))
}

// A yes counts for a second, for the very same credentials from the very same place; a no does not.
func TestTheAppsAnswersAreKept(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAskedApp(theCookie)
		wantAsked := func(when string, want int32) {
			t.Helper()
			if got := a.asked.Swap(0); got != want {
				t.Errorf("%s: %d questions, want %d", when, got, want)
			}
		}
		for range 3 {
			if grant, err := a.by(t, "alice"); err != nil || grant.User != "alice" {
				t.Errorf("got %+v, %v", grant, err)
			}
		}
		wantAsked("three tabs", 1)
		if grant, err := a.by(t, "bob"); err != nil || grant.User != "bob" {
			t.Errorf("got %+v, %v, want bob", grant, err)
		}
		wantAsked("another cookie", 1)
		for i, headers := range [][]string{{"Authorization", "x"}, {"X-Forwarded-For", "192.0.2.1"}, {"Authorization", "x", "X-Forwarded-For", "192.0.2.1"}} {
			if _, err := a.Authenticate(requestBy(t.Context(), append(headers, "Cookie", "alice")...)); err != nil {
				t.Error(err)
			}
			wantAsked(fmt.Sprintf("other headers, %d", i), 1)
		}
		elsewhere := requestBy(t.Context(), "Cookie", "alice")
		elsewhere.RemoteAddr = "198.51.100.1:1"
		_, _ = a.Authenticate(elsewhere)
		wantAsked("from elsewhere", 1)

		time.Sleep(time.Second - time.Nanosecond)
		_, _ = a.by(t, "alice")
		wantAsked("within the second", 0)
		time.Sleep(time.Nanosecond)
		a.answer = func(string) string { return "no" }
		for range 2 {
			_, err := a.by(t, "alice")
			if denied, ok := errors.AsType[Denial](err); !ok || denied.Status != http.StatusUnauthorized {
				t.Errorf("after the second: got %v, want 401", err)
			}
		}
		wantAsked("denied twice", 2)
	})
}

// The cache is bounded: what no longer counts goes first, and then all.
func TestTheCacheIsBounded(t *testing.T) {
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
				t.Fatalf("it has %d answers, want %d at most", n, cacheSize)
			}
			if _, kept := c.get(key(cacheSize)); !kept && i < cacheSize {
				t.Fatalf("after %d more, a fresh answer has gone, where old ones could", i)
			}
		}
	})
}

// Who come together cost one question, and all get the answer, even when the one who came first has left.
func TestThoseWhoComeTogetherAskOnce(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAskedApp(theCookie)
		a.may = make(chan struct{})
		var tabs sync.WaitGroup
		ctx, leave := context.WithCancel(t.Context())
		tabs.Go(func() {
			if _, err := a.Authenticate(requestBy(ctx, "Cookie", "alice")); !errors.Is(err, context.Canceled) {
				t.Errorf("who left got %v", err)
			}
		})
		synctest.Wait()
		for range 5 {
			tabs.Go(func() {
				if grant, err := a.by(t, "alice"); err != nil || grant.User != "alice" {
					t.Errorf("got %+v, %v", grant, err)
				}
			})
		}
		synctest.Wait()
		if got := a.asked.Load(); got != 1 {
			t.Errorf("%d questions for six streams at once, want 1", got)
		}
		leave()
		synctest.Wait()
		close(a.may)
		tabs.Wait()
	})
}

// However many come at once from wherever, the app is asked about 24 at a time, and nobody waits for longer than --auth-timeout.
func TestQuestionsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAskedApp(theCookie)
		a.may = make(chan struct{})
		var all sync.WaitGroup
		var in atomic.Int32
		reasons := make(chan string, 100)
		for i := range 100 {
			all.Go(func() {
				if err := a.from(t, fmt.Sprintf("192.0.2.%d:1", i), fmt.Sprint(i)); err != nil {
					reasons <- err.Error()
				} else {
					in.Add(1)
				}
			})
		}
		wantAsked := func(want int32) {
			t.Helper()
			synctest.Wait()
			if got := a.asked.Load(); got != want {
				t.Errorf("%d questions, want %d", got, want)
			}
		}
		wantAsked(24)
		a.may <- struct{}{}
		wantAsked(25)
		began := time.Now()
		all.Wait()
		if took := time.Since(began); took != 5*time.Second || in.Load() != 1 {
			t.Errorf("the others waited for %v, and %d got in, want 5s and 1", took, in.Load())
		}
		close(reasons)
		for reason := range reasons {
			if want := "no answer within 5s, with "; !strings.Contains(reason, want) {
				t.Errorf("got %s, want %q", reason, want)
			}
		}
	})
}

// Whoever leaves while the app thinks is no fault of the app's, and neither logged nor counted.
func TestAClientThatLeavesIsNotLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		a := newAskedApp(theCookie)
		a.may = make(chan struct{})
		h := Handler{Hub: &stream.Hub{}, Authenticate: a.App.Authenticate, Logger: slog.New(slog.NewTextHandler(&log, nil))}
		for _, tt := range []struct {
			patience time.Duration // of the client; the app has 5s
			log      string
			unknown  int64
		}{
			{4 * time.Second, "", 0},
			{6 * time.Second, "no answer within 5s, with 1 requests running", 1},
		} {
			began := time.Now()
			ctx, leave := context.WithTimeout(t.Context(), tt.patience)
			h.ServeHTTP(httptest.NewRecorder(), requestBy(ctx, "Cookie", fmt.Sprint(tt.patience)))
			leave()
			if took := time.Since(began); took != min(tt.patience, 5*time.Second) {
				t.Errorf("left after %v: it took %v", tt.patience, took)
			}
			if got := log.String(); !strings.Contains(got, tt.log) || tt.log == "" && got != "" || h.Stats.Unavailable.Load() != tt.unknown {
				t.Errorf("left after %v: got %d, log %q, want %d, %q", tt.patience, h.Stats.Unavailable.Load(), got, tt.unknown, tt.log)
			}
		}
		synctest.Wait()
		time.Sleep(time.Minute) // whatever is still on its way ends
	})
}
