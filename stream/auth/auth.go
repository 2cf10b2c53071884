// Package auth finds out which user a request for a stream comes from, and which groups the user is in.
//
// There are three authenticators: [Tokens] validates JSON Web Tokens, [App] asks an endpoint of the app, and
// [InsecureUID] trusts the query parameter uid. [Public] can wrap one of them, and gives clients without a credential a
// public stream. A [Handler] puts one of them, or any other [Authenticator], in front of a [stream.Hub]. A client may
// ask for topics; see [Topics].
package auth

import (
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"rowcast/listener/feed"
	"rowcast/listener/loglimit"
	"rowcast/stream"
)

// An Authenticator returns the grant of the client that sent r. If the client must not get a stream, the error is a
// [Denial]. Any other error is temporary. After a temporary error, the client is answered with "retry later"
// ([stream.Hub.RetryLater]).
type Authenticator func(r *http.Request) (stream.Grant, error)

// A Denial is the reason why a request gets no stream. The reason is sent to the client and logged, so it must not
// contain credentials.
type Denial struct {
	Status int // the HTTP status: 400, 401 or 403
	Reason string

	noCredential bool // the request has no credential, so Public may accept it
}

func (d Denial) Error() string { return d.Reason }

func badRequest(reason string) error { return Denial{Status: http.StatusBadRequest, Reason: reason} }

func unauthorized(reason string) error {
	return Denial{Status: http.StatusUnauthorized, Reason: reason}
}
func forbidden(reason string) error { return Denial{Status: http.StatusForbidden, Reason: reason} }

// noCredential returns the denial of a request that has no credential.
func noCredential(reason string) error {
	return Denial{Status: http.StatusUnauthorized, Reason: reason, noCredential: true}
}

// A Handler authenticates each request, and calls Serve of the hub if the client may get a stream and every topic that
// it asks for. Otherwise it denies the request, or tells the client to retry later. Hub, Authenticate and Logger must
// be set.
type Handler struct {
	Hub          *stream.Hub
	Authenticate Authenticator
	Logger       *slog.Logger

	// Stats has counters. The Handler does not read them.
	Stats struct {
		Denied      atomic.Int64 // requests that were denied
		Unavailable atomic.Int64 // requests that could not be authenticated for a temporary reason
	}

	once     sync.Once
	denials  loglimit.Limit // limits the log lines about denials
	failures loglimit.Limit // limits the log lines about temporary errors; many denials do not suppress these lines
}

func (h *Handler) init() {
	h.denials.Every, h.denials.Burst = 200*time.Millisecond, 50
	h.failures.Every, h.failures.Burst = 200*time.Millisecond, 50
}

// answerTime is how long a client may take to receive an answer that is not a stream. The deadline does not apply to a
// stream.
const answerTime = 15 * time.Second

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.once.Do(h.init)
	grant, err := h.authenticate(r)
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime)) // after Authenticate, which may take long
	denial, denied := errors.AsType[Denial](err)
	switch {
	case denied:
		h.Deny(w, r, denial)
	case err != nil && r.Context().Err() != nil: // the client has disconnected, or has only stopped sending, and can still receive
		w.WriteHeader(stream.StatusDisconnected)
	case err != nil:
		h.Stats.Unavailable.Add(1)
		if logger, ok := h.failures.Allow(h.Logger); ok {
			logger.Warn("cannot authenticate a request for a stream", "reason", err.Error(), "from", r.RemoteAddr)
		}
		h.Hub.RetryLater(w)
	default:
		h.Hub.Serve(w, r, grant)
	}
}

// authenticate returns the grant of a client. It denies the request if a topic is not granted, whatever the
// Authenticator does, because a client would wait in vain for the events of this topic.
func (h *Handler) authenticate(r *http.Request) (stream.Grant, error) {
	topics, err := Topics(r)
	if err != nil {
		return stream.Grant{}, err
	}
	grant, err := h.Authenticate(r)
	if err != nil {
		return stream.Grant{}, err
	}
	return grant, checkGranted(topics, grant)
}

// Deny answers a request that gets no stream. A program may call it for a request that it denies itself, so that the
// denial is counted and logged like all others.
func (h *Handler) Deny(w http.ResponseWriter, r *http.Request, d Denial) {
	h.once.Do(h.init)
	h.Stats.Denied.Add(1)
	if logger, ok := h.denials.Allow(h.Logger); ok {
		logger.Info("a stream was denied", "status", d.Status, "reason", d.Reason, "from", r.RemoteAddr)
	}
	if d.Status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", "Bearer")
	}
	w.Header().Set("Cache-Control", "no-store")
	http.Error(w, d.Reason, d.Status)
}

// An InsecureUID authenticates a client by the query parameter uid, without any proof. It is only for local testing,
// because every client can read the events of every user and topic. Pages may open streams if their origin is a
// loopback origin (see [IsLoopbackOrigin]), the hub's own, or one of Origins.
type InsecureUID struct {
	Origins []string // further origins whose pages may open streams
}

// Authenticate is an [Authenticator].
func (i *InsecureUID) Authenticate(r *http.Request) (stream.Grant, error) {
	if !IsLoopbackOrigin(r.Header.Get("Origin")) {
		if err := checkOrigin(r, i.Origins); err != nil {
			return stream.Grant{}, err
		}
	}
	topics, err := Topics(r)
	if err != nil {
		return stream.Grant{}, err
	}
	uids := r.URL.Query()["uid"]
	missing := fmt.Sprintf("uid is missing: open %s?uid=alice", r.URL.EscapedPath())
	switch {
	case len(uids) > 1:
		return stream.Grant{}, badRequest("a stream is for one user: give uid once")
	case len(uids) == 0:
		return stream.Grant{}, noCredential(missing)
	case uids[0] == "":
		return stream.Grant{}, unauthorized(missing)
	}
	if err := feed.CheckIdentity(uids[0]); err != nil {
		return stream.Grant{}, badRequest("the uid " + err.Error())
	}
	return stream.Grant{User: uids[0], Groups: topics}, nil
}

// identityParameters are common names of parameters for a user, a group or a token.
var identityParameters = []string{
	"uid", "user", "recipient", "sub", "group", "groups",
	"token", "access_token", "id_token", "jwt", "ticket", "auth", "bearer", "authorization",
}

// checkURL denies a request whose URL has a parameter for a user, a group or a token, in upper or lower case. The hub
// would ignore such a parameter, and the client would not notice. A token in a URL would also end up in logs.
func checkURL(r *http.Request) error {
	given := slices.Collect(maps.Keys(r.URL.Query()))
	for _, name := range identityParameters {
		if slices.ContainsFunc(given, func(key string) bool { return strings.EqualFold(key, name) }) {
			return badRequest(fmt.Sprintf("remove %s from the URL: send a token in the Authorization header or a cookie instead", name))
		}
	}
	return nil
}
