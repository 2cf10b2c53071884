package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"mime"
	"net/http"
	"net/url"

	"rowcast/listener/failures"
	"rowcast/listener/feed"
	"rowcast/listener/strictjson"
)

// disconnect ends a recipient's streams: here, and through PostgreSQL on every other hub.
func (s *Server) disconnect(w http.ResponseWriter, r *http.Request) {
	recipient, status, text := recipientOf(w, r)
	if text != "" {
		http.Error(w, text, status)
		return
	}
	says := struct {
		Recipient    string `json:"recipient"`
		Disconnected int    `json:"disconnected"` // streams here
		Error        string `json:"error,omitempty"`
	}{Recipient: recipient, Disconnected: s.Hub.Disconnect(recipient)} // streams that are opened from now on stay open
	status = http.StatusOK
	if err := s.others(context.WithoutCancel(r.Context()), recipient); err != nil { // whether or not the client waits for it
		s.Failures.Failed(failures.Disconnect, err)
		if logger, ok := s.untold.Allow(s.Logger); ok {
			logger.Error("other hubs were not told to disconnect", "error", err)
		}
		says.Error = "the other hubs could not be told: PostgreSQL does not answer; try again"
		status = http.StatusServiceUnavailable
	} else {
		s.Failures.Succeeded(failures.Disconnect)
	}
	WriteJSON(w, status, says)
}

// notForPages refuses browsers. Whoever reaches the administrators' address may disconnect; not so a page that one of them looks at,
// under whatever name. Browsers say at every POST where it comes from.
func notForPages(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header["Origin"])+len(r.Header["Sec-Fetch-Site"]) > 0 {
			http.Error(w, "no page may ask for this: it is for your app's server", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// recipientOf reads whose streams to end. It guesses nothing: who seems to have been logged out must have been.
func recipientOf(w http.ResponseWriter, r *http.Request) (recipient string, status int, text string) {
	const longest = 4 << 10
	said, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", http.StatusBadRequest, "the query cannot be read: it should be recipient=alice, percent-encoded"
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, longest))
	if _, long := errors.AsType[*http.MaxBytesError](err); long {
		return "", http.StatusRequestEntityTooLarge, "the body is longer than 4 KiB: it should say recipient=alice, and nothing else"
	} else if err != nil {
		return "", http.StatusBadRequest, "the body did not come to its end"
	}
	if status, text = addBody(said, r.Header.Get("Content-Type"), body); text == "" {
		recipient, text = theRecipient(said)
		status = http.StatusBadRequest
	}
	return recipient, status, text
}

// addBody adds what a body says to what the query says.
func addBody(said url.Values, kind string, body []byte) (status int, text string) {
	if len(body) == 0 {
		return 0, ""
	}
	switch kind, _, _ = mime.ParseMediaType(kind); kind {
	case "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return http.StatusBadRequest, "the form cannot be read: it should be recipient=alice, percent-encoded"
		}
		for key, values := range form {
			said[key] = append(said[key], values...)
		}
	case "application/json":
		var recipient *string
		members, err := strictjson.Members(bytes.NewReader(body))
		if err != nil || len(members) != 1 || members[0].Key != "recipient" ||
			json.Unmarshal(members[0].Value, &recipient) != nil || recipient == nil {
			return http.StatusBadRequest, `the body should be {"recipient": "alice"}, and nothing else`
		}
		said.Add("recipient", *recipient)
	default:
		return http.StatusUnsupportedMediaType, `the body should be a form, recipient=alice, or application/json, {"recipient": "alice"}`
	}
	return 0, ""
}

// theRecipient is the only thing said, once.
func theRecipient(said url.Values) (recipient, wrong string) {
	given := said["recipient"]
	switch {
	case len(said) == 0:
		return "", "say whose streams to end: recipient=alice, a user or a group's key"
	case len(given) == 0 || len(said) > 1:
		return "", "recipient is all that can be said: leave the rest out"
	case len(given) > 1:
		return "", "give recipient once, in the query or in the body"
	}
	if err := feed.CheckRecipient(given[0]); err != nil {
		return "", "the recipient " + err.Error()
	}
	return given[0], ""
}
