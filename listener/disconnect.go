package listener

import (
	"context"
	"fmt"

	"rowcast/sql"
)

// disconnectChannel and disconnectedChannel carry requests to close the streams of a recipient. On disconnectChannel,
// any role may send the recipient as the payload. On disconnectedChannel, a hub that has closed its own streams of the
// recipient sends the name of its listener and the recipient.
const (
	disconnectChannel   = sql.Channel + ".disconnect"
	disconnectedChannel = sql.Channel + ".disconnected"
)

// Disconnect asks all other listeners of this database to close the streams of a recipient, with [Listener.Disconnect].
// The Replayer's own listener ignores the request: its hub has closed the streams already, and clients may have
// reconnected with a new authentication when the request comes back. Listeners with PollOnly do not receive
// the request. Disconnect returns once the request is committed.
func (r *Replayer) Disconnect(ctx context.Context, recipient string) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	// The names are qualified, because behind a pooler the connection does not have the listener's settings.
	const notify = "SELECT pg_catalog.pg_notify($1::pg_catalog.text, $2::pg_catalog.text)"
	if _, err := r.notifying.Exec(ctx, notify, disconnectedChannel, r.listener.name+" "+recipient); err != nil {
		return fmt.Errorf("notify %s: %w", disconnectedChannel, err)
	}
	return nil
}
