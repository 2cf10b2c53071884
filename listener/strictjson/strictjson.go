// Package strictjson reads JSON objects whose keys must be unambiguous, because most of these objects decide which
// clients receive something. Keys are case-sensitive, and no key may occur twice. Objects inside the values are not
// checked. [encoding/json] alone would accept RECIPIENT as recipient, and would use the last value of a key that occurs
// twice. An attacker who can add a key to such an object could then, for example, change the recipient.
package strictjson

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
)

// ErrNotObject reports that the text is not exactly one JSON object.
var ErrNotObject = errors.New("not a JSON object")

// ErrTwice reports that a key occurs twice.
var ErrTwice = errors.New("occurs twice")

// A Member is a key of an object with its value.
type Member struct {
	Key   string
	Value json.RawMessage
}

// Members reads a text that is one JSON object, and returns its members in the order of the text. If a key occurs
// twice, Members returns all members and an error that wraps [ErrTwice] and names the key. If the text is not exactly
// one object, or cannot be read, Members returns [ErrNotObject].
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
		m.Key = key.(string) // a token of another type would be a syntax error here
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
