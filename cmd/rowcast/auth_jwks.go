package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"

	"rowcast/listener/failures"
)

const (
	jwksInterval = 15 * time.Minute // after which the keys are read again: how long a withdrawn one may still count
	jwksRetry    = time.Minute      // about, after which keys that could not be read are read again
	jwksUnknown  = 10 * time.Second // at most so often because of a kid that is not known
	jwksTimeout  = 5 * time.Second
	jwksMaxBytes = 1 << 20
	jwksFormer   = 100 // withdrawn keys that are remembered
)

// An unknownKey says why a token may yet be valid, though the key that it names is not known.
type unknownKey string

func (u unknownKey) Error() string { return "the key of the token is not known, and " + string(u) }

const (
	keysAway    unknownKey = "--jwks-url could not be read the last time"
	keysWereNew unknownKey = "--jwks-url was read because of another less than 10 s ago"
)

// jwks are the keys at a URL (RFC 7517), which are read at the start, every now and then, and when a token names one that is
// unknown. The embedded ones are those that count.
type jwks struct {
	*jwkset.MemoryJWKSet
	former jwkset.MemoryJWKSet // counted once, and can be no new ones
	url    string
	logger *slog.Logger

	transport http.RoundTripper // which follows no redirect: anybody could answer where it leads

	failures *jwksFailures
	again    *rate.Limiter // for unknown ones

	reading sync.Mutex
	away    atomic.Bool // they could not be read the last time
	empty   bool        // the last time there was none that counts; under reading
}

// jwksFailures are the failures of all URLs together.
type jwksFailures struct {
	*failures.Record
	away atomic.Int32 // URLs that could not be read the last time
}

// jwksKey verifies by the keys at a URL, until ctx ends.
func jwksKey(ctx context.Context, at *webURL, logger *slog.Logger, record *jwksFailures) (key, error) {
	j := newJWKS(at.text(), logger.With("host", at.Host))
	j.failures = record
	keys, err := keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: j})
	if err != nil {
		return key{}, err
	}
	j.read(ctx) // streams wait until they are there
	go j.keepUp(ctx)
	return key{publicAlgorithms, j.finder(keys)}, nil
}

func newJWKS(at string, logger *slog.Logger) *jwks {
	return &jwks{
		MemoryJWKSet: jwkset.NewMemoryStorage(), url: at, logger: logger, transport: http.DefaultTransport,
		failures: &jwksFailures{Record: &failures.Record{}}, again: rate.NewLimiter(rate.Every(jwksUnknown), 1),
	}
}

// keepUp reads the keys every jwksInterval, and soon again when they could not be read the last time, whoever asked for that.
func (j *jwks) keepUp(ctx context.Context) {
	for last := time.Now(); ; {
		select {
		case <-time.After(jwksRetry/2 + rand.N(jwksRetry)):
			if j.away.Load() || time.Since(last) >= jwksInterval {
				last = time.Now()
				j.read(ctx)
			}
		case <-ctx.Done():
			return
		}
	}
}

// finder finds the key that a token names, or all for one that names none. None verifies what is not of its own kind.
func (j *jwks) finder(keys keyfunc.Keyfunc) func(context.Context) jwt.Keyfunc {
	return func(ctx context.Context) jwt.Keyfunc {
		return func(token *jwt.Token) (any, error) {
			if _, named := token.Header[jwkset.HeaderKID]; named {
				return keys.KeyfuncCtx(ctx)(token)
			}
			return j.anyOf(ctx, token.Method.Alg())
		}
	}
}

// anyOf returns all keys that may verify an algorithm. A key with an alg is for that algorithm alone (RFC 7517, section 4.4).
func (j *jwks) anyOf(ctx context.Context, algorithm string) (jwt.VerificationKeySet, error) {
	all, err := j.KeyReadAll(ctx)
	if err == nil && len(all) == 0 && j.away.Load() {
		err = keysAway
	}
	var set jwt.VerificationKeySet
	for _, k := range all {
		if only := k.Marshal().ALG.String(); only == "" || only == algorithm {
			set.Keys = append(set.Keys, k.Key())
		}
	}
	return set, err
}

// KeyRead finds a key by its kid. For one that is not known the keys are read again. If that cannot be now, one that was withdrawn is
// out, and all others may be new.
func (j *jwks) KeyRead(ctx context.Context, kid string) (jwkset.JWK, error) {
	found, err := j.MemoryJWKSet.KeyRead(ctx, kid)
	if err == nil {
		return found, nil
	}
	_, noFormer := j.former.KeyRead(ctx, kid)
	mayBeNew := noFormer != nil
	waiting, cancel := context.WithTimeout(ctx, jwksTimeout)
	defer cancel()
	rested := mayBeNew && j.again.Wait(waiting) == nil || !mayBeNew && j.again.Allow()
	switch {
	case rested && j.read(context.WithoutCancel(ctx)): // for all, whether or not this client waits
		return j.MemoryJWKSet.KeyRead(ctx, kid)
	case !mayBeNew:
		return found, err
	case j.away.Load():
		return found, keysAway
	default:
		return found, keysWereNew
	}
}

