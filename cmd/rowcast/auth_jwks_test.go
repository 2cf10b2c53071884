package main_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"encoding/base64"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A keyServer serves a JSON Web Key Set.
type keyServer struct {
	*httptest.Server
	answer atomic.Value // the body of the answer, as a string; "" means status 500
	asked  atomic.Int32
}

func newKeyServer(t *testing.T, answer string) *keyServer {
	s := &keyServer{}
	s.answer.Store(answer)
	s.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		s.asked.Add(1)
		answer := s.answer.Load().(string)
		if answer == "" {
			w.WriteHeader(http.StatusInternalServerError)
			answer = jwks(nil)
		}
		_, _ = fmt.Fprint(w, answer)
	}))
	t.Cleanup(s.Close)
	return s
}

// A namedKey is a private key with a kid.
type namedKey struct {
	kid     string
	private ed25519.PrivateKey
}

func newNamedKey(t *testing.T, kid string) namedKey {
	t.Helper()
	_, private, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return namedKey{kid, private}
}

// bearer returns the Authorization header with a token that is signed with this key.
func (k namedKey) bearer(t *testing.T) []string {
	t.Helper()
	return bearer(sign(t, jwt.SigningMethodEdDSA, k.private, claims(nil), "kid", k.kid))
}

// jwk returns the public key as a JSON Web Key. purpose has further members, as JSON.
func (k namedKey) jwk(purpose string) string {
	x := base64.RawURLEncoding.EncodeToString(k.private.Public().(ed25519.PublicKey))
	return fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","alg":"EdDSA","kid":%q,"x":%q,%s}`, k.kid, x, purpose)
}

// jwks returns a JSON Web Key Set with keys, and with more keys that are given as JSON.
func jwks(keys []namedKey, more ...string) string {
	for _, k := range keys {
		more = append(more, k.jwk(`"use":"sig"`))
	}
	return `{"keys":[` + strings.Join(more, ",") + `]}`
}

// octet returns the constant secret as a JSON Web Key. Nobody should publish such a key.
func octet(kid string) string {
	return fmt.Sprintf(`{"kty":"oct","kid":%q,"k":%q}`, kid, base64.RawURLEncoding.EncodeToString([]byte(secret)))
}

const notSigned = "the token is not signed by a configured key\n"

const aliceOnly = `{"recipients":["alice"],"heartbeat":15}`

// The hub reads the set again when a token names an unknown key. Then a new key is valid, and a withdrawn key is not.
func TestKeySetChanges(t *testing.T) {
	t.Parallel()
	before, after := newNamedKey(t, "a"), newNamedKey(t, "b")
	keys := newKeyServer(t, jwks([]namedKey{before}))
	h := secure(t, "--jwks-url", keys.URL)
	if _, says := listenTo(t, h, "", before.bearer(t)...); says != aliceOnly {
		t.Fatalf("a token with the first key: got %s, want %s", says, aliceOnly)
	}
	keys.answer.Store(jwks([]namedKey{after}))
	if _, says := listenTo(t, h, "", after.bearer(t)...); says != aliceOnly {
		t.Errorf("a token with the new key: got %s, want %s", says, aliceOnly)
	}
	for range 2 { // the hub does not read the set again so soon, but knows that this key was withdrawn
		if status, says := listenTo(t, h, "", before.bearer(t)...); status != 401 {
			t.Errorf("a token with the withdrawn key: got %d, %s, want 401", status, says)
		}
	}
	if got := keys.asked.Load(); got != 2 {
		t.Errorf("the set was read %d times, want 2: at the start and for the new key", got)
	}
}

// With two sets, a token whose key is in the second set does not cause the first set to be read again, and does not wait
// for it. A new key of either set is valid.
func TestTwoKeySets(t *testing.T) {
	t.Parallel()
	one, other, next := newNamedKey(t, "a"), newNamedKey(t, "b"), newNamedKey(t, "c")
	first, second := newKeyServer(t, jwks([]namedKey{one})), newKeyServer(t, jwks([]namedKey{other}))
	h := secure(t, "--jwks-url", first.URL, "--jwks-url", second.URL)
	wantReads := func(when string, want int32) {
		t.Helper()
		if got := first.asked.Load(); got != want {
			t.Errorf("%s, the first set was read %d times, want %d", when, got, want)
		}
	}
	wantAlice := func(k namedKey) {
		t.Helper()
		if status, says := listenTo(t, h, "", k.bearer(t)...); says != aliceOnly {
			t.Errorf("a token with the key %s: got %d, %s, want %s", k.kid, status, says, aliceOnly)
		}
	}
	wantAlice(one)
	wantAlice(other)
	wantReads("after tokens with known keys", 1)
	second.answer.Store(jwks([]namedKey{other, next}))
	wantAlice(next)
	wantReads("after a token with a new key", 2)
	wantAlice(next)
	wantReads("after a token with the same key", 2)
}

