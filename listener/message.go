package listener

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
	"unicode"
	"unicode/utf8"

	"rowcast/listener/feed"
	"rowcast/listener/strictjson"
)

// parseMessage reads the payload of a NOTIFY. An object with the key data, recipient or event is an envelope, and
// must be a correct one: a typing error must not send a message to everyone. For the same reason, an envelope must name
// its recipient, and a payload that begins with "{" must be a JSON object. Only the white space of JSON may come before
// the "{", because a byte order mark must not turn an envelope into text. Any other object is the data itself, and any
// other text is sent as a JSON string. Both are sent to everyone.
func parseMessage(payload string) (feed.Message, error) {
	message := feed.Message{Recipient: feed.Everyone, Event: "message"}
	visible := strings.TrimLeftFunc(payload, isInvisible)
	if !strings.HasPrefix(visible, "{") {
		text, err := json.Marshal(payload)
		message.Data = text
		return message, err
	}
	if before := strings.TrimLeft(strings.TrimSuffix(payload, visible), " \t\r\n"); before != "" {
		first, _ := utf8.DecodeRuneInString(before)
		return message, fmt.Errorf(`the payload has the character %U before the "{": remove it`, first)
	}
	members, err := strictjson.Members(strings.NewReader(payload))
	switch {
	case errors.Is(err, strictjson.ErrNotObject):
		return message, errors.New(`the payload begins with "{" and is not a JSON object`)
	case !slices.ContainsFunc(members, isEnvelopeKey):
		return message, compact(&message, []byte(payload))
	case err != nil:
		return message, fmt.Errorf("the envelope's %w", err)
	}
	return message, openEnvelope(&message, members)
}

// isInvisible reports whether a character is usually not shown: white space, a control character, a byte order mark, or
// another character that has no form or that Unicode lets programs ignore. It also returns true for an invalid byte.
func isInvisible(r rune) bool {
	return r == utf8.RuneError || !unicode.IsGraphic(r) ||
		unicode.In(r, unicode.White_Space, unicode.Other_Default_Ignorable_Code_Point, unicode.Variation_Selector)
}

// isEnvelopeKey reports whether a key marks the object as an envelope. It ignores case, because "Recipient" is more
// likely a typing error than a key of data.
func isEnvelopeKey(m strictjson.Member) bool {
	return strings.EqualFold(m.Key, "data") || strings.EqualFold(m.Key, "recipient") || strings.EqualFold(m.Key, "event")
}

// openEnvelope fills m from the members of an envelope.
func openEnvelope(m *feed.Message, envelope []strictjson.Member) error {
	m.Recipient = ""
	for _, member := range envelope {
		var err error
		switch member.Key {
		case "data":
			err = compact(m, member.Value)
		case "recipient":
			err = takeText(&m.Recipient, member.Value, feed.CheckRecipient)
		case "event":
			err = takeText(&m.Event, member.Value, feed.CheckEvent)
		default:
			err = errors.New("is not one of data, recipient, event")
		}
		if err != nil {
			return fmt.Errorf("the envelope's %q %w", member.Key, err)
		}
	}
	switch {
	case m.Data == nil:
		return errors.New(`the envelope has no "data"`)
	case m.Recipient == "":
		return fmt.Errorf(`the envelope has no "recipient"; to send to everyone, set it to %q`, feed.Everyone)
	}
	return nil
}

// compact sets the data of a message, without line breaks.
func compact(m *feed.Message, data []byte) error {
	var line bytes.Buffer
	if err := json.Compact(&line, data); err != nil {
		return err
	}
	m.Data = line.Bytes()
	return nil
}

// takeText sets field to a JSON string that check accepts. It leaves field as it is for null, and returns an error for
// any other value.
func takeText(field *string, value json.RawMessage, check func(string) error) error {
	var text *string
	if json.Unmarshal(value, &text) != nil {
		return errors.New("is not a string")
	}
	if text == nil { // null is the same as no value
		return nil
	}
	if err := check(*text); err != nil {
		return err
	}
	*field = *text
	return nil
}
