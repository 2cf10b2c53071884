package stream

import (
	"context"
	"net/http"
	"net/url"
	"slices"
	"strings"

	"rowcast/listener/cursor"
	"rowcast/listener/failures"
)

// A clientCursor is the cursor that the client sent.
type clientCursor struct {
	cursor    cursor.Cursor
	given     bool
	malformed bool
}

// maxCursor is the length in bytes of the longest text that is parsed as a cursor. A longer text is malformed. A cursor
// with 1,000 transactions in flight has fewer than 7,500 bytes (TestLongest in package cursor).
const maxCursor = 16 << 10

// clientCursorOf returns the cursor of a request. The last header Last-Event-ID that is not empty has priority, because
// an EventSource that reconnects sends it together with the query of its first request.
func clientCursorOf(r *http.Request) clientCursor {
	for _, text := range slices.Backward(r.Header.Values("Last-Event-ID")) {
		if text != "" {
			return parseClientCursor(text)
		}
	}
	return cursorInQuery(r.URL.RawQuery)
}

// isCursor reports whether name is a name of the query parameter for the cursor, in upper or lower case. Widely used
// libraries that replace EventSource call the parameter lastEventId by default, and some of them lastEventID.
func isCursor(name string) bool {
	return strings.EqualFold(name, "last_event_id") || strings.EqualFold(name, "lastEventId")
}

// cursorInQuery returns the cursor of the last parameter for a cursor that has a value. If the value cannot be decoded,
// the result is malformed. url.ParseQuery would drop such a value, and the client would miss events without notice.
func cursorInQuery(query string) (c clientCursor) {
	for parameter := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(parameter, "=")
		if name, err := url.QueryUnescape(name); err != nil || !isCursor(name) {
			continue
		}
		if text, err := url.QueryUnescape(value); err != nil {
			c = clientCursor{given: true, malformed: true}
		} else if text != "" {
			c = parseClientCursor(text)
		}
	}
	return c
}

func parseClientCursor(text string) clientCursor {
	if len(text) > maxCursor {
		return clientCursor{given: true, malformed: true}
	}
	c, err := cursor.Parse(text)
	return clientCursor{cursor: c, given: true, malformed: err != nil}
}

// check returns the cursor from which the stream continues. It is the client's cursor, converted to the current epoch,
// or the Hub's cursor if the client sent none. If the stream cannot continue from the client's cursor, check returns
// the Hub's cursor and the reason for rowcast.reset. If the stream ends first, the result has no meaning.
func (j *joining) check(resume clientCursor) (c cursor.Cursor, reason string) {
	now, horizon := j.present()
	if !resume.given {
		return now, ""
	}
	if resume.malformed {
		return now, resetMalformed
	}
	c = resume.cursor
	for caughtUp := false; j.ctx.Err() == nil; now, horizon = j.present() {
		if c.Epoch != now.Epoch {
			var valid, asked bool
			if c, valid, asked = j.convert(c, now); asked && !valid {
				return now, resetHistory
			}
			continue
		}
		if !c.SeenBelow(horizon) {
			return now, resetExpired
		}
		if now.Covers(c) {
			return c, ""
		}
		// Another hub may have sent the client rows that this hub has not read yet (rule 9 of package cursor).
		if caughtUp {
			return now, resetAhead
		}
		caughtUp = j.attempt(failures.CatchUp, j.Source.CatchUp)
	}
	return c, ""
}

// convert converts a cursor of another epoch to the current epoch. valid reports whether that is possible. asked is
// false if the Source did not answer. In that case the cursor is returned unchanged.
func (j *joining) convert(c, now cursor.Cursor) (_ cursor.Cursor, valid, asked bool) {
	asked = j.attemptInTurn(failures.CheckCursor, func(ctx context.Context) (err error) {
		valid, err = j.Source.IsValid(ctx, c, now)
		return err
	})
	switch {
	case !asked:
		return c, false, false
	case valid:
		c.Epoch = now.Epoch
		return c, true, true
	}
	st := j.state.Lock()
	defer j.state.Unlock()
	c, valid = st.epochs.forward(c)
	return c, valid, true
}

// epochs are the last recoveries of the server that a Hub has seen, in order. Each recovery ends the epoch that the
// previous recovery began. Several recoveries are kept, because a client may resume after several of them.
type epochs []recovery

// maxRecoveries is the largest number of recoveries that are kept. Each uses about as much memory as a cursor. A client
// whose cursor is of an epoch before these recoveries is reset, unless the anchor of the cursor still exists.
const maxRecoveries = 64

// A recovery records which delivered rows survived when a restart, crash recovery or failover began a new epoch.
type recovery struct {
	sent cursor.Cursor // describes the rows that had been published
	last *cursor.Row   // rows of transactions above this row's transaction are lost; nil if no row is lost
	next cursor.Tag    // the epoch that began
}

func (e *epochs) add(r recovery) {
	if len(*e) == maxRecoveries {
		*e = slices.Delete(*e, 0, 1)
	}
	*e = append(*e, r)
}

// forward converts a cursor of an earlier epoch to the current one. known is false if the epoch is not kept, or if the
// cursor has seen rows that this Hub had not published, because the Hub does not know which of those rows survived.
func (e epochs) forward(c cursor.Cursor) (_ cursor.Cursor, known bool) {
	for _, r := range e { // rule 21 of package cursor
		if c.Epoch != r.sent.Epoch {
			continue
		}
		if !r.sent.Covers(c) { // rule 24 of package cursor
			return c, false
		}
		if c.Epoch = r.next; r.last != nil {
			c = c.Clamp(*r.last, r.next)
		}
		known = true
	}
	// If known, c is now of the current epoch, because each recovery begins the epoch that the following recovery ends.
	return c, known
}
