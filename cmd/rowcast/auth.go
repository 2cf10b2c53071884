package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"

	"rowcast/cmd/internal/flags"
	"rowcast/cmd/internal/server"
	"rowcast/listener/failures"
	"rowcast/stream/auth"
)

// authFlags select how the hub authenticates clients.
//
// The maximum of --auth-timeout must be less than a minute. For a minute, a hub remembers that a recipient was
// disconnected, and opens no stream if it asked the app before the disconnect. A later answer would open the stream.
type authFlags struct {
	JWTSecret      []string        `group:"auth" name:"jwt-secret" sep:"none" placeholder:"SECRET" help:"Accept tokens signed with this secret of at least 32 bytes (HS256). Repeat the flag for more secrets; the variable has only one. Other users of the machine can see a command line: prefer the variable or --jwt-secret-file."`
	JWTSecretFile  []string        `group:"auth" name:"jwt-secret-file" placeholder:"FILE" help:"Accept tokens signed with the secret in this file."`
	JWTKey         []string        `group:"auth" name:"jwt-key" placeholder:"FILE" help:"Accept tokens whose signature matches a public key in this PEM file (RSA, ECDSA or Ed25519)."`
	JWKSURL        []flags.URL     `group:"auth" name:"jwks-url" sep:"none" placeholder:"URL" help:"Accept tokens whose signature matches a key of the JSON Web Key Set at this URL."`
	JWTIssuer      string          `group:"auth" name:"jwt-issuer" placeholder:"ISS" help:"Accept only tokens with this issuer (claim iss)."`
	JWTAudience    []string        `group:"auth" name:"jwt-audience" placeholder:"AUD" help:"Accept only tokens with this audience (claim aud), or with one of these if several are given."`
	JWTCookie      string          `group:"auth" name:"jwt-cookie" placeholder:"NAME" help:"Read the token from this cookie if the request has none in its Authorization header."`
	JWTLeeway      time.Duration   `group:"auth" name:"jwt-leeway" default:"5s" min:"0s" max:"1m" placeholder:"DURATION" help:"Allow for clocks that differ by this much when the times in a token are checked (default ${default})."`
	JWTWithoutExp  bool            `group:"auth" name:"jwt-without-exp" help:"Accept tokens without an expiry time (claim exp), too. Their streams never expire."`
	JWTGroupsClaim flags.ClaimName `group:"auth" name:"jwt-groups-claim" default:"groups" placeholder:"NAME" help:"Read the names of the user's groups from this claim, an array of strings (default ${default})."`
	JWTTopicsClaim flags.ClaimName `group:"auth" name:"jwt-topics-claim" default:"topics" placeholder:"NAME" help:"Read the topics that the user may ask for from this claim, an array of strings that may end with * (default ${default})."`
	GroupMark      auth.GroupMark  `group:"auth" default:":" placeholder:"TEXT" help:"Require this text in the name of every group and refuse it in the id of a user (default ${default})."`
	AuthURL        *flags.URL      `group:"auth" name:"auth-url" placeholder:"URL" help:"Ask the app at this URL which user sent a request. The hub sends it the request's Cookie and Authorization headers, the client's address, the host that the client called, the topics that it asks for, and Rowcast-Check: open or renew. The app answers 200 with {\"recipient\": \"alice\", \"groups\": [\"team:7\"], \"expires_in\": 300}, 401 or 403."`
	AuthTimeout    time.Duration   `group:"auth" name:"auth-timeout" default:"5s" min:"1ms" max:"30s" placeholder:"DURATION" help:"Wait this long for the app's answer (default ${default})."`
	AuthGrace      time.Duration   `group:"auth" name:"auth-grace" default:"1m" min:"0s" max:"30d" placeholder:"DURATION" help:"Keep streams open for this long after they expire while the app gives no valid answer (default ${default})."`
	Public         bool            `group:"auth" name:"public" help:"Give clients without a credential a stream of the rows for everyone and of topics that begin with public:. All clients may ask for these topics."`
	InsecureUID    insecureUID     `group:"auth" name:"insecure-uid" help:"For testing only: trust the query parameter uid, so that every client can read the events of every user. The hub must listen on a loopback address; --insecure-uid=anywhere lifts this limit."`
}

// Values of insecureUID.
const (
	insecureOff      insecureUID = ""         // the hub does not trust ?uid=
	insecureLoopback insecureUID = "loopback" // the hub trusts ?uid=, and must listen on a loopback address
	insecureAnywhere insecureUID = "anywhere" // the hub trusts ?uid= of every client
)

// An insecureUID is a value of --insecure-uid.
type insecureUID string

// IsBool makes kong accept the flag without a value.
func (insecureUID) IsBool() bool { return true }

