package main

import (
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rowcast/stream"
)

// tokens authenticate by JSON Web Token (RFC 7519).
type tokens struct {
	keys       []key
	issuer     string        // the iss that they must have; empty: any
	audience   []string      // one of which must be in their aud; empty: any
	withoutExp bool          // they need no exp
	groups     string        // the claim with the groups' keys
	leeway     time.Duration // for clocks that differ
	cookie     string        // where a token may come besides the header; empty: nowhere
	mark       groupMark
}

// claimName is the name of a claim for the groups.
type claimName string

// UnmarshalText refuses the claims that have a meaning of their own (RFC 7519, section 4.1).
func (c *claimName) UnmarshalText(text []byte) error {
	*c = claimName(text)
	if slices.Contains([]claimName{"", "iss", "sub", "aud", "exp", "nbf", "iat", "jti"}, *c) {
		return fmt.Errorf("%q is not a claim that can have groups in it", text)
	}
	return nil
}

// maxToken is far more than a token needs, in bytes.
const maxToken = 8 << 10

func (t *tokens) authenticate(r *http.Request) (stream.Grant, error) {
	text, err := t.find(r)
	if err != nil {
		return stream.Grant{}, err
	}
	switch {
	case text == "":
		return stream.Grant{}, unauthorized("the token is empty")
	case len(text) > maxToken:
		return stream.Grant{}, unauthorized("the token is longer than 8 KiB")
	}
	claims, err := t.verify(r, text)
	if err != nil {
		return stream.Grant{}, err
	}
	return t.grant(claims)
}

// find returns the token of the Authorization header or, if there is none, of the cookie.
func (t *tokens) find(r *http.Request) (string, error) {
	headers := r.Header.Values("Authorization")
	if len(headers) > 1 {
		return "", unauthorized("more than one Authorization header")
	}
	for _, header := range headers {
		// Another scheme is somebody else's, such as a proxy's that asks for a password.
		if scheme, token, _ := strings.Cut(header, " "); strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token), nil
		}
	}
	const missing = "send a token: in the Authorization header, as Bearer"
	if t.cookie == "" {
		return "", unauthorized(missing)
	}
	cookies := r.CookiesNamed(t.cookie)
	switch len(cookies) {
	case 0:
		return "", unauthorized(missing + ", or in the cookie " + t.cookie)
	case 1:
		return cookies[0].Value, nil
	}
	// One is perhaps that of another subdomain, which wants the user to be somebody else.
	return "", unauthorized("more than one cookie " + t.cookie)
}

// verify tries the keys. What a token says is looked at only once it is known who says it.
func (t *tokens) verify(r *http.Request, text string) (jwt.MapClaims, error) {
	var worst error
	for _, key := range t.keys {
		claims := jwt.MapClaims{}
		parser := jwt.NewParser(jwt.WithValidMethods(key.algorithms), jwt.WithoutClaimsValidation())
		token, err := parser.ParseWithClaims(text, claims, key.find(r.Context()))
		if err == nil {
			return claims, t.judge(token.Header, claims)
		}
		if _, mayBeNew := errors.AsType[unknownKey](err); worst == nil || mayBeNew {
			worst = err
		}
	}
	if unknown, ok := errors.AsType[unknownKey](worst); ok {
		return nil, unknown
	}
	if errors.Is(worst, jwt.ErrTokenMalformed) {
		return nil, unauthorized("the token is malformed")
	}
	return nil, unauthorized("the token is not signed by a key that counts here")
}

// judge says what is wrong with a token that is rightly signed, in our words: the library's would quote it.
func (t *tokens) judge(header map[string]any, claims jwt.MapClaims) error {
	if header["crit"] != nil { // RFC 7515, section 4.1.11; the library does not look
		return unauthorized("the token has a crit header, which names what is not understood here")
	}
	for _, claim := range []struct {
		name     string
		required bool
	}{{"exp", !t.withoutExp}, {"nbf", false}, {"iss", t.issuer != ""}, {"aud", len(t.audience) > 0}} {
		switch value, has := claims[claim.name]; {
		case claim.required && !has:
			return unauthorized("the token has no " + claim.name)
		case has && (claim.name == "exp" || claim.name == "nbf") && !isTime(value):
			return unauthorized("the token's " + claim.name + " is not a time in seconds since 1970")
		}
	}
	err := jwt.NewValidator(jwt.WithLeeway(t.leeway), jwt.WithIssuer(t.issuer), jwt.WithAudience(t.audience...)).Validate(claims)
	switch {
	case errors.Is(err, jwt.ErrTokenExpired), claims["exp"] == 0.0: // which the library takes for none
		return unauthorized("the token has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return unauthorized("the token is not valid yet")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return unauthorized("the token is from another issuer")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return unauthorized("the token is for another audience")
	case err != nil:
		return unauthorized("the token's iss or aud is empty, or of a wrong type")
	}
	return nil
}

// lastTime is the end of the year 9999, in seconds since 1970. Whoever means milliseconds is beyond.
const lastTime = 253402300799

func isTime(value any) bool {
	seconds, ok := value.(float64)
	return ok && math.Abs(seconds) <= lastTime
}

// grant is what the claims of a valid token say.
func (t *tokens) grant(claims jwt.MapClaims) (stream.Grant, error) {
	user, err := claims.GetSubject()
	if err != nil {
		return stream.Grant{}, forbidden("the token's sub is not a string")
	}
	groups, err := t.groupsOf(claims)
	if err != nil {
		return stream.Grant{}, err
	}
	grant, err := t.mark.grant(user, groups)
	if err != nil {
		return stream.Grant{}, err
	}
	if expires, err := claims.GetExpirationTime(); err == nil && expires != nil {
		grant.Expires, grant.Leeway = expires.Time, t.leeway // until when the same token would open the next stream
	}
	return grant, nil
}

func (t *tokens) groupsOf(claims jwt.MapClaims) (groups []string, err error) {
	const wrong = "the token's groups are not an array of strings"
	if claims[t.groups] == nil {
		return nil, nil
	}
	all, ok := claims[t.groups].([]any)
	if !ok {
		return nil, forbidden(wrong)
	}
	for _, one := range all {
		group, ok := one.(string)
		if !ok {
			return nil, forbidden(wrong)
		}
		groups = append(groups, group)
	}
	return groups, nil
}
