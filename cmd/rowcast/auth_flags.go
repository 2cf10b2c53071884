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

	"rowcast/cmd/internal/server"
	"rowcast/listener/failures"
	"rowcast/stream/auth"
)

// claimName is the name of the claim with the groups.
type claimName string

// UnmarshalText refuses the claims that have another meaning (RFC 7519, section 4.1).
func (c *claimName) UnmarshalText(text []byte) error {
	*c = claimName(text)
	if slices.Contains([]claimName{"", "iss", "sub", "aud", "exp", "nbf", "iat", "jti"}, *c) {
		return fmt.Errorf("%q is not a claim that can contain groups", text)
	}
	return nil
}

// tokenFlags say what a token looks like, to the hub and to rowcast token.
type tokenFlags struct {
	JWTSecret      []string       `group:"auth" name:"jwt-secret" sep:"none" placeholder:"SECRET" help:"Take tokens signed with this secret of 32 bytes or more (HS256). Give it twice to change it. On a command line others see it: use the variable, or --jwt-secret-file."`
	JWTSecretFile  []string       `group:"auth" name:"jwt-secret-file" placeholder:"FILE" help:"The same, read from a file."`
	JWTGroupsClaim claimName      `group:"auth" name:"jwt-groups-claim" default:"groups" placeholder:"NAME" help:"The claim with the groups' keys, an array of strings (default ${default})."`
	GroupMark      auth.GroupMark `group:"auth" default:":" placeholder:"TEXT" help:"What every group's key has in it and no user's id (default ${default}), so that neither is taken for the other."`
}

// authFlags say how the hub finds out who a request is from. The longest --auth-timeout is less than the time for which a hub remembers
// a disconnected user, so an answer that the app gave before the disconnect opens no stream.
type authFlags struct {
	tokenFlags
	JWTKey        []string      `group:"auth" name:"jwt-key" placeholder:"FILE" help:"Take tokens signed with the private half of the public keys in this PEM file (RS256, ES256, EdDSA)."`
	JWKSURL       []webURL      `group:"auth" name:"jwks-url" sep:"none" placeholder:"URL" help:"Take tokens signed with the keys at this URL, a JSON Web Key Set."`
	JWTIssuer     string        `group:"auth" name:"jwt-issuer" placeholder:"ISS" help:"Take only tokens with this iss."`
	JWTAudience   []string      `group:"auth" name:"jwt-audience" placeholder:"AUD" help:"Take only tokens with this aud, or one of these."`
	JWTCookie     string        `group:"auth" name:"jwt-cookie" placeholder:"NAME" help:"Take the token from this cookie, too, if there is none in the Authorization header."`
	JWTLeeway     time.Duration `group:"auth" name:"jwt-leeway" default:"5s" min:"0s" max:"1m" placeholder:"TIME" help:"How much clocks may differ (default ${default}): so much longer a token counts."`
	JWTWithoutExp bool          `group:"auth" name:"jwt-without-exp" help:"Take tokens that have no exp, too. Their streams never end."`
	AuthURL       *webURL       `group:"auth" name:"auth-url" placeholder:"URL" help:"Ask the app who a request is from, at this endpoint, with the request's Cookie, Authorization and X-Forwarded-For."`
	AuthTimeout   time.Duration `group:"auth" name:"auth-timeout" default:"5s" min:"1ms" max:"30s" placeholder:"TIME" help:"How long the app may take to answer (default ${default})."`
	AuthGrace     time.Duration `group:"auth" name:"auth-grace" default:"1m" min:"0s" max:"30d" placeholder:"TIME" help:"How long open streams go on after expires_in while the app is away (default ${default})."`
	InsecureUID   insecureUID   `group:"auth" name:"insecure-uid" help:"Take every client for whom it says it is, by ?uid=, for trying things out. Only on a loopback address, unless --insecure-uid=anywhere."`
}

func (f *authFlags) hasTokens() bool {
	return len(f.JWTSecret)+len(f.JWTSecretFile)+len(f.JWTKey)+len(f.JWKSURL) > 0
}

// The ways of authentication, as errors name them.
const (
	byToken    = "tokens (--jwt-secret, --jwt-secret-file, --jwt-key, --jwks-url)"
	byApp      = "--auth-url"
	byInsecure = "--insecure-uid"
)

// ways are those that are chosen.
func (f *authFlags) ways() (ways []string) {
	if f.hasTokens() {
		ways = append(ways, byToken)
	}
	if f.AuthURL != nil {
		ways = append(ways, byApp)
	}
	if f.InsecureUID != insecureOff {
		ways = append(ways, byInsecure)
	}
	return ways
}

// goesWith are the ways that a flag is for, as its name says; none, if it is for all.
func goesWith(flag string) []string {
	switch {
	case strings.HasPrefix(flag, "jwt-"):
		return []string{byToken}
	case strings.HasPrefix(flag, "auth-"):
		return []string{byApp}
	case flag == "group-mark":
		return []string{byToken, byApp}
	}
	return nil
}

