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

	"github.com/golang-jwt/jwt/v5"
)

// A keyServer is a URL with a JSON Web Key Set.
type keyServer struct {
	*httptest.Server
	answer atomic.Value // a string; "" is an error
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
		}
		_, _ = fmt.Fprint(w, answer)
	}))
	t.Cleanup(s.Close)
	return s
}

// A named key is one of a set.
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

// bearer is the header with a token of this key.
func (k namedKey) bearer(t *testing.T) []string {
	t.Helper()
	return bearer(sign(t, jwt.SigningMethodEdDSA, k.private, claims(nil), "kid", k.kid))
}

// jwks are keys as they are published. more are others, as JSON.
func jwks(keys []namedKey, more ...string) string {
	for _, k := range keys {
		x := base64.RawURLEncoding.EncodeToString(k.private.Public().(ed25519.PublicKey))
		more = append(more, fmt.Sprintf(`{"kty":"OKP","crv":"Ed25519","use":"sig","alg":"EdDSA","kid":%q,"x":%q}`, k.kid, x))
	}
	return `{"keys":[` + strings.Join(more, ",") + `]}`
}

const aliceOnly = `{"recipients":["alice"],"heartbeat":15}`

// A new key is read when the first token names it, and a withdrawn one counts no more.
func TestKeysAtAURLChange(t *testing.T) {
	t.Parallel()
	before, after := newNamedKey(t, "a"), newNamedKey(t, "b")
	keys := newKeyServer(t, jwks([]namedKey{before}))
	h := secure(t, "--jwks-url", keys.URL)
	if _, says := listenTo(t, h, "", before.bearer(t)...); says != aliceOnly {
		t.Fatalf("got %s", says)
	}
	keys.answer.Store(jwks([]namedKey{after}))
	if _, says := listenTo(t, h, "", after.bearer(t)...); says != aliceOnly {
		t.Errorf("the new key: got %s", says)
	}
	if _, says := listenTo(t, h, "", before.bearer(t)...); says == aliceOnly {
		t.Error("the withdrawn key still counts")
	}
}

// While the URL is away, or answers something else, the keys of before count. Who has one that is not known must not be turned away
// for good.
func TestKeysAtAURLThatIsAway(t *testing.T) {
	t.Parallel()
	known, unknown := newNamedKey(t, "a"), newNamedKey(t, "b")
	for name, answer := range map[string]string{"an error": "", "something else": "{}", "no JSON": "<html>", "no key": `{"keys":[]}`, "endless": strings.Repeat(" ", 2<<20)} {
		keys := newKeyServer(t, jwks([]namedKey{known}))
		h := secure(t, "--jwks-url", keys.URL)
		keys.answer.Store(answer)
		if status, says := listenTo(t, h, "", unknown.bearer(t)...); status != 200 || says != later {
			t.Errorf("%s, unknown: got %d, %s, want to come back later", name, status, says)
		}
		if _, says := listenTo(t, h, "", known.bearer(t)...); says != aliceOnly || keys.asked.Load() != 2 {
			t.Errorf("%s, known: got %s; asked %d times, want 2", name, says, keys.asked.Load())
		}
		h.err.await(t, `level=WARN msg="the keys of --jwks-url cannot be read"`)
	}
}

// A hub that starts while the URL is away serves as soon as it is there.
func TestKeysAtAURLThatComesLater(t *testing.T) {
	t.Parallel()
	key := newNamedKey(t, "a")
	keys := newKeyServer(t, "")
	h := secure(t, "--jwks-url", keys.URL)
	keys.answer.Store(jwks([]namedKey{key}))
	if _, says := listenTo(t, h, "", key.bearer(t)...); says != aliceOnly {
		t.Errorf("got %s", says)
	}
}

// However many keys are made up, the URL is asked once in a while, and nobody waits for it.
func TestFloodOfUnknownKeys(t *testing.T) {
	t.Parallel()
	known := newNamedKey(t, "a")
	keys := newKeyServer(t, jwks([]namedKey{known}))
	h := secure(t, "--jwks-url", keys.URL)
	for i := range 100 {
		status, says := listenTo(t, h, "", newNamedKey(t, fmt.Sprint("../", i)).bearer(t)...)
		if i == 0 && status != 401 || i > 0 && says != later {
			t.Fatalf("%d: got %d, %s", i, status, says)
		}
	}
	if got := keys.asked.Load(); got != 2 {
		t.Errorf("asked %d times, want 2: at the start and for the first", got)
	}
	if _, says := listenTo(t, h, "", known.bearer(t)...); says != aliceOnly {
		t.Errorf("the known key: got %s", says)
	}
}

// What is no public key for signatures counts for nothing, even where it is published.
func TestOtherKeysAtAURL(t *testing.T) {
	t.Parallel()
	good, encrypting := newNamedKey(t, "a"), newNamedKey(t, "enc")
	oct := fmt.Sprintf(`{"kty":"oct","kid":"oct","k":%q}`, base64.RawURLEncoding.EncodeToString([]byte(secret)))
	enc := strings.Replace(strings.TrimSuffix(strings.TrimPrefix(jwks([]namedKey{encrypting}), `{"keys":[`), "]}"), `"sig"`, `"enc"`, 1)
	h := secure(t, "--jwks-url", newKeyServer(t, jwks([]namedKey{good}, oct, enc)).URL)
	for name, headers := range map[string][]string{
		"a published secret":                   bearer(sign(t, jwt.SigningMethodHS256, []byte(secret), claims(nil), "kid", "oct")),
		"a published secret, without kid":      bearer(sign(t, jwt.SigningMethodHS256, []byte(secret), claims(nil))),
		"the public key as secret":             bearer(sign(t, jwt.SigningMethodHS256, []byte(good.private.Public().(ed25519.PublicKey)), claims(nil), "kid", "a")),
		"a key for encryption":                 encrypting.bearer(t),
		"a key for encryption, without kid":    bearer(sign(t, jwt.SigningMethodEdDSA, encrypting.private, claims(nil))),
		"another algorithm than the key's":     bearer(sign(t, jwt.SigningMethodRS256, pairs().rsa, claims(nil), "kid", "a")),
		"kid is a number":                      bearer(sign(t, jwt.SigningMethodEdDSA, good.private, claims(nil), "kid", 7)),
		"kid of a good key, signed by another": bearer(sign(t, jwt.SigningMethodEdDSA, encrypting.private, claims(nil), "kid", "a")),
	} {
		if status, says := listenTo(t, h, "", headers...); status != 401 && says != later {
			t.Errorf("%s: got %d, %s", name, status, says)
		}
	}
	if _, says := listenTo(t, h, "", bearer(sign(t, jwt.SigningMethodEdDSA, good.private, claims(nil)))...); says != aliceOnly {
		t.Errorf("without kid: got %s", says)
	}
}
