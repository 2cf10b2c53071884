package stream_test

import (
	"context"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream"
)

// afterCrashes serves a feed of whose rows none stands, by the database's word, when a cursor of another epoch asks.
func afterCrashes(t *testing.T) *fakeFeed {
	t.Helper()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat = time.Hour })
	f.hub.Source.(*source).stands = func(context.Context) (bool, error) { return false, nil }
	return f
}

// recover begins the next epoch. What is above left is taken back; nil: nothing is.
func (f *fakeFeed) recover(left *cursor.Row) {
	if f.now.Epoch++; left != nil {
		f.now = f.now.Clamp(*left, f.now.Epoch)
	}
	f.hub.Publish(feed.Batch{Cursor: f.now, Clamp: left})
}

// A client that was away for several crashes has forgotten at each what was taken back then.
func TestClampingAfterSeveralCrashes(t *testing.T) {
	t.Parallel()
	f := afterCrashes(t)
	first := f.tell("alice", "message", "1")
	cursors := []string{f.now.String(), f.tell("alice", "message", "taken back").Cursor.String(), f.now.String()}
	f.recover(&first.Row)
	cursors = append(cursors, f.now.String(), f.tell("alice", "message", "taken back, too").Cursor.String())
	f.recover(nil)
	cursors = append(cursors, f.now.String(), f.tell("alice", "message", "taken back with it").Cursor.String())
	f.recover(&first.Row)
	f.recover(&first.Row)
	f.tell("alice", "message", "of the same number")
	for _, id := range cursors {
		wantRest(t, f.site, id, "of the same number")
	}
	wantResets(t, f.site, 0)
}

// Only so many epochs are remembered, the last ones.
func TestEpochsAreForgotten(t *testing.T) {
	t.Parallel()
	f := afterCrashes(t)
	first := f.tell("alice", "message", "1")
	ids := []string{f.now.String()}
	for range stream.MaxRecoveries + 1 {
		f.recover(&first.Row)
		ids = append(ids, f.now.String())
	}
	f.tell("alice", "message", "2")
	wantRest(t, f.site, ids[1], "2")
	wantReset(resume(t, f.site, ids[0], "alice"), "an epoch too many", "history", f.now.String())
}

// A reset forgets them, too: what was told before it leads nowhere.
func TestResetEndsTheChainOfEpochs(t *testing.T) {
	t.Parallel()
	f := afterCrashes(t)
	first := f.tell("alice", "message", "1")
	before := f.now.String()
	f.recover(&first.Row)
	f.now = cursor.Cursor{Xmax: 500, Epoch: f.now.Epoch + 1}
	f.hub.Publish(feed.Batch{Cursor: f.now, Reset: "history"})
	wantReset(resume(t, f.site, before, "alice"), "before the reset", "history", f.now.String())
}

// In a new epoch rows may be gone that the hub still remembers, even where no cursor has to be clamped: they are not told again.
func TestMemoryIsForgottenWithItsEpoch(t *testing.T) {
	t.Parallel()
	f := afterCrashes(t)
	before := f.now.String()
	f.tell("alice", "message", "gone, perhaps")
	f.now.Epoch++
	between := f.now.String()
	f.tell("alice", "message", "2") // the first batch of the new epoch
	wantRest(t, f.site, between, "2")
	if got := f.hub.Stats.Pages.Load(); got != 0 {
		t.Errorf("%d pages were read for what came in this epoch", got)
	}
	resume(t, f.site, before, "alice").hello()
	eventually(t, "the table is read", func() bool { return f.hub.Stats.Pages.Load() > 0 })
}
