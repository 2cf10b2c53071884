package main

import (
	"encoding/json"
	"net/http"
)

// readiness says whether to send clients here. PostgreSQL's absence alone is no reason not to: it would turn every hub away at
// once, and keeping the streams open meanwhile is what hubs are for.
func (s *service) readiness(w http.ResponseWriter, _ *http.Request) {
	state := struct {
		Ready    bool    `json:"ready"`
		Postgres string  `json:"postgres"`
		Behind   float64 `json:"behind_seconds"` // since PostgreSQL was last heard from
	}{s.hub.Ready(), "disconnected", s.hub.Behind().Seconds()}
	if s.listener.Stats.Connected.Load() {
		state.Postgres = "connected"
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if !state.Ready {
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(state)
}
