package auth

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/url"
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
	// jwksInterval is the minimum time between two regular reads. A withdrawn key stays valid until the next successful
	// read.
	jwksInterval = 15 * time.Minute

	jwksRetry    = time.Minute      // the mean time between two reads while reads fail
	jwksUnknown  = 10 * time.Second // the minimum time between two reads because of an unknown kid
	jwksTimeout  = 5 * time.Second
	jwksMaxBytes = 1 << 20
	jwksMaxKeys  = 100 // a token that names no key is checked with each key of the set
	jwksFormer   = 100 // the maximum number of withdrawn keys that are kept
)

// An unknownKey is a temporary error: the key of a token is not known, but the set may contain it at the next read.
type unknownKey string

func (u unknownKey) Error() string { return "the key of the token is not known, and " + string(u) }

const (
	setUnavailable unknownKey = "the last attempt to read the JSON Web Key Set failed"
	setJustRead    unknownKey = "the JSON Web Key Set was read less than 10 s ago because of an unknown key"
)

// KeySets reads JSON Web Key Sets (RFC 7517). Logger and Failures must be set.
type KeySets struct {
	Logger   *slog.Logger
	Failures *failures.Record

	unavailable atomic.Int32 // the number of sets whose last read failed
}

// Key returns a key that verifies tokens with the set at a URL. The set is read at once, again when a token names an
// unknown key, and at intervals until ctx ends. If the URL has a user name and a password, they are sent by basic
// authentication.
func (s *KeySets) Key(ctx context.Context, at *url.URL) (Key, error) {
	j := newJWKS(s, at)
	j.read(ctx) // the first read, before any token is verified
	go j.keepUp(ctx)
	return j.key(ctx)
}

// jwks is the set at a URL. The embedded set contains the valid keys.
type jwks struct {
	*jwkset.MemoryJWKSet
	former jwkset.MemoryJWKSet // withdrawn keys; a token that names one of them is denied if the set cannot be read now

	sets      *KeySets
	url       string
	logger    *slog.Logger
	transport http.RoundTripper // not an http.Client, which would follow redirects to other servers
	unknown   *rate.Limiter     // limits the reads that unknown keys cause

	reading     sync.Mutex
	unavailable atomic.Bool // the last read failed
	empty       bool        // the last successful read found no usable key; guarded by reading
}

func newJWKS(s *KeySets, at *url.URL) *jwks {
	return &jwks{
		MemoryJWKSet: jwkset.NewMemoryStorage(), sets: s, url: at.String(), logger: s.Logger.With("host", at.Host),
		transport: ownTransport(0), unknown: rate.NewLimiter(rate.Every(jwksUnknown), 1),
	}
}

// keepUp reads the set at intervals, which are shorter while reads fail.
func (j *jwks) keepUp(ctx context.Context) {
	for last := time.Now(); ; {
		select {
		case <-time.After(jwksRetry/2 + rand.N(jwksRetry)):
			if j.unavailable.Load() || time.Since(last) >= jwksInterval {
				last = time.Now()
				j.read(ctx)
			}
		case <-ctx.Done():
			return
		}
	}
}

// key returns a Key that finds the keys that were read. Its field reread also finds new keys.
func (j *jwks) key(ctx context.Context) (Key, error) {
	known, err := keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: j.MemoryJWKSet})
	if err != nil {
		return Key{}, err
	}
	all, err := keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: j})
	if err != nil {
		return Key{}, err
	}
	return Key{publicAlgorithms, j.finder(known), &Key{algorithms: publicAlgorithms, find: j.finder(all)}}, nil
}

// finder returns a value for Key.find: a function that returns a jwt.Keyfunc for the context of a request. The Keyfunc
// returns the key that a token names, or all keys for the token's algorithm if the token names no key.
func (j *jwks) finder(keys keyfunc.Keyfunc) func(context.Context) jwt.Keyfunc {
	return func(ctx context.Context) jwt.Keyfunc {
		return func(token *jwt.Token) (any, error) {
			if _, named := token.Header[jwkset.HeaderKID]; named {
				return keys.KeyfuncCtx(ctx)(token)
			}
			return j.keysFor(ctx, token.Method.Alg())
		}
	}
}

// keysFor returns the keys that have no alg parameter, or the given algorithm as their alg. A key with an alg parameter
// is for that algorithm alone (RFC 7517, section 4.4).
func (j *jwks) keysFor(ctx context.Context, algorithm string) (jwt.VerificationKeySet, error) {
	all, err := j.KeyReadAll(ctx)
	if err == nil && len(all) == 0 && j.unavailable.Load() {
		err = setUnavailable
	}
	var set jwt.VerificationKeySet
	for _, k := range all {
		if only := k.Marshal().ALG.String(); only == "" || only == algorithm {
			set.Keys = append(set.Keys, k.Key())
		}
	}
	return set, err
}

