// Package inbox serves the inbox of each user over HTTP: the list of the newest rows with their state, and requests
// that change the state. A [Handler] authenticates a request in the same way as a request for a stream, and calls a
// [Store]. Package listener implements a Store with PostgreSQL.
package inbox

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"rowcast/listener/failures"
	"rowcast/listener/feed"
	"rowcast/listener/loglimit"
	"rowcast/stream"
	"rowcast/stream/auth"
	"rowcast/stream/fair"
)

// A Store reads and changes the inboxes. Each result is a JSON object that is sent to the client. If the database
// refuses a value of the client, the error is a [feed.Refused]. Any other error is temporary.
type Store interface {
	// List returns up to limit rows of a user. before is empty for the newest rows. For the rows that follow a page, it is
	// the value of "before" in the result with that page.
	List(ctx context.Context, user string, groups []string, limit int, before string) (json.RawMessage, error)
	// Mark changes the state of the rows ids or, if ids is nil, of all rows that the cursor upTo has seen. The action is
	// seen, read, unread, archive or unarchive.
	Mark(ctx context.Context, user string, groups []string, action string, ids []int64, upTo string) (json.RawMessage, error)
	// Undo undoes a change. undo is the value of "undo" in the result of Mark for this change.
	Undo(ctx context.Context, user string, groups []string, undo string) (json.RawMessage, error)
}

// A Handler serves GET and HEAD of Path, and POST Path/ACTION. If the query of a request has the parameter user, its
// value must be the user of the credential. Store, Authenticate, Logger and Failures must be set. The zero value of
// every other field means the default, and so does a negative number. The fields must not be changed after the first
// request.
type Handler struct {
	Store Store
	// Authenticate returns the user and the groups of a client, as for a stream. Like the authenticators of package
	// auth, it must deny requests of pages whose origin may not read the user's rows.
	Authenticate auth.Authenticator
	Logger       *slog.Logger
	Failures     *failures.Record

	// Path is the path of the list. Default "/inbox".
	Path string
	// Calls limits how many calls of Store run at one time. Half of them, but at least one, may be for the same user, and
	// waiting users take turns. Default 4.
	Calls int
	// PerUser limits how many requests of one user run or wait at one time. Default 16.
	PerUser int
	// Timeout limits how long a request waits for its turn and for Store together. Default 10 s.
	Timeout time.Duration
	// Answers limits the bytes of answers that are being sent to clients. The answers to one user may use a quarter of it.
	// An answer that is larger than a limit is sent if no other answer counts against that limit. Default 64 MiB.
	Answers int
	// Observe, if not nil, is called after each request. The action is list, seen, read, unread, archive, unarchive, undo,
	// or other for an unknown path. The status is 499 if the request was given up because the client had disconnected.
	Observe func(action string, status int, took time.Duration)

	once     sync.Once
	calls    fair.Queue[string]
	answers  answers
	denials  loglimit.Limit // limits the log lines about denials
	failures loglimit.Limit // limits the log lines about temporary errors of Authenticate
}

// Actions are the values of action with which [Handler.Observe] is called.
var Actions = []string{list, "seen", "read", "unread", "archive", "unarchive", undo, other}

const (
	list  = "list"
	undo  = "undo"
	other = "other"
)

func (h *Handler) init() {
	h.Path = cmp.Or(h.Path, "/inbox")
	h.Timeout = cmp.Or(max(h.Timeout, 0), 10*time.Second)
	h.calls.Calls, h.calls.PerKey = cmp.Or(max(h.Calls, 0), 4), cmp.Or(max(h.PerUser, 0), 16)
	h.answers.limit = cmp.Or(max(h.Answers, 0), 64<<20)
	h.denials.Every, h.denials.Burst = 200*time.Millisecond, 50
	h.failures.Every, h.failures.Burst = 200*time.Millisecond, 50
}

// A problem is an answer other than 200.
type problem struct {
	status int
	text   string
	retry  time.Duration // when the client may try again, as Retry-After says; 0 means no Retry-After
}

func (p problem) Error() string { return p.text }

func badRequest(text string) error { return problem{status: http.StatusBadRequest, text: text} }

