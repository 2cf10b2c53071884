package sse

import (
	"bytes"
	"errors"
	"strconv"
	"strings"
	"time"
)

// An ID is the value of an id field. The zero ID is none: it leaves the client's last event id alone.
type ID struct{ field string }

// NewID checks that the client will take text for an id: a line break would end it, and with a NUL it would be ignored. The
// empty text makes the client forget its last event id.
func NewID(text string) (ID, error) {
	if strings.ContainsAny(text, "\r\n\x00") {
		return ID{}, errors.New("an id has no line break and no NUL")
	}
	return ID{field: "id: " + text + "\n"}, nil
}

// Append appends the field to b. Before a [Block] without an ID of its own it becomes part of that.
func (id ID) Append(b []byte) []byte { return append(b, id.field...) }

// A Name is the name of an event. The zero Name is that of a message, which needs no field.
type Name struct{ text string }

// message is the name of an event that has none.
const message = "message"

// NewName checks that text fits in a line. Empty, it is the name of a message.
func NewName(text string) (Name, error) {
	if strings.ContainsAny(text, "\r\n") {
		return Name{}, errors.New("an event's name has no line break")
	}
	if text == message {
		text = ""
	}
	return Name{text}, nil
}

// MustName is [NewName] for a name that is written in the program.
func MustName(text string) Name {
	name, err := NewName(text)
	if err != nil {
		panic(err)
	}
	return name
}

// String is the name as the client will have it.
func (n Name) String() string {
	if n.text == "" {
		return message
	}
	return n.text
}

// A Block is one event, or with nil Data only an id: the client takes a block without data for none, but keeps its id.
type Block struct {
	ID   ID
	Name Name
	Data []byte // may hold line breaks; CR and CRLF arrive as LF
}

// Append appends the block to b.
func (e Block) Append(b []byte) []byte {
	b = e.appendHead(b)
	if e.Data != nil {
		b = appendLines(b, "data: ", e.Data)
	}
	return append(b, '\n')
}

// Split is Append without a copy of large data: what is appended to b comes first, and then the rest, which is Data itself with the
// block's end. It takes Data over. It is copied after all if it has no room for two bytes more, or has line breaks; then the rest
// may be nil.
func (e Block) Split(b []byte) (first, rest []byte) {
	if e.Data == nil || lineEnd(e.Data) >= 0 {
		return e.Append(b), nil
	}
	first = e.appendHead(b)
	first = append(first, "data: "...)
	return first, append(e.Data, "\n\n"...)
}

func (e Block) appendHead(b []byte) []byte {
	b = e.ID.Append(b)
	if e.Name.text != "" {
		b = append(b, "event: "...)
		b = append(b, e.Name.text...)
		b = append(b, '\n')
	}
	return b
}

// AppendComment appends what the client reads and forgets: all of text, as many lines as it has.
func AppendComment(b []byte, text string) []byte { return appendLines(b, ":", []byte(text)) }

// AppendRetry appends how long the client shall wait before it connects again, in whole milliseconds. It may stand by itself
// or before a block.
func AppendRetry(b []byte, wait time.Duration) []byte {
	b = append(b, "retry: "...)
	b = strconv.AppendInt(b, max(0, wait.Milliseconds()), 10)
	return append(b, '\n')
}

// appendLines gives every line of text its prefix. CR ends a line as LF does, and CRLF ends one, not two.
func appendLines(b []byte, prefix string, text []byte) []byte {
	for {
		b = append(b, prefix...)
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

// lineEnd is the index of the first CR or LF, -1 if there is none.
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
