package server

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/go-chi/chi/v5"
	"github.com/prometheus/client_golang/prometheus"

	"rowcast/listener"
	"rowcast/stream/inbox"
)

// inboxConns is the maximum number of connections to PostgreSQL for the inbox.
const inboxConns = 4

// inboxPath is the path of a user's list of notifications. The paths of the other actions are below it.
const inboxPath = "/inbox"

// An inboxes value serves the inboxes of the users.
type inboxes struct {
	store    *listener.Inbox
	handler  inbox.Handler
	requests *prometheus.CounterVec
	duration *prometheus.HistogramVec
}

// openInbox opens the store of the inboxes, and lets the hub send rowcast.inbox events. If s.Inbox is false, it does
// nothing. The caller must call closeStore at the end.
func (s *Server) openInbox(ctx context.Context) (closeStore func(), err error) {
	if !s.Inbox {
		return func() {}, nil
	}
	store, err := s.Listener.NewInbox(ctx, inboxConns)
	if err != nil {
		return nil, err
	}
	s.Hub.Inbox = true
	s.inboxes = &inboxes{
		store: store,
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Namespace: "rowcast", Name: "inbox_requests_total",
			Help: "Requests for an inbox, by action and by class of the HTTP status. A request that was given up because its client had disconnected counts as 4xx.",
		}, []string{"action", "code"}),
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Namespace: "rowcast", Name: "inbox_request_duration_seconds",
			Help:    "Time from the arrival of a request for an inbox until its answer was written or the request was given up, by action.",
			Buckets: []float64{.001, .0025, .005, .01, .025, .05, .1, .25, .5, 1, 2.5, 5, 10, 20},
		}, []string{"action"}),
	}
	for _, action := range inbox.Actions {
		for _, class := range []string{"2xx", "4xx", "5xx"} {
			s.inboxes.requests.WithLabelValues(action, class)
		}
		s.inboxes.duration.WithLabelValues(action)
	}
	h := &s.inboxes.handler
	h.Store, h.Authenticate, h.Logger, h.Failures = store, s.Events.Authenticate, s.Logger, &s.Failures
	h.Path, h.Calls, h.Observe = inboxPath, inboxConns, s.inboxes.observe
	return store.Close, nil
}

// observe counts a request and records how long it took.
func (i *inboxes) observe(action string, status int, took time.Duration) {
	i.requests.WithLabelValues(action, fmt.Sprintf("%dxx", status/100)).Inc()
	i.duration.WithLabelValues(action).Observe(took.Seconds())
}

// inboxRoutes adds the routes of the inbox.
func (s *Server) inboxRoutes(r chi.Router) {
	serve := func(w http.ResponseWriter, r *http.Request) { s.inboxes.handler.ServeHTTP(w, r) } // Run sets s.inboxes
	if !s.Inbox {
		serve = func(w http.ResponseWriter, _ *http.Request) {
			http.Error(w, "not found: start the hub with --inbox to serve the inbox", http.StatusNotFound)
		}
	}
	r.HandleFunc(inboxPath, serve)
	r.HandleFunc(inboxPath+"/{action}", serve)
}

// preflight checks that the database is suitable for a hub and, if the inbox is on, that it is installed.
func (s *Server) preflight(ctx context.Context) error {
	if err := s.Listener.Preflight(ctx); err != nil || s.inboxes == nil {
		return err
	}
	return s.inboxes.store.Check(ctx)
}
