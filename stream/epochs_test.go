package stream_test

import (
	"context"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream"
)

// afterCrashes serves a feed. Its Source regards every cursor of another epoch as not valid.
func afterCrashes(t *testing.T) *fakeFeed {
	t.Helper()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat = time.Hour })
	f.hub.Source.(*source).valid = func(context.Context) (bool, error) { return false, nil }
	return f
}

// beginEpoch begins the next epoch. left is the last row that the server still has: rows of transactions above its
// transaction are lost. If left is nil, no row is lost.
func (f *fakeFeed) beginEpoch(left *cursor.Row) {
	if f.now.Epoch++; left != nil {
		f.now = f.now.Clamp(*left, f.now.Epoch)
	}
	f.hub.Publish(feed.Batch{Cursor: f.now, Clamp: left})
}

// A client that resumes after several crashes receives no row twice and misses none, whatever each crash has lost.
func TestClampingAfterSeveralCrashes(t *testing.T) {
	t.Parallel()
	f := afterCrashes(t)
	first := f.publish("alice", "message", "1")
	cursors := []string{f.now.String(), f.publish("alice", "message", "lost").Cursor.String(), f.now.String()}
	f.beginEpoch(&first.Row)
	cursors = append(cursors, f.now.String(), f.publish("alice", "message", "lost, too").Cursor.String())
	f.beginEpoch(nil)
	cursors = append(cursors, f.now.String(), f.publish("alice", "message", "lost with it").Cursor.String())
	f.beginEpoch(&first.Row)
	f.beginEpoch(&first.Row)
	f.publish("alice", "message", "with the number of a lost row")
	for _, id := range cursors {
		wantRest(t, f.site, id, "with the number of a lost row")
	}
	wantResets(t, f.site, 0)
}

// The hub keeps only the latest MaxRecoveries recoveries. It resets a client whose cursor is older, if the anchor of
// the cursor no longer exists.
func TestOldRecoveriesAreRemoved(t *testing.T) {
	t.Parallel()
	f := afterCrashes(t)
	first := f.publish("alice", "message", "1")
	ids := []string{f.now.String()}
	for range stream.MaxRecoveries + 1 {
		f.beginEpoch(&first.Row)
		ids = append(ids, f.now.String())
	}
	f.publish("alice", "message", "2")
	wantRest(t, f.site, ids[1], "2")
	wantReset(resume(t, f.site, ids[0], "alice"), "a cursor older than the kept recoveries", "history", f.now.String())
}

// A batch with a Reset removes the recoveries, so the hub can no longer convert a cursor from before this batch.
func TestResetRemovesTheRecoveries(t *testing.T) {
	t.Parallel()
	f := afterCrashes(t)
	first := f.publish("alice", "message", "1")
	before := f.now.String()
	f.beginEpoch(&first.Row)
	f.now = cursor.Cursor{Xmax: 500, Epoch: f.now.Epoch + 1}
	f.hub.Publish(feed.Batch{Cursor: f.now, Reset: "history"})
	wantReset(resume(t, f.site, before, "alice"), "before the reset", "history", f.now.String())
}

// The first batch of a new epoch empties the memory, so a client that has missed rows of the earlier epoch resumes from
// the table.
func TestMemoryIsEmptiedWithItsEpoch(t *testing.T) {
	t.Parallel()
	f := afterCrashes(t)
	before := f.now.String()
	f.publish("alice", "message", "perhaps lost")
	f.now.Epoch++
	between := f.now.String()
	f.publish("alice", "message", "2") // the first batch of the new epoch
	wantRest(t, f.site, between, "2")
	if got := f.hub.Stats.Pages.Load(); got != 0 {
		t.Errorf("%d pages were read for a row of the new epoch, want none", got)
	}
	resume(t, f.site, before, "alice").hello()
	eventually(t, "the table is read", func() bool { return f.hub.Stats.Pages.Load() > 0 })
}
