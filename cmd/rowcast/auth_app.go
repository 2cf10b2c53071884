package main

import (
	"context"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"golang.org/x/sync/singleflight"

	"rowcast/stream"
)

// app authenticates by asking the app itself, at an endpoint that knows its sessions.
type app struct {
	url    string
	client http.Client
	mark   groupMark
	grace  time.Duration // for open streams beyond the end of their grants, while the app is away

	slots  chan struct{} // one for each question on its way
	asking singleflight.Group
	cache  appCache
}

const (
	appSlots   = 32               // questions on their way at a time
	appRetry   = 10 * time.Second // after which an app that is away is asked about an open stream again
	appMaxBody = 64 << 10
)

func newApp(u *url.URL, timeout, grace time.Duration, mark groupMark) *app {
	transport := http.DefaultTransport.(*http.Transport).Clone()
	transport.MaxIdleConnsPerHost = appSlots
	return &app{
		url: u.String(), mark: mark, grace: grace,
		slots: make(chan struct{}, appSlots),
		client: http.Client{
			Transport: transport,
			Timeout:   timeout,
			// Credentials are for this endpoint alone.
			CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		},
	}
}

// credentials are what a request says of who it is from, as the app gets it.
type credentials struct{ cookie, authorization, forwarded string }

func credentialsOf(r *http.Request) credentials {
	from, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		from = r.RemoteAddr
	}
	return credentials{
		cookie:        strings.Join(r.Header.Values("Cookie"), "; "),
		authorization: r.Header.Get("Authorization"),
		forwarded:     strings.Join(append(r.Header.Values("X-Forwarded-For"), from), ", "),
	}
}

// hash keeps the credentials themselves out of the memory of the hub.
func (c credentials) hash() [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q%q%q", c.cookie, c.authorization, c.forwarded))
}

// appAnswer is what the app says of credentials.
type appAnswer struct {
	grant    stream.Grant
	lifetime time.Duration
	until    time.Time
}

// errAppAway says that the app does not answer as it should.
var errAppAway = errors.New("--auth-url does not answer as it should")

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
		if v, err = a.ask(r.Context(), c); err != nil {
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
		again, err := a.ask(ctx, c)
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
func (a *app) ask(ctx context.Context, c credentials) (appAnswer, error) {
	hash := c.hash()
	asked := a.asking.DoChan(string(hash[:]), func() (any, error) {
		v, err := a.question(context.WithoutCancel(ctx), c)
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

// question puts a question when there is a slot for it.
func (a *app) question(ctx context.Context, c credentials) (appAnswer, error) {
	ctx, cancel := context.WithTimeout(ctx, a.client.Timeout)
	defer cancel()
	select {
	case a.slots <- struct{}{}:
		defer func() { <-a.slots }()
	case <-ctx.Done():
		return appAnswer{}, fmt.Errorf("%w: it is slow, and %d questions are on their way", errAppAway, appSlots)
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, a.url, nil)
	if err != nil {
		return appAnswer{}, err
	}
	for name, value := range map[string]string{"Cookie": c.cookie, "Authorization": c.authorization, "X-Forwarded-For": c.forwarded} {
		if value != "" {
			request.Header.Set(name, value)
		}
	}
	request.Header.Set("Accept", "application/json")
	asked := time.Now()
	response, err := a.client.Do(request)
	if failed, ok := errors.AsType[*url.Error](err); ok {
		return appAnswer{}, fmt.Errorf("%w: %w", errAppAway, failed.Err) // without the URL, which may have a password
	}
	if err != nil {
		return appAnswer{}, fmt.Errorf("%w: %w", errAppAway, err)
	}
	defer response.Body.Close()
	return a.judge(response, asked)
}

// judge reads the app's answer. Only a clear no is a denial.
func (a *app) judge(response *http.Response, asked time.Time) (appAnswer, error) {
	switch status := response.StatusCode; {
	case status == http.StatusOK:
	case status == http.StatusUnauthorized:
		return appAnswer{}, unauthorized("the app does not know who you are")
	case status == http.StatusForbidden:
		return appAnswer{}, forbidden("the app does not let you listen")
	case status/100 == 3:
		return appAnswer{}, fmt.Errorf("%w: it redirects (%d), where it shall answer 401 itself", errAppAway, status)
	default:
		return appAnswer{}, fmt.Errorf("%w: it says %d", errAppAway, status)
	}
	var says struct {
		Recipient string   `json:"recipient"`
		Groups    []string `json:"groups"`
		ExpiresIn float64  `json:"expires_in"` // seconds
	}
	// Its errors may quote the answer.
	if err := json.NewDecoder(io.LimitReader(response.Body, appMaxBody)).Decode(&says); err != nil {
		return appAnswer{}, fmt.Errorf(`%w: no JSON as {"recipient": "alice", "groups": ["team:7"], "expires_in": 300}`, errAppAway)
	}
	if says.Recipient == "" || !(says.ExpiresIn >= 1) {
		return appAnswer{}, fmt.Errorf("%w: it says no recipient, or expires_in is less than a second", errAppAway)
	}
	grant, err := a.mark.grant(says.Recipient, says.Groups)
	grant.Known = asked
	lifetime := time.Duration(min(says.ExpiresIn, maxLifetime.Seconds()) * float64(time.Second))
	return appAnswer{grant, lifetime, asked.Add(lifetime)}, err
}

// maxLifetime is how long the app's word counts at most.
const maxLifetime = 24 * time.Hour
