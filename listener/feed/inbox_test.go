package feed_test

import (
	"strings"
	"testing"

	"rowcast/listener/feed"
)

func TestInboxOf(t *testing.T) {
	t.Parallel()
	for recipient, want := range map[string]string{
		"alice":                  "rowcast.inbox:alice",
		feed.Everyone:            "rowcast.inbox:*",
		strings.Repeat("x", 128): "rowcast.inbox:" + strings.Repeat("x", 128),
		strings.Repeat("x", 129): "rowcast.inbox#0ec9eb33e74510bcdd1f2ea55206e82f21649c5c2becbf2b433eb475b34c01bd",
		strings.Repeat("é", 64):  "rowcast.inbox:" + strings.Repeat("é", 64),
	} {
		if got := feed.InboxOf(recipient); got != want || !feed.IsInbox(got) {
			t.Errorf("%q: got %q, for which IsInbox returns %t, want %q and true", recipient, got, feed.IsInbox(got), want)
		}
	}
	for _, recipient := range []string{"alice", "rowcast.inbox", "inbox:alice", ""} {
		if feed.IsInbox(recipient) {
			t.Errorf("IsInbox(%q) returns true, want false", recipient)
		}
	}
}
