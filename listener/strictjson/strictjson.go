// Package strictjson reads JSON objects whose keys decide who receives something. A key counts only as it is written, and only once:
// [encoding/json] takes RECIPIENT for recipient and the last of two values, which anybody who can write into the text could have added.
package strictjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrNotObject reports that the text is not one JSON object and nothing else.
var ErrNotObject = errors.New("not a JSON object")

// ErrTwice reports that a key occurs twice.
var ErrTwice = errors.New("occurs twice")

// A Member is one key of an object with its value.
type Member struct {
	Key   string
	Value json.RawMessage
}

// Members reads the only object of a text. The members are in the order of the text. If a key occurs twice, Members returns all members
// and an [ErrTwice] that names the key.
func Members(text io.Reader) (members []Member, err error) {
	decoder := json.NewDecoder(text)
	if begin, err := decoder.Token(); err != nil || begin != json.Delim('{') {
		return nil, ErrNotObject
	}
	seen := make(map[string]bool)
	var twice error
	for decoder.More() {
		m := Member{}
		key, err := decoder.Token()
		if err != nil {
			return nil, ErrNotObject
		}
		m.Key = key.(string) // anything else in this place is a syntax error
		if decoder.Decode(&m.Value) != nil {
			return nil, ErrNotObject
		}
		if seen[m.Key] {
			twice = fmt.Errorf("%q %w", m.Key, ErrTwice)
		}
		seen[m.Key] = true
		members = append(members, m)
	}
	if _, err := decoder.Token(); err != nil { // the object's end
		return nil, ErrNotObject
	}
	if _, err := decoder.Token(); !errors.Is(err, io.EOF) {
		return nil, ErrNotObject
	}
	return members, twice
}