// Decode decodes the value after "=" or in the variable. Without a value, the flag becomes insecureLoopback.
func (i *insecureUID) Decode(ctx *kong.DecodeContext) error {
	if ctx.Scan.Peek().Type != kong.FlagValueToken {
		*i = insecureLoopback
		return nil
	}
	switch value := fmt.Sprint(ctx.Scan.Pop().Value); value {
	case "anywhere":
		*i = insecureAnywhere
	case "true", "1", "yes", "loopback":
		*i = insecureLoopback
	case "false", "0", "no":
		*i = insecureOff
	default:
		return fmt.Errorf(`%q is not a value of this flag: use "loopback" or "anywhere"`, value)
	}
	return nil
}

// The authentication methods, as the errors of refuseUnused name them.
const (
	byToken    = "tokens (--jwt-secret, --jwt-secret-file, --jwt-key, --jwks-url)"
	byApp      = "--auth-url"
	byInsecure = "--insecure-uid"
	byNothing  = "--public" // the method if there is no other; no client needs a credential
)

// methods returns the authentication methods that the flags select. --public is one of them only if there is no other.
func (f *authFlags) methods() (methods []string) {
	if len(f.JWTSecret)+len(f.JWTSecretFile)+len(f.JWTKey)+len(f.JWKSURL) > 0 {
		methods = append(methods, byToken)
	}
	if f.AuthURL != nil {
		methods = append(methods, byApp)
	}
	if f.InsecureUID != insecureOff {
		methods = append(methods, byInsecure)
	}
	if f.Public && methods == nil {
		methods = append(methods, byNothing)
	}
	return methods
}

// methodsOf returns the methods that use a flag, or nil if the flag does not depend on the method.
func methodsOf(flag string) []string {
	switch {
	case strings.HasPrefix(flag, "jwt-"):
		return []string{byToken}
	case strings.HasPrefix(flag, "auth-"):
		return []string{byApp}
	case flag == "group-mark":
		return []string{byToken, byApp, byNothing}
	}
	return nil
}

// validate refuses an --auth-url with a user or a password, and more than one authentication method. It also refuses a
// flag or a variable that belongs to another method: an operator who sets --jwt-audience believes that the audience is
// checked.
func (f *authFlags) validate(ctx *kong.Context) error {
	switch methods := f.methods(); {
	case f.AuthURL != nil && f.AuthURL.User != nil:
		return errors.New("--auth-url: the URL must not contain a user or a password, because the app would mistake them for the client's credentials")
	case len(methods) > 1:
		return fmt.Errorf("several authentication methods are configured, and a client could choose the weakest: give only one of %s", strings.Join(givenMethods(ctx), ", "))
	case len(methods) == 1: // check refuses to serve without a method
		return refuseUnused(ctx, methods[0])
	}
	return nil
}

// refuseUnused returns an error if a flag that is set has no effect with the selected method. A boolean flag that is
// false is accepted.
func refuseUnused(ctx *kong.Context, method string) error {
	for _, path := range ctx.Path {
		if path.Flag == nil || path.Flag.IsBool() && path.Flag.Target.IsZero() {
			continue
		}
		if users := methodsOf(path.Flag.Name); len(users) > 0 && !slices.Contains(users, method) {
			return fmt.Errorf("%s has no effect with %s: it belongs to %s", flags.Source(path), method, strings.Join(users, " or "))
		}
	}
	return nil
}

// givenMethods returns the names of the given flags that can select an authentication method.
func givenMethods(ctx *kong.Context) (names []string) {
	for _, path := range ctx.Path {
		if path.Flag != nil && slices.Contains([]string{"jwt-secret", "jwt-secret-file", "jwt-key", "jwks-url", "auth-url", "insecure-uid"}, path.Flag.Name) {
			names = append(names, flags.Source(path))
		}
	}
	return names
}

// check refuses to serve without authentication. If the address is not a loopback address, check also refuses
// --insecure-uid unless its value is anywhere.
func (f *authFlags) check(listen string) error {
	switch {
	case len(f.methods()) == 0:
		return errors.New("no authentication is configured, so anybody could read everything: give --jwt-secret, --jwt-key or --jwks-url for tokens, or --auth-url; for testing on this machine, give --insecure-uid; for public streams only, give --public")
	case f.InsecureUID == insecureLoopback && !server.IsLoopback(listen):
		return fmt.Errorf("--insecure-uid: anybody who can reach %s could read everything; if this is intended, give --insecure-uid=anywhere", listen)
	}
	return nil
}

