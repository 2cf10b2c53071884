package auth

import (
	"encoding/base64"
	"encoding/json"
	"errors"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rowcast/listener/feed"
)

const fuzzSecret = "correct horse battery staple 0001"

func fuzzTokens(f *testing.F) *Tokens {
	k, err := Secret([]byte(fuzzSecret))
	if err != nil {
		f.Fatal(err)
	}
	return &Tokens{Keys: []Key{k}, Cookie: "session"}
}

// A request without a valid token is denied, whatever its Authorization and Cookie headers contain. The denial quotes
// no header of more than 40 bytes.
func FuzzCredentials(f *testing.F) {
	expired, err := jwt.NewWithClaims(jwt.SigningMethodHS256, jwt.MapClaims{"sub": "alice", "exp": 1}).SignedString([]byte(fuzzSecret))
	if err != nil {
		f.Fatal(err)
	}
	unsigned := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none"}`)) + "." + strings.Split(expired, ".")[1] + "."
	for _, token := range []string{expired, unsigned, "", "a.b.c", strings.Repeat("x", maxToken+1)} {
		f.Add("Bearer "+token, "session="+token)
		f.Add("bearer  "+token, "session="+token+"; session=x")
		f.Add("Basic "+token, `session="`+token+`"`)
	}
	t := fuzzTokens(f)
	f.Fuzz(func(test *testing.T, authorization, cookie string) {
		r := httptest.NewRequest(http.MethodGet, "/events", nil)
		if authorization != "" {
			r.Header["Authorization"] = []string{authorization}
		}
		r.Header["Cookie"] = []string{cookie}
		grant, err := t.Authenticate(r)
		denied, isDenied := errors.AsType[Denial](err)
		if !isDenied || denied.Status != http.StatusUnauthorized || grant.User != "" || len(grant.Groups) > 0 {
			test.Fatalf("got %+v, %v, want a denial with 401 and an empty grant", grant, err)
		}
		for _, sent := range []string{authorization, cookie} {
			if len(sent) > 40 && strings.Contains(denied.Reason, sent) {
				test.Errorf("got the reason %q, want a reason that does not quote a header", denied.Reason)
			}
		}
	})
}

// If a signed token is accepted, whatever it claims, its grant contains only the user and groups of the token, and the
// grant expires. The id of the user does not contain the group mark ":", and the name of every group contains it.
func FuzzClaims(f *testing.F) {
	f.Add(`{"sub": "alice", "exp": 99999999999, "groups": ["team:7"]}`)
	f.Add(`{"sub": "team:7", "exp": 99999999999}`)
	f.Add(`{"sub": "alice", "exp": 1e300, "groups": {"team:7": true}}`)
	f.Add(`{"sub": ["alice"], "exp": "99999999999", "groups": ["alice", null, 7]}`)
	f.Add(`{"sub": "a\u0000\r\n", "exp": -1, "nbf": 1e19, "iat": null}`)
	f.Add(`{"sub": "*", "exp": 99999999999, "groups": ["*"]}`)
	t := fuzzTokens(f)
	f.Fuzz(func(test *testing.T, text string) {
		var claims jwt.MapClaims
		if json.Unmarshal([]byte(text), &claims) != nil || claims == nil {
			return
		}
		token, err := jwt.NewWithClaims(jwt.SigningMethodHS256, claims).SignedString([]byte(fuzzSecret))
		if err != nil {
			return
		}
		r := httptest.NewRequest(http.MethodGet, "/events", nil)
		r.Header.Set("Authorization", "Bearer "+token)
		grant, err := t.Authenticate(r)
		if err != nil {
			if _, isDenied := errors.AsType[Denial](err); !isDenied {
				test.Errorf("got the error %v, want a denial", err)
			}
			return
		}
		if grant.User != claims["sub"] || strings.Contains(grant.User, ":") || grant.User == "" || grant.User == feed.Everyone {
			test.Errorf("got the user %q for the sub %v, want the same id, not empty, not \"*\" and without a mark", grant.User, claims["sub"])
		}
		named, _ := claims["groups"].([]any)
		for _, group := range grant.Groups {
			if !slices.Contains(named, any(group)) || !strings.Contains(group, ":") {
				test.Errorf("got the group %q, want one of the token's groups %v that contains the mark", group, named)
			}
		}
		if !grant.Expires.After(time.Now()) {
			test.Errorf("the grant expires at %v, want a time in the future", grant.Expires)
		}
	})
}
