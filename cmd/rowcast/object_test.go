package main

import (
	"strings"
	"testing"
)

func TestReadObject(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]struct{ alone, withOthers bool }{
		`{}`:                 {true, true},
		` {"a": 1} `:         {true, true},
		`{"b": {"a": 2}}`:    {false, true},
		`{"A": 1}`:           {false, true},
		`{"a": "1"}`:         {},
		`{"a": 1, "a": 2}`:   {},
		`{"a":1,"\u0061":2}`: {},
		`{"a": 1} x`:         {},
		`{"a": 1}{}`:         {},
		`{"a": 1`:            {},
		`{"a": 1,}`:          {},
		`{"a" 1}`:            {},
		`{"a":}`:             {},
		`{1: 1}`:             {},
		`{true: 1}`:          {},
		`{{}: 1}`:            {},
		`[]`:                 {},
		`null`:               {},
		``:                   {},
	} {
		for others, want := range map[bool]bool{false: want.alone, true: want.withOthers} {
			var a int
			if got := readObject(strings.NewReader(text), map[string]any{"a": &a}, others); got != want {
				t.Errorf("%s, others %t: got %t", text, others, got)
			}
		}
	}
}
