package cursor_test

import (
	"testing"

	"rowcast/listener/cursor"
)

// A tag is the first 32 bits of a SHA-256. The wanted tags were computed with the program sha256sum.
func TestTags(t *testing.T) {
	t.Parallel()
	for content, want := range map[string]string{"": "e3b0c442", "abc": "ba7816bf", "77 817000000123456": "6bfff2f2"} {
		tag := cursor.NewTag(content)
		if got := tag.String(); got != want {
			t.Errorf("%q: got %s, want %s", content, got, want)
		}
		if parsed, err := cursor.ParseTag(want); parsed != tag || err != nil {
			t.Errorf("ParseTag(%q): got %s, %v, want %s", want, parsed, err, tag)
		}
	}
	if got := cursor.Tag(0xabc).String(); got != "00000abc" {
		t.Errorf("Tag(0xabc): got %s, want 00000abc", got)
	}
}

// The anchor tag is the tag of the id and of created_at, in microseconds since 2000. The microseconds are negative
// before 2000.
func TestAnchorTag(t *testing.T) {
	t.Parallel()
	for content, got := range map[string]cursor.Tag{
		"77 817000000123456": cursor.AnchorTag(77, 817000000123456),
		"1 0":                cursor.AnchorTag(1, 0),
		"9223372036854775807 -9223372036854775808": cursor.AnchorTag(1<<63-1, -1<<63),
	} {
		if want := cursor.NewTag(content); got != want {
			t.Errorf("%s: got %s, want %s", content, got, want)
		}
	}
}

func TestMalformedTags(t *testing.T) {
	t.Parallel()
	for _, text := range []string{
		"", "e3b0c44", "e3b0c4422", "E3B0C442", "e3b0c44g", "+3b0c442", "0xe3b0c4", "e3b0_442", " 3b0c442", "e3b0c44\n",
	} {
		if tag, err := cursor.ParseTag(text); err == nil || tag != 0 {
			t.Errorf("ParseTag(%q): got %s, %v, want 00000000 and an error", text, tag, err)
		}
	}
}
