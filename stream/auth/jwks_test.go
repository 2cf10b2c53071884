package auth

import (
	"bytes"
	"context"
	"crypto/rsa"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/big"
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

// newSet returns the set at a URL. It is not read until the test calls read or KeyRead.
func newSet(t *testing.T, at string, logger *slog.Logger) *jwks {
	t.Helper()
	u, err := url.Parse(at)
	if err != nil {
		t.Fatal(err)
	}
	return newJWKS(&KeySets{Logger: logger, Failures: &failures.Record{}}, u)
}

// If the client whose token names an unknown key disconnects, the set is still read to the end, because other clients
// may need it.
func TestKeysAreReadAfterTheClientDisconnects(t *testing.T) {
	t.Parallel()
	ctx, disconnect := context.WithCancel(t.Context())
	publish := func(kid string) string {
		return fmt.Sprintf(`{"keys":[{"kty":"OKP","crv":"Ed25519","kid":%q,"x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`, kid)
	}
	var asked atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		n := asked.Add(1)
		if n == 2 {
			disconnect()
		}
		_, _ = fmt.Fprint(w, publish(fmt.Sprint("key ", n)))
	}))
	t.Cleanup(server.Close)
	j := newSet(t, server.URL, slog.New(slog.DiscardHandler))
	j.read(t.Context())
	if _, err := j.KeyRead(ctx, "key 2"); err != nil {
		t.Errorf("got the error %v, want the new key", err)
	}
}

// Each time that all keys are withdrawn, one warning is logged. It says how many keys are withdrawn. If the keys are
// published again, the next token that names one of them is valid.
func TestWithdrawalOfAllKeysIsLoggedOnce(t *testing.T) {
	t.Parallel()
	const key = `{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"a","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}`
	answer, log := "", &bytes.Buffer{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, answer) }))
	t.Cleanup(server.Close)
	j := newSet(t, server.URL, slog.New(slog.NewTextHandler(log, nil)))
	for i, step := range []struct {
		answer   string
		warnings int
	}{{key, 0}, {`{"keys":[]}`, 1}, {`{"keys":[]}`, 1}, {key, 1}, {`{"keys":[{"kty":"oct"}]}`, 2}} {
		answer = step.answer
		j.read(t.Context())
		if got := countLines(log, "has no key that can verify a token", "withdrawn_keys=1"); got != step.warnings {
			t.Errorf("after %d answers: %d warnings, want %d", i+1, got, step.warnings)
		}
	}
	answer = key
	if _, err := j.KeyRead(t.Context(), "a"); err != nil {
		t.Errorf("got the error %v, want the key that was published again", err)
	}
}

// If the first set has no usable key, the warning says that no key is withdrawn.
func TestFirstSetWithoutKeys(t *testing.T) {
	t.Parallel()
	log := &bytes.Buffer{}
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, `{"keys":[{"kty":"oct"}]}`)
	}))
	t.Cleanup(server.Close)
	newSet(t, server.URL, slog.New(slog.NewTextHandler(log, nil))).read(t.Context())
	if countLines(log, "has no key that can verify a token", "keys=1 withdrawn_keys=0") != 1 {
		t.Errorf("got the log %s, want one warning with keys=1 and withdrawn_keys=0", log)
	}
}

// countLines returns the number of lines of a log that contain both texts.
func countLines(log *bytes.Buffer, text, attribute string) (n int) {
	for line := range strings.Lines(log.String()) {
		if strings.Contains(line, text) && strings.Contains(line, attribute) {
			n++
		}
	}
	return n
}

// A set with too many keys is an error, and the keys that were read before stay valid. Without this limit, a token that
// names no key could cost the hub a second of CPU time.
func TestNumberOfKeysIsBounded(t *testing.T) {
	t.Parallel()
	const key = `{"kty":"OKP","crv":"Ed25519","kid":"%d","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}`
	var published atomic.Int32
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		keys := make([]string, published.Load())
		for i := range keys {
			keys[i] = fmt.Sprintf(key, i)
		}
		_, _ = fmt.Fprintf(w, `{"keys":[%s]}`, strings.Join(keys, ","))
	}))
	t.Cleanup(server.Close)
	log := &bytes.Buffer{}
	j := newSet(t, server.URL, slog.New(slog.NewTextHandler(log, nil)))
	for _, step := range []struct {
		published int32
		ok        bool
	}{{jwksMaxKeys, true}, {jwksMaxKeys + 1, false}} {
		published.Store(step.published)
		ok := j.read(t.Context())
		if valid, _ := j.KeyReadAll(t.Context()); ok != step.ok || len(valid) != jwksMaxKeys {
			t.Errorf("a set with %d keys: got %v and %d valid keys, want %v and %d", step.published, ok, len(valid), step.ok, jwksMaxKeys)
		}
	}
	if !strings.Contains(log.String(), "the set has 101 keys, and may have 100") {
		t.Errorf("got the log %s, want the reason", log)
	}
}

