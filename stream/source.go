package stream

import (
	"context"
	"net/http"
	"net/netip"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
)

// A Source reads rows that a Hub no longer has in memory. Its errors are temporary: the Hub tries again while the
// client waits.
type Source interface {
	// CatchUp returns once everything that was committed before the call has been published.
	CatchUp(ctx context.Context) error

	// Page reads a page of the rows for the recipients, in the order of delivery. These are the rows that end has seen
	// and that a client at the cursor c has not received. The rows for everyone are read if [feed.Everyone] is among the
	// recipients. next is the client's cursor after these rows. If there are no more rows, next is equal to
	// end. horizon is the transaction number below which retention has deleted rows.
	Page(ctx context.Context, c, end cursor.Cursor, recipients []string) (rows []feed.Row, next cursor.Cursor, horizon uint64, err error)

	// IsValid reports whether c, a cursor of an earlier epoch, is valid in the epoch of now, the Hub's cursor. It is
	// valid if its anchor still exists. IsValid checks no other row.
	IsValid(ctx context.Context, c, now cursor.Cursor) (bool, error)
}

// A reader is the key of a call of the Source: a user, or an address if the user is unknown.
type reader struct {
	user    string
	address netip.Addr
}

func readerOf(user string, r *http.Request) reader {
	if user != "" {
		return reader{user: user}
	}
	return reader{address: AddressOf(r.RemoteAddr)}
}
