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
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/listener/failures"
)

// readerOf returns a set at a URL that nothing reads at intervals.
func readerOf(t *testing.T, at string, logger *slog.Logger) *jwks {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	return newJWKS(&KeySets{Logger: logger, Failures: &failures.Record{}}, u)
}

// Who names an unknown key and leaves at once keeps nobody from getting the keys, for which others may be waiting.
func TestKeysAreReadThoughTheClientLeaves(t *testing.T) {
	t.Parallel()
	ctx, leave := context.WithCancel(t.Context())
	publish := func(kid string) string {
		return fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`, kid)
	}
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := asked.Add(1)
		if n == 2 {
			leave()
		}
		_, _ = fmt.Fprint(w, publish(fmt.Sprint("key ", n)))
	}))
	t.Cleanup(server.Close)
	j := readerOf(t, server.URL, slog.New(slog.DiscardHandler))
	j.read(t.Context())
	if _, err := j.KeyRead(ctx, "key 2"); err != nil {
		t.Errorf("got %v, want the new key", err)
	}
}

// That all keys are withdrawn is said once, and again if it happens again. If it was a mistake, the next token that names one brings
// them back.
func TestAWithdrawalIsToldOnce(t *testing.T) {
	t.Parallel()
	const key = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
	answer, log := "", &bytes.Buffer{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
	t.Cleanup(server.Close)
	j := readerOf(t, server.URL, slog.New(slog.NewTextHandler(log, nil)))
	for i, step := range []struct {
		answer string
		told   int
	}{{key, 0}, {`{"keys":[]}`, 1}, {`{"keys":[]}`, 1}, {key, 1}, {`{"keys":[{"kty":"oct"}]}`, 2}} {
		answer = step.answer
		j.read(t.Context())
		if got := strings.Count(log.String(), "has no key that can verify a token"); got != step.told {
			t.Errorf("after %d answers: told %d times, want %d", i+1, got, step.told)
		}
	}
	answer = key
	if _, err := j.KeyRead(t.Context(), "a"); err != nil {
		t.Errorf("got %v, want the key that is there again", err)
	}
}

// A redirect could lead to where anybody can answer: it is not followed, and where to is not said.
func TestRedirectsToKeysAreNotFollowed(t *testing.T) {
	t.Parallel()
	for _, to := range []string{"/topsecret", "http://elsewhere.invalid/topsecret", "http://[topsecret", ""} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			asked, log := 0, &bytes.Buffer{}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				asked++
				w.Header().Set("Location", to)
				w.WriteHeader(status)
			}))
			t.Cleanup(server.Close)
			ok := readerOf(t, server.URL, slog.New(slog.NewTextHandler(log, nil))).read(t.Context())
			want := fmt.Sprintf(`error="the server redirects (%d), which is not followed: give the final URL"`, status)
			if ok || asked != 1 || !strings.Contains(log.String(), want) || strings.Contains(log.String(), "topsecret") {
				t.Errorf("%d to %q: read %v, asked %d times, log %s, want %s", status, to, ok, asked, log, want)
			}
		}
	}
}

// Keys that could not be read are read again within two minutes, whoever asked for them. Of several URLs, one that can be read does not
// hide another that cannot.
func TestKeysAreSoonReadAgain(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := &KeySets{Logger: slog.New(slog.DiscardHandler), Failures: &failures.Record{}}
		var away atomic.Bool
		newSet := func(answers func() bool) *jwks {
			j := newJWKS(all, &url.URL{Scheme: "http", Host: "keys.example"})
			j.transport = roundTripper(func(*http.Request) (*http.Response, error) {
				if !answers() {
					return nil, errors.New("away")
				}
				return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(`{"keys":[]}`))}, nil
			})
			j.read(t.Context())
			return j
		}
		first, second := newSet(func() bool { return !away.Load() }), newSet(func() bool { return true })
		go first.keepUp(t.Context())
		time.Sleep(time.Second)
		away.Store(true)
		if _, err := first.KeyRead(t.Context(), "unknown"); err == nil {
			t.Error("an unknown key is found")
		}
		for range 3 {
			second.read(t.Context())
			if !all.Failures.Of(failures.JWKS).Failing() {
				t.Error("a URL that cannot be read is hidden by another")
			}
			time.Sleep(2 * time.Minute)
		}
		if got := all.Failures.Of(failures.JWKS).Total; got < 4 || got > 13 {
			t.Errorf("%d failures in 6 minutes, want one every 30 to 90 s", got)
		}
		away.Store(false)
		time.Sleep(2 * time.Minute)
		if all.Failures.Of(failures.JWKS).Failing() {
			t.Error("it is said to fail two minutes after the keys can be read again")
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The user and password of a URL are sent.
func TestKeysAtAURLWithAPassword(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret%" {
			t.Errorf("got %q, %q", user, password)
		}
		_, _ = io.WriteString(w, `{"keys":[]}`)
	}))
	t.Cleanup(server.Close)
	if j := readerOf(t, strings.Replace(server.URL, "//", "//me:secret%25@", 1), slog.New(slog.DiscardHandler)); !j.read(t.Context()) {
		t.Error("the keys are not read")
	}
}
