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

// The text of a cursor has six fields, joined by '-'. It needs no escaping in a URL:
//
//	77-1042-1042-~AC-5be3b1f2-0c9a8e11
//	|  |    |    |   |        anchor tag, then '.' and the anchor's id if it differs from the first field
//	|  |    |    |   epoch tag
//	|  |    |    transactions in flight, see appendXip
//	|  |    xmax
//	|  the half-delivered transaction, 0 if there is none
//	the id of the last delivered row of the half-delivered transaction, or the anchor's id if there is none
//
// rowcast.cursor() in the database writes texts of the same form.

// A Tag is the first 32 bits of a SHA-256.
type Tag uint32

// NewTag returns the tag of content, as rowcast.tag() in the database does.
func NewTag(content string) Tag {
	sum := sha256.Sum256([]byte(content))
	return Tag(binary.BigEndian.Uint32(sum[:]))
}

// AnchorTag returns the tag of a row. It is a hash of the id and of created_at, in microseconds since 2000.
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

// String returns the tag as eight hexadecimal digits.
func (t Tag) String() string { return fmt.Sprintf("%08x", uint32(t)) }

func (t Tag) appendText(b []byte) []byte {
	const digits = "0123456789abcdef"
	for shift := 28; shift >= 0; shift -= 4 {
		b = append(b, digits[t>>shift&15])
	}
	return b
}

// MaxInFlight is the largest number of transactions in flight that the text of a cursor may list. [Parse] refuses a
// longer list as malformed, because the hub and PostgreSQL do some work for each transaction. A server normally has
// fewer writers at a time.
const MaxInFlight = 4096

// ErrMalformed reports that a text is not the text of a cursor. [Parse] returns it.
var ErrMalformed = errors.New("malformed cursor")

// String returns the text of the cursor.
func (c Cursor) String() string { return string(c.Append(nil)) }

// Append appends the text of the cursor to b.
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

// Parse reads the text of a cursor. Its only error is [ErrMalformed].
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
	if c.Xip, err = parseXip(fields[3], c.Xmax); err != nil || !c.isConsistent(id) {
		return Cursor{}, ErrMalformed
	}
	return c, nil
}

// isConsistent reports whether the fields agree with each other. first is the first field of the text.
func (c Cursor) isConsistent(first int64) bool {
	if c.Xmax < First || c.Xid > c.Xmax || c.Xid != 0 && (c.Xid < First || c.ID == 0) || c.Xid == 0 && first != c.Anchor.ID {
		return false
	}
	if len(c.Xip) > 0 && c.Xip[0] < First {
		return false
	}
	return !slices.Contains(c.Xip, c.Xid)
}

// parseNumber reads a decimal number below 2^63, without a sign or leading zeros.
func parseNumber(text string, err *error) int64 {
	number, parseErr := strconv.ParseUint(text, 10, 63)
	if parseErr != nil || len(text) > 1 && text[0] == '0' {
		*err = ErrMalformed
	}
	return int64(number)
}

// alphabet has the 64 digits of a list of transactions in flight. All of them are safe in a URL. '-' is not among
// them, because it separates the fields.
const alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._"

// digitOf is the inverse of alphabet; notDigit marks all other bytes.
var digitOf = func() (digits [256]byte) {
	for i := range digits {
		digits[i] = notDigit
	}
	for i := range len(alphabet) {
		digits[alphabet[i]] = byte(i)
	}
	return digits
}()

const notDigit = 0xff

const (
	// xipMark begins a list of transactions in flight. Versions of rowcast before this encoding wrote lists without
	// xipMark, and refuse a list with it.
	xipMark = '~'
	// digitBits is the number of bits of a gap in one digit. The highest bit of a digit marks that another digit
	// follows.
	digitBits = 5
	digitMask = 1<<digitBits - 1
	goesOn    = 1 << digitBits
)

// appendXip appends the transactions in flight as the gaps between them, from xmax downwards. A gap is the number of
// transactions between two neighbours of the list, or between xmax and the highest. The gap is written in base 32, the
// highest digit first. A gap below 32 takes one character. If a thousand transactions are spread evenly over 2^31
// numbers, the widest possible range, each gap takes five characters.
func appendXip(b []byte, xmax uint64, xip []uint64) []byte {
	if len(xip) == 0 {
		return b
	}
	b = append(b, xipMark)
	above := xmax
	for _, xid := range slices.Backward(xip) {
		gap := above - xid - 1
		for shift := (bits.Len64(gap|1) - 1) / digitBits * digitBits; shift > 0; shift -= digitBits {
			b = append(b, alphabet[gap>>shift&digitMask|goesOn])
		}
		b = append(b, alphabet[gap&digitMask])
		above = xid
	}
	return b
}

// parseXip reads the text that appendXip writes.
func parseXip(text string, xmax uint64) ([]uint64, error) {
	if text == "" {
		return nil, nil
	}
	count, err := countXip(text)
	if err != nil {
		return nil, err
	}
	xip := make([]uint64, count)
	above, gap := xmax, uint64(0)
	for i := 1; count > 0; i++ {
		digit := uint64(digitOf[text[i]])
		if gap > math.MaxUint64>>digitBits || gap == 0 && digit == goesOn { // too large, or a leading zero
			return nil, ErrMalformed
		}
		if gap = gap<<digitBits | digit&digitMask; digit&goesOn != 0 {
			continue
		}
		if gap >= above {
			return nil, ErrMalformed
		}
		above -= gap + 1
		count--
		xip[count], gap = above, 0
	}
	return xip, nil
}

// countXip returns the number of transactions that a text lists. With it, parseXip can refuse a long list before
// allocating memory.
func countXip(text string) (count int, err error) {
	for i := 1; i < len(text); i++ {
		digit := digitOf[text[i]]
		if digit == notDigit {
			return 0, ErrMalformed
		}
		if digit&goesOn == 0 {
			count++
		}
	}
	if text[0] != xipMark || count == 0 || count > MaxInFlight || digitOf[text[len(text)-1]]&goesOn != 0 {
		return 0, ErrMalformed
	}
	return count, nil
}
