package server

import (
	"net/http"

	"rowcast/listener/failures"
)

// A notifyQueue says how full the server's NOTIFY queue is, from 0 to 1, and whether the hub polls because of that.
type notifyQueue struct {
	Ratio   float64 `json:"ratio"`
	Polling bool    `json:"polling"`
}

// readiness says whether to send clients here. PostgreSQL's absence alone is no reason not to: it would turn every hub away at
// once, and keeping the streams open meanwhile is what hubs are for.
func (s *Server) readiness(w http.ResponseWriter, _ *http.Request) {
	lag := s.Listener.Stats.Lag()
	state := struct {
		Ready    bool        `json:"ready"`
		Postgres string      `json:"postgres"`
		Behind   float64     `json:"behind_seconds"` // since PostgreSQL was last heard from
		Lag      float64     `json:"lag_seconds"`    // all rows that were committed longer ago have been sent
		Lagging  bool        `json:"lagging"`        // the lag is longer than usual
		Queue    notifyQueue `json:"notification_queue"`

		// Failing has what fails at present, by the operation; see the documentation of the package failures.
		Failing map[failures.Operation]failing `json:"failing"`
	}{
		s.Hub.Ready(), "disconnected", s.Hub.Behind().Seconds(), lag.Seconds(), lag > s.Listener.LagLimit,
		notifyQueue{s.Listener.Stats.NotifyQueue(), s.Listener.Stats.Crowded.Load()},
		s.failing(),
	}
	if s.Listener.Stats.Connected.Load() {
		state.Postgres = "connected"
	}
	status := http.StatusOK
	if !state.Ready {
		status = http.StatusServiceUnavailable
	}
	WriteJSON(w, status, state)
}
