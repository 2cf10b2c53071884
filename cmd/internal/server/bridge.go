package server

import (
	"context"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/stream"
)

// A bridge is a listener as the hub wants to see it: neither package knows the other.
type bridge struct {
	*listener.Listener // CatchUp
	*listener.Replayer // Stands
}

// Page is that of the Replayer. [listener.ErrEpoch] passes like any other error: the hub soon has a newer cursor to ask with.
func (b bridge) Page(ctx context.Context, from, to cursor.Cursor, recipients []string) ([]stream.Event, cursor.Cursor, uint64, error) {
	rows, next, horizon, err := b.Replayer.Page(ctx, from, to, recipients)
	return events(rows), next, horizon, err
}

func events(rows []listener.Row) []stream.Event {
	if len(rows) == 0 {
		return nil
	}
	all := make([]stream.Event, len(rows))
	for i, row := range rows {
		all[i] = stream.Event{
			Row: row.Row, Recipient: row.Recipient, Name: row.Event, Data: row.Data, Size: row.Size,
			Unreadable: row.Unreadable, Cursor: row.Cursor,
		}
	}
	return all
}

func batch(b listener.Batch) stream.Batch {
	return stream.Batch{
		Events: events(b.Rows), Cursor: b.Cursor, Horizon: b.Horizon,
		Warming: b.Warming, Clamp: b.Clamp, Reset: b.Reset,
	}
}

func message(m listener.Message) stream.Message {
	return stream.Message{Recipient: m.Recipient, Name: m.Event, Data: m.Data}
}
