package auth

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/golang-jwt/jwt/v5"
)

// A negative Timeout means the default, and a negative Grace ends no stream before its grant expires.
func TestAppWithNegativeFields(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeApp(acceptCookie)
		a.Timeout, a.Grace = -1, -time.Hour
		grant, err := a.withCookie(t, "alice")
		if err != nil {
			t.Fatal(err)
		}
		a.answer = func(string) string { return "" }
		expires := time.Now().Add(300 * time.Second)
		time.Sleep(time.Until(grant.Expires))
		for grant.Expires.Before(expires) {
			next, ok := grant.Renew(t.Context())
			if !ok {
				t.Fatalf("the stream ended %v before its grant expires, want it open until then", time.Until(expires))
			}
			time.Sleep(time.Until(next))
			grant.Expires = next
		}
		if _, ok := grant.Renew(t.Context()); ok {
			t.Error("the stream continues after its grant has expired, want it ended, because there is no grace")
		}
	})
}

// A negative Leeway counts as 0.
func TestTokensWithNegativeLeeway(t *testing.T) {
	t.Parallel()
	tokens, sign := newTokens(t)
	tokens.Leeway = -time.Hour
	expires := time.Now().Add(time.Minute).Truncate(time.Second)
	token := sign(jwt.MapClaims{"sub": "alice", "exp": expires.Unix()})
	grant, err := tokens.Authenticate(newRequest(t.Context(), "Authorization", "Bearer "+token))
	if err != nil || !grant.Expires.Equal(expires) || grant.Leeway != 0 {
		t.Errorf("got %+v, %v, want a grant that expires at %v, without a leeway", grant, err, expires)
	}
}
