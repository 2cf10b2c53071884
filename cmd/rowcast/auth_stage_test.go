package main_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"maps"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

const (
	secret      = "correct horse battery staple 0001"
	otherSecret = "correct horse battery staple 0002"
)

// secure starts a hub with a database of its own, and waits until it listens. The arguments must configure an
// authentication method.
func secure(t *testing.T, args ...string) *hub {
	t.Helper()
	return startHub(t, dbtest.Database(t), args...)
}

// later is what listenTo returns if the stream ends without rowcast.hello. The hub sends such a stream to a client that
// must retry later.
const later = "retry later"

// listenTo opens a stream. It returns the status and the data of rowcast.hello. Instead of the data, it returns the
// whole answer if the status is not 200, and the constant later if the stream ends without rowcast.hello. Headers are
// given as name, value, name, value.
func listenTo(t testing.TB, h *hub, query string, headers ...string) (status int, says string) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+"/events"+query, nil)
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i < len(headers); i += 2 {
		request.Header.Add(headers[i], headers[i+1])
	}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK {
		var text strings.Builder
		if err := response.Write(&text); err != nil { // with the header, so that a test can look for secrets in it
			t.Fatal(err)
		}
		return response.StatusCode, text.String()
	}
	for event, err := range sse.Events(response.Body) {
		if err != nil {
			t.Fatal(err)
		}
		if event.Name == "rowcast.hello" {
			return response.StatusCode, event.Data
		}
	}
	return response.StatusCode, later
}

// bearer returns the Authorization header with a token, as name and value.
func bearer(token string) []string { return []string{"Authorization", "Bearer " + token} }

// claims returns the claims of a valid token for alice. changed adds or replaces claims, and a nil value removes a
// claim.
func claims(changed jwt.MapClaims) jwt.MapClaims {
	all := jwt.MapClaims{"sub": "alice", "exp": time.Now().Add(time.Hour).Unix(), "iss": "https://issuer.example", "aud": "rowcast"}
	maps.Copy(all, changed)
	maps.DeleteFunc(all, func(_ string, value any) bool { return value == nil })
	return all
}

// sign returns a signed token. header has additional members of the token's header, as name, value.
func sign(t testing.TB, method jwt.SigningMethod, key any, claims jwt.MapClaims, header ...any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	for i := 0; i < len(header); i += 2 {
		token.Header[header[i].(string)] = header[i+1]
	}
	text, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// signed returns a token that is signed with the constant secret, and has the claims that claims returns.
func signed(t testing.TB, changed jwt.MapClaims) string {
	t.Helper()
	return sign(t, jwt.SigningMethodHS256, []byte(secret), claims(changed))
}

// keyPairs has private keys of several kinds and sizes.
type keyPairs struct {
	rsa, otherRSA, smallRSA *rsa.PrivateKey
	ec, ec384               *ecdsa.PrivateKey
	ed                      ed25519.PrivateKey
}

// pairs generates the keys once, because that is slow.
var pairs = sync.OnceValue(func() (k keyPairs) {
	k.rsa, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.otherRSA, _ = rsa.GenerateKey(rand.Reader, 2048)
	k.smallRSA, _ = rsa.GenerateKey(rand.Reader, 1024)
	k.ec, _ = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	k.ec384, _ = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	_, k.ed, _ = ed25519.GenerateKey(rand.Reader)
	return k
})

// pemOf returns a public or private key in PEM.
func pemOf(t testing.TB, key any) []byte {
	t.Helper()
	kind, encode := "PUBLIC KEY", x509.MarshalPKIXPublicKey
	if _, private := key.(crypto.Signer); private {
		kind, encode = "PRIVATE KEY", x509.MarshalPKCS8PrivateKey
	}
	der, err := encode(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der})
}

// fileOf writes parts to a new file and returns its path.
func fileOf(t testing.TB, parts ...[]byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "key")
	var all []byte
	for _, part := range parts {
		all = append(all, part...)
	}
	if err := os.WriteFile(path, all, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}
