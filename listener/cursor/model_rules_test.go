package cursor_test

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"rowcast/listener/cursor"
)

// A rule is the number of a rule in the documentation of the package. A world can leave out one rule (see plan.omit).
type rule int

const (
	noRule rule = iota

	// The cursor of a row in a batch, see formula.
	listsInFlight
	unseenBelow
	unseenAbove
	xmaxDoesNotFall
	xmaxDoesNotAdvance
	halfDeliveredEnds

	// Hubs and streams.
	halfDeliveredFirst
	ownIDs
	clientAhead
	liveBetween
	liveWithMemory
	batchEndsBetween
	oneSnapshot
	beatWithoutPending
	beatAfterLastRow

	// Web pages and crashes.
	pageGap
	claimsWhatWasRead
	anchorChecked
	epochBegins
	clamped
	everyRecovery
	floor
	memoryEnds
	onlyDelivered

	// Rows with the number of another transaction.
	numbersAssigned
	disowned

	lastRule = disowned
)

// documentedRules returns the texts of the rules in doc.go, by their numbers.
func documentedRules(t *testing.T) map[rule]string {
	t.Helper()
	doc, err := os.ReadFile("doc.go")
	if err != nil {
		t.Fatal(err)
	}
	texts := map[rule]string{}
	for _, found := range regexp.MustCompile(`(?m)^//  (\d+)\. (.+\.) \[.+\]$`).FindAllStringSubmatch(string(doc), -1) {
		number, err := strconv.Atoi(found[1])
		if err != nil {
			t.Fatal(err)
		}
		texts[rule(number)] = found[2]
	}
	return texts
}

// TestRules leaves out one rule at a time and expects that clients receive wrong rows, see breaksPromise. If the model
// did not notice a missing rule, its other tests would not show that the rule is kept. For each rule, the test plays
// ROWCAST_HISTORIES histories and counts the bad histories. If ROWCAST_HISTORIES is not set, it plays at most 1,500
// histories and stops at the third bad history. The rules in README.md must be the same as in doc.go.
func TestRules(t *testing.T) {
	t.Parallel()
	texts := documentedRules(t)
	readme, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	for omitted := noRule + 1; omitted <= lastRule; omitted++ {
		if texts[omitted] == "" {
			t.Errorf("doc.go has no rule %d", omitted)
		}
		if line := fmt.Sprintf("\n%d. %s\n", omitted, texts[omitted]); !strings.Contains(string(readme), line) {
			t.Errorf("README.md does not have the rule%s", line)
		}
		p := plan{omit: omitted}
		switch omitted {
		case claimsWhatWasRead:
			p.crashes = 2
		case anchorChecked, epochBegins, clamped, everyRecovery, floor, memoryEnds, onlyDelivered:
			p.crashes, p.lost = 4, 3
		}
		t.Run(fmt.Sprintf("%d %s", omitted, texts[omitted]), func(t *testing.T) { t.Parallel(); leaveOut(t, p) })
	}
	if len(texts) != int(lastRule) {
		t.Errorf("doc.go has %d rules, want the %d of the test", len(texts), lastRule)
	}
}

// leaveOut plays histories with the rule p.omit left out, and expects that clients receive wrong rows in at least one.
// It plays the seeds of the histories with wrong rows again, with the rule, and expects no finding. The seeds are the
// same in each run of the test.
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
		kept.omit = noRule
		if found := play(played, kept).findings; len(found) > 0 {
			t.Errorf("history %d: with the rule: got finding %v, want none", played, found[0])
		}
	}
	t.Logf("%d of %d histories have wrong rows", bad, played)
	if bad == 0 {
		t.Error("got no history with a lost, repeated, undue or misplaced row without the rule, want at least one")
	}
}

// A formula computes the cursor of a row. from is the cursor before the batch, and to is the new snapshot.
type formula func(from, to cursor.Cursor, row cursor.Row) cursor.Cursor

// formula returns the wrong formula that results from leaving out the rule. It returns nil if the rule is not about the
// formula.
func (r rule) formula() formula {
	switch r {
	case listsInFlight:
		return except(func(m *cursor.Cursor, _, _ cursor.Cursor) { m.Xip = nil })
	case unseenBelow:
		return except(func(m *cursor.Cursor, _, _ cursor.Cursor) {
			m.Xip = keep(m.Xip, func(t uint64) bool { return t > m.Xid })
		})
	case unseenAbove:
		return except(func(m *cursor.Cursor, _, _ cursor.Cursor) {
			m.Xip = keep(m.Xip, func(t uint64) bool { return t < m.Xid })
		})
	case xmaxDoesNotFall:
		return except(func(m *cursor.Cursor, _, _ cursor.Cursor) {
			m.Xmax, m.Xip = m.Xid, keep(m.Xip, func(t uint64) bool { return t < m.Xid })
		})
	case xmaxDoesNotAdvance:
		return except(func(m *cursor.Cursor, _, to cursor.Cursor) { m.Xmax = max(m.Xmax, to.Xmax) })
	case halfDeliveredEnds:
		return except(func(m *cursor.Cursor, from, _ cursor.Cursor) {
			if from.Xid == from.Xmax && m.Xid < from.Xmax {
				m.Xmax = from.Xmax
			}
		})
	}
	return nil
}

// except returns the correct formula with a change. The change applies only to rows outside the half-delivered
// transaction.
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
