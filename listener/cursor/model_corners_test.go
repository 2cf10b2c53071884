package cursor_test

import (
	"os"
	"slices"
	"testing"

	"rowcast/listener/cursor"
)

// corner is a rule without which rows are lost or repeated. A world can leave one out.
type corner string

const (
	right corner = ""

	// Of the cursor of an event: see formula.
	inFlight       corner = "a cursor lists the transactions in flight, it is not an xmax alone"
	missedBelow    corner = "below the event's transaction, what is missed is what the new snapshot misses"
	missedAbove    corner = "above the event's transaction, what is missed is what the old snapshot missed"
	xmaxStays      corner = "the xmax does not fall back to the event's transaction"
	xmaxFollows    corner = "the xmax does not run ahead to the new snapshot's"
	halfToldCloses corner = "a half-told transaction at the xmax is below it once the next one's turn comes"

	// Of hubs and streams.
	halfToldFirst        corner = "the rest of a half-told transaction is told before all else"
	ownIDs               corner = "a replayed row's id is computed for the client that gets it"
	clientAhead          corner = "a hub catches up with a client that is ahead of it before it registers it"
	registeredBetween    corner = "a client is registered where a transaction ends"
	registeredFromMemory corner = "a client is registered together with what came during its replay"
	cursorMovesBetween   corner = "a hub's cursor moves where a transaction ends"
	snapshotFixed        corner = "pages that go on behind the last row's place are of one snapshot"
	beatOwesNothing      corner = "a beat has an id only where nothing is owed"
	beatAfterLastRow     corner = "a beat's id comes after the last row told"

	// Of pages and crashes.
	pageGap           corner = "a page's cursor misses what began between its snapshot and its own transaction"
	claimsWhatWasRead corner = "a hub's cursor claims no transaction beyond the last one read"
	anchorChecked     corner = "a cursor of another epoch holds only if its anchor stands"
	epochBegins       corner = "a crash begins another epoch"
	clamped           corner = "what is left of a cursor claims nothing that was taken back"
	everyCrash        corner = "what a client has seen is clamped for every crash since"
	floor             corner = "nothing is clamped to below what may have been told and is not remembered"
	memoryEnds        corner = "what is remembered of rows is forgotten at a new epoch"
	onlyWhatItTold    corner = "a hub clamps no cursor of a client that has seen more than it told"

	// Of rows with another transaction's number.
	numbersAssigned corner = "a row counts only if its number had been assigned when it was written"
	disowned        corner = "a row that comes with another number than its transaction's loses it"
)

// TestCorners leaves out one rule at a time and expects that rows are lost or repeated: where that goes unnoticed, the other
// tests would prove nothing. ROWCAST_HISTORIES makes it count in so many histories, else the third is enough.
func TestCorners(t *testing.T) {
	t.Parallel()
	for _, omit := range []corner{
		inFlight, missedBelow, missedAbove, xmaxStays, xmaxFollows, halfToldCloses,
		halfToldFirst, ownIDs, clientAhead, registeredBetween, registeredFromMemory, cursorMovesBetween,
		snapshotFixed, beatOwesNothing, beatAfterLastRow, pageGap,
		numbersAssigned, disowned,
	} {
		t.Run(string(omit), func(t *testing.T) { t.Parallel(); leaveOut(t, plan{omit: omit}) })
	}
	t.Run(string(claimsWhatWasRead), func(t *testing.T) { t.Parallel(); leaveOut(t, plan{omit: claimsWhatWasRead, crashes: 2}) })
	for _, omit := range []corner{anchorChecked, epochBegins, clamped, everyCrash, floor, memoryEnds, onlyWhatItTold} {
		t.Run(string(omit), func(t *testing.T) { t.Parallel(); leaveOut(t, plan{omit: omit, crashes: 4, lost: 3}) })
	}
}

// leaveOut plays the same histories whenever it is run.
func leaveOut(t *testing.T, p plan) {
	histories := number(t, "ROWCAST_HISTORIES", 1500)
	enough := os.Getenv("ROWCAST_HISTORIES") == ""
	var bad, played uint64
	for played < histories && !(enough && bad == 3) {
		played++
		if !slices.ContainsFunc(play(played, p).findings, finding.breaksPromise) {
			continue
		}
		bad++
		kept := p
		kept.omit = right
		if found := play(played, kept).findings; len(found) > 0 {
			t.Errorf("history %d: with the rule kept: %v", played, found[0])
		}
	}
	t.Logf("%d of %d histories lose or repeat rows", bad, played)
	if bad == 0 {
		t.Error("leaving it out shows in none")
	}
}

// formula is that of an event's cursor: from is what had been seen before the batch, to is what it shows, row is the event's.
type formula func(from, to cursor.Cursor, row cursor.Row) cursor.Cursor

// formula is the formula without the rule; nil if the rule is not one of the formula's.
func (c corner) formula() formula {
	switch c {
	case inFlight:
		return except(func(m *cursor.Cursor, _, _ cursor.Cursor) { m.Xip = nil })
	case missedBelow:
		return except(func(m *cursor.Cursor, _, _ cursor.Cursor) {
			m.Xip = keep(m.Xip, func(t uint64) bool { return t > m.Xid })
		})
	case missedAbove:
		return except(func(m *cursor.Cursor, _, _ cursor.Cursor) {
			m.Xip = keep(m.Xip, func(t uint64) bool { return t < m.Xid })
		})
	case xmaxStays:
		return except(func(m *cursor.Cursor, _, _ cursor.Cursor) {
			m.Xmax, m.Xip = m.Xid, keep(m.Xip, func(t uint64) bool { return t < m.Xid })
		})
	case xmaxFollows:
		return except(func(m *cursor.Cursor, _, to cursor.Cursor) { m.Xmax = max(m.Xmax, to.Xmax) })
	case halfToldCloses:
		return except(func(m *cursor.Cursor, from, _ cursor.Cursor) {
			if from.Xid == from.Xmax && m.Xid < from.Xmax {
				m.Xmax = from.Xmax
			}
		})
	}
	return nil
}

// except is the right formula with something changed in the cursors of rows that are not of the half-told transaction.
func except(change func(m *cursor.Cursor, from, to cursor.Cursor)) formula {
	return func(from, to cursor.Cursor, row cursor.Row) cursor.Cursor {
		m := from.After(row, to)
		if row.Xid != from.Xid {
			change(&m, from, to)
		}
		return m
	}
}

func keep(xip []uint64, keep func(xid uint64) bool) []uint64 {
	return slices.DeleteFunc(slices.Clone(xip), func(xid uint64) bool { return !keep(xid) })
}
