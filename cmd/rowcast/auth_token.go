package main

import (
	"errors"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rowcast/stream"
)

// tokens authenticate by JSON Web Token (RFC 7519).
type tokens struct {
	keys   []key
	claims []jwt.ParserOption // what they must say
	groups string             // the claim with the groups' keys
	leeway time.Duration      // for clocks that differ
	cookie string             // where a token may come besides the header; empty: nowhere
	mark   groupMark
}

// maxToken is far more than a token needs, in bytes.
const maxToken = 8 << 10

func (t *tokens) authenticate(r *http.Request) (stream.Grant, error) {
	text, err := t.find(r)
	if err != nil {
		return stream.Grant{}, err
	}
	if len(text) > maxToken {
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

// verify tries the keys. Of their errors, one about the claims comes from the right key.
func (t *tokens) verify(r *http.Request, text string) (jwt.MapClaims, error) {
	var worst error
	for _, key := range t.keys {
		claims := jwt.MapClaims{}
		token, err := jwt.NewParser(t.options(key.algorithms)...).ParseWithClaims(text, claims, key.find(r.Context()))
		if err == nil && token.Header["crit"] != nil { // RFC 7515, section 4.1.11; the library does not look
			return nil, unauthorized("the token has a crit header, which names what is not understood here")
		}
		if err == nil {
			return claims, nil
		}
		if worst == nil || errors.Is(err, jwt.ErrTokenInvalidClaims) || errors.Is(err, errKeysAway) {
			worst = err
		}
		if errors.Is(err, jwt.ErrTokenInvalidClaims) {
			break
		}
	}
	return nil, judgeToken(worst)
}

func (t *tokens) options(algorithms []string) []jwt.ParserOption {
	return append([]jwt.ParserOption{jwt.WithValidMethods(algorithms), jwt.WithLeeway(t.leeway)}, t.claims...)
}

// judgeToken says in our words what is wrong: the library's would quote the token.
func judgeToken(err error) error {
	for _, known := range []struct {
		err  error
		text string
	}{
		{jwt.ErrTokenExpired, "the token has expired"},
		{jwt.ErrTokenNotValidYet, "the token is not valid yet"},
		{jwt.ErrTokenInvalidAudience, "the token is for another audience"},
		{jwt.ErrTokenInvalidIssuer, "the token is from another issuer"},
		{jwt.ErrTokenRequiredClaimMissing, "the token lacks a claim that is required: exp, or an issuer or audience"},
		{jwt.ErrTokenInvalidClaims, "a claim of the token has the wrong type"},
		{jwt.ErrTokenMalformed, "the token is malformed"},
	} {
		if errors.Is(err, known.err) {
			return unauthorized(known.text)
		}
	}
	if errors.Is(err, errKeysAway) {
		return errKeysAway
	}
	return unauthorized("the token is not signed by a key that counts here")
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
