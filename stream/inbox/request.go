package inbox

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"mime"
	"net/http"
	"net/url"
	"os"
	"strconv"
	"strings"

	"rowcast/listener/strictjson"
	"rowcast/stream"
)

// A call is a function that calls List, Mark or Undo of a Store with the values of a request.
type call func(context.Context, Store, stream.Grant) (json.RawMessage, error)

const (
	defaultLimit = 20
	maxLimit     = 100
	maxIDs       = 1000
	maxBody      = 64 << 10 // bytes
)

// parse reads a request and returns its call. The error is a problem, unless the client has disconnected.
func parse(w http.ResponseWriter, r *http.Request, action string) (call, error) {
	if action == list {
		return parseList(r.URL.Query())
	}
	body, err := readBody(w, r)
	if err != nil {
		return nil, err
	}
	if action == undo {
		return parseUndo(body)
	}
	return parseMark(action, body)
}

// checkUser refuses a request of a page that was loaded for another user. A page stays open when another user signs in
// in another tab of the same browser. The requests of the page then have the cookie of the new user.
func checkUser(query url.Values, grant stream.Grant) error {
	for _, user := range query["user"] {
		if user != grant.User {
			return problem{status: http.StatusPreconditionFailed, text: "the credential belongs to another user now: load the page again"}
		}
	}
	return nil
}

// parseList reads the query of a request for the list.
func parseList(query url.Values) (call, error) {
	for _, name := range []string{"limit", "before"} {
		if len(query[name]) > 1 {
			return nil, badRequest("send " + name + " only once")
		}
	}
	limit, before := defaultLimit, query.Get("before")
	if query.Has("limit") {
		var err error
		if limit, err = strconv.Atoi(query.Get("limit")); err != nil || limit < 1 || limit > maxLimit {
			return nil, badRequest(fmt.Sprintf("limit must be a number from 1 to %d", maxLimit))
		}
	}
	if query.Has("before") && !isValue(before) {
		return nil, badRequest("before must be the value of before in the answer with the previous page")
	}
	return func(ctx context.Context, s Store, g stream.Grant) (json.RawMessage, error) {
		return s.List(ctx, g.User, g.Groups, limit, before)
	}, nil
}

// isValue reports whether text may be a value from an earlier answer. Such a value is not empty, and is UTF-8 without
// NUL.
func isValue(text string) bool {
	return text != "" && strings.ToValidUTF8(text, "") == text && !strings.Contains(text, "\x00")
}

// readBody returns the body, which must have the type application/json. A page of another origin can send this type
// only if the hub has allowed it in the answer to a preflight request.
func readBody(w http.ResponseWriter, r *http.Request) ([]byte, error) {
	if kind, _, err := mime.ParseMediaType(r.Header.Get("Content-Type")); err != nil || kind != "application/json" {
		return nil, problem{status: http.StatusUnsupportedMediaType, text: "send JSON with the header Content-Type: application/json"}
	}
	body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, maxBody))
	switch _, long := errors.AsType[*http.MaxBytesError](err); {
	case long:
		return nil, problem{status: http.StatusRequestEntityTooLarge, text: fmt.Sprintf("the body is longer than %d KiB: send at most %d ids at once", maxBody>>10, maxIDs)}
	case errors.Is(err, os.ErrDeadlineExceeded): // before the next case, because an expired deadline also ends the context of the request
		return nil, problem{status: http.StatusRequestTimeout, text: "the body did not arrive in time"}
	case err != nil && r.Context().Err() != nil:
		return nil, r.Context().Err()
	case err != nil:
		return nil, badRequest("cannot read the body to its end")
	}
	return body, nil
}

// parseUndo reads the body of a request to undo a change.
func parseUndo(body []byte) (call, error) {
	const want = `send {"undo": "…"} with the value of undo in an answer of read or archive`
	_, value, err := onlyMember(body, want, undo)
	if err != nil {
		return nil, err
	}
	text, ok := textOf(value)
	if !ok {
		return nil, badRequest("undo has a wrong value: " + want)
	}
	return func(ctx context.Context, s Store, g stream.Grant) (json.RawMessage, error) {
		return s.Undo(ctx, g.User, g.Groups, text)
	}, nil
}

// parseMark reads the body of a request to change the state of rows.
func parseMark(action string, body []byte) (call, error) {
	want, keys := `send {"ids": ["1", "2"]}`, []string{"ids"}
	if action != "unread" && action != "unarchive" {
		want, keys = want+` or {"all": "…"} with the cursor of the list that was shown`, append(keys, "all")
	}
	key, value, err := onlyMember(body, want, keys...)
	if err != nil {
		return nil, err
	}
	var ids []int64
	var upTo string
	if key == "ids" {
		ids, err = idsOf(value)
	} else if text, ok := textOf(value); ok {
		upTo = text
	} else {
		err = badRequest("all has a wrong value: " + want)
	}
	if err != nil {
		return nil, err
	}
	return func(ctx context.Context, s Store, g stream.Grant) (json.RawMessage, error) {
		return s.Mark(ctx, g.User, g.Groups, action, ids, upTo)
	}, nil
}

// onlyMember returns the only member of a JSON object, which must have one of the keys. want says what the body must
// be.
func onlyMember(body []byte, want string, keys ...string) (key string, value json.RawMessage, err error) {
	members, err := strictjson.Members(bytes.NewReader(body))
	switch {
	case errors.Is(err, strictjson.ErrNotObject):
		return "", nil, badRequest("the body is not a JSON object: " + want)
	case err != nil:
		return "", nil, badRequest("a key of the body occurs twice: " + want)
	case len(members) != 1:
		return "", nil, badRequest(fmt.Sprintf("the body has %d keys, and must have one: %s", len(members), want))
	}
	for _, key := range keys {
		if members[0].Key == key {
			return key, members[0].Value, nil
		}
	}
	return "", nil, badRequest(fmt.Sprintf("the body has the unknown key %.40q: %s", members[0].Key, want))
}

// textOf decodes a JSON string that may be a value from an earlier answer.
func textOf(value json.RawMessage) (text string, ok bool) {
	if value[0] != '"' || json.Unmarshal(value, &text) != nil {
		return "", false
	}
	return text, isValue(text)
}

// idsOf returns the ids in a JSON array of strings.
func idsOf(value json.RawMessage) ([]int64, error) {
	var elements []json.RawMessage
	if value[0] != '[' || json.Unmarshal(value, &elements) != nil {
		return nil, badRequest(`ids is not an array: send ids such as ["1", "2"]`)
	}
	if len(elements) == 0 || len(elements) > maxIDs {
		return nil, badRequest(fmt.Sprintf("ids has %d elements, and must have from 1 to %d", len(elements), maxIDs))
	}
	ids := make([]int64, len(elements))
	for i, element := range elements {
		text, ok := textOf(element)
		id, err := strconv.ParseInt(text, 10, 64)
		if !ok || err != nil || strconv.FormatInt(id, 10) != text {
			return nil, badRequest(fmt.Sprintf("element %d of ids is not an id: send ids as text, such as \"1\"", i+1))
		}
		ids[i] = id
	}
	return ids, nil
}