// validate refuses what makes no sense, and what would be ignored, on the command line or in a variable: who gives --jwt-audience
// believes that it protects him.
func (f *authFlags) validate(ctx *kong.Context) error {
	switch ways := f.ways(); {
	case f.AuthURL != nil && f.AuthURL.User != nil:
		return errors.New("--auth-url: leave user and password out: they would be sent as if they were the client's")
	case len(ways) == 1: // else check refuses
		return misfit(ctx, ways[0])
	}
	return nil
}

// misfit finds a flag, or its variable, that does not go with the way that is chosen.
func misfit(ctx *kong.Context, way string) error {
	for _, path := range ctx.Path {
		if path.Flag == nil || path.Flag.IsBool() && path.Flag.Target.IsZero() {
			continue
		}
		if with := goesWith(path.Flag.Name); len(with) > 0 && !slices.Contains(with, way) {
			name := "--" + path.Flag.Name
			if path.Resolved {
				name += " (its variable is set)"
			}
			return fmt.Errorf("%s goes with %s, and not with %s, which would ignore it", name, strings.Join(with, " or "), way)
		}
	}
	return nil
}

// check refuses to serve anybody's notifications to everybody, and more than one way: a client must not choose the weaker.
func (f *authFlags) check(listen string) error {
	switch ways := len(f.ways()); {
	case ways == 0:
		return errors.New("no authentication is configured, and without it anybody could read everything: give --jwt-secret, --jwt-key or --jwks-url for tokens, or --auth-url; to try things out, --insecure-uid trusts ?uid=… on this machine")
	case ways > 1:
		return errors.New("give only one of tokens (--jwt-secret, --jwt-key, --jwks-url), --auth-url and --insecure-uid: a client could choose the weakest")
	case f.InsecureUID == insecureLoopback && !server.IsLoopback(listen):
		return fmt.Errorf("--insecure-uid lets anybody who reaches %s read everything; if that is meant, give --insecure-uid=anywhere", listen)
	}
	return nil
}

// authenticator returns the authenticator that the flags choose. A JSON Web Key Set is read until ctx ends.
func (f *authFlags) authenticator(
	ctx context.Context, origins []string, logger *slog.Logger, record *failures.Record,
) (auth.Authenticator, error) {
	f.warn(logger)
	switch {
	case f.InsecureUID != insecureOff:
		return auth.InsecureUID, nil
	case f.AuthURL != nil:
		app := &auth.App{
			URL: (*url.URL)(f.AuthURL), Timeout: f.AuthTimeout, Grace: f.AuthGrace, Mark: f.GroupMark, Origins: origins,
			Logger: logger, Failures: record,
		}
		return app.Authenticate, nil
	case f.JWTCookie != "" && !isCookieName(f.JWTCookie):
		return nil, fmt.Errorf("--jwt-cookie: %q is not the name of a cookie", f.JWTCookie)
	}
	keys, err := f.keys(ctx, logger, record)
	if err != nil {
		return nil, err
	}
	tokens := &auth.Tokens{
		Keys: keys, Issuer: f.JWTIssuer, Audience: f.JWTAudience, WithoutExpiry: f.JWTWithoutExp, Leeway: f.JWTLeeway,
		GroupsClaim: string(f.JWTGroupsClaim), Mark: f.GroupMark, Cookie: f.JWTCookie, Origins: origins,
	}
	return tokens.Authenticate, nil
}

func isCookieName(name string) bool { return (&http.Cookie{Name: name, Value: "x"}).Valid() == nil }

func (f *authFlags) keys(ctx context.Context, logger *slog.Logger, record *failures.Record) ([]auth.Key, error) {
	secrets, err := f.secrets()
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
	all := &auth.KeySets{Logger: logger, Failures: record}
	for _, u := range f.JWKSURL {
		remote, err := all.Key(ctx, (*url.URL)(&u))
		if err != nil {
			return nil, fmt.Errorf("--jwks-url: %w", err)
		}
		keys = append(keys, remote)
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

// readSecret reads a file that contains a secret, and perhaps a line break after it.
func readSecret(path string) ([]byte, error) {
	text, err := os.ReadFile(path)
	return bytes.TrimRight(text, "\r\n"), err
}

func (f *tokenFlags) secrets() (secrets [][]byte, err error) {
	for _, secret := range f.JWTSecret {
		secrets = append(secrets, []byte(secret))
	}
	for _, path := range f.JWTSecretFile {
		secret, err := readSecret(path)
		if err != nil {
			return nil, fmt.Errorf("--jwt-secret-file: %w", err)
		}
		secrets = append(secrets, secret)
	}
	return secrets, nil
}

// warn says which choices are weak.
func (f *authFlags) warn(logger *slog.Logger) {
	if f.InsecureUID == insecureAnywhere {
		logger.Warn("whoever reaches this hub can read everybody's notifications", "flag", "--insecure-uid=anywhere")
	}
	if f.JWTWithoutExp {
		logger.Warn("a token without exp that gets into other hands counts for ever", "flag", "--jwt-without-exp")
	}
	asked := f.JWKSURL
	if f.AuthURL != nil {
		asked = append(asked, *f.AuthURL)
	}
	for _, u := range asked {
		if u.Scheme == "http" && !server.IsLoopback(u.Host) {
			logger.Warn("unencrypted HTTP to another machine: whoever is between can let anybody in, as anybody", "host", u.Host)
		}
	}
}