// If a set has no usable key, all tokens are denied, and one warning is logged.
func TestAllKeysAtAURLAreWithdrawn(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]string{
		"none":           `{"keys":[]}`,
		"for encryption": jwks(nil, newNamedKey(t, "a").jwk(`"use":"enc"`)),
		"a secret":       jwks(nil, octet("a")),
		"malformed":      jwks(nil, `7`, `{"kty":"RSA","kid":"a","n":"","e":"AQAB"}`),
		"of other kinds": jwks(nil, `{"kty":"EC","crv":"secp256k1","kid":"a"}`, `{"kty":"new","kid":"a"}`),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			known := newNamedKey(t, "a")
			keys := newKeyServer(t, jwks([]namedKey{known}))
			h := secure(t, "--jwks-url", keys.URL)
			keys.answer.Store(answer)
			unnamed := bearer(sign(t, jwt.SigningMethodEdDSA, known.private, claims(nil)))
			for _, headers := range [][]string{newNamedKey(t, "unknown").bearer(t), known.bearer(t), unnamed} {
				if status, says := listenTo(t, h, "", headers...); status != 401 || !strings.HasSuffix(says, notSigned) {
					t.Errorf("got %d, %s, want 401 and %s at the end", status, says, notSigned)
				}
			}
			if said := h.err.String(); strings.Count(said, `level=WARN msg="the JSON Web Key Set has no key`) != 1 || strings.Contains(said, "cannot read") {
				t.Errorf("got the log %s, want one warning that the set has no key, and no failed read", said)
			}
		})
	}
}

// While the set cannot be read, the keys that were read before stay valid. The hub does not deny a token with an
// unknown key, but asks the client to retry later.
func TestUnavailableKeySet(t *testing.T) {
	t.Parallel()
	known, unknown := newNamedKey(t, "a"), newNamedKey(t, "b")
	const noSet = "the answer is not a JSON Web Key Set"
	for answer, reason := range map[string]string{
		"":              "the server answered 500",
		"{}":            noSet,
		"<html>":        noSet,
		`{"keys":null}`: noSet,
		"[]":            noSet,
		jwks(nil, strings.Repeat(" ", 1<<20)+"7"): "the answer is longer than 1 MiB",
	} {
		name := answer[:min(len(answer), 20)]
		keys := newKeyServer(t, jwks([]namedKey{known}))
		h := secure(t, "--jwks-url", keys.URL)
		keys.answer.Store(answer)
		if status, says := listenTo(t, h, "", unknown.bearer(t)...); status != 200 || says != later {
			t.Errorf("%q, unknown key: got %d, %s, want 200, %s", name, status, says, later)
		}
		if _, says := listenTo(t, h, "", known.bearer(t)...); says != aliceOnly || keys.asked.Load() != 2 {
			t.Errorf("%q, known key: got %s; the set was read %d times, want %s and 2 reads", name, says, keys.asked.Load(), aliceOnly)
		}
		h.err.await(t, `level=WARN msg="cannot read the JSON Web Key Set: the keys that were read before stay valid" host=127.0.0.1:.* known_keys=[1-9][0-9]* error="`+reason)
		h.err.await(t, `level=WARN msg=".*" reason="the key of the token is not known, and the last attempt to read the JSON Web Key Set failed"`)
	}
}

// A secret in the URL of a JSON Web Key Set is not logged.
func TestSecretsInAURLOfKeys(t *testing.T) {
	t.Parallel()
	keys := newKeyServer(t, "")
	keys.Close()
	h := secure(t, "--jwks-url", strings.Replace(keys.URL, "//", "//user:topsecret@", 1)+"/topsecret?key=topsecret")
	h.err.await(t, `level=WARN msg="cannot read the JSON Web Key Set.*" host=127.0.0.1:.* error="dial tcp .*refused`)
	if strings.Contains(h.err.String(), "topsecret") {
		t.Errorf("the log contains the secret: %s", h.err)
	}
}

// A hub that starts while the set cannot be read accepts tokens as soon as it has read the set.
func TestKeySetThatIsAvailableLater(t *testing.T) {
	t.Parallel()
	key := newNamedKey(t, "a")
	keys := newKeyServer(t, "")
	h := secure(t, "--jwks-url", keys.URL)
	h.err.await(t, `level=WARN msg="cannot read the JSON Web Key Set: the keys that were read before stay valid" host=127.0.0.1:.* known_keys=0 error="the server answered 500"`)
	keys.answer.Store(jwks([]namedKey{key}))
	if _, says := listenTo(t, h, "", key.bearer(t)...); says != aliceOnly {
		t.Errorf("after the server answers with the set: got %s, want %s", says, aliceOnly)
	}
}

