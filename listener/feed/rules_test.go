package feed_test

import (
	"strings"
	"testing"

	"rowcast/listener/feed"
)

func TestCheckRecipient(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"alice":                  "",
		"team:7":                 "",
		feed.Everyone:            "",
		" \u202eé*":              "",
		strings.Repeat("x", 256): "",
		"":                       "is empty",
		strings.Repeat("x", 257): "is longer than 256 bytes",
		strings.Repeat("é", 129): "is longer than 256 bytes",
		"alice\n":                "contains a control character",
		"a\x00":                  "contains a control character",
		"a\u0085":                "contains a control character",
		"rowcast.inbox:alice":    `begins with "rowcast.", which is reserved`,
		"rowcast.":               `begins with "rowcast.", which is reserved`,
		"rowcast":                "",
		"Rowcast.x":              "",
		"a\xff":                  "is not valid UTF-8",
		"not a pair: \ufffd":     "is not valid UTF-8", // a JSON decoder puts U+FFFD in place of half a surrogate pair
	} {
		if got := errorText(feed.CheckRecipient(text)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestCheckIdentity(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"alice":  "",
		"team:7": "",
		"**":     "",
		"*":      `is "*", which means everyone`,
		"":       "is empty",
		"a\n":    "contains a control character",
	} {
		if got := errorText(feed.CheckIdentity(text)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func TestCheckEvent(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"message":                "",
		"a b: c":                 "",
		strings.Repeat("x", 128): "",
		"":                       "is empty",
		strings.Repeat("x", 129): "is longer than 128 bytes",
		"a\r":                    "contains a line break or NUL",
		"a\nb":                   "contains a line break or NUL",
		"a\x00":                  "contains a line break or NUL",
		"a\xff":                  "is not valid UTF-8",
		"error":                  "is reserved",
		"open":                   "is reserved",
		"rowcast.bye":            "is reserved",
	} {
		if got := errorText(feed.CheckEvent(text)); got != want {
			t.Errorf("%q: got %q, want %q", text, got, want)
		}
	}
}

func errorText(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}
