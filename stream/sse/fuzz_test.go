package sse_test

import (
	"bytes"
	"io"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"rowcast/stream/sse"
)

var lineBreak = regexp.MustCompile("\r\n|\n|\r")

// reference decodes a whole stream as the standard's words go, sentence by sentence, with no regard for anything else.
func reference(stream string) (events []sse.Event) {
	stream, _ = strings.CutPrefix(stream, "\ufeff")
	lines := lineBreak.Split(stream, -1)
	lines = lines[:len(lines)-1] // what comes after the last line break is no line
	var data, eventType, lastEventID string
	for _, line := range lines {
		if line == "" {
			if data != "" {
				if eventType == "" {
					eventType = "message"
				}
				events = append(events, sse.Event{LastID: lastEventID, Name: eventType, Data: strings.TrimSuffix(data, "\n")})
			}
			data, eventType = "", ""
			continue
		}
		field, value, _ := strings.Cut(line, ":")
		value = strings.TrimPrefix(value, " ")
		if field == "data" {
			data += value + "\n"
		}
		if field == "event" {
			eventType = value
		}
		if field == "id" && !strings.Contains(value, "\x00") {
			lastEventID = value
		}
	}
	return events
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte("\ufeffid: 1\r\nevent: a\rdata: b\ndata\n\r\n"))
	f.Add([]byte("data: a\r\n\r\n\r\r\n\n:x\nid: \x00\nretry: 5\nid\n\ndata:  b\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		want := reference(string(stream))
		readers := []io.Reader{bytes.NewReader(stream), iotest.OneByteReader(bytes.NewReader(stream)), iotest.DataErrReader(bytes.NewReader(stream))}
		for i, r := range readers {
			if got, err := collect(sse.Events(r)); err != nil || !slices.Equal(got, want) {
				t.Errorf("reader %d: got %q, %v, want %q", i, got, err, want)
			}
		}
	})
}

// Whatever is encoded, alone or in the midst of other things, is decoded as it was, and as nothing else.
func FuzzEncode(f *testing.F) {
	f.Add("1-2-3", "notify", []byte("a\nb"), "comment", int64(1000))
	f.Add("", "", []byte("\r\n\r\ndata: x\r"), "\ndata: x\n\n", int64(-1))
	f.Add("\ufeff", "message", []byte{}, "\r", int64(1)<<62)
	f.Fuzz(func(t *testing.T, idText, nameText string, data []byte, comment string, retry int64) {
		id, idErr := sse.NewID(idText)
		name, nameErr := sse.NewName(nameText)
		if (idErr != nil) != strings.ContainsAny(idText, "\r\n\x00") || (nameErr != nil) != strings.ContainsAny(nameText, "\r\n") {
			t.Fatalf("NewID: %v, NewName: %v", idErr, nameErr)
		}
		stream := sse.AppendComment(nil, comment)
		stream = sse.AppendRetry(stream, time.Duration(retry))
		stream = sse.Block{ID: id, Name: name, Data: data}.Append(stream)
		stream = sse.Block{ID: id, Name: name}.Append(stream)
		stream = sse.AppendComment(stream, comment)
		stream = id.Append(stream)
		stream = sse.Block{Name: name, Data: data}.Append(stream)

		block := sse.Block{ID: id, Name: name, Data: slices.Clone(data)}
		if first, rest := block.Split([]byte("x")); string(first)+string(rest) != "x"+string(block.Append(nil)) {
			t.Errorf("Split: got %q and %q, want x%q", first, rest, block.Append(nil))
		}

		var want []sse.Event
		if data != nil {
			event := sse.Event{Name: name.String(), Data: lineBreak.ReplaceAllString(string(data), "\n")}
			if idErr == nil {
				event.LastID = idText
			}
			want = []sse.Event{event, event}
		}
		if got := reference(string(stream)); !slices.Equal(got, want) {
			t.Errorf("%q: the standard reads %q, want %q", stream, got, want)
		}
		d := sse.Decoder{}
		got, err := collect(d.Events(bytes.NewReader(stream)))
		if err != nil || !slices.Equal(got, want) {
			t.Errorf("%q: got %q, %v, want %q", stream, got, err, want)
		}
		if wait := time.Duration(max(0, retry)).Truncate(time.Millisecond); d.Retry != wait {
			t.Errorf("%q: retry %v, want %v", stream, d.Retry, wait)
		}
	})
}
