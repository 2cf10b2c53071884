package listener

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"
)

// parseMessage reads what somebody sent with NOTIFY. An object with data, recipient or event is an envelope and must be a
// right one, because a typing error must not reach everyone; nor must what begins as an object and is none, such as an envelope
// put together without escaping. Any other JSON object is itself the data, and any other text is sent as a JSON string, both to
// everyone.
func parseMessage(payload string) (Message, error) {
	message := Message{Event: "message"}
	if !strings.HasPrefix(strings.TrimSpace(payload), "{") {
		text, err := json.Marshal(payload)
		message.Data = text
		return message, err
	}
	if !json.Valid([]byte(payload)) {
		return message, errors.New(`it begins with "{" and is no JSON object`)
	}
	members, err := membersOf(payload)
	if err != nil {
		return message, err
	}
	if !slices.ContainsFunc(members, member.isEnvelopes) {
		return message, compact(&message, []byte(payload))
	}
	return message, message.open(members)
}

// A member of a JSON object. One key may have several.
type member struct {
	key   string
	value json.RawMessage
}

// isEnvelopes tells whether an object with it is an envelope, meant so at least: "Recipient" is a typing error.
func (m member) isEnvelopes() bool {
	return strings.EqualFold(m.key, "data") || strings.EqualFold(m.key, "recipient") || strings.EqualFold(m.key, "event")
}

// membersOf are those of a JSON object, in their order: a map would keep the last of a key and hide the others.
func membersOf(object string) (members []member, err error) {
	decoder := json.NewDecoder(strings.NewReader(object))
	if _, err := decoder.Token(); err != nil { // its beginning
		return nil, err
	}
	for decoder.More() {
		key, err := decoder.Token()
		if err != nil {
			return nil, err
		}
		m := member{key: key.(string)}
		if err := decoder.Decode(&m.value); err != nil {
			return nil, err
		}
		members = append(members, m)
	}
	return members, nil
}

// open takes an envelope apart.
func (m *Message) open(envelope []member) error {
	seen := make(map[string]bool)
	for _, member := range envelope {
		var err error
		switch {
		case seen[member.key]:
			err = errors.New("is there twice")
		case member.key == "data":
			err = compact(m, member.value)
		case member.key == "recipient":
			err = takeText(&m.Recipient, member.value, checkRecipient)
		case member.key == "event":
			err = takeText(&m.Event, member.value, checkEvent)
		default:
			err = errors.New("is not one of data, recipient, event")
		}
		if err != nil {
			return fmt.Errorf("envelope's %q %w", member.key, err)
		}
		seen[member.key] = true
	}
	if !seen["data"] {
		return errors.New(`envelope has no "data"`)
	}
	return nil
}

// compact makes data one line.
func compact(m *Message, data []byte) error {
	var line bytes.Buffer
	if err := json.Compact(&line, data); err != nil {
		return err
	}
	m.Data = line.Bytes()
	return nil
}

func takeText(field *string, value json.RawMessage, check func(string) error) error {
	var text *string
	if json.Unmarshal(value, &text) != nil {
		return errors.New("is not a string")
	}
	if text == nil { // null is as good as left out
		return nil
	}
	if err := check(*text); err != nil {
		return err
	}
	*field = *text
	return nil
}

// The same rules as the table's constraints.
func checkRecipient(text string) error {
	if len(text) < 1 || len(text) > 256 {
		return errors.New("is not 1 to 256 bytes long; leave it out for everyone")
	}
	return nil
}

func checkEvent(text string) error {
	if len(text) > 128 {
		return errLength
	}
	return checkName(text)
}

var errLength = errors.New("is not 1 to 128 bytes long")

// checkName checks an event's name, but not that it is too long.
func checkName(text string) error {
	switch {
	case text == "":
		return errLength
	case strings.ContainsAny(text, "\r\n\x00"):
		return errors.New("has a line break or NUL")
	case text == "error" || text == "open" || strings.HasPrefix(text, "rowcast."):
		return errors.New("is reserved")
	case !utf8.ValidString(text):
		return errors.New("is not UTF-8")
	}
	return nil
}
