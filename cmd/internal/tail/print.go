package tail

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"rowcast/cmd/internal/terminal"
	"rowcast/stream/sse"
)

// print prints an event as one line, with one write.
func (t *Client) print(event sse.Event, stored bool) error {
	now := time.Now()
	if t.JSON {
		line, err := json.Marshal(jsonEvent(event, stored, now))
		if err != nil {
			return err
		}
		// In a line of JSON, control characters occur in strings only, where the escapes of Printable have the same
		// meaning.
		_, err = io.WriteString(t.Out, terminal.Printable(string(line))+"\n")
		return err
	}
	id := "-"
	if stored {
		id = rowID(event.LastID)
	}
	_, err := fmt.Fprintf(t.Out, "%s  %s  %s  %s\n", now.Format("2006-01-02 15:04:05.000"), id, terminal.Printable(event.Name), terminal.Printable(event.Data))
	return err
}

// A jsonLine is a line of --json.
type jsonLine struct {
	Time      time.Time       `json:"time"`
	ID        string          `json:"id,omitempty"`
	Event     string          `json:"event"`
	CreatedAt time.Time       `json:"created_at,omitzero"` // only of a row
	Data      json.RawMessage `json:"data"`
}

// jsonEvent returns the line of --json for an event. It copies data that is valid JSON, and converts other data to a
// JSON string.
func jsonEvent(event sse.Event, stored bool, now time.Time) jsonLine {
	line := jsonLine{Time: now, Event: event.Name, Data: json.RawMessage(event.Data)}
	if stored {
		line.ID = event.LastID
	}
	if year := event.Time.Year(); year >= 0 && year <= 9999 { // package json returns an error for other years
		line.CreatedAt = event.Time
	}
	if !json.Valid(line.Data) {
		line.Data, _ = json.Marshal(event.Data)
	}
	return line
}

// rowID returns the part of an event's id before the first hyphen. In the ids of rowcast, this is the number of the
// row.
func rowID(id string) string {
	digits, _, _ := strings.Cut(id, "-")
	return terminal.Printable(digits)
}
