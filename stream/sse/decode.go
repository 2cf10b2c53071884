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

// An Event is one that was dispatched, as a browser's MessageEvent.
type Event struct {
	LastID string // the last id that the stream has had, not necessarily in this event's block
	Name   string // "message" if the stream said nothing
	Data   string
}

// DefaultMaxLine is what a [Decoder] bounds a line by if not told otherwise: 64 MiB.
const DefaultMaxLine = 64 << 20

// ErrTooLong is what a [Decoder] fails with when a line, or the data of an event, has more than its MaxLine bytes.
var ErrTooLong = errors.New("line is too long")

// A Decoder is what is kept between one connection and the next. Its fields may be read and set between two events.
type Decoder struct {
	// LastID is the last event id: from where to resume. It moves at the end of a block, as the block may be cut off, and
	// also by one without data, which is no event. It is kept from one stream to the next.
	LastID string

	// Retry is how long the stream wants to be waited for before the next connection. Negative values are never set.
	Retry time.Duration

	// MaxLine is how many bytes a line, and the data of an event, may have. Default [DefaultMaxLine].
	MaxLine int

	// Of the block that is being read.
	id, name string
	data     []byte
}

// Events decodes a stream with a new [Decoder].
func Events(r io.Reader) iter.Seq2[Event, error] { return new(Decoder).Events(r) }

// Events decodes a stream from its beginning. An event that the end of the stream cuts off is dropped, as the standard wants
// it. An error of the reader, or [ErrTooLong], comes last and without an event; io.EOF is not an error.
func (d *Decoder) Events(r io.Reader) iter.Seq2[Event, error] {
	return func(yield func(Event, error) bool) {
		d.id, d.name, d.data = d.LastID, "", nil
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
			if len(d.data) > d.maxLine() {
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

// lines splits a stream at LF, CR and CRLF. A line ends at its CR, without waiting for the LF that may follow: the next byte
// can be a long time coming.
func (d *Decoder) lines(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	// A line break more than the longest line, and one byte that the scanner wants free.
	lines.Buffer(nil, d.maxLine()+3)
	afterCR := false
	searched := 0 // how much of data is known to have no line break, lest a long line be searched again for each of its parts
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

// field interprets a line. What the standard does not know is ignored, as are comments, whose field has no name.
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
	case "retry":
		if wait, ok := parseRetry(string(value)); ok {
			d.Retry = wait
		}
	}
}

// parseRetry reads decimal digits and nothing else; what is beyond counting is very long.
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

// dispatch ends a block, which is an event if it had a data field.
func (d *Decoder) dispatch() (Event, bool) {
	name, data := d.name, d.data
	d.LastID, d.name, d.data = d.id, "", d.data[:0]
	if len(data) == 0 {
		return Event{}, false
	}
	if name == "" {
		name = message
	}
	return Event{LastID: d.LastID, Name: name, Data: string(data[:len(data)-1])}, true
}
