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

// disconnect ends the streams of a recipient at this hub, and notifies the other hubs through PostgreSQL to do the
// same.
func (s *Server) disconnect(w http.ResponseWriter, r *http.Request) {
	recipient, status, text := recipientOf(w, r)
	if text != "" {
		beginAnswer(w)
		http.Error(w, text, status)
		return
	}
	answer := struct {
		Recipient    string `json:"recipient"`
		Disconnected int    `json:"disconnected"` // the number of streams of this hub that were ended
		Error        string `json:"error,omitempty"`
	}{Recipient: recipient, Disconnected: s.Hub.Disconnect(recipient)}
	status = http.StatusOK
	// The other hubs are notified even if the caller closes the connection.
	if err := s.disconnectOthers(context.WithoutCancel(r.Context()), recipient); err != nil {
		s.Failures.Failed(failures.Disconnect, err)
		if logger, ok := s.disconnectErrors.Allow(s.Logger); ok {
			logger.Error("cannot notify other hubs to disconnect a recipient", "error", err)
		}
		answer.Error = "the other hubs could not be notified through PostgreSQL: try again"
		status = http.StatusServiceUnavailable
	} else {
		s.Failures.Succeeded(failures.Disconnect)
	}
	beginAnswer(w)
	WriteJSON(w, status, answer)
}

// refuseBrowsers is a middleware that refuses requests from web pages. An administrator can reach AdminListen, so a
// page that the administrator visits could otherwise end streams. Browsers send Origin or Sec-Fetch-Site with every
// POST.
func refuseBrowsers(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if len(r.Header["Origin"])+len(r.Header["Sec-Fetch-Site"]) > 0 {
			http.Error(w, "web pages may not disconnect users: send the request from your app's server", http.StatusForbidden)
			return
		}
		next.ServeHTTP(w, r)
	})
}

// recipientOf returns the recipient of a request to disconnect, or the status and text of an error. It refuses every
// request that it does not understand completely, because the caller relies on the user being logged out.
func recipientOf(w http.ResponseWriter, r *http.Request) (recipient string, status int, text string) {
	const maxBody = 4 << 10
	parameters, err := url.ParseQuery(r.URL.RawQuery)
	if err != nil {
		return "", http.StatusBadRequest, "cannot read the query: send recipient=alice, percent-encoded"
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	if _, long := errors.AsType[*http.MaxBytesError](err); long {
		return "", http.StatusRequestEntityTooLarge, "the body is longer than 4 KiB: send recipient=alice and nothing else"
	} else if err != nil {
		return "", http.StatusBadRequest, "cannot read the body to its end"
	}
	if status, text = addBody(parameters, r.Header.Get("Content-Type"), body); text == "" {
		recipient, text = onlyRecipient(parameters)
		status = http.StatusBadRequest
	}
	return recipient, status, text
}

// addBody adds the parameters of a body to the parameters of the query.
func addBody(parameters url.Values, contentType string, body []byte) (status int, text string) {
	if len(body) == 0 {
		return 0, ""
	}
	switch mediaType, _, _ := mime.ParseMediaType(contentType); mediaType {
	case "application/x-www-form-urlencoded":
		form, err := url.ParseQuery(string(body))
		if err != nil {
			return http.StatusBadRequest, "cannot read the form: send recipient=alice, percent-encoded"
		}
		for key, values := range form {
			parameters[key] = append(parameters[key], values...)
		}
	case "application/json":
		var recipient *string
		members, err := strictjson.Members(bytes.NewReader(body))
		if err != nil || len(members) != 1 || members[0].Key != "recipient" ||
			json.Unmarshal(members[0].Value, &recipient) != nil || recipient == nil {
			return http.StatusBadRequest, `cannot read the body: send {"recipient": "alice"} and nothing else`
		}
		parameters.Add("recipient", *recipient)
	default:
		return http.StatusUnsupportedMediaType, `unknown Content-Type: send the form recipient=alice, or {"recipient": "alice"} as application/json`
	}
	return 0, ""
}

// onlyRecipient returns the recipient, which must be the only parameter, or the text of an error.
func onlyRecipient(parameters url.Values) (recipient, text string) {
	given := parameters["recipient"]
	switch {
	case len(parameters) == 0:
		return "", "recipient is missing: send a user or a group, such as recipient=alice"
	case len(given) == 0 || len(parameters) > 1:
		return "", "unknown parameter: recipient is the only one"
	case len(given) > 1:
		return "", "send recipient only once, in the query or in the body"
	}
	if err := feed.CheckIdentity(given[0]); err != nil {
		return "", "the recipient " + err.Error()
	}
	return given[0], ""
}
