package main

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"slices"
	"sync/atomic"
	"time"

	"github.com/MicahParks/jwkset"
	"github.com/MicahParks/keyfunc/v3"
	"github.com/golang-jwt/jwt/v5"
	"golang.org/x/time/rate"
)

const (
	jwksInterval = 15 * time.Minute // after which the keys are read again: how long a withdrawn one may still count
	jwksUnknown  = 10 * time.Second // at most so often because of a kid that is not known
	jwksTimeout  = 5 * time.Second
	jwksMaxBytes = 1 << 20
)

// errKeysAway says that a token may be valid: its key is unknown, and the keys could not be read just now.
var errKeysAway = errors.New("the key of the token is not known, and --jwks-url cannot be asked now")

// jwksKey verifies by the keys at a URL (RFC 7517), which are read now, every now and then, and when a token names one that is
// unknown. While they cannot be read, those of the last time count.
func jwksKey(ctx context.Context, url string, logger *slog.Logger) (key, error) {
	known := &publicKeys{MemoryJWKSet: jwkset.NewMemoryStorage()}
	client := &http.Client{Timeout: jwksTimeout, Transport: limitedBody{http.DefaultTransport}}
	remote, err := jwkset.NewStorageFromHTTP(url, jwkset.HTTPClientStorageOptions{
		Client:                    client,
		Ctx:                       ctx,
		HTTPTimeout:               jwksTimeout,
		NoErrorReturnFirstHTTPReq: true, // streams wait until it is there
		RefreshInterval:           jwksInterval,
		Storage:                   known,
		RefreshErrorHandler: func(_ context.Context, err error) {
			known.away.Store(true)
			logger.Warn("the keys of --jwks-url cannot be read", "error", oneLine(err))
		},
	})
	if err != nil {
		return key{}, err
	}
	storage, err := jwkset.NewHTTPClient(jwkset.HTTPClientOptions{
		HTTPURLs:          map[string]jwkset.Storage{url: remote},
		RateLimitWaitMax:  jwksTimeout, // for the limit and the answer together
		RefreshUnknownKID: rate.NewLimiter(rate.Every(jwksUnknown), 1),
	})
	if err != nil {
		return key{}, err
	}
	keys, err := keyfunc.New(keyfunc.Options{Ctx: ctx, Storage: storage})
	return key{publicAlgorithms, known.finder(keys)}, err
}

// publicKeys are the keys that may be used, of those that were read.
type publicKeys struct {
	*jwkset.MemoryJWKSet
	away atomic.Bool // they could not be read the last time
}

// KeyReplaceAll keeps the old keys if there is none to be used among the new: that is rather some other answer than a withdrawal.
func (p *publicKeys) KeyReplaceAll(ctx context.Context, given []jwkset.JWK) error {
	given = slices.DeleteFunc(given, func(k jwkset.JWK) bool {
		use := k.Marshal().USE
		return use != "" && use != jwkset.UseSig || len(algorithmsOf(k.Key())) == 0
	})
	if len(given) == 0 {
		return errors.New("it has no public key that can be used")
	}
	p.away.Store(false)
	return p.MemoryJWKSet.KeyReplaceAll(ctx, given)
}

// finder finds the key that a token names, or all for one that names none. None verifies what is not of its own kind.
func (p *publicKeys) finder(keys keyfunc.Keyfunc) func(context.Context) jwt.Keyfunc {
	return func(ctx context.Context) jwt.Keyfunc {
		return func(token *jwt.Token) (any, error) {
			found, err := keys.KeyfuncCtx(ctx)(token)
			if err != nil {
				if p.mayBeNew(ctx, token, err) {
					return nil, errKeysAway
				}
				return nil, err
			}
			if set, all := found.(jwt.VerificationKeySet); all && len(set.Keys) == 0 {
				return nil, errKeysAway // none has been read yet
			}
			return found, nil
		}
	}
}

// mayBeNew tells whether a key that was not found may be one that could not be read yet: the URL is away, or was asked just before.
func (p *publicKeys) mayBeNew(ctx context.Context, token *jwt.Token, err error) bool {
	kid, ok := token.Header[jwkset.HeaderKID].(string)
	if !ok || !errors.Is(err, jwkset.ErrKeyNotFound) && p.knows(ctx, kid) {
		return false
	}
	return p.away.Load() || !errors.Is(err, jwkset.ErrKeyNotFound)
}

func (p *publicKeys) knows(ctx context.Context, kid string) bool {
	_, err := p.KeyRead(ctx, kid)
	return err == nil
}

// limitedBody ends answers that are far too long.
type limitedBody struct{ http.RoundTripper }

func (l limitedBody) RoundTrip(r *http.Request) (*http.Response, error) {
	response, err := l.RoundTripper.RoundTrip(r)
	if err == nil {
		response.Body = struct {
			io.Reader
			io.Closer
		}{io.LimitReader(response.Body, jwksMaxBytes), response.Body}
	}
	return response, err
}