// read reads the keys. A set is the issuer's word, even one without a key that counts: then none does. All else leaves things as
// they are, and is not ok.
func (j *jwks) read(ctx context.Context) (ok bool) {
	j.reading.Lock() // or an old answer could come after a new one
	defer j.reading.Unlock()
	published, err := j.fetch(ctx)
	wasAway := j.away.Swap(err != nil)
	if err != nil {
		j.failed(ctx, err, wasAway)
		return false
	}
	j.succeeded(wasAway)
	var keys []jwkset.JWK
	for _, text := range published {
		if k, ok := parseJWK(text); ok {
			keys = append(keys, k)
		}
	}
	if empty := len(keys) == 0; empty != j.empty {
		j.empty = empty
		if empty {
			j.logger.Warn("no token counts: --jwks-url has no key that can verify one, which withdraws those read before", "keys", len(published))
		}
	}
	j.replace(ctx, keys)
	return true
}

// failed records that the keys could not be read.
func (j *jwks) failed(ctx context.Context, err error, wasAway bool) {
	if !wasAway {
		j.failures.away.Add(1)
	}
	message := "no token counts yet: the keys of --jwks-url cannot be read"
	if before, _ := j.KeyReadAll(ctx); len(before) > 0 {
		message = "the keys of --jwks-url cannot be read, and those read before still count"
	}
	j.failures.Warn(j.logger, failures.JWKS, errors.New(oneLine(err)), message)
}

// succeeded records that the keys were read. The operation has succeeded when this is so for every URL.
func (j *jwks) succeeded(wasAway bool) {
	if wasAway {
		j.failures.away.Add(-1)
	}
	if j.failures.away.Load() == 0 {
		j.failures.Succeeded(failures.JWKS)
	}
}

// replace makes keys those that count, and what no longer does a former one.
func (j *jwks) replace(ctx context.Context, keys []jwkset.JWK) {
	former, _ := j.former.KeyReadAll(ctx) // in memory there are no errors
	before, _ := j.KeyReadAll(ctx)
	former = slices.DeleteFunc(append(former, before...), func(f jwkset.JWK) bool {
		return slices.ContainsFunc(keys, func(k jwkset.JWK) bool { return k.Marshal().KID == f.Marshal().KID })
	})
	_ = j.former.KeyReplaceAll(ctx, former[max(0, len(former)-jwksFormer):])
	_ = j.KeyReplaceAll(ctx, keys)
}

// fetch gets the keys as they are published. Its error does not have the URL, in which there may be a secret.
func (j *jwks) fetch(ctx context.Context) ([]json.RawMessage, error) {
	ctx, cancel := context.WithTimeout(ctx, jwksTimeout)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, j.url, nil)
	if err != nil {
		return nil, err
	}
	if user := request.URL.User; user != nil {
		password, _ := user.Password()
		request.SetBasicAuth(user.Username(), password)
	}
	response, err := j.transport.RoundTrip(request)
	if err != nil {
		return nil, err
	}
	defer response.Body.Close()
	switch status := response.StatusCode; {
	case status/100 == 3:
		return nil, fmt.Errorf("it redirects (%d), which is not followed: give the URL to which it leads", status)
	case status != http.StatusOK:
		return nil, fmt.Errorf("it answers %d", status)
	}
	text, err := io.ReadAll(io.LimitReader(response.Body, jwksMaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > jwksMaxBytes {
		return nil, errors.New("it is longer than 1 MiB")
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil || set.Keys == nil {
		return nil, errors.New(`it is no JSON Web Key Set: {"keys": […]}`)
	}
	return set.Keys, nil
}

// parseJWK returns a key if it can verify tokens. One that is malformed, or for something else, counts for nothing (RFC 7517,
// section 5).
func parseJWK(text json.RawMessage) (jwkset.JWK, bool) {
	var m jwkset.JWKMarshal
	if json.Unmarshal(text, &m) != nil {
		return jwkset.JWK{}, false
	}
	k, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{Private: true}, jwkset.JWKValidateOptions{})
	verifies := (m.USE == "" || m.USE == jwkset.UseSig) && (len(m.KEYOPS) == 0 || slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify))
	return k, err == nil && verifies && len(algorithmsOf(k.Key())) > 0
}
