package auth

import (
	"cmp"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/golang-jwt/jwt/v5"

	"rowcast/stream"
)

// Tokens authenticates clients by JSON Web Tokens (RFC 7519). A token is taken from the Authorization header (Bearer)
// or from a cookie. The user is the claim sub. At least one key must be set; the other fields may be zero.
type Tokens struct {
	Keys []Key

	// Issuer is the required iss. If it is empty, any issuer is accepted.
	Issuer string
	// Audience has the accepted values of aud. If it is empty, any audience is accepted.
	Audience []string
	// WithoutExpiry accepts tokens without exp. The streams of such tokens do not expire.
	WithoutExpiry bool
	// Leeway is the clock skew that is allowed. A negative Leeway counts as 0.
	Leeway time.Duration

	// GroupsClaim is the claim with the names of the groups, an array of strings. The default is "groups".
	GroupsClaim string
	// TopicsClaim is the claim with the topics that the user may ask for, an array of strings. A string that ends with "*"
	// allows all topics that begin with the rest of the string. The default is "topics". The user may also ask for the
	// groups of the token.
	TopicsClaim string
	// Mark distinguishes groups from users.
	Mark GroupMark

	// Cookie is the name of a cookie that may contain the token if the Authorization header has none. If a request has
	// several cookies with this name, each is tried. A request with more than 10 of them is denied.
	Cookie string
	// Origins are further origins whose pages may open streams if Cookie is set. Pages of all other
	// origins except the hub's own are denied then, even if they send the token in the header. Without Cookie, Origins
	// has no effect.
	Origins []string
}

const (
	maxToken   = 8 << 10 // the maximum length of a token in bytes
	maxCookies = 10      // a request with more cookies of the name Tokens.Cookie is denied, because each check of a signature costs CPU
)

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
	tokens, err := t.find(r)
	if err != nil {
		return stream.Grant{}, err
	}
	if len(tokens) == 1 {
		return t.check(r, tokens[0])
	}
	return t.choose(r, tokens)
}

// find returns the token of the Authorization header or, if the header has none, the tokens of the cookies named
// Cookie.
func (t *Tokens) find(r *http.Request) (tokens []string, err error) {
	headers := r.Header.Values("Authorization")
	if len(headers) > 1 {
		return nil, unauthorized("more than one Authorization header")
	}
	for _, header := range headers {
		// A header of another scheme is ignored, because it may be for a proxy that requires a password.
		if scheme, token, _ := strings.Cut(header, " "); strings.EqualFold(scheme, "Bearer") {
			return []string{strings.TrimSpace(token)}, nil
		}
	}
	const missing = "send a token in the header Authorization: Bearer TOKEN"
	if t.Cookie == "" {
		return nil, noCredential(missing)
	}
	cookies := r.CookiesNamed(t.Cookie)
	if len(cookies) > maxCookies {
		return nil, unauthorized(fmt.Sprintf("more than %d cookies named %s", maxCookies, t.Cookie))
	}
	for _, cookie := range cookies {
		tokens = append(tokens, cookie.Value)
	}
	if len(tokens) == 0 {
		return nil, noCredential(missing + ", or in the cookie " + t.Cookie)
	}
	return tokens, nil
}

// choose returns a grant if several cookies have tokens. A browser sends several cookies with one name if they were set
// for different paths or domains, and some of them may be old, so invalid tokens are ignored. If several tokens are
// valid, choose returns the grant that expires last. Valid tokens of different users are denied: an attacker on another
// subdomain may have set one of the cookies, to sign the user in as somebody else.
func (t *Tokens) choose(r *http.Request, tokens []string) (chosen stream.Grant, err error) {
	var cause error
	for _, token := range tokens {
		grant, err := t.check(r, token)
		switch _, denied := errors.AsType[Denial](err); {
		case err != nil && (cause == nil || !denied): // after a temporary error, a new attempt may succeed
			cause = err
		case err != nil:
		case chosen.User != "" && chosen.User != grant.User:
			return stream.Grant{}, unauthorized("the cookies named " + t.Cookie + " have valid tokens of different users")
		case chosen.User == "" || lastsLonger(grant, chosen):
			chosen = grant
		}
	}
	if denial, denied := errors.AsType[Denial](cause); denied {
		cause = Denial{Status: denial.Status, Reason: fmt.Sprintf("none of the %d cookies named %s has a valid token; the error of the first one: %s", len(tokens), t.Cookie, denial.Reason)}
	}
	if chosen.User == "" {
		return stream.Grant{}, cause
	}
	return chosen, nil
}

