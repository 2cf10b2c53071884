package listener

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"
)

// parseMessage reads what somebody sent with NOTIFY. An object with data, recipient or event is an envelope and must be a
// right one, because a typing error must not reach everyone. Any other JSON object is itself the data, and any other text is
// sent as a JSON string, both to everyone.
func parseMessage(payload string) (Message, error) {
	message := Message{Event: "message"}
	var keys map[string]json.RawMessage
	if json.Unmarshal([]byte(payload), &keys) != nil || keys == nil {
		text, err := json.Marshal(payload)
		message.Data = text
		return message, err
	}
	if keys["data"] == nil && keys["recipient"] == nil && keys["event"] == nil {
		return message, compact(&message, []byte(payload))
	}
	return message, message.open(keys)
}

// open takes an envelope apart.
func (m *Message) open(envelope map[string]json.RawMessage) error {
	if envelope["data"] == nil {
		return errors.New(`envelope has no "data"`)
	}
	for key, value := range envelope {
		var err error
		switch key {
		case "data":
			err = compact(m, value)
		case "recipient":
			err = takeText(&m.Recipient, value, checkRecipient)
		case "event":
			err = takeText(&m.Event, value, checkEvent)
		default:
			err = errors.New("is not one of data, recipient, event")
		}
		if err != nil {
			return fmt.Errorf("envelope's %q %w", key, err)
		}
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
	switch {
	case len(text) < 1 || len(text) > 128:
		return errors.New("is not 1 to 128 bytes long")
	case strings.ContainsAny(text, "\r\n\x00"):
		return errors.New("has a line break or NUL")
	case text == "error" || text == "open" || strings.HasPrefix(text, "rowcast."):
		return errors.New("is reserved")
	case !utf8.ValidString(text):
		return errors.New("is not UTF-8")
	}
	return nil
}
