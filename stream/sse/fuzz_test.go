package sse_test

import (
	"bytes"
	"io"
	"math"
	"math/big"
	"regexp"
	"slices"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"rowcast/stream/sse"
)

var (
	lineBreak  = regexp.MustCompile("\r\n|\n|\r")
	onlyDigits = regexp.MustCompile("^[0-9]+$")
)

// reference decodes a whole stream. It follows the standard sentence by sentence (interpreting an event stream, in
// https://html.spec.whatwg.org/multipage/server-sent-events.html) and shares no code with the package. The reconnection
// time is in milliseconds, or -1 if the stream has no valid retry field.
func reference(stream string) (events []sse.Event, reconnection *big.Int) {
	reconnection = big.NewInt(-1)
	stream, _ = strings.CutPrefix(stream, "\ufeff")
	lines := lineBreak.Split(stream, -1)
	lines = lines[:len(lines)-1] // the text after the last line break is not a line
	var data, eventType, lastEventID string
	var created time.Time
	for _, line := range lines {
		if line == "" {
			if data != "" {
				if eventType == "" {
					eventType = "message"
				}
				events = append(events, sse.Event{LastID: lastEventID, Name: eventType, Data: strings.TrimSuffix(data, "\n"), Time: created})
			}
			data, eventType, created = "", "", time.Time{}
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
		if ms, ok := new(big.Int).SetString(value, 10); field == "time" && ok && ms.IsInt64() { // not in the standard
			created = time.UnixMilli(ms.Int64()).UTC()
		}
		if field == "retry" && onlyDigits.MatchString(value) {
			reconnection, _ = new(big.Int).SetString(value, 10)
		}
	}
	return events, reconnection
}

// A stream is decoded as the standard requires, even if each read returns only one byte, or the last read returns
// io.EOF together with bytes.
func FuzzDecode(f *testing.F) {
	f.Add([]byte("\ufeffid: 1\r\nevent: a\rdata: b\ndata\n\r\n"))
	f.Add([]byte("time: -1\ndata: a\n\ntime: 1_0\ntime: +12\ndata\n\ntime:\ndata: a\n\n"))
	f.Add([]byte("data: a\r\n\r\n\r\r\n\n:x\nid: \x00\nretry: 5\nid\n\ndata:  b\n\n"))
	f.Fuzz(func(t *testing.T, stream []byte) {
		want, reconnection := reference(string(stream))
		readers := []io.Reader{bytes.NewReader(stream), iotest.OneByteReader(bytes.NewReader(stream)), iotest.DataErrReader(bytes.NewReader(stream))}
		for i, r := range readers {
			d := sse.Decoder{Retry: -time.Millisecond}
			if got, err := collect(d.Events(r)); err != nil || !slices.Equal(got, want) {
				t.Errorf("reader %d: got %q, %v, want %q", i, got, err, want)
			}
			if longest := big.NewInt(math.MaxInt64 / int64(time.Millisecond)); reconnection.Cmp(longest) > 0 {
				if d.Retry != math.MaxInt64 {
					t.Errorf("reader %d: got retry %v, want the longest Duration", i, d.Retry)
				}
			} else if d.Retry.Milliseconds() != reconnection.Int64() {
				t.Errorf("reader %d: got retry %v, want %v ms", i, d.Retry, reconnection)
			}
		}
	})
}

// Events and retry fields are decoded as they were encoded, except that line breaks in data become LF. No text adds a
// further event or field.
func FuzzEncode(f *testing.F) {
	f.Add("notify", []byte("a\nb"), int64(1000), int64(1700000000123))
	f.Add("", []byte("\r\n\r\ndata: x\r"), int64(-1), int64(-1))
	f.Add("message", []byte{}, int64(1)<<62, int64(math.MinInt64))
	f.Fuzz(func(t *testing.T, nameText string, data []byte, retry, created int64) {
		name, nameErr := sse.NewName(nameText)
		if (nameErr != nil) != strings.ContainsAny(nameText, "\r\n") {
			t.Fatalf("NewName(%q): %v, want an error exactly for a line break", nameText, nameErr)
		}
		at := time.UnixMilli(created).UTC()
		const comment, end = ":\n", "id: 1-2-3\n\n"
		stream := sse.AppendRetry([]byte(comment), time.Duration(retry))
		stream = append(sse.Block{Name: name, Time: at, Data: data}.AppendFields(stream), end...)
		stream = append(sse.Block{Name: name, Time: at}.AppendFields(stream), end+comment...)
		stream = append(sse.Block{Name: name, Time: at, Data: data}.AppendFields(stream), end...)

		block := sse.Block{Name: name, Time: at, Data: slices.Clone(data)}
		head, rest := block.Split([]byte("x"))
		whole := string(head)
		if rest != nil {
			whole += string(rest) + "\n"
		}
		if whole != "x"+string(block.AppendFields(nil)) {
			t.Errorf("Split: got head %q and data %q, want together x%q", head, rest, block.AppendFields(nil))
		}
		var want []sse.Event
		if data != nil {
			event := sse.Event{LastID: "1-2-3", Name: name.String(), Data: lineBreak.ReplaceAllString(string(data), "\n"), Time: at}
			want = []sse.Event{event, event}
		}
		got, reconnection := reference(string(stream))
		if !slices.Equal(got, want) || reconnection.Int64() != max(0, time.Duration(retry).Milliseconds()) {
			t.Errorf("%q: the reference decodes %q and retry %v ms, want %q and %d ms", stream, got, reconnection, want, max(0, time.Duration(retry).Milliseconds()))
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
