package main_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
)

// An outcome is what a client is expected to receive. stream/README.md describes the outcomes in a table and below it.
type outcome struct {
	result string // as in the table
	resets bool   // the client receives rowcast.reset if it cannot resume
	check  func(p *participant) error
}

// exact is the outcome of a client that receives each numbered row exactly once and in order, and one reset.
var exact = outcome{"exact", true, func(p *participant) error { return sameEvents(p.heard, p.allEvents()) }}

// allEvents returns what a client should receive.
func (p *participant) allEvents() []string {
	return slices.Concat(dataOfRows(1, p.course.before), []string{"reset"}, dataOfRows(p.course.after, p.course.rows))
}

// losesAfterID is the outcome of a client that uses an id as its cursor as soon as the line of the id has ended. The
// client loses a row whose block is cut between this line and the empty line that follows.
var losesAfterID = outcome{"loses a row that is cut at its last byte", true, func(p *participant) error {
	want := slices.DeleteFunc(p.allEvents(), func(data string) bool {
		return slices.ContainsFunc(p.proxy.cuts, func(c cut) bool { return data == fmt.Sprintf("[%d]", c.row) && c.sent == len(c.block)-1 })
	})
	return sameEvents(p.heard, want)
}}

// forgets is the outcome of an EventSource that does not send its cursor. It loses the rows that are inserted while it
// is not connected, is never reset, and may close for good when its stream breaks.
var forgets = outcome{"loses rows", false, func(p *participant) error {
	lost, highest := 0, 0
	for _, data := range p.heard {
		row, ok := rowOf(data)
		if !ok || row <= highest {
			return fmt.Errorf("after row %d, the client received %s", highest, data)
		}
		lost += row - highest - 1
		highest = row
	}
	if lost == 0 || highest != p.course.rows && !p.closed {
		return fmt.Errorf("the client lost %d rows up to row %d of %d, want at least 1 lost row, and the last row unless the EventSource has closed", lost, highest, p.course.rows)
	}
	return nil
}}

// mayClose is the outcome of an EventSource that may close for good when its stream breaks. Until then it is exact.
var mayClose = outcome{"may stop", true, func(p *participant) error {
	if !p.closed {
		return exact.check(p)
	}
	if len(p.heard) == 0 {
		return errors.New("the EventSource has closed before the first row")
	}
	return sameEvents(p.heard, dataOfRows(1, len(p.heard)))
}}

// takesParts is the outcome of a client that does not notice that a block was cut. It delivers the part of the data
// that it has received, and uses the part of the id as its cursor.
var takesParts = outcome{"delivers parts of rows, and is reset", true, func(p *participant) error {
	got, next := p.heard, 1
	for _, c := range p.proxy.cuts {
		whole, rest, err := takePart(got, next, c)
		if err != nil {
			return fmt.Errorf("%v: %w", c, err)
		}
		got, next = rest, whole
	}
	want := slices.Concat(dataOfRows(next, p.course.before), []string{"reset"}, dataOfRows(p.course.after, p.course.rows))
	return sameEvents(got, want)
}}

// takePart checks the events that the client received up to a cut, and the reset that must follow if the client got
// only a part of an id. It returns the remaining events, and the number of the row with which they must begin.
func takePart(got []string, next int, c cut) (following int, rest []string, err error) {
	want := dataOfRows(next, c.row-1)
	data := fmt.Sprintf("[%d]", c.row)
	if begun := c.sent - c.dataAt(); begun > 0 {
		want = append(want, data[:min(begun, len(data))])
	}
	idLength := c.sent - c.idAt()
	isReset := idLength > 0 && c.sent < len(c.block)-len("\n\n")
	if isReset {
		want = append(want, "reset")
	}
	if err := sameEvents(got[:min(len(want), len(got))], want); err != nil {
		return 0, nil, err
	}
	rest = got[len(want):]
	switch {
	case !isReset && idLength > 0:
		return c.row + 1, rest, nil
	case !isReset:
		return c.row, rest, nil
	case len(rest) == 0:
		return 0, nil, fmt.Errorf("received nothing after %v", want[max(0, len(want)-2):])
	}
	// The client does not receive the rows that were inserted before the reset.
	following, ok := rowOf(rest[0])
	if !ok || following <= c.row {
		return 0, nil, fmt.Errorf("received %s after the reset", rest[0])
	}
	return following, rest, nil
}

// takePart returns an error if nothing follows the reset after a cut, wherever the id is in the block.
func TestNothingAfterAPartOfAnID(t *testing.T) {
	t.Parallel()
	for block, got := range map[string][]string{"id: 12\ndata: [1]\n\n": {"reset"}, "data: [1]\nid: 12\n\n": {"[1]", "reset"}} {
		c := cut{row: 1, block: block, sent: strings.Index(block, "12") + 1}
		if _, _, err := takePart(got, 1, c); err == nil || err.Error() != fmt.Sprintf("received nothing after %v", got) {
			t.Errorf("%v: got the error %v, want one that says that nothing came after the reset", c, err)
		}
	}
}