// authenticator returns the authenticator that the flags select for a server, and logs which flags weaken it. It tries
// to read each JSON Web Key Set before it returns. The sets are read again from time to time, until ctx ends.
func (f *authFlags) authenticator(ctx context.Context, s *server.Server) (auth.Authenticator, error) {
	f.warn(s.Logger)
	authenticate, err := f.byCredential(ctx, s)
	if err != nil || !f.Public {
		return authenticate, err
	}
	return (&auth.Public{Next: authenticate, Mark: f.GroupMark, Origins: s.Origins}).Authenticate, nil
}

// byCredential returns the authenticator of clients with a credential, or nil if there is none.
func (f *authFlags) byCredential(ctx context.Context, s *server.Server) (auth.Authenticator, error) {
	switch {
	case f.InsecureUID != insecureOff:
		return (&auth.InsecureUID{Origins: s.Origins}).Authenticate, nil
	case f.AuthURL != nil:
		app := &auth.App{
			URL: (*url.URL)(f.AuthURL), UserAgent: userAgent(), TrustForwarded: len(s.Trusted) > 0,
			Timeout: f.AuthTimeout, Grace: f.AuthGrace, Mark: f.GroupMark, Origins: s.Origins, Logger: s.Logger, Failures: &s.Failures,
		}
		return app.Authenticate, nil
	case slices.Equal(f.methods(), []string{byNothing}):
		return nil, nil
	case f.JWTCookie != "" && !isCookieName(f.JWTCookie):
		return nil, fmt.Errorf("--jwt-cookie: %q is not the name of a cookie", f.JWTCookie)
	}
	keys, err := f.keys(ctx, s.Logger, &s.Failures)
	if err != nil {
		return nil, err
	}
	tokens := &auth.Tokens{
		Keys: keys, Issuer: f.JWTIssuer, Audience: f.JWTAudience, WithoutExpiry: f.JWTWithoutExp, Leeway: f.JWTLeeway,
		GroupsClaim: string(f.JWTGroupsClaim), TopicsClaim: string(f.JWTTopicsClaim), Mark: f.GroupMark,
		Cookie: f.JWTCookie, Origins: s.Origins,
	}
	return tokens.Authenticate, nil
}

func isCookieName(name string) bool { return (&http.Cookie{Name: name, Value: "x"}).Valid() == nil }

func (f *authFlags) keys(ctx context.Context, logger *slog.Logger, record *failures.Record) ([]auth.Key, error) {
	secrets, err := readSecrets(f.JWTSecret, f.JWTSecretFile)
	if err != nil {
		return nil, err
	}
	var keys []auth.Key
	for _, secret := range secrets {
		k, err := auth.Secret(secret)
		if err != nil {
			return nil, err
		}
		keys = append(keys, k)
	}
	for _, path := range f.JWTKey {
		public, err := readPublicKeys(path)
		if err != nil {
			return nil, fmt.Errorf("--jwt-key: %w", err)
		}
		keys = append(keys, public...)
	}
	sets := &auth.KeySets{Logger: logger, Failures: record}
	for _, u := range f.JWKSURL {
		key, err := sets.Key(ctx, (*url.URL)(&u))
		if err != nil {
			return nil, fmt.Errorf("--jwks-url: %w", err)
		}
		keys = append(keys, key)
	}
	return keys, nil
}

func readPublicKeys(path string) ([]auth.Key, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	keys, err := auth.PublicKeys(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	return keys, nil
}

// readSecrets returns the secrets that are given as values, followed by the secrets in files. Line breaks at the end
// of a file are ignored.
func readSecrets(values, files []string) (secrets [][]byte, err error) {
	for _, value := range values {
		secrets = append(secrets, []byte(value))
	}
	for _, path := range files {
		text, err := os.ReadFile(path)
		if err != nil {
			return nil, fmt.Errorf("--jwt-secret-file: %w", err)
		}
		if bytes.HasPrefix(text, []byte("\ufeff")) {
			return nil, fmt.Errorf("--jwt-secret-file: %s begins with a byte order mark, which would be a part of the secret: save the file without it", path)
		}
		secrets = append(secrets, bytes.TrimRight(text, "\r\n"))
	}
	return secrets, nil
}

// warn logs which flags weaken the authentication.
func (f *authFlags) warn(logger *slog.Logger) {
	if f.InsecureUID == insecureAnywhere {
		logger.Warn("anybody who can reach this hub can read the notifications of all users", "flag", "--insecure-uid=anywhere")
	}
	if f.JWTWithoutExp {
		logger.Warn("tokens without exp are accepted: a stolen one is valid for ever", "flag", "--jwt-without-exp")
	}
	urls := f.JWKSURL
	if f.AuthURL != nil {
		urls = append(urls, *f.AuthURL)
	}
	for _, u := range urls {
		if u.Scheme == "http" && !server.IsLoopback(u.Host) {
			logger.Warn("authentication uses unencrypted HTTP to another machine: an attacker on the network can impersonate any user", "host", u.Host)
		}
	}
}
