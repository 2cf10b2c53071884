package auth

import (
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sync/singleflight"

	"rowcast/listener/failures"
	"rowcast/listener/loglimit"
	"rowcast/stream"
)

// An App authenticates clients by asking the app, at an endpoint that knows the app's sessions. The endpoint receives
// the Cookie and Authorization headers of the client's request, its X-Forwarded-For header with the client's address
// (RemoteAddr) appended, and the headers X-Forwarded-Proto, X-Forwarded-Host, User-Agent and Rowcast-Check. Behind a
// proxy, RemoteAddr must be the client's address, so that the last address in X-Forwarded-For is always the client's.
// Rowcast-Check is "open" for a request of a client, such as a new stream, and "renew" for a stream that is open
// already. Rowcast-Topics has the topics that the client asks for, percent-encoded and separated by commas. The
// endpoint answers 200 with {"recipient": "alice", "groups": ["team:7"], "expires_in": 300}, or answers 401 or 403. It
// grants a topic by naming it among the groups. URL, Logger and Failures must be set; the other fields may be zero.
type App struct {
	URL *url.URL
	// UserAgent is the User-Agent header of the requests. The default is "rowcast".
	UserAgent string
	// TrustForwarded passes on the headers X-Forwarded-Proto and X-Forwarded-Host of the client's request. The program
	// must have removed them from requests that do not come from a trusted proxy. Without TrustForwarded, these headers
	// say how the client has reached this program: by http or https, and with which Host header.
	TrustForwarded bool
	// Timeout is how long an answer may take, including the wait while the maximum number of requests is running. The
	// default is 5 s, also for a negative Timeout.
	Timeout time.Duration
	// Grace is how long an open stream continues after its grant has expired while the endpoint fails. A negative Grace
	// counts as 0.
	Grace time.Duration
	// Mark distinguishes groups from users.
	Mark GroupMark
	// Origins are further origins whose pages may open streams. Pages of the hub's own origin always may.
	Origins []string
	// Transport sends the requests. The default is a copy of [http.DefaultTransport] that keeps more idle connections. A
	// Transport must not follow redirects, because the credentials are for this endpoint alone.
	Transport http.RoundTripper

	Logger   *slog.Logger
	Failures *failures.Record

	once     sync.Once
	slots    *slots
	cache    cache
	opening  requests       // the requests for new streams
	renewing requests       // the requests that renew open streams
	endings  loglimit.Limit // limits the log lines about streams that end
}

// requests are the requests to the app for one purpose: for new streams, or for the renewal of open streams. Calls with
// the same credentials at the same time share a request. Each purpose has its own requests, so that a renewal never
// shares a request that waits for a slot for new streams.
type requests struct {
	singleflight.Group
	purpose string // "open" or "renew", the header Rowcast-Check
	acquire acquire

	mu      sync.Mutex
	callers map[string]*callers // by the key of the shared request
}

// callers are the calls that wait for a shared request.
type callers struct {
	number int
	ctx    context.Context // ends when no call waits any more
	cancel context.CancelFunc
}

// join counts one more call that waits for a request. The returned context ends when no call waits for it any more. ctx
// provides the values of this context.
func (r *requests) join(ctx context.Context, key string) context.Context {
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := r.callers[key]
	if waiting == nil {
		waiting = &callers{}
		waiting.ctx, waiting.cancel = context.WithCancel(context.WithoutCancel(ctx))
		if r.callers == nil {
			r.callers = make(map[string]*callers)
		}
		r.callers[key] = waiting
	}
	waiting.number++
	return waiting.ctx
}

// leave subtracts one call.
func (r *requests) leave(key string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	waiting := r.callers[key]
	if waiting.number--; waiting.number == 0 {
		waiting.cancel()
		delete(r.callers, key)
	}
}

// renewRetry is the mean time between two attempts to renew an open stream while the endpoint fails.
const renewRetry = 10 * time.Second

func (a *App) init() {
	a.slots = newSlots()
	a.opening.purpose, a.opening.acquire = "open", a.slots.forOpening
	a.renewing.purpose, a.renewing.acquire = "renew", a.slots.forRenewal
	if a.UserAgent == "" {
		a.UserAgent = "rowcast"
	}
	if a.Timeout <= 0 {
		a.Timeout = 5 * time.Second
	}
	if a.Transport == nil {
		a.Transport = ownTransport(maxRequests)
	}
}

// ownTransport returns a copy of http.DefaultTransport, so that no other user of http.DefaultTransport can close its
// connections. idle is the largest number of idle connections to a host; 0 means the default. The header of a response
// is limited to 64 KiB. The default is 10 MiB, which can use 200 MB of memory if the lines of the header are short. If
// the program has replaced http.DefaultTransport by another type, ownTransport returns it unchanged.
func ownTransport(idle int) http.RoundTripper {
	shared, ok := http.DefaultTransport.(*http.Transport)
	if !ok {
		return http.DefaultTransport
	}
	own := shared.Clone()
	own.MaxIdleConnsPerHost = idle
	own.MaxResponseHeaderBytes = 64 << 10
	return own
}