// An RSA key is not supported if it is too short to be safe, or so long that a token takes seconds to verify.
func TestLengthOfRSAKeys(t *testing.T) {
	t.Parallel()
	for bits, supported := range map[uint]bool{2047: false, 2048: true, 16384: true, 16385: false} {
		modulus := new(big.Int).Lsh(big.NewInt(1), bits-1)
		if got := len(Algorithms(&rsa.PublicKey{N: modulus, E: 65537})) > 0; got != supported {
			t.Errorf("a key of %d bits: got %v, want %v", bits, got, supported)
		}
	}
}

// A redirect is not followed, because keys from another address must not be trusted. The log does not contain the
// target of the redirect.
func TestRedirectsToKeysAreNotFollowed(t *testing.T) {
	t.Parallel()
	for _, target := range []string{"/topsecret", "http://elsewhere.invalid/topsecret", "http://[topsecret", ""} {
		for _, status := range []int{301, 302, 303, 307, 308} {
			requests, log := 0, &bytes.Buffer{}
			server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				requests++
				w.Header().Set("Location", target)
				w.WriteHeader(status)
			}))
			t.Cleanup(server.Close)
			ok := newSet(t, server.URL, slog.New(slog.NewTextHandler(log, nil))).read(t.Context())
			want := fmt.Sprintf(`error="the server redirected (%d), and redirects are not followed: use the final URL"`, status)
			if ok || requests != 1 || !strings.Contains(log.String(), want) || strings.Contains(log.String(), "topsecret") {
				t.Errorf("status %d, Location %q: got read %v, %d requests, log %s, want false, 1 and %s without the Location", status, target, ok, requests, log, want)
			}
		}
	}
}

// Another user of http.DefaultTransport cannot close the connections to the app and to key sets. A program may have
// replaced http.DefaultTransport by a type of its own. The test is not parallel, because it replaces
// http.DefaultTransport, too.
func TestTransportIsItsOwn(t *testing.T) {
	app := &App{}
	app.init()
	if got := newJWKS(&KeySets{Logger: slog.New(slog.DiscardHandler)}, &url.URL{}).transport; got == http.DefaultTransport || app.Transport == http.DefaultTransport {
		t.Error("got http.DefaultTransport, want a copy for key sets and for the app")
	}
	usual := http.DefaultTransport
	t.Cleanup(func() { http.DefaultTransport = usual })
	http.DefaultTransport = roundTripper(func(*http.Request) (*http.Response, error) { return nil, errors.New("mine") })
	if _, err := ownTransport(0).RoundTrip(nil); err == nil || err.Error() != "mine" {
		t.Errorf("a program's own transport: got the error %v, want the error %q", err, "mine")
	}
}

// A set that cannot be read is read again within two minutes. While one of several sets cannot be read, the operation
// is failing.
func TestFailedReadIsRepeated(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		all := &KeySets{Logger: slog.New(slog.DiscardHandler), Failures: &failures.Record{}}
		var unavailable atomic.Bool
		start := func(isAvailable func() bool) *jwks {
			j := newJWKS(all, &url.URL{Scheme: "http", Host: "keys.example"})
			j.transport = roundTripper(func(*http.Request) (*http.Response, error) {
				if !isAvailable() {
					return nil, errors.New("unavailable")
				}
				return &http.Response{StatusCode: 200, Body: io.NopCloser(strings.NewReader(`{"keys":[]}`))}, nil
			})
			j.read(t.Context())
			return j
		}
		first, second := start(func() bool { return !unavailable.Load() }), start(func() bool { return true })
		go first.keepUp(t.Context())
		time.Sleep(time.Second)
		unavailable.Store(true)
		if _, err := first.KeyRead(t.Context(), "unknown"); err == nil {
			t.Error("got no error for an unknown key, want an error")
		}
		for range 3 {
			second.read(t.Context())
			if !all.Failures.Of(failures.JWKS).Failing() {
				t.Error("the operation is not failing, want failing, because the first set cannot be read")
			}
			time.Sleep(2 * time.Minute)
		}
		if got := all.Failures.Of(failures.JWKS).Total; got < 4 || got > 13 {
			t.Errorf("%d failures in 6 minutes, want 4 to 13: one at once, and then one every 30 to 90 s", got)
		}
		unavailable.Store(false)
		time.Sleep(2 * time.Minute)
		if all.Failures.Of(failures.JWKS).Failing() {
			t.Error("the operation is failing two minutes after the first set can be read again, want not failing")
		}
	})
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// The user name and password of a URL are sent by basic authentication.
func TestKeysAtAURLWithAPassword(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if user, password, _ := r.BasicAuth(); user != "me" || password != "secret%" {
			t.Errorf("got the user %q and the password %q, want me and secret%%", user, password)
		}
		_, _ = io.WriteString(w, `{"keys":[]}`)
	}))
	t.Cleanup(server.Close)
	if j := newSet(t, strings.Replace(server.URL, "//", "//me:secret%25@", 1), slog.New(slog.DiscardHandler)); !j.read(t.Context()) {
		t.Error("got false from read, want true")
	}
}
