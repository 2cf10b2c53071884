package auth

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"regexp"
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
// GroupMark.Grant denies the recipient or the groups. Any other error wraps errEndpoint. No error quotes the body of
// the response.
func readResponse(response *http.Response, sent time.Time, mark GroupMark) (answer, error) {
	switch status := response.StatusCode; {
	case status == http.StatusOK:
	case status == http.StatusUnauthorized:
		return answer{}, unauthorized("not signed in: the app answered 401")
	case status == http.StatusForbidden:
		return answer{}, forbidden("not allowed: the app answered 403")
	case status/100 == 3:
		return answer{}, fmt.Errorf("%w: it redirected (%d) instead of answering 401 itself", errEndpoint, status)
	case status == http.StatusNotFound:
		return answer{}, fmt.Errorf("%w: it answered 404: the app has no such path", errEndpoint)
	case status == http.StatusMethodNotAllowed:
		return answer{}, fmt.Errorf("%w: it answered 405: the app must accept GET at this path", errEndpoint)
	case status/100 == 2:
		return answer{}, fmt.Errorf("%w: it answered %d instead of 200", errEndpoint, status)
	default:
		return answer{}, fmt.Errorf("%w: it answered %d", errEndpoint, status)
	}
	body, err := readBody(response.Body)
	if err != nil {
		return answer{}, fmt.Errorf("%w: %w", errEndpoint, err)
	}
	grant, err := mark.Grant(body.recipient, body.groups)
	grant.Known = sent
	lifetime := time.Duration(min(body.expiresIn, maxLifetime.Seconds()) * float64(time.Second))
	return answer{grant, lifetime, sent.Add(lifetime)}, err
}

// A body is the JSON object of an answer. Other keys of the object are ignored, but no key may occur twice.
type body struct {
	recipient string
	groups    []string
	expiresIn float64 // seconds
}

// example is a valid body. Error messages quote it.
const example = `{"recipient": "alice", "groups": ["team:7"], "expires_in": 300}`

// readBody reads the body of an answer. An error says what is wrong with the body, and does not quote it.
func readBody(from io.Reader) (b body, err error) {
	values, err := readObject(from)
	if err != nil {
		return b, err
	}
	if b.recipient, err = readRecipient(values["recipient"]); err != nil {
		return b, err
	}
	if b.groups, err = readGroups(values["groups"]); err != nil {
		return b, err
	}
	b.expiresIn, err = readExpiresIn(values["expires_in"])
	return b, err
}

// readObject returns the values of the keys recipient, groups and expires_in. A key that is missing has no value.
func readObject(from io.Reader) (map[string]json.RawMessage, error) {
	text, err := io.ReadAll(http.MaxBytesReader(nil, io.NopCloser(from), maxAnswer))
	if _, long := errors.AsType[*http.MaxBytesError](err); long {
		return nil, fmt.Errorf("the body is longer than %d KiB", maxAnswer>>10)
	}
	if err != nil {
		return nil, errors.New("the body was cut off")
	}
	members, err := strictjson.Members(bytes.NewReader(text))
	if errors.Is(err, strictjson.ErrNotObject) {
		return nil, fmt.Errorf("%s: answer with an object such as %s", notObject(bytes.TrimSpace(text)), example)
	}
	values := make(map[string]json.RawMessage)
	for _, m := range members {
		for _, key := range []string{"recipient", "groups", "expires_in"} {
			switch {
			case m.Key == key && values[key] != nil:
				return nil, fmt.Errorf("%s occurs twice", key)
			case m.Key == key:
				values[key] = m.Value
			}
		}
	}
	if err != nil {
		return nil, errors.New("a key of the body occurs twice")
	}
	return values, nil
}

// notObject describes a body that is not a JSON object.
func notObject(text []byte) string {
	switch {
	case len(text) == 0:
		return "the body is empty"
	case text[0] == '<':
		return "the body is HTML or XML instead of JSON"
	case json.Valid(text):
		return "the body is " + kindOf(text) + " instead of an object"
	case text[0] == '{':
		return "the body is not valid JSON, or text follows the object"
	}
	return "the body is not valid JSON"
}

var integer = regexp.MustCompile(`^(0|-?[1-9][0-9]*)$`)

// readRecipient reads text, or an integer such as the key of a row.
func readRecipient(value json.RawMessage) (recipient string, err error) {
	switch kind := kindOf(value); {
	case integer.Match(value):
		return string(value), nil
	case kind == "a number":
		return "", errors.New("recipient is a number with a fraction or an exponent: send text or an integer")
	case kind == "missing":
		return "", errors.New("recipient is missing (keys are case-sensitive)")
	case kind != "text":
		return "", fmt.Errorf("recipient is %s: send text or an integer", kind)
	}
	if err := json.Unmarshal(value, &recipient); err != nil || recipient == "" {
		return "", errors.New("recipient is empty")
	}
	return recipient, nil
}

// readGroups reads an array of strings. It may be null or missing.
func readGroups(value json.RawMessage) (groups []string, err error) {
	switch kind := kindOf(value); kind {
	case "missing", "null":
		return nil, nil
	case "an array":
	default:
		return nil, fmt.Errorf("groups is %s: send an array of text", kind)
	}
	var elements []json.RawMessage
	if err := json.Unmarshal(value, &elements); err != nil {
		return nil, errors.New("groups cannot be read")
	}
	for i, element := range elements {
		var group string
		if kind := kindOf(element); kind != "text" || json.Unmarshal(element, &group) != nil {
			return nil, fmt.Errorf("element %d of groups is %s: send an array of text", i+1, kind)
		}
		groups = append(groups, group)
	}
	return groups, nil
}

func readExpiresIn(value json.RawMessage) (seconds float64, err error) {
	switch kind := kindOf(value); {
	case kind == "missing":
		return 0, errors.New("expires_in is missing (keys are case-sensitive)")
	case kind != "a number":
		return 0, fmt.Errorf("expires_in is %s: send a number of seconds", kind)
	case json.Unmarshal(value, &seconds) != nil:
		return 0, errors.New("expires_in is too large")
	case seconds < 1:
		return 0, errors.New("expires_in is less than 1 second")
	}
	return seconds, nil
}

// kindOf names the kind of a JSON value.
func kindOf(value json.RawMessage) string {
	if len(value) == 0 {
		return "missing"
	}
	switch value[0] {
	case '"':
		return "text"
	case '{':
		return "an object"
	case '[':
		return "an array"
	case 't', 'f':
		return "a boolean"
	case 'n':
		return "null"
	}
	return "a number"
}
