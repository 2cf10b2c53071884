package sse

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"
)

// A Name is the name of an event. The zero Name means "message", which needs no field.
type Name struct{ text string }

// message is the name of an event whose block has no name.
const message = "message"

// NewName returns the name with the given text, which must not contain a line break. An empty text means "message".
func NewName(text string) (Name, error) {
	if strings.ContainsAny(text, "\r\n") {
		return Name{}, errors.New("the name of an event must not contain a line break")
	}
	if text == message {
		text = ""
	}
	return Name{text}, nil
}

// MustName is like [NewName] but panics if the text is not valid. It is for constant names.
func MustName(text string) Name {
	name, err := NewName(text)
	if err != nil {
		panic(err)
	}
	return name
}

// String returns the name that the client sees.
func (n Name) String() string {
	if n.text == "" {
		return message
	}
	return n.text
}

// A Block has the fields of an event except the id. If Data is nil, the client dispatches no event.
type Block struct {
	Name Name
	Time time.Time // see [Event.Time]; the zero Time means no field
	Data []byte    // may contain line breaks; the client receives CR and CRLF as LF
}

// AppendFields appends the fields of the block. The caller writes the end of the block: the id field, if the event has an
// id, and an empty line. The id is the last field, because some clients use an id before its block has ended. If the id
// came first and the connection broke before the data, such a client would resume after an event that it has not received.
// The id must not contain a line break, which would end the field, or a NUL, because clients ignore an id with a NUL.
func (e Block) AppendFields(b []byte) []byte {
	b = e.appendHead(b)
	if e.Data != nil {
		b = appendData(b, e.Data)
	}
	return b
}

// Split is like [Block.AppendFields], but appends only what comes before Data, and returns Data unchanged, so that
// large data need not be copied. The caller must write a line break after the data. If Data is nil or has line breaks,
// head has all fields, and data is nil.
func (e Block) Split(b []byte) (head, data []byte) {
	if e.Data == nil || lineEnd(e.Data) >= 0 {
		return e.AppendFields(b), nil
	}
	head = e.appendHead(b)
	return append(head, "data: "...), e.Data
}

func (e Block) appendHead(b []byte) []byte {
	if e.Name.text != "" {
		b = append(b, "event: "...)
		b = append(b, e.Name.text...)
		b = append(b, '\n')
	}
	if !e.Time.IsZero() {
		b = append(b, "time: "...)
		b = strconv.AppendInt(b, e.Time.UnixMilli(), 10)
		b = append(b, '\n')
	}
	return b
}

// AppendRetry appends a retry field: the time, in whole milliseconds, that the client must wait before it reconnects. A
// negative time becomes 0. No block needs to follow.
func AppendRetry(b []byte, wait time.Duration) []byte {
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, max(0, wait.Milliseconds()), 10)
	return append(b, '\n')
}

// appendData appends a data field for each line of text. CR, LF and CRLF each end one line.
func appendData(b, text []byte) []byte {
	for {
		b = append(b, "data: "...)
		end := lineEnd(text)
		if end < 0 {
			b = append(b, text...)
			return append(b, '\n')
		}
		b = append(b, text[:end]...)
		b = append(b, '\n')
		if bytes.HasPrefix(text[end:], []byte("\r\n")) {
			end++
		}
		text = text[end+1:]
	}
}

// lineEnd returns the index of the first CR or LF, or -1 if there is none.
func lineEnd(text []byte) int {
	end := bytes.IndexByte(text, '\n')
	before := text
	if end >= 0 {
		before = text[:end]
	}
	if cr := bytes.IndexByte(before, '\r'); cr >= 0 {
		return cr
	}
	return end
}
