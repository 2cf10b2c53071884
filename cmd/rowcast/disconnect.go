package main

import (
	"encoding/json"
	"mime"
	"net/http"
)

// disconnect ends a recipient's streams: here, and through PostgreSQL on every other hub. It is at the administrators' address
// alone, and not for pages that their browsers may show.
func (s *service) disconnect(w http.ResponseWriter, r *http.Request) {
	recipient, err := recipientOf(w, r)
	if err != nil || recipient == "" || len(recipient) > maxRecipient || !isText(recipient) {
		http.Error(w, `say whose streams to end, as recipient=alice or {"recipient": "alice"}: a user, or a group key`, http.StatusBadRequest)
		return
	}
	answer := struct {
		Recipient    string `json:"recipient"`
		Disconnected int    `json:"disconnected"` // streams here
		Error        string `json:"error,omitempty"`
	}{Recipient: recipient, Disconnected: s.hub.Disconnect(recipient)} // before this hub hears of it, too
	err = s.everywhere(r.Context(), recipient)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	if err != nil {
		s.logger.Error("other hubs were not told to disconnect", "error", err)
		answer.Error = "the other hubs could not be told: PostgreSQL does not answer; try again"
		w.WriteHeader(http.StatusServiceUnavailable)
	}
	_ = json.NewEncoder(w).Encode(answer)
}

func recipientOf(w http.ResponseWriter, r *http.Request) (string, error) {
	const longest = 4 << 10
	r.Body = http.MaxBytesReader(w, r.Body, longest)
	if kind, _, _ := mime.ParseMediaType(r.Header.Get("Content-Type")); kind == "application/json" {
		var body struct{ Recipient string }
		err := json.NewDecoder(r.Body).Decode(&body)
		return body.Recipient, err
	}
	if err := r.ParseForm(); err != nil {
		return "", err
	}
	return r.Form.Get("recipient"), nil
}