// Authenticate is an [Authenticator].
func (a *App) Authenticate(r *http.Request) (stream.Grant, error) {
	a.once.Do(a.init)
	if err := checkURL(r); err != nil {
		return stream.Grant{}, err
	}
	if err := checkOrigin(r, a.Origins); err != nil {
		return stream.Grant{}, err
	}
	topics, err := Topics(r)
	if err != nil {
		return stream.Grant{}, err
	}
	c := a.credentialsOf(r, topics)
	if c.cookie == "" && c.authorization == "" {
		return stream.Grant{}, noCredential("send a cookie or an Authorization header")
	}
	if len(r.Header.Values("Authorization")) > 1 {
		return stream.Grant{}, unauthorized("more than one Authorization header")
	}
	found, known := a.cache.get(c.hash())
	if !known {
		if found, err = a.ask(r.Context(), c, &a.opening); err != nil {
			return stream.Grant{}, err
		}
	}
	found.grant.Expires, found.grant.Renew = found.renewal(), a.renew(c, topics, found)
	return found.grant, nil
}

// credentials are the headers of a client's request that the app receives, and what else its answer may depend on.
type credentials struct {
	cookie, authorization        string
	forwardedFor, forwardedProto string
	forwardedHost, topics        string

	address netip.Addr // the address of the client, which has a share of the slots
}

func (a *App) credentialsOf(r *http.Request, topics []string) credentials {
	remote, _, err := net.SplitHostPort(r.RemoteAddr)
	if err != nil {
		remote = r.RemoteAddr
	}
	c := credentials{
		cookie:         strings.Join(r.Header.Values("Cookie"), "; "),
		authorization:  r.Header.Get("Authorization"),
		forwardedFor:   strings.Join(append(r.Header.Values("X-Forwarded-For"), remote), ", "),
		forwardedProto: "http",
		forwardedHost:  r.Host,
		topics:         topicsHeader(topics),
		address:        stream.AddressOf(r.RemoteAddr),
	}
	if r.TLS != nil {
		c.forwardedProto = "https"
	}
	if a.TrustForwarded {
		c.forwardedProto = cmp.Or(strings.Join(r.Header.Values("X-Forwarded-Proto"), ", "), c.forwardedProto)
		c.forwardedHost = cmp.Or(strings.Join(r.Header.Values("X-Forwarded-Host"), ", "), c.forwardedHost)
	}
	return c
}

// header returns the headers that are set.
func (c credentials) header() http.Header {
	header := make(http.Header)
	for name, value := range map[string]string{
		"Cookie": c.cookie, "Authorization": c.authorization,
		"X-Forwarded-For": c.forwardedFor, "X-Forwarded-Proto": c.forwardedProto, "X-Forwarded-Host": c.forwardedHost,
		"Rowcast-Topics": c.topics,
	} {
		if value != "" {
			header.Set(name, value)
		}
	}
	return header
}

// hash returns a hash that identifies the credentials. The cache keeps it instead of the credentials.
func (c credentials) hash() [sha256.Size]byte {
	return sha256.Sum256(fmt.Appendf(nil, "%q", []string{
		c.cookie, c.authorization, c.forwardedFor, c.forwardedProto, c.forwardedHost, c.topics,
	}))
}

// renewal returns the time at which the app is asked again: a random time in the last tenth of the grant's lifetime.
// Streams that were opened at the same time are therefore renewed at different times.
func (v answer) renewal() time.Time { return v.until.Add(-rand.N(v.lifetime/10 + 1)) }

// renew returns a function that renews the grant of an open stream by asking the app again. While the endpoint fails,
// the stream continues for up to Grace after its grant has expired. The function ends the stream if the app denies the
// client or answers with other recipients, or if the grace has passed, and logs the reason.
func (a *App) renew(c credentials, topics []string, v answer) func(context.Context) (time.Time, bool) {
	return func(ctx context.Context) (time.Time, bool) {
		again, err := a.ask(ctx, c, &a.renewing)
		denial, denied := errors.AsType[Denial](err)
		switch now, last := time.Now(), v.until.Add(max(a.Grace, 0)); {
		case denied:
			return a.end(c, denial.Reason)
		case err != nil && now.Before(last):
			next := now.Add(renewRetry/2 + rand.N(renewRetry))
			if next.After(last) {
				next = last
			}
			return next, true
		case err != nil:
			return a.end(c, "the app has given no valid answer until the end of the grace")
		case !slices.Equal(again.grant.Recipients(), v.grant.Recipients()):
			return a.end(c, changed(topics, v.grant, again.grant))
		}
		v = again
		return v.renewal(), true
	}
}