func (h *Handler) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.once.Do(h.init)
	began, action := time.Now(), h.action(r.URL.Path)
	status := h.serve(w, r, action)
	if h.Observe != nil {
		h.Observe(action, status, time.Since(began))
	}
}

// action returns the action of a path.
func (h *Handler) action(path string) string {
	name, ok := strings.CutPrefix(path, h.Path)
	switch {
	case ok && name == "":
		return list
	case ok && strings.HasPrefix(name, "/") && name[1:] != list && name[1:] != other && slices.Contains(Actions, name[1:]):
		return name[1:]
	}
	return other
}

// serve answers a request and returns the status.
func (h *Handler) serve(w http.ResponseWriter, r *http.Request, action string) int {
	w.Header().Set("Cache-Control", "no-store")
	w.Header().Add("Vary", "Authorization, Cookie")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	user, answer, err := h.answer(w, r, action)
	// Authenticate and Store may have taken long, so the time limit for sending the answer begins now.
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(answerTime))
	if err == nil && !h.answers.add(user, len(answer)) {
		err = problem{http.StatusServiceUnavailable, "clients are slow to accept earlier answers: try again later", time.Second}
	}
	switch p, known := errors.AsType[problem](err); {
	case err == nil:
		defer h.answers.remove(user, len(answer))
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("Content-Length", strconv.Itoa(len(answer)))
		_, _ = w.Write(answer)
		return http.StatusOK
	case !known: // the client has disconnected, or has only stopped sending, and can still receive
		w.WriteHeader(stream.StatusDisconnected)
		return stream.StatusDisconnected
	default:
		if p.retry > 0 {
			w.Header().Set("Retry-After", strconv.Itoa(int(p.retry.Seconds())))
		}
		http.Error(w, p.text, p.status)
		return p.status
	}
}

// answerTime is how long a client may take to receive an answer.
const answerTime = 15 * time.Second

// answer returns the user and the answer to a request. The error is a problem, unless the client has disconnected.
func (h *Handler) answer(w http.ResponseWriter, r *http.Request, action string) (user string, _ json.RawMessage, err error) {
	if err := h.checkMethod(w, r, action); err != nil {
		return "", nil, err
	}
	resume := suspendReadTimeout(w, r)
	grant, err := h.authenticate(w, r)
	resume()
	if err != nil {
		return "", nil, err
	}
	if err := checkUser(r.URL.Query(), grant); err != nil {
		return "", nil, err
	}
	call, err := parse(w, r, action)
	if err != nil {
		return "", nil, err
	}
	answer, err := h.call(r, grant, call)
	return grant.User, answer, err
}

// suspendReadTimeout removes the server's time limit for reading the request, because the body may arrive while a slow
// app authenticates the client. resume begins the time limit again. It must be called even if the body is not needed,
// because net/http reads the rest of the body.
func suspendReadTimeout(w http.ResponseWriter, r *http.Request) (resume func()) {
	server, ok := r.Context().Value(http.ServerContextKey).(*http.Server)
	if !ok || server.ReadTimeout <= 0 {
		return func() {}
	}
	control := http.NewResponseController(w)
	_ = control.SetReadDeadline(time.Time{})
	return func() { _ = control.SetReadDeadline(time.Now().Add(server.ReadTimeout)) }
}

// checkMethod checks the path and the method before the client is authenticated.
func (h *Handler) checkMethod(w http.ResponseWriter, r *http.Request, action string) error {
	allow, text := "POST", "method not allowed: use POST"
	switch action {
	case other:
		return problem{status: http.StatusNotFound, text: "not found: the list is at " + h.Path +
			", and POST requests go to " + h.Path + "/seen, read, unread, archive, unarchive or undo"}
	case list:
		allow, text = "GET, HEAD", "method not allowed: use GET"
	}
	if slices.Contains(strings.Split(allow, ", "), r.Method) {
		return nil
	}
	w.Header().Set("Allow", allow)
	return problem{status: http.StatusMethodNotAllowed, text: text}
}

