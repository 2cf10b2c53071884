package strictjson_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"rowcast/listener/strictjson"
)

// Members returns the members of a text that is exactly one object. It reports a key that occurs twice.
func TestMembers(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		`{}`:                        "",
		` {"a": 1} `:                "a=1 ",
		`{"b": {"a": 2}, "a":[ 1]}`: `b={"a": 2} a=[ 1] `,
		`{"A": 1, "a": 2}`:          "A=1 a=2 ",
		`{"a": "1"}` + "\r\n\t ":    `a="1" `,
		`{"a": 1, "a": 2}`:          `a=1 a=2 "a" occurs twice`,
		`{"a":1,"\u0061":2}`:        `a=1 a=2 "a" occurs twice`,
		`{"a": 1} x`:                "no object",
		`{"a": 1}{}`:                "no object",
		`{"a": 1`:                   "no object",
		`{"a": 1,}`:                 "no object",
		`{"a" 1}`:                   "no object",
		`{"a":}`:                    "no object",
		`{1: 1}`:                    "no object",
		`{true: 1}`:                 "no object",
		`{{}: 1}`:                   "no object",
		`[]`:                        "no object",
		`null`:                      "no object",
		``:                          "no object",
	} {
		got := ""
		members, err := strictjson.Members(strings.NewReader(text))
		for _, m := range members {
			got += fmt.Sprintf("%s=%s ", m.Key, m.Value)
		}
		switch {
		case errors.Is(err, strictjson.ErrNotObject):
			got = "no object"
		case err != nil:
			got += err.Error()
		}
		if got != want {
			t.Errorf("%s: got %q, want %q", text, got, want)
		}
	}
}
