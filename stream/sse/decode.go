package sse

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"iter"
	"strconv"
	"strings"
	"time"
)

// An Event is an event as a browser would dispatch it, in a MessageEvent, and its time.
type Event struct {
	LastID string // the last event id, from the block of this event or an earlier block
	Name   string // "message" if the block has no name
	Data   string

	// Time is when the event was created, in UTC and in whole milliseconds. It is zero if the block has no time field.
	// This field is not part of the standard, so other clients ignore it. Its value is the number of milliseconds since
	// 1970, which may be negative.
	Time time.Time
}

// DefaultMaxLine is the default of [Decoder.MaxLine]: 64 MiB.
const DefaultMaxLine = 64 << 20

// ErrTooLong reports that a line, or the data of an event, is longer than [Decoder.MaxLine].
var ErrTooLong = errors.New("line or data is too long")

// A Decoder decodes streams and keeps the state that a client needs to reconnect. Its fields may be read between two
// events, and set between two streams.
type Decoder struct {
	// LastID is the last event id, which a client sends when it reconnects. It changes at the end of a block, even if
	// the block has no data. A block that the end of the stream cuts off does not change it. The next stream begins
	// with the LastID of the stream before.
	LastID string

	// Retry is the time that the server wants the client to wait before it reconnects. The decoder never sets a
	// negative value.
	Retry time.Duration

	// MaxLine is the maximum length, in bytes, of a line and of the data of an event. The default is [DefaultMaxLine].
	MaxLine int

	// The fields of the block that is being read.
	id, name string
	time     time.Time
	data     []byte
}

// Events decodes a stream with a new [Decoder].
func Events(r io.Reader) iter.Seq2[Event, error] { return new(Decoder).Events(r) }

// Events decodes a stream from its beginning. An event that the end of the stream cuts off is dropped, as the standard
// requires. An error of the reader, or [ErrTooLong], is yielded last and without an event. io.EOF is not an error.
func (d *Decoder) Events(r io.Reader) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		d.id, d.name, d.time, d.data = d.LastID, "", time.Time{}, nil
		lines := d.lines(r)
		for first := true; lines.Scan(); first = false {
			line := lines.Bytes()
			if first {
				line = bytes.TrimPrefix(line, []byte("\ufeff"))
			}
			if len(line) > 0 {
				d.field(line)
			} else if event, ok := d.dispatch(); ok && !yield(event, nil) {
				return
			}
			if len(d.data)-1 > d.maxLine() { // the last LF is not part of the data
				yield(Event{}, d.tooLong())
				return
			}
		}
		err := lines.Err()
		if errors.Is(err, bufio.ErrTooLong) {
			err = d.tooLong()
		}
		if err != nil {
			yield(Event{}, err)
		}
	}
}

func (d *Decoder) maxLine() int {
	if d.MaxLine > 0 {
		return d.MaxLine
	}
	return DefaultMaxLine
}

func (d *Decoder) tooLong() error {
	return fmt.Errorf("%w: more than %d bytes", ErrTooLong, d.maxLine())
}

// lines splits a stream at LF, CR and CRLF. A line ends at its CR. The scanner does not wait for an LF that may follow,
// because the next byte may come much later.
func (d *Decoder) lines(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	// Besides the longest line, the buffer needs two bytes for a line break and one that the scanner keeps free.
	lines.Buffer(nil, d.maxLine()+3)
	afterCR := false
	searched := 0 // bytes at the beginning of data that are known to have no line break
	lines.Split(func(data []byte, _ bool) (advance int, token []byte, err error) {
		if afterCR && len(data) > 0 {
			afterCR = false
			if data[0] == '\n' {
				advance, data = 1, data[1:]
			}
		}
		end := lineEnd(data[searched:])
		length := len(data)
		if end >= 0 {
			length = searched + end
		}
		if length > d.maxLine() {
			return 0, nil, bufio.ErrTooLong
		}
		if end < 0 {
			searched = length
			return advance, nil, nil
		}
		searched = 0
		afterCR = data[length] == '\r'
		return advance + length + 1, data[:length:length], nil
	})
	return lines
}

// field interprets a line. It ignores unknown fields and comments. A comment is a field with an empty name.
func (d *Decoder) field(line []byte) {
	name, value, _ := bytes.Cut(line, []byte(":"))
	value = bytes.TrimPrefix(value, []byte(" "))
	switch string(name) {
	case "event":
		d.name = string(value)
	case "data":
		d.data = append(d.data, value...)
		d.data = append(d.data, '\n')
	case "id":
		if bytes.IndexByte(value, 0) < 0 {
			d.id = string(value)
		}
	case "time":
		if ms, err := strconv.ParseInt(string(value), 10, 64); err == nil {
			d.time = time.UnixMilli(ms).UTC()
		}
	case "retry":
		if wait, ok := parseRetry(string(value)); ok {
			d.Retry = wait
		}
	}
}

// parseRetry parses a number of milliseconds, which must consist of decimal digits only. A number that is too large for
// a Duration gives the longest Duration.
func parseRetry(digits string) (time.Duration, bool) {
	if digits == "" || strings.Trim(digits, "0123456789") != "" {
		return 0, false
	}
	const longest = 1<<63 - 1
	ms, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || ms > longest/int64(time.Millisecond) {
		return longest, true
	}
	return time.Duration(ms) * time.Millisecond, true
}

// dispatch ends a block. It returns an event if the block had a data field.
func (d *Decoder) dispatch() (Event, bool) {
	name, created, data := d.name, d.time, d.data
	d.LastID, d.name, d.time, d.data = d.id, "", time.Time{}, d.data[:0]
	if len(data) == 0 {
		return Event{}, false
	}
	if name == "" {
		name = message
	}
	return Event{LastID: d.LastID, Name: name, Data: string(data[:len(data)-1]), Time: created}, true
}
