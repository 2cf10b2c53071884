package auth

import (
	"context"
	"errors"
	"net/http"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

const testSecret = "correct horse battery staple 0001"

// newTokens returns a Tokens with a secret, and a function that signs claims with this secret.
func newTokens(t *testing.T) (*Tokens, func(claims jwt.MapClaims) string) {
	t.Helper()
	key, err := Secret([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	return &Tokens{Keys: []Key{key}, Cookie: "session", WithoutExpiry: true}, func(claims jwt.MapClaims) string {
		t.Helper()
		text, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(testSecret))
		if err != nil {
			t.Fatal(err)
		}
		return text
	}
}

// If several cookies have valid tokens of one user, the token that expires last is used, whatever the order of the
// cookies.
func TestTheTokenThatExpiresLastIsUsed(t *testing.T) {
	t.Parallel()
	tokens, sign := newTokens(t)
	in := func(d time.Duration) int64 { return time.Now().Add(d).Unix() }
	old := sign(jwt.MapClaims{"sub": "alice", "exp": in(time.Minute), "groups": []string{"team:old"}})
	next := sign(jwt.MapClaims{"sub": "alice", "exp": in(time.Hour), "groups": []string{"team:next"}})
	never := sign(jwt.MapClaims{"sub": "alice", "groups": []string{"team:never"}})
	for cookies, want := range map[string]string{
		"session=" + old + "; session=" + next:                          "team:next",
		"session=" + next + "; session=" + old:                          "team:next",
		"session=" + next + "; session=" + never:                        "team:never",
		"session=" + never + "; session=" + old:                         "team:never",
		"session=x; session=" + old + "; session=" + old + "; session=": "team:old",
	} {
		grant, err := tokens.Authenticate(newRequest(t.Context(), "Cookie", cookies))
		if err != nil || grant.User != "alice" || len(grant.Groups) != 1 || grant.Groups[0] != want {
			t.Errorf("%s: got %+v, %v, want alice with the group %s", cookies, grant, err, want)
		}
	}
}

// If no cookie has a valid token, but the key of one token is not known yet, the error is temporary, so the client
// retries. An EventSource would give up after a denial. A valid token opens the stream at once.
func TestACookieWithAnUnknownKeyMayBecomeValid(t *testing.T) {
	t.Parallel()
	tokens, sign := newTokens(t)
	tokens.Keys = append([]Key{{algorithms: []string{"HS384"}, find: func(context.Context) jwt.Keyfunc {
		return func(*jwt.Token) (any, error) { return nil, setJustRead }
	}}}, tokens.Keys...)
	unknown, err := jwt.NewWithClaims(jwt.SigningMethodHS384, jwt.MapClaims{"sub": "alice"}).SignedString([]byte(testSecret))
	if err != nil {
		t.Fatal(err)
	}
	for _, cookies := range []string{"session=x; session=" + unknown, "session=" + unknown + "; session=x"} {
		_, err := tokens.Authenticate(newRequest(t.Context(), "Cookie", cookies))
		if _, denied := errors.AsType[Denial](err); err == nil || denied {
			t.Errorf("%s: got the error %v, want a temporary error", cookies, err)
		}
	}
	valid := sign(jwt.MapClaims{"sub": "alice"})
	for _, cookies := range []string{"session=" + valid + "; session=" + unknown, "session=" + unknown + "; session=" + valid} {
		if grant, err := tokens.Authenticate(newRequest(t.Context(), "Cookie", cookies)); err != nil || grant.User != "alice" {
			t.Errorf("%s: got %+v, %v, want alice", cookies, grant, err)
		}
	}
	_, err = tokens.Authenticate(newRequest(t.Context(), "Cookie", "session=x; session=y"))
	if denial, denied := errors.AsType[Denial](err); !denied || denial.Status != http.StatusUnauthorized {
		t.Errorf("two cookies without a token: got the status %d and the error %v, want 401", denial.Status, err)
	}
}
