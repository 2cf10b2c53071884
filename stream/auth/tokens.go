package auth

import (
	"errors"
	"math"
	"net/http"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rowcast/stream"
)

// Tokens authenticates by JSON Web Token (RFC 7519). A token is taken from the Authorization header (Bearer) or from a cookie. The user
// is the claim sub. At least one key must be set; the other fields may be zero.
type Tokens struct {
	Keys []Key

	// Issuer is the required iss. If it is empty, any issuer is accepted.
	Issuer string
	// Audience has the accepted values of aud. If it is empty, any audience is accepted.
	Audience []string
	// WithoutExpiry accepts tokens without exp. The streams of such tokens do not expire.
	WithoutExpiry bool
	// Leeway is the clock skew that is allowed.
	Leeway time.Duration

	// GroupsClaim is the claim with the names of the groups, an array of strings. The default is "groups".
	GroupsClaim string
	// Mark distinguishes groups from users.
	Mark GroupMark

	// Cookie is the name of a cookie that may contain the token if the Authorization header has none.
	Cookie string
	// Origins are further origins whose pages may open streams with the Cookie. Pages of the hub's own origin always
	// may.
	Origins []string
}

// maxToken is the maximum length of a token in bytes.
const maxToken = 8 << 10

// Authenticate is an [Authenticator].
func (t *Tokens) Authenticate(r *http.Request) (stream.Grant, error) {
	if err := checkURL(r); err != nil {
		return stream.Grant{}, err
	}
	if t.Cookie != "" {
		if err := checkOrigin(r, t.Origins); err != nil {
			return stream.Grant{}, err
		}
	}
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
func (t *Tokens) find(r *http.Request) (string, error) {
	headers := r.Header.Values("Authorization")
	if len(headers) > 1 {
		return "", unauthorized("more than one Authorization header")
	}
	for _, header := range headers {
		// A header of another scheme is ignored, because it may be for a proxy that requires a password.
		if scheme, token, _ := strings.Cut(header, " "); strings.EqualFold(scheme, "Bearer") {
			return strings.TrimSpace(token), nil
		}
	}
	const missing = "send a token: in the Authorization header, as Bearer"
	if t.Cookie == "" {
		return "", unauthorized(missing)
	}
	cookies := r.CookiesNamed(t.Cookie)
	switch len(cookies) {
	case 0:
		return "", unauthorized(missing + ", or in the cookie " + t.Cookie)
	case 1:
		return cookies[0].Value, nil
	}
	// An attacker on another subdomain may have set one of the cookies, to sign the user in as somebody else.
	return "", unauthorized("more than one cookie " + t.Cookie)
}

// verify checks the signature with one key after another, until a key verifies it, and then checks the claims. No claim is checked before
// the signature is verified.
func (t *Tokens) verify(r *http.Request, text string) (jwt.MapClaims, error) {
	var cause error
	for _, key := range t.Keys {
		claims := jwt.MapClaims{}
		parser := jwt.NewParser(jwt.WithValidMethods(key.algorithms), jwt.WithoutClaimsValidation())
		token, err := parser.ParseWithClaims(text, claims, key.find(r.Context()))
		if err == nil {
			return claims, t.validate(token.Header, claims)
		}
		if _, mayBeNew := errors.AsType[unknownKey](err); cause == nil || mayBeNew {
			cause = err
		}
	}
	if unknown, ok := errors.AsType[unknownKey](cause); ok {
		return nil, unknown
	}
	if errors.Is(cause, jwt.ErrTokenMalformed) {
		return nil, unauthorized("the token is malformed")
	}
	return nil, unauthorized("the token is not signed by a configured key")
}

// validate checks the claims of a token whose signature is verified. It does not return the errors of the jwt library,
// because they may quote the token.
func (t *Tokens) validate(header map[string]any, claims jwt.MapClaims) error {
	if header["crit"] != nil { // RFC 7515, section 4.1.11; the jwt library does not check crit
		return unauthorized("the token has a crit header, which is not supported")
	}
	if err := t.checkPresent(claims); err != nil {
		return err
	}
	err := jwt.NewValidator(jwt.WithLeeway(t.Leeway), jwt.WithIssuer(t.Issuer), jwt.WithAudience(t.Audience...)).Validate(claims)
	switch {
	case errors.Is(err, jwt.ErrTokenExpired), claims["exp"] == 0.0: // the jwt library ignores an exp of 0
		return unauthorized("the token has expired")
	case errors.Is(err, jwt.ErrTokenNotValidYet):
		return unauthorized("the token is not valid yet")
	case errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return unauthorized("the token is from another issuer")
	case errors.Is(err, jwt.ErrTokenInvalidAudience):
		return unauthorized("the token is for another audience")
	case err != nil:
		return unauthorized("the token's iss or aud is empty or has a wrong type")
	}
	return nil
}

// checkPresent checks that the token has the required claims, and that exp and nbf, if present, are times.
func (t *Tokens) checkPresent(claims jwt.MapClaims) error {
	for _, claim := range []struct {
		name     string
		required bool
	}{{"exp", !t.WithoutExpiry}, {"nbf", false}, {"iss", t.Issuer != ""}, {"aud", len(t.Audience) > 0}} {
		switch value, has := claims[claim.name]; {
		case claim.required && !has:
			return unauthorized("the token has no " + claim.name)
		case has && (claim.name == "exp" || claim.name == "nbf") && !isTime(value):
			return unauthorized("the token's " + claim.name + " is not a time in seconds since 1970")
		}
	}
	return nil
}

// lastTime is the end of the year 9999, in seconds since 1970. A larger value is probably in milliseconds.
const lastTime = 253402300799

func isTime(value any) bool {
	seconds, ok := value.(float64)
	return ok && math.Abs(seconds) <= lastTime
}

// grant returns the grant that the claims of a valid token describe.
func (t *Tokens) grant(claims jwt.MapClaims) (stream.Grant, error) {
	user, err := claims.GetSubject()
	if err != nil {
		return stream.Grant{}, forbidden("the token's sub is not a string")
	}
	groups, err := t.groups(claims)
	if err != nil {
		return stream.Grant{}, err
	}
	grant, err := t.Mark.Grant(user, groups)
	if err != nil {
		return stream.Grant{}, err
	}
	if expires, err := claims.GetExpirationTime(); err == nil && expires != nil {
		grant.Expires, grant.Leeway = expires.Time, t.Leeway // a token is valid until exp plus the leeway, and so is a stream
	}
	return grant, nil
}

func (t *Tokens) groups(claims jwt.MapClaims) (groups []string, err error) {
	const wrong = "the token's groups are not an array of strings"
	name := t.GroupsClaim
	if name == "" {
		name = "groups"
	}
	if claims[name] == nil {
		return nil, nil
	}
	all, ok := claims[name].([]any)
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