// lastsLonger reports whether a expires later than b. A grant without Expires never expires.
func lastsLonger(a, b stream.Grant) bool {
	return !b.Expires.IsZero() && (a.Expires.IsZero() || a.Expires.After(b.Expires))
}

// check returns the grant of a token.
func (t *Tokens) check(r *http.Request, token string) (stream.Grant, error) {
	switch {
	case token == "":
		return stream.Grant{}, unauthorized("the token is empty")
	case len(token) > maxToken:
		return stream.Grant{}, unauthorized("the token is longer than 8 KiB")
	}
	claims, err := t.verify(r, token)
	if err != nil {
		return stream.Grant{}, err
	}
	return t.grant(r, claims)
}

// verify checks the signature with one key after another, until a key verifies it, and then checks the claims. No claim
// is checked before the signature is verified. The sets that do not have the key that the token names are read again
// only if no other key verifies the token.
func (t *Tokens) verify(r *http.Request, text string) (jwt.MapClaims, error) {
	var cause error
	keys := slices.Clone(t.Keys)
	for i := 0; i < len(keys); i++ {
		key := keys[i]
		claims := jwt.MapClaims{}
		parser := jwt.NewParser(jwt.WithValidMethods(key.algorithms), jwt.WithoutClaimsValidation())
		token, err := parser.ParseWithClaims(text, claims, key.find(r.Context()))
		if err == nil {
			return claims, t.validate(token.Header, claims)
		}
		if errors.Is(err, jwkset.ErrKeyNotFound) && key.reread != nil {
			keys = append(keys, *key.reread)
			continue
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
	err := jwt.NewValidator(jwt.WithLeeway(max(t.Leeway, 0)), jwt.WithIssuer(t.Issuer), jwt.WithAudience(t.Audience...)).Validate(claims)
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

// grant returns the grant that the claims of a valid token describe. It contains each topic that the request asks for
// and the claims allow.
func (t *Tokens) grant(r *http.Request, claims jwt.MapClaims) (stream.Grant, error) {
	user, err := claims.GetSubject()
	if err != nil {
		return stream.Grant{}, forbidden("the token's sub is not a string")
	}
	groups, err := texts(claims, cmp.Or(t.GroupsClaim, "groups"), "groups")
	if err != nil {
		return stream.Grant{}, err
	}
	topics, err := t.topics(r, claims)
	if err != nil {
		return stream.Grant{}, err
	}
	for _, topic := range topics {
		if !slices.Contains(groups, topic) {
			groups = append(groups, topic)
		}
	}
	grant, err := t.Mark.Grant(user, groups)
	if err != nil {
		return stream.Grant{}, err
	}
	if expires, err := claims.GetExpirationTime(); err == nil && expires != nil {
		grant.Expires, grant.Leeway = expires.Time, max(t.Leeway, 0) // a token is valid until exp plus the leeway, and so is a stream
	}
	return grant, nil
}

// topics returns the topics that a request asks for and the claims allow.
func (t *Tokens) topics(r *http.Request, claims jwt.MapClaims) ([]string, error) {
	topics, err := Topics(r)
	if err != nil || len(topics) == 0 {
		return nil, err
	}
	patterns, err := texts(claims, cmp.Or(t.TopicsClaim, "topics"), "topics")
	if err != nil {
		return nil, err
	}
	return slices.DeleteFunc(topics, func(topic string) bool { return !covers(patterns, topic) }), nil
}

// texts returns the strings of a claim, or none if the claim is missing. The parameter what is the word for
// the strings in errors, such as "groups".
func texts(claims jwt.MapClaims, name, what string) (all []string, err error) {
	wrong := forbidden("the token's " + what + " are not an array of strings")
	if claims[name] == nil {
		return nil, nil
	}
	values, ok := claims[name].([]any)
	if !ok {
		return nil, wrong
	}
	for _, value := range values {
		text, ok := value.(string)
		if !ok {
			return nil, wrong
		}
		all = append(all, text)
	}
	return all, nil
}