// KeyRead returns the key with the given kid. If the key is not known, KeyRead reads the set again, at most every 10 s.
// It waits for up to 5 s until it may read. If it cannot read the set, the error is an unknownKey, which is temporary.
// For a withdrawn key, KeyRead does not wait, and its error is never temporary.
func (j *jwks) KeyRead(ctx context.Context, kid string) (jwkset.JWK, error) {
	found, err := j.MemoryJWKSet.KeyRead(ctx, kid)
	if err == nil {
		return found, nil
	}
	_, noFormer := j.former.KeyRead(ctx, kid)
	mayBeNew := noFormer != nil
	waiting, cancel := context.WithTimeout(ctx, jwksTimeout)
	defer cancel()
	allowed := mayBeNew && j.unknown.Wait(waiting) == nil || !mayBeNew && j.unknown.Allow()
	switch {
	case allowed && j.read(context.WithoutCancel(ctx)): // the read continues if this client disconnects: other clients need the result
		return j.MemoryJWKSet.KeyRead(ctx, kid)
	case !mayBeNew:
		return found, err
	case j.unavailable.Load():
		return found, setUnavailable
	default:
		return found, setJustRead
	}
}

// read reads the set and reports whether it succeeded. The usable keys of the set replace the known keys, even if there
// is no usable key. If the read fails, all known keys stay valid.
func (j *jwks) read(ctx context.Context) (ok bool) {
	j.reading.Lock() // an old answer must not replace a newer one
	defer j.reading.Unlock()
	published, err := j.fetch(ctx)
	j.record(ctx, err)
	if err != nil {
		return false
	}
	var keys []jwkset.JWK
	for _, text := range published {
		if k, ok := parseJWK(text); ok {
			keys = append(keys, k)
		}
	}
	if empty := len(keys) == 0; empty != j.empty {
		j.empty = empty
		if empty {
			withdrawn, _ := j.KeyReadAll(ctx) // a set in memory never returns an error
			j.logger.Warn("the JSON Web Key Set has no key that can verify a token", "keys", len(published), "withdrawn_keys", len(withdrawn))
		}
	}
	j.replace(ctx, keys)
	return true
}

// record records the result of a read. The operation failures.JWKS counts as failing until the last read of every set
// was successful.
func (j *jwks) record(ctx context.Context, err error) {
	switch was := j.unavailable.Swap(err != nil); {
	case err != nil && !was:
		j.sets.unavailable.Add(1)
	case err == nil && was:
		j.sets.unavailable.Add(-1)
	}
	switch {
	case err != nil:
		known, _ := j.KeyReadAll(ctx)
		j.sets.Failures.Warn(j.logger, failures.JWKS, err,
			"cannot read the JSON Web Key Set: the keys that were read before stay valid", "known_keys", len(known))
	case j.sets.unavailable.Load() == 0:
		j.sets.Failures.Succeeded(failures.JWKS)
	}
}

// replace replaces the valid keys. It keeps the last jwksFormer keys that were withdrawn as former keys.
func (j *jwks) replace(ctx context.Context, keys []jwkset.JWK) {
	former, _ := j.former.KeyReadAll(ctx) // a set in memory never returns an error
	before, _ := j.KeyReadAll(ctx)
	former = slices.DeleteFunc(append(former, before...), func(f jwkset.JWK) bool {
		return slices.ContainsFunc(keys, func(k jwkset.JWK) bool { return k.Marshal().KID == f.Marshal().KID })
	})
	_ = j.former.KeyReplaceAll(ctx, former[max(0, len(former)-jwksFormer):])
	_ = j.KeyReplaceAll(ctx, keys)
}

// fetch gets the published keys. Its error does not contain the URL, because the URL may contain a secret.
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
		return nil, fmt.Errorf("the server redirected (%d), and redirects are not followed: use the final URL", status)
	case status != http.StatusOK:
		return nil, fmt.Errorf("the server answered %d", status)
	}
	return readSet(response.Body)
}

func readSet(body io.Reader) ([]json.RawMessage, error) {
	text, err := io.ReadAll(io.LimitReader(body, jwksMaxBytes+1))
	if err != nil {
		return nil, err
	}
	if len(text) > jwksMaxBytes {
		return nil, errors.New("the answer is longer than 1 MiB")
	}
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(text, &set); err != nil || set.Keys == nil {
		return nil, errors.New(`the answer is not a JSON Web Key Set: {"keys": […]}`)
	}
	if len(set.Keys) > jwksMaxKeys {
		return nil, fmt.Errorf("the set has %d keys, and may have %d", len(set.Keys), jwksMaxKeys)
	}
	return set.Keys, nil
}

// parseJWK parses a key and reports whether it can verify tokens. The caller ignores a key that is malformed or for
// another purpose (RFC 7517, section 5).
func parseJWK(text json.RawMessage) (jwkset.JWK, bool) {
	var m jwkset.JWKMarshal
	if json.Unmarshal(text, &m) != nil {
		return jwkset.JWK{}, false
	}
	k, err := jwkset.NewJWKFromMarshal(m, jwkset.JWKMarshalOptions{Private: true}, jwkset.JWKValidateOptions{})
	verifies := (m.USE == "" || m.USE == jwkset.UseSig) && (len(m.KEYOPS) == 0 || slices.Contains(m.KEYOPS, jwkset.KeyOpsVerify))
	return k, err == nil && verifies && len(Algorithms(k.Key())) > 0
}
