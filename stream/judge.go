package stream

import (
	"context"

	"rowcast/listener/cursor"
	"rowcast/listener/failures"
)

// A claim is the cursor that a client came with.
type claim struct {
	by        reader
	cursor    cursor.Cursor
	given     bool
	malformed bool
}

// judge decides from which cursor the stream goes on: the client's if it can be honoured. Otherwise from the present, and says why.
func (j *joining) judge(claim claim) (c cursor.Cursor, reason string) {
	now, horizon := j.present()
	if !claim.given {
		return now, ""
	}
	if claim.malformed {
		return now, resetMalformed
	}
	c = claim.cursor
	for caughtUp := false; j.ctx.Err() == nil; now, horizon = j.present() {
		if c.Epoch != now.Epoch {
			var stands bool
			if !j.inTurn(failures.Stands, func(ctx context.Context) (err error) { stands, err = j.Source.Stands(ctx, c, now); return err }) {
				continue
			}
			if stands {
				c.Epoch = now.Epoch
			} else if c, stands = j.forward(c); !stands {
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
		// The client comes from a faster hub.
		if caughtUp {
			return now, resetAhead
		}
		caughtUp = j.ask(failures.CatchUp, j.Source.CatchUp)
	}
	return c, ""
}

// forward is what is left of a cursor of an earlier epoch, if that is remembered.
func (j *joining) forward(c cursor.Cursor) (cursor.Cursor, bool) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return j.epochs.forward(c)
}