// end ends a stream at its renewal and logs the reason. It returns the results of Grant.Renew for a stream that ends.
// It also removes the answer that opened the stream from the cache, so that the client's next request asks the app.
func (a *App) end(c credentials, reason string) (time.Time, bool) {
	a.cache.remove(c.hash())
	if logger, ok := a.endings.Allow(a.Logger); ok {
		logger.Info("a stream was ended at its renewal", "reason", reason, "from", c.address.String())
	}
	return time.Time{}, false
}

// changed says what has changed in a grant. It names a topic that the client asked for, but nothing of the app's
// answer. A topic that the app has never named, such as a public topic, is not the cause.
func changed(topics []string, before, again stream.Grant) string {
	for _, topic := range topics {
		if slices.Contains(before.Groups, topic) && !slices.Contains(again.Groups, topic) {
			return fmt.Sprintf("the app does not name the topic %q among the groups any more", topic)
		}
	}
	return "the app has answered with another recipient or other groups"
}

// ask asks the app. It caches an answer that opens a stream, but no denial and no error. It does not cache the answer to
// a renewal, because an app can extend the user's session whenever a stream is opened, and with a cached answer, a
// stream would be opened without asking the app. Concurrent calls with the same credentials and for the same purpose
// share one request. If the contexts of all callers end, the request is given up while it waits for a slot. A request
// that has been sent continues.
func (a *App) ask(ctx context.Context, c credentials, of *requests) (answer, error) {
	hash := c.hash()
	key := string(hash[:])
	waiting := of.join(ctx, key)
	defer of.leave(key)
	asked := of.DoChan(key, func() (any, error) {
		v, err := a.request(waiting, c, of)
		if err == nil && of == &a.opening {
			a.cache.put(hash, v)
		}
		return v, err
	})
	select {
	case result := <-asked:
		if errors.Is(result.Err, context.Canceled) && ctx.Err() == nil { // the request was given up just before this call
			return a.ask(ctx, c, of)
		}
		return result.Val.(answer), result.Err
	case <-ctx.Done():
		return answer{}, ctx.Err()
	}
}

// request waits for a free slot, sends the request and waits for the answer. It gives up if waiting ends before there is
// a free slot. Otherwise, requests whose clients have disconnected could fill the memory.
func (a *App) request(waiting context.Context, c credentials, of *requests) (v answer, err error) {
	deadline := time.Now().Add(a.Timeout)
	ctx, cancel := context.WithDeadline(context.WithoutCancel(waiting), deadline)
	defer cancel()
	waiting, stop := context.WithDeadline(waiting, deadline)
	defer stop()
	release, ok := of.acquire(waiting, c.address)
	switch {
	case ok:
		defer release()
		v, err = a.exchange(ctx, c, of.purpose)
	case errors.Is(waiting.Err(), context.Canceled): // no client waits for the answer any more
		return answer{}, context.Canceled
	default:
		err = errEndpoint
	}
	if errors.Is(err, errEndpoint) && (!ok || ctx.Err() != nil) {
		err = fmt.Errorf("%w: no answer within %v (requests running: %d)", errEndpoint, a.Timeout, len(a.slots.all))
	}
	if errors.Is(err, errEndpoint) {
		a.Failures.Warn(a.Logger, failures.AuthURL, err, "authentication endpoint failed", "host", a.URL.Host)
	} else {
		a.Failures.Succeeded(failures.AuthURL)
	}
	return v, err
}

// drainTime is how long the rest of an answer may take to arrive after the part that decides.
const drainTime = 100 * time.Millisecond

func (a *App) exchange(ctx context.Context, c credentials, purpose string) (answer, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	request := (&http.Request{Method: http.MethodGet, URL: a.URL, Header: c.header()}).WithContext(ctx)
	request.Header.Set("Accept", "application/json")
	request.Header.Set("User-Agent", a.UserAgent)
	request.Header.Set("Rowcast-Check", purpose)
	sent := time.Now()
	response, err := a.Transport.RoundTrip(request)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errEndpoint, transportError(err))
	}
	defer func() {
		// The connection can be used again only if the body was read to its end. A body that does not end must not delay the
		// answer.
		stop := time.AfterFunc(drainTime, cancel)
		_, _ = io.CopyN(io.Discard, response.Body, maxAnswer)
		stop.Stop()
		_ = response.Body.Close()
	}()
	return readResponse(response, sent, a.Mark)
}

// transportError returns the part of a transport's error that may be logged. The whole error may quote the answer.
func transportError(err error) error {
	if broken, ok := errors.AsType[*tls.CertificateVerificationError](err); ok {
		return broken
	}
	if failed, ok := errors.AsType[*net.OpError](err); ok {
		return failed.Err
	}
	if unknown, ok := errors.AsType[*net.DNSError](err); ok {
		return unknown
	}
	return errors.New("no answer, or one that is not HTTP")
}
