package server

import (
	"errors"
	"time"

	"github.com/jackc/pgx/v5/pgconn"
	"github.com/prometheus/client_golang/prometheus"

	"rowcast/listener/failures"
)

// failureOf returns what is known of an operation, by the part of the service that does it.
func (s *Server) failureOf(of failures.Operation) failures.State {
	switch of {
	case failures.Connect, failures.ParkLock, failures.ParkQueue, failures.Unpark, failures.Fetch, failures.History:
		return s.Listener.Failures.Of(of)
	case failures.Replay, failures.Stands, failures.CatchUp:
		return s.Hub.Failures.Of(of)
	case failures.Retention:
		return s.Retention.Failures.Of(of)
	}
	return s.Failures.Of(of)
}

// registerFailures registers the number of failures of each operation.
func (s *Server) registerFailures(r registry) {
	for _, of := range failures.All {
		r.MustRegister(prometheus.NewCounterFunc(prometheus.CounterOpts{
			Namespace: "rowcast", Name: "failures_total", Help: "Failed attempts of operations that the hub retries until they succeed, by operation.",
			ConstLabels: prometheus.Labels{"operation": string(of)},
		}, func() float64 { return float64(s.failureOf(of).Total) }))
	}
}

// A failing is an operation that fails at present, as /readyz shows it.
type failing struct {
	Since    float64 `json:"since"`    // seconds ago
	Last     float64 `json:"last"`     // seconds ago
	Failures int64   `json:"failures"` // since then
	Error    string  `json:"error"`
}

// failing returns what fails at present. The whole error is in the log only: the page may be public, and errors name hosts and roles.
func (s *Server) failing() map[failures.Operation]failing {
	all := map[failures.Operation]failing{}
	for _, of := range failures.All {
		if state := s.failureOf(of); state.Failing() {
			all[of] = failing{time.Since(state.Since).Seconds(), time.Since(state.Last).Seconds(), state.Failures, publicError(state.Err)}
		}
	}
	return all
}

// publicError returns what may be said of an error to anybody.
func publicError(err error) string {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return "PostgreSQL refused it (SQLSTATE " + refused.Code + "); the log says more"
	}
	return "the log says more"
}
