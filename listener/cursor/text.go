package cursor

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"math/bits"
	"slices"
	"strconv"
	"strings"
)

// A cursor's text is six fields joined by '-', and needs no escaping in a URL:
//
//	77-1042-1042-AAC-5be3b1f2-0c9a8e11
//	|  |    |    |   |        anchor tag, then '.' and the anchor's id where it is not the first field
//	|  |    |    |   epoch tag
//	|  |    |    transactions in flight, see appendXip
//	|  |    xmax
//	|  the half-told transaction, 0 if there is none
//	the id of the last row: of the half-told transaction, else the anchor's
//
// rowcast.cursor() in the database writes the same.

// A Tag is the first 32 bits of a SHA-256.
type Tag uint32

// NewTag hashes content, as the database's rowcast.tag() does.
func NewTag(content string) Tag {
	sum := sha256.Sum256([]byte(content))
	return Tag(binary.BigEndian.Uint32(sum[:]))
}

// AnchorTag is the tag of a row: of its id and its created_at, in microseconds since 2000.
func AnchorTag(id, micros int64) Tag {
	text := make([]byte, 0, 48)
	text = strconv.AppendInt(text, id, 10)
	text = append(text, ' ')
	text = strconv.AppendInt(text, micros, 10)
	sum := sha256.Sum256(text)
	return Tag(binary.BigEndian.Uint32(sum[:]))
}

// ParseTag reads what [Tag.String] writes.
func ParseTag(text string) (Tag, error) {
	tag, err := strconv.ParseUint(text, 16, 32)
	if err != nil || len(text) != 8 || strings.ToLower(text) != text {
		return 0, fmt.Errorf("malformed tag %q", text)
	}
	return Tag(tag), nil
}

// String is the tag in eight hexadecimal digits.
func (t Tag) String() string { return fmt.Sprintf("%08x", uint32(t)) }

func (t Tag) appendText(b []byte) []byte {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, digits[t>>shift&15])
	}
	return b
}

// ErrMalformed is what [Parse] returns for a text that no cursor has.
var ErrMalformed = errors.New("malformed cursor")

// String is the cursor's text.
func (c Cursor) String() string { return string(c.Append(nil)) }

// Append appends the cursor's text to b.
func (c Cursor) Append(b []byte) []byte {
	b = strconv.AppendInt(b, c.lastID(), 10)
	b = append(b, '-')
	b = strconv.AppendUint(b, c.Xid, 10)
	b = append(b, '-')
	b = strconv.AppendUint(b, c.Xmax, 10)
	b = append(b, '-')
	b = appendXip(b, c.Xmax, c.Xip)
	b = append(b, '-')
	b = c.Epoch.appendText(b)
	b = append(b, '-')
	b = c.Anchor.Tag.appendText(b)
	if c.Anchor.ID != c.lastID() {
		b = append(b, '.')
		b = strconv.AppendInt(b, c.Anchor.ID, 10)
	}
	return b
}

func (c Cursor) lastID() int64 {
	if c.Xid != 0 {
		return c.ID
	}
	return c.Anchor.ID
}

// Parse reads a cursor's text. Every text that it accepts is a cursor whose own text is again valid.
func Parse(text string) (Cursor, error) {
	fields := strings.Split(text, "-")
	if len(fields) != 6 {
		return Cursor{}, ErrMalformed
	}
	anchorTag, anchorID, apart := strings.Cut(fields[5], ".")
	if !apart {
		anchorID = fields[0]
	}
	var c Cursor
	var err error
	id := parseNumber(fields[0], &err)
	c.Xid = uint64(parseNumber(fields[1], &err))
	c.Xmax = uint64(parseNumber(fields[2], &err))
	c.Anchor.ID = parseNumber(anchorID, &err)
	epoch, epochErr := ParseTag(fields[4])
	tag, tagErr := ParseTag(anchorTag)
	if err = cmp.Or(err, epochErr, tagErr); err != nil {
		return Cursor{}, ErrMalformed
	}
	c.Epoch, c.Anchor.Tag = epoch, tag
	if c.Xid != 0 {
		c.ID = id
	}
	if c.Xip, err = parseXip(fields[3], c.Xmax); err != nil || !c.possible(id) {
		return Cursor{}, ErrMalformed
	}
	return c, nil
}

