package main

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"rowcast/stream"
)

// appAnswer is what the app says of credentials.
type appAnswer struct {
	grant    stream.Grant
	lifetime time.Duration
	until    time.Time
}

// errAppAway says that the app does not answer as it should.
var errAppAway = errors.New("--auth-url does not answer as it should")

const (
	maxAnswer   = 64 << 10       // bytes
	maxLifetime = 24 * time.Hour // for which the app's word counts at most
)

// judge reads the app's answer. Only a clear no is a denial. No error quotes the answer.
func (a *app) judge(response *http.Response, asked time.Time) (appAnswer, error) {
	switch status := response.StatusCode; {
	case status == http.StatusOK:
	case status == http.StatusUnauthorized:
		return appAnswer{}, unauthorized("the app does not know who you are")
	case status == http.StatusForbidden:
		return appAnswer{}, forbidden("the app does not let you listen")
	case status/100 == 3:
		return appAnswer{}, fmt.Errorf("%w: it redirects (%d), where it shall answer 401 itself", errAppAway, status)
	default:
		return appAnswer{}, fmt.Errorf("%w: it says %d", errAppAway, status)
	}
	says, ok := readAnswer(http.MaxBytesReader(nil, response.Body, maxAnswer))
	if !ok {
		return appAnswer{}, fmt.Errorf(`%w: not just JSON as {"recipient": "alice", "groups": ["team:7"], "expires_in": 300}`, errAppAway)
	}
	if says.recipient == "" || !(says.expiresIn >= 1) {
		return appAnswer{}, fmt.Errorf("%w: it says no recipient, or expires_in is less than a second", errAppAway)
	}
	grant, err := a.mark.grant(says.recipient, says.groups)
	grant.Known = asked
	lifetime := time.Duration(min(says.expiresIn, maxLifetime.Seconds()) * float64(time.Second))
	return appAnswer{grant, lifetime, asked.Add(lifetime)}, err
}

// said is what an answer says in so many words.
type said struct {
	recipient string
	groups    []string
	expiresIn float64 // seconds
}

// readAnswer takes what an answer says, and leaves other keys: they are the app's own.
func readAnswer(body io.Reader) (s said, ok bool) {
	ok = readObject(body, map[string]any{"recipient": &s.recipient, "groups": &s.groups, "expires_in": &s.expiresIn}, true)
	return s, ok
}