// authenticate returns the grant of a client. The error is a problem, unless the client has disconnected.
func (h *Handler) authenticate(w http.ResponseWriter, r *http.Request) (stream.Grant, error) {
	grant, err := h.grant(r)
	denial, denied := errors.AsType[auth.Denial](err)
	switch {
	case denied:
		if logger, ok := h.denials.Allow(h.Logger); ok {
			logger.Info("a request for an inbox was denied", "status", denial.Status, "reason", denial.Reason, "from", r.RemoteAddr)
		}
		if denial.Status == http.StatusUnauthorized {
			w.Header().Set("WWW-Authenticate", "Bearer")
		}
		return grant, problem{status: denial.Status, text: denial.Reason}
	case err != nil && r.Context().Err() != nil:
		return grant, r.Context().Err()
	case err != nil:
		if logger, ok := h.failures.Allow(h.Logger); ok {
			logger.Warn("cannot authenticate a request for an inbox", "reason", err.Error(), "from", r.RemoteAddr)
		}
		return grant, problem{http.StatusServiceUnavailable, "the request cannot be authenticated now: try again later", 2 * time.Second}
	}
	return grant, nil
}

// grant calls Authenticate. It denies requests whose query cannot be read or asks for topics, and clients without a
// user.
func (h *Handler) grant(r *http.Request) (stream.Grant, error) {
	query, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return stream.Grant{}, auth.Denial{Status: http.StatusBadRequest, Reason: "the query cannot be read: " + err.Error()}
	}
	for name := range query {
		if strings.HasPrefix(strings.ToLower(name), "topic") {
			return stream.Grant{}, auth.Denial{Status: http.StatusBadRequest, Reason: "remove topic from the URL: the inbox has the rows of the user, of the user's groups and for everyone"}
		}
	}
	grant, err := h.Authenticate(withoutUser(r, query))
	if err == nil && grant.User == "" {
		err = auth.Denial{Status: http.StatusUnauthorized, Reason: "an inbox belongs to a user: send a credential"}
	}
	return grant, err
}

// withoutUser returns the request without the parameter user, because authenticators such as auth.Tokens deny a request
// with this parameter. The parameter chooses no user: checkUser compares it with the user of the credential.
func withoutUser(r *http.Request, query url.Values) *http.Request {
	if !query.Has("user") {
		return r
	}
	query.Del("user")
	address := *r.URL
	address.RawQuery = query.Encode()
	r = r.WithContext(r.Context())
	r.URL = &address
	return r
}

// call makes a call of Store when it is the user's turn. A change continues if the client disconnects: a page that
// changes the state of a row and then follows a link closes its connection.
func (h *Handler) call(r *http.Request, grant stream.Grant, call call) (json.RawMessage, error) {
	ctx := r.Context()
	if r.Method == http.MethodPost {
		ctx = context.WithoutCancel(ctx)
	}
	ctx, cancel := context.WithTimeout(ctx, h.Timeout)
	defer cancel()
	const busy = "too many requests of this user are running or waiting: try again later"
	if err := h.calls.Acquire(ctx, grant.User); errors.Is(err, fair.ErrTooMany) {
		return nil, problem{http.StatusTooManyRequests, busy, time.Second}
	} else if err != nil {
		return nil, h.failed(r, errors.New("no query was possible in time, because other queries were running"))
	}
	answer, err := func() (json.RawMessage, error) {
		defer h.calls.Release(grant.User)
		return call(ctx, h.Store, grant)
	}()
	switch refused, ok := errors.AsType[feed.Refused](err); {
	case ok && refused.Stale:
		return nil, problem{status: http.StatusConflict, text: refused.Reason + ": load the list again"}
	case ok:
		return nil, badRequest(refused.Reason)
	case err != nil:
		return nil, h.failed(r, err)
	}
	h.Failures.Succeeded(failures.Inbox)
	return answer, nil
}

// failed records that a call has failed, and returns the answer. It does not record a list that failed because the
// client has disconnected.
func (h *Handler) failed(r *http.Request, err error) error {
	if r.Method != http.MethodPost && r.Context().Err() != nil {
		return r.Context().Err()
	}
	h.Failures.Warn(h.Logger, failures.Inbox, err, "cannot read or change an inbox")
	return problem{http.StatusServiceUnavailable, "the inbox cannot be read or changed now: try again later", 2 * time.Second}
}
