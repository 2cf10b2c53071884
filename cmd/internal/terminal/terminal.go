// Package terminal makes texts from other programs safe to print on a terminal.
package terminal

import (
	"fmt"
	"strings"
	"unicode"
)

// OneLine returns the text of an error as one line without control characters.
func OneLine(err error) string { return Printable(strings.Join(strings.Fields(err.Error()), " ")) }

// Printable returns text as one line that does not control the terminal. Line ends at the end of text are removed. The
// characters that isControl reports are escaped as in \u001b, and bytes that are not valid UTF-8 are replaced.
func Printable(text string) string {
	text = strings.ToValidUTF8(strings.TrimRight(text, "\r\n"), "\ufffd")
	if !HasControl(text) {
		return text
	}
	var safe strings.Builder
	for _, r := range text {
		if isControl(r) {
			fmt.Fprintf(&safe, `\u%04x`, r)
		} else {
			safe.WriteRune(r)
		}
	}
	return safe.String()
}

// HasControl reports whether text contains a character that Printable escapes.
func HasControl(text string) bool { return strings.ContainsFunc(text, isControl) }

// isControl reports whether r is a control character, a line or paragraph separator, or a mark that changes the
// direction of the text after it.
func isControl(r rune) bool {
	return unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029'
}

// ShellQuote quotes text for a POSIX shell, if it needs quotes.
func ShellQuote(text string) string {
	const plain = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789@%+=:,./_-"
	if text != "" && strings.Trim(text, plain) == "" {
		return text
	}
	return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'"
}
