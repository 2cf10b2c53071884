package listener

import (
	"context"
	"fmt"

	"rowcast/sql"
)

// disconnectChannel is where hubs are told, with a recipient for the payload, to end its streams.
const disconnectChannel = sql.Channel + ".disconnect"

// Disconnect tells every listener that LISTENs to this database, with [Listener.Disconnect], to end a recipient's streams. It
// returns once that is committed.
func (r *Replayer) Disconnect(ctx context.Context, recipient string) error {
	ctx, cancel := context.WithTimeout(ctx, r.timeout)
	defer cancel()
	if _, err := r.pool.Exec(ctx, "SELECT pg_notify($1, $2)", disconnectChannel, recipient); err != nil {
		return fmt.Errorf("notify %s: %w", disconnectChannel, err)
	}
	return nil
}

// A call is what came by NOTIFY with a payload.
type call struct{ channel, payload string }

// answer does what somebody asked for with NOTIFY.
func (s *session) answer(c call) {
	switch {
	case c.channel != disconnectChannel:
		s.tell(c.payload)
	case s.Disconnect == nil:
	case checkRecipient(c.payload) != nil:
		s.Logger.Warn("nobody is disconnected", "error", "the payload is not a recipient, 1 to 256 bytes long")
	default:
		s.Disconnect(c.payload)
	}
}

// tell hands on a message by hand.
func (s *session) tell(payload string) {
	if s.Message == nil {
		return
	}
	message, err := parseMessage(payload)
	if err != nil {
		s.Logger.Warn("message by hand goes to nobody", "error", err)
		return
	}
	s.Message(message)
}
