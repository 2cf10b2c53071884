package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"rowcast/listener/strictjson"
	"rowcast/stream"
)

// An answer records that the app's endpoint has accepted a client.
type answer struct {
	grant    stream.Grant
	lifetime time.Duration
	until    time.Time // when the lifetime ends
}

// errEndpoint reports that the endpoint sent no answer, or an answer that is not as documented.
var errEndpoint = errors.New("no usable answer from the app")

const (
	maxAnswer   = 64 << 10       // bytes
	maxLifetime = 24 * time.Hour // a longer expires_in is shortened to this
)

// readResponse returns the answer of a response. The error is a [Denial] if the status is 401 or 403, or if
// GroupMark.Grant denies the recipient or the groups. Any other error wraps errEndpoint. No error quotes the body of the response.
func readResponse(response *http.Response, sent time.Time, mark GroupMark) (answer, error) {
	switch status := response.StatusCode; {
	case status == http.StatusOK:
	case status == http.StatusUnauthorized:
		return answer{}, unauthorized("not signed in: the app answered 401")
	case status == http.StatusForbidden:
		return answer{}, forbidden("not allowed: the app answered 403")
	case status/100 == 3:
		return answer{}, fmt.Errorf("%w: it redirected (%d) instead of answering 401 itself", errEndpoint, status)
	default:
		return answer{}, fmt.Errorf("%w: it answered %d", errEndpoint, status)
	}
	body, err := readBody(http.MaxBytesReader(nil, response.Body, maxAnswer))
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errEndpoint, err)
	}
	grant, err := mark.Grant(body.recipient, body.groups)
	grant.Known = sent
	lifetime := time.Duration(min(body.expiresIn, maxLifetime.Seconds()) * float64(time.Second))
	return answer{grant, lifetime, sent.Add(lifetime)}, err
}

// A body is the JSON object of an answer. Other keys of the object are ignored.
type body struct {
	recipient string
	groups    []string
	expiresIn float64 // seconds
}

func readBody(r io.Reader) (b body, err error) {
	members, err := strictjson.Members(r)
	if err != nil {
		return b, errors.New(`the body is not exactly one JSON object with different keys, such as {"recipient": "alice", "groups": ["team:7"], "expires_in": 300}`)
	}
	into := map[string]any{"recipient": &b.recipient, "groups": &b.groups, "expires_in": &b.expiresIn}
	for _, m := range members {
		if field := into[m.Key]; field != nil && json.Unmarshal(m.Value, field) != nil {
			return b, fmt.Errorf("%s has a wrong type", m.Key)
		}
	}
	if b.recipient == "" {
		return b, errors.New("recipient is missing or empty")
	}
	if !(b.expiresIn >= 1) {
		return b, errors.New("expires_in is missing or less than 1 second")
	}
	return b, nil
}
