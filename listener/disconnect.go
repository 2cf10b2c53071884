package listener

import (
	"context"
	"fmt"

	"rowcast/sql"
)

// Where hubs are told to end a recipient's streams: by hand, with the recipient for the payload; and by a hub that has ended its own,
// with its listener's name before the recipient.
const (
	disconnectChannel   = sql.Channel + ".disconnect"
	disconnectedChannel = sql.Channel + ".disconnected"
)

// Disconnect tells all other listeners that LISTEN to this database, with [Listener.Disconnect], to end a recipient's streams. The
// Replayer's own is not told: where it comes from they have been ended, and by the time it heard of it some may be back, rightly.
// Disconnect returns once that is committed.
func (r *Replayer) Disconnect(ctx context.Context, recipient string) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	// Qualified: behind a pooler, the connection has no settings of ours.
	const notify = "SELECT pg_catalog.pg_notify($1::pg_catalog.text, $2::pg_catalog.text)"
	if _, err := r.notifying.Exec(ctx, notify, disconnectedChannel, r.listener.name+" "+recipient); err != nil {
		return fmt.Errorf("notify %s: %w", disconnectedChannel, err)
	}
	return nil
}