// Many tokens with different unknown keys, within a few seconds, cause only one more read of the set and a bounded
// number of log lines. Tokens with a known key stay valid.
func TestFloodOfUnknownKeys(t *testing.T) {
	t.Parallel()
	known := newNamedKey(t, "a")
	keys := newKeyServer(t, jwks([]namedKey{known}))
	h := secure(t, "--jwks-url", keys.URL)
	began := time.Now()
	denied := int32(0)
	for i := range 100 {
		status, says := listenTo(t, h, "", newNamedKey(t, fmt.Sprint("../", i)).bearer(t)...)
		if status == 401 {
			denied++
		} else if i == 0 || says != later {
			t.Fatalf("token %d: got %d, %s, want 401 for token 0, and 401 or %q for the others", i, status, says, later)
		}
	}
	// On a slow machine, the 100 requests take so long that the set may be read again.
	if got, most := keys.asked.Load(), int32(2+time.Since(began)/(10*time.Second)); got != 1+denied || got > most {
		t.Errorf("%d reads of the set and %d tokens with 401, want one read at the start and one for each of these tokens, and at most %d reads", got, denied, most)
	}
	const line = `reason="the key of the token is not known, and the JSON Web Key Set was read less than 10 s ago because of an unknown key"`
	if lines, most := strings.Count(h.err.String(), line), 50+5*int(1+time.Since(began).Seconds()); lines < 10 || lines > most {
		t.Errorf("the log has %d lines with this reason, want 10 to %d", lines, most)
	}
	if _, says := listenTo(t, h, "", known.bearer(t)...); says != aliceOnly {
		t.Errorf("a token with the known key: got %s, want %s", says, aliceOnly)
	}
}

// A set may contain keys that are not public keys for signatures. Such a key verifies no token. A good key verifies no
// token of another key or algorithm.
func TestOtherKeysAtAURL(t *testing.T) {
	t.Parallel()
	good, encrypting := newNamedKey(t, "a"), newNamedKey(t, "enc")
	enc := encrypting.jwk(`"use":"enc"`)
	wrapping := newNamedKey(t, "wrap")
	wrap := wrapping.jwk(`"key_ops":["wrapKey"]`)
	h := secure(t, "--jwks-url", newKeyServer(t, jwks([]namedKey{good}, octet("oct"), enc, wrap, `{"kty":"RSA"}`)).URL)
	for name, headers := range map[string][]string{
		"a published secret":                   bearer(sign(t, jwt.SigningMethodHS256, []byte(secret), claims(nil), "kid", "oct")),
		"a published secret, without kid":      bearer(sign(t, jwt.SigningMethodHS256, []byte(secret), claims(nil))),
		"the public key as secret":             bearer(sign(t, jwt.SigningMethodHS256, []byte(good.private.Public().(ed25519.PublicKey)), claims(nil), "kid", "a")),
		"a key for encryption":                 encrypting.bearer(t),
		"a key for encryption, without kid":    bearer(sign(t, jwt.SigningMethodEdDSA, encrypting.private, claims(nil))),
		"a key for wrapping, without kid":      bearer(sign(t, jwt.SigningMethodEdDSA, wrapping.private, claims(nil))),
		"another algorithm than the key's":     bearer(sign(t, jwt.SigningMethodRS256, pairs().rsa, claims(nil), "kid", "a")),
		"kid is a number":                      bearer(sign(t, jwt.SigningMethodEdDSA, good.private, claims(nil), "kid", 7)),
		"kid of a good key, signed by another": bearer(sign(t, jwt.SigningMethodEdDSA, encrypting.private, claims(nil), "kid", "a")),
	} {
		if status, says := listenTo(t, h, "", headers...); status != 401 && says != later {
			t.Errorf("%s: got %d, %s, want 401 or %q", name, status, says, later)
		}
	}
	if strings.Contains(h.err.String(), "cannot read the JSON Web Key Set") {
		t.Error("the hub logged that it cannot read the set, want it to read the good key and to ignore the others")
	}
	if _, says := listenTo(t, h, "", bearer(sign(t, jwt.SigningMethodEdDSA, good.private, claims(nil)))...); says != aliceOnly {
		t.Errorf("a token without kid: got %s, want %s", says, aliceOnly)
	}
}

// A published key that has an alg verifies only tokens of that algorithm, whether or not the token names the key.
func TestAlgOfAPublishedKeyIsEnforced(t *testing.T) {
	t.Parallel()
	n := base64.RawURLEncoding.EncodeToString(pairs().rsa.N.Bytes())
	h := secure(t, "--jwks-url", newKeyServer(t, jwks(nil, fmt.Sprintf(`{"kty":"RSA","alg":"RS256","kid":"a","e":"AQAB","n":%q}`, n))).URL)
	for _, method := range []jwt.SigningMethod{jwt.SigningMethodRS256, jwt.SigningMethodRS512, jwt.SigningMethodPS256} {
		want := 401
		if method == jwt.SigningMethodRS256 {
			want = 200
		}
		for name, header := range map[string][]any{"with kid": {"kid", "a"}, "without kid": nil} {
			token := sign(t, method, pairs().rsa, claims(nil), header...)
			if status, says := listenTo(t, h, "", bearer(token)...); status != want {
				t.Errorf("%s %s: got %d, %s, want %d", method.Alg(), name, status, says, want)
			}
		}
	}
}