// possible tells whether the fields agree with each other.
func (c Cursor) possible(first int64) bool {
	if c.Xmax < First || c.Xid > c.Xmax || c.Xid != 0 && (c.Xid < First || c.ID == 0) || c.Xid == 0 && first != c.Anchor.ID {
		return false
	}
	if len(c.Xip) > 0 && c.Xip[0] < First {
		return false
	}
	return !slices.Contains(c.Xip, c.Xid)
}

// parseNumber reads a decimal without sign or leading zeros, below 2^63.
func parseNumber(text string, err *error) int64 {
	number, parseErr := strconv.ParseUint(text, 10, 63)
	if parseErr != nil || len(text) > 1 && text[0] == '0' {
		*err = ErrMalformed
	}
	return int64(number)
}

// alphabet gives six bits to each letter that is safe in a URL and is not '-', which separates the fields.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._"

// appendXip appends the transactions in flight as the gaps between them, from xmax downwards, in a Rice code: the gap's high
// part in unary, ones ended by a zero, then its low bits as they are. The first letter says how many low bits; ones fill the
// last. Neighbours cost one bit each, and a thousand strewn over all the two thousand million transactions that can be in
// flight together cost 23 bits each, which keeps the id below the 4,000 bytes that fit any proxy's header limit.
func appendXip(b []byte, xmax uint64, xip []uint64) []byte {
	if len(xip) == 0 {
		return b
	}
	low := lowBits((xmax - xip[0]) / uint64(len(xip)))
	b = append(b, alphabet[low])
	var word, filled uint
	push := func(bit uint64) {
		word, filled = word<<1|uint(bit), filled+1
		if filled == 6 {
			b = append(b, alphabet[word])
			word, filled = 0, 0
		}
	}
	above := xmax
	for _, xid := range slices.Backward(xip) {
		gap := above - xid - 1
		for range gap >> low {
			push(1)
		}
		push(0)
		for bit := low - 1; bit >= 0; bit-- {
			push(gap >> bit & 1)
		}
		above = xid
	}
	for filled != 0 {
		push(1)
	}
	return b
}

// lowBits is the logarithm of the mean distance, rounded down.
func lowBits(mean uint64) int { return max(0, bits.Len64(mean)-1) }

// parseXip reads what appendXip writes.
func parseXip(text string, xmax uint64) ([]uint64, error) {
	if text == "" {
		return nil, nil
	}
	low := strings.IndexByte(alphabet, text[0])
	if low < 0 || low > 62 {
		return nil, ErrMalformed
	}
	stream := bitReader{letters: text[1:]}
	var xip []uint64
	for above := xmax; ; {
		high, ok := stream.ones()
		if !ok {
			break
		}
		rest, ok := stream.bits(low)
		if !ok || high > math.MaxUint64>>(low+1) || high<<low+rest >= above {
			return nil, ErrMalformed
		}
		above -= high<<low + rest + 1
		xip = append(xip, above)
	}
	if stream.bad || len(xip) == 0 {
		return nil, ErrMalformed
	}
	slices.Reverse(xip)
	return xip, nil
}

// bitReader reads letters of six bits.
type bitReader struct {
	letters string
	at      int // in bits
	bad     bool
}

func (r *bitReader) bit() (uint64, bool) {
	letter := r.at / 6
	if letter >= len(r.letters) {
		return 0, false
	}
	value := strings.IndexByte(alphabet, r.letters[letter])
	if value < 0 {
		r.bad = true
		return 0, false
	}
	bit := uint64(value) >> (5 - r.at%6) & 1
	r.at++
	return bit, true
}

// ones counts ones up to a zero; it is not ok if the letters end before that.
func (r *bitReader) ones() (count uint64, ok bool) {
	for {
		bit, ok := r.bit()
		if !ok || bit == 0 {
			return count, ok
		}
		count++
	}
}

func (r *bitReader) bits(n int) (value uint64, ok bool) {
	for range n {
		bit, ok := r.bit()
		if !ok {
			return 0, false
		}
		value = value<<1 | bit
	}
	return value, true
}
