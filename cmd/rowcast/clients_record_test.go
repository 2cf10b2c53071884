package main_test

import (
	"encoding/json"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"time"
)

// A heardEvent is an event as a client reports it.
type heardEvent struct{ Event, ID, Data string }

// A record has what a client has received: the data of the rows, and "reset" for each rowcast.reset. An event of the
// hub with data that is not JSON is a fault. The record has such an event, too, so that the test fails.
type record struct {
	mu      sync.Mutex
	heard   []string
	streams int // the number of rowcast.hello
	highest int // the highest row
	resets  int
	closed  bool          // an EventSource has closed for good
	grown   chan struct{} // closed by the next call of add
}

func newRecord() *record { return &record{grown: make(chan struct{})} }

// add adds an event. It ignores the event of a row without data, which a client can deliver when the row was cut.
func (r *record) add(e heardEvent) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if strings.HasPrefix(e.Event, "rowcast.") && !json.Valid([]byte(e.Data)) {
		r.heard = append(r.heard, e.Event+" "+e.Data)
	}
	switch e.Event {
	case "n":
		if e.Data != "" {
			r.heard = append(r.heard, e.Data)
		}
		if row, ok := rowOf(e.Data); ok {
			r.highest = max(r.highest, row)
		}
	case "rowcast.hello":
		r.streams++
	case "rowcast.reset":
		r.heard = append(r.heard, "reset")
		r.resets++
	case "closed":
		r.closed = true
	}
	close(r.grown)
	r.grown = make(chan struct{})
}

// addLine adds an event that a program has printed.
func (r *record) addLine(line []byte) error {
	var e heardEvent
	if err := json.Unmarshal(line, &e); err != nil {
		return fmt.Errorf("the client printed %q: %w", line, err)
	}
	r.add(e)
	return nil
}

// await waits until the condition, which may read the fields of the record, is true.
func (r *record) await(limit time.Duration, what string, isSo func() bool) error {
	timeout := time.After(limit)
	for {
		r.mu.Lock()
		so, grown, heard := isSo(), r.grown, r.heard
		r.mu.Unlock()
		if so {
			return nil
		}
		select {
		case <-grown:
		case <-timeout:
			return fmt.Errorf("waited %v for %s; the client received %d rows and resets, the last are %v", limit, what, len(heard), heard[max(0, len(heard)-5):])
		}
	}
}

func (r *record) hasClosed() bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.closed
}

// rowOf returns the number of a row. ok is false if data is not the complete data of a numbered row.
func rowOf(data string) (row int, ok bool) {
	number, isWhole := strings.CutSuffix(data, "]")
	number, begins := strings.CutPrefix(number, "[")
	row, err := strconv.Atoi(number)
	return row, isWhole && begins && err == nil
}

// dataOfRows returns the data of the rows from first to last.
func dataOfRows(first, last int) (data []string) {
	for row := first; row <= last; row++ {
		data = append(data, fmt.Sprintf("[%d]", row))
	}
	return data
}

// sameEvents returns an error that shows the first difference, or nil if there is none.
func sameEvents(got, want []string) error {
	for i := range max(len(got), len(want)) {
		if i >= len(got) || i >= len(want) || got[i] != want[i] {
			next := func(events []string) []string { return events[min(i, len(events)):min(i+5, len(events))] }
			return fmt.Errorf("after %v, the client received %v, want %v", want[max(0, i-3):i], next(got), next(want))
		}
	}
	return nil
}
