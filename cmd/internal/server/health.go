package server

import (
	"errors"
	"io"
	"net/http"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener/failures"
)

func (s *Server) healthz(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, "ok\n") }

// readyz reports whether a load balancer should send clients to this hub. A hub that loses its connection to PostgreSQL
// stays ready, because otherwise all hubs would become unready at once.
func (s *Server) readyz(w http.ResponseWriter, _ *http.Request) {
	lag := s.Listener.Stats.Lag()
	state := struct {
		Ready    bool        `json:"ready"`
		Postgres string      `json:"postgres"`
		Behind   float64     `json:"behind_seconds"` // the time since the hub last read from PostgreSQL successfully; 0 while the hub starts
		Lag      float64     `json:"lag_seconds"`    // an upper bound of the age of committed rows that the hub has not read
		Lagging  bool        `json:"lagging"`        // the lag exceeds the listener's LagLimit
		Queue    notifyQueue `json:"notification_queue"`

		// Failing contains the operations that are failing now, as State.Failing of package failures reports. That
		// package explains the operations.
		Failing map[failures.Operation]failing `json:"failing"`
	}{
		s.Hub.Ready(), "disconnected", s.Hub.Behind().Seconds(), lag.Seconds(), lag > s.Listener.LagLimit,
		notifyQueue{s.Listener.Stats.NotifyQueue(), s.Listener.Stats.Crowded.Load()},
		s.failing(),
	}
	if s.Listener.Connected() {
		state.Postgres = "connected"
	}
	status := http.StatusOK
	if !state.Ready {
		status = http.StatusServiceUnavailable
	}
	WriteJSON(w, status, state)
}

// A notifyQueue describes the NOTIFY queue of the PostgreSQL server.
type notifyQueue struct {
	Ratio   float64 `json:"ratio"`   // the used part, from 0 to 1
	Polling bool    `json:"polling"` // the hub polls, because the queue is filling up; see the listener's QueueLimit
}

// A failing describes an operation that is failing now.
type failing struct {
	Since    float64 `json:"since"`    // the seconds since the operation began to fail
	Last     float64 `json:"last"`     // the seconds since the last failure
	Failures int64   `json:"failures"` // the number of failures since the operation began to fail
	Error    string  `json:"error"`
}

// failing returns the operations that are failing now. It omits the texts of errors, which may contain the names of
// hosts and roles, because /readyz may be public.
func (s *Server) failing() map[failures.Operation]failing {
	all := map[failures.Operation]failing{}
	for _, of := range failures.All {
		if state := s.failureOf(of); state.Failing() {
			all[of] = failing{time.Since(state.Since).Seconds(), time.Since(state.Last).Seconds(), state.Failures, publicError(state.Err)}
		}
	}
	return all
}

// publicError describes an error without its text, so that anybody may read the description.
func publicError(err error) string {
	if refused, ok := errors.AsType[*pgconn.PgError](err); ok {
		return "PostgreSQL answered with SQLSTATE " + refused.Code + "; see the log"
	}
	return "see the log"
}

// failureOf returns the state of an operation. The part of the server that runs the operation keeps this state.
func (s *Server) failureOf(of failures.Operation) failures.State {
	switch of {
	case failures.Connect, failures.ParkLock, failures.ParkQueue, failures.Unpark, failures.Fetch, failures.History:
		return s.Listener.Failures.Of(of)
	case failures.Replay, failures.CheckCursor, failures.CatchUp:
		return s.Hub.Failures.Of(of)
	case failures.Retention:
		return s.Retention.Failures.Of(of)
	}
	return s.Failures.Of(of)
}
