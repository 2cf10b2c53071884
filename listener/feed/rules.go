// Package feed has the types that the listener delivers to a hub, and the rules for recipients and events. The rules
// apply, for example, to messages sent with NOTIFY and to authentication. The constraints of the table are nearly the
// same (see sql/README.md).
package feed

import (
	"errors"
	"fmt"
	"strings"
	"unicode"
	"unicode/utf8"
)

const (
	// Everyone is the recipient of rows and messages that every stream receives.
	Everyone = "*"
	// MaxRecipient is the largest length of a recipient, in bytes.
	MaxRecipient = 256
	// MaxEvent is the largest length of an event's name, in bytes.
	MaxEvent = 128
	// Reserved is the beginning of the recipients that are reserved for rowcast, such as the recipients of [InboxOf].
	Reserved = "rowcast."
)

// CheckRecipient returns an error if a client or an app must not use text as a recipient. Spaces and invisible
// characters such as U+202E are allowed: "alice " and "alice" are two recipients. Text that begins with [Reserved] is
// refused, because a user with such a name could read what changes in the inbox of another user.
func CheckRecipient(text string) error {
	switch {
	case text == "":
		return errors.New("is empty")
	case len(text) > MaxRecipient:
		return fmt.Errorf("is longer than %d bytes", MaxRecipient)
	case !isText(text):
		return errors.New("is not valid UTF-8")
	case strings.ContainsFunc(text, unicode.IsControl):
		return errors.New("contains a control character")
	case strings.HasPrefix(text, Reserved):
		return fmt.Errorf("begins with %q, which is reserved", Reserved)
	}
	return nil
}

// CheckIdentity returns an error if text cannot be the id of a user or the name of a group. It refuses [Everyone], and
// what [CheckRecipient] refuses.
func CheckIdentity(text string) error {
	if text == Everyone {
		return fmt.Errorf("is %q, which means everyone", Everyone)
	}
	return CheckRecipient(text)
}

// CheckEvent returns an error if text cannot be the name of an event.
func CheckEvent(text string) error {
	if len(text) > MaxEvent {
		return fmt.Errorf("is longer than %d bytes", MaxEvent)
	}
	return CheckName(text)
}

// CheckName does the same as CheckEvent, but does not check the length. It is for names from the table, whose length
// was checked in the encoding of the database.
func CheckName(text string) error {
	switch {
	case text == "":
		return errors.New("is empty")
	case !utf8.ValidString(text):
		return errors.New("is not valid UTF-8")
	case strings.ContainsAny(text, "\r\n\x00"):
		return errors.New("contains a line break or NUL")
	case text == "error" || text == "open" || strings.HasPrefix(text, "rowcast."):
		return errors.New("is reserved")
	}
	return nil
}

// isText reports whether text is valid UTF-8 without U+FFFD. A JSON decoder replaces invalid bytes by U+FFFD, so a text
// with U+FFFD may have been invalid.
func isText(text string) bool {
	return utf8.ValidString(text) && !strings.ContainsRune(text, utf8.RuneError)
}
