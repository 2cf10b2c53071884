package main

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"rowcast/listener/failures"
	"rowcast/stream"
)

// app authenticates by asking the app itself, at an endpoint that knows its sessions.
type app struct {
	url       *url.URL
	transport http.RoundTripper // which follows no redirect: credentials are for this endpoint alone
	timeout   time.Duration     // of a question, with the waiting for a slot
	grace     time.Duration     // for open streams beyond the end of their grants, while the app is away
	mark      groupMark

	slots    *appSlots
	cache    appCache
	logger   *slog.Logger
	failures *failures.Record

	newcomers, renewals asking
}

// asking is what is asked for the same reason: whoever asks the same as another then waits for the same answer. A renewal never waits
// for a newcomer's turn.
type asking struct {
	singleflight.Group
	turn turn
}

const appRetry = 10 * time.Second // after which an app that is away is asked about an open stream again

func newApp(u *url.URL, timeout, grace time.Duration, mark groupMark, logger *slog.Logger, record *failures.Record) *app {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = slotsInAll
	slots := newAppSlots()
	return &app{
		url: u, transport: transport, timeout: timeout, grace: grace, mark: mark,
		logger: logger.With("host", u.Host), failures: record,
		slots: slots, newcomers: asking{turn: slots.newcomer}, renewals: asking{turn: slots.renewal},
	}
}

// credentials are what a request says of who it is from, as the app gets it.
type credentials struct {
	cookie, authorization, forwarded string

	address netip.Addr // that they come from, as it is counted; forwarded ends with it
}

func credentialsOf(r *http.Request) credentials {
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	return credentials{
		cookie:        strings.Join(r.Header.Values("Cookie"), "; "),
		authorization: r.Header.Get("Authorization"),
		forwarded:     strings.Join(append(r.Header.Values("X-Forwarded-For"), from), ", "),
		address:       stream.AddressOf(r.RemoteAddr),
	}
}

// hash keeps the credentials themselves out of the memory of the hub.
func (c credentials) hash() [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q%q%q", c.cookie, c.authorization, c.forwarded))
}

func (a *app) authenticate(r *http.Request) (stream.Grant, error) {
	c := credentialsOf(r)
	if c.cookie == "" && c.authorization == "" {
		return stream.Grant{}, unauthorized("send a cookie or an Authorization header")
	}
	if len(r.Header.Values("Authorization")) > 1 {
		return stream.Grant{}, unauthorized("more than one Authorization header")
	}
	v, known := a.cache.get(c.hash())
	if !known {
		var err error
		if v, err = a.ask(r.Context(), c, &a.newcomers); err != nil {
			return stream.Grant{}, err
		}
	}
	v.grant.Expires, v.grant.Renew = v.renewal(), a.renew(c, v)
	return v.grant, nil
}

// renewal is when the app is asked again: in the last tenth of the time, so that streams that were opened together are not asked
// about together, and there is time for the answer.
func (v appAnswer) renewal() time.Time { return v.until.Add(-rand.N(v.lifetime/10 + 1)) }

// renew asks again about an open stream. While the app is away it goes on, for no longer than grace after its end. For another
// recipient it would be another stream: this one ends, and the client comes back for that.
func (a *app) renew(c credentials, v appAnswer) func(context.Context) (time.Time, bool) {
	return func(ctx context.Context) (time.Time, bool) {
		again, err := a.ask(ctx, c, &a.renewals)
		_, denied := errors.AsType[denial](err)
		switch now, last := time.Now(), v.until.Add(a.grace); {
		case denied:
			return time.Time{}, false
		case err != nil && now.Before(last):
			next := now.Add(appRetry/2 + rand.N(appRetry))
			if next.After(last) {
				next = last
			}
			return next, true
		case err != nil || !slices.Equal(again.grant.Recipients(), v.grant.Recipients()):
			return time.Time{}, false
		}
		v = again
		return v.renewal(), true
	}
}

// ask asks the app, once for all who ask the same at the same time.
func (a *app) ask(ctx context.Context, c credentials, why *asking) (appAnswer, error) {
	hash := c.hash()
	asked := why.DoChan(string(hash[:]), func() (any, error) {
		v, err := a.question(context.WithoutCancel(ctx), c, why.turn)
		if err == nil {
			a.cache.put(hash, v)
		}
		return v, err
	})
	select {
	case answer := <-asked:
		return answer.Val.(appAnswer), answer.Err
	case <-ctx.Done():
		return appAnswer{}, ctx.Err()
	}
}

// question puts a question when it is its turn, and waits for the answer.
func (a *app) question(ctx context.Context, c credentials, wait turn) (v appAnswer, err error) {
	ctx, cancel := context.WithTimeout(ctx, a.timeout)
	defer cancel()
	if done, ok := wait(ctx, c.address); ok {
		defer done()
		v, err = a.exchange(ctx, c)
	} else {
		err = errAppAway
	}
	if errors.Is(err, errAppAway) && ctx.Err() != nil {
		err = fmt.Errorf("%w: it takes longer than --auth-timeout (%v), with %d questions on their way", errAppAway, a.timeout, len(a.slots.all))
	}
	if errors.Is(err, errAppAway) {
		a.failures.Warn(a.logger, failures.AuthURL, err, "authentication endpoint failed")
	} else {
		a.failures.Succeeded(failures.AuthURL)
	}
	return v, err
}

func (a *app) exchange(ctx context.Context, c credentials) (appAnswer, error) {
	request := (&http.Request{Method: http.MethodGet, URL: a.url, Header: make(http.Header)}).WithContext(ctx)
	for name, value := range map[string]string{"Cookie": c.cookie, "Authorization": c.authorization, "X-Forwarded-For": c.forwarded} {
		if value != "" {
			request.Header.Set(name, value)
		}
	}
	request.Header.Set("Accept", "application/json")
	asked := time.Now()
	response, err := a.transport.RoundTrip(request)
	if err != nil {
		return appAnswer{}, fmt.Errorf("%w: %w", errAppAway, unanswered(err))
	}
	defer response.Body.Close()
	return a.judge(response, asked)
}

// unanswered says why no answer came. Other errors than these may quote one.
func unanswered(err error) error {
	if broken, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return broken
	}
	if failed := networkError(err); failed != nil {
		return failed
	}
	return errors.New("no answer, or none in HTTP")
}
