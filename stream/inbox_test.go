package stream_test

import (
	"fmt"
	"strings"
	"testing"

	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// With Hub.Inbox, streams receive the changes of inboxes as events named rowcast.inbox. A stream receives the changes
// for its user, its groups and everyone, both live and when it resumes from the memory of the hub or from the table.
// The recipients of these events are not in rowcast.hello.
func TestInboxChangesAreEvents(t *testing.T) {
	t.Parallel()
	for name, memory := range map[string]int{"from the memory": 0, "from the table": 1} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			s := serve(t, dsn, func(s *site) { s.hub.Inbox, s.hub.Memory = true, memory })
			live := listen(t, s, "alice", "team:7")
			hello := live.want("rowcast.hello")
			if want := `{"recipients":["alice","team:7"],"heartbeat":15}`; hello.Data != want {
				t.Errorf("got %s, want %s", hello.Data, want)
			}
			db := connect(t, dsn)
			for i, recipient := range []string{
				"rowcast.inbox:alice", "rowcast.inbox:bob", "rowcast.inbox:team:7", "rowcast.inbox:team:8", "alice", "rowcast.inbox:*",
			} {
				insert(t, db, recipient, fmt.Sprint(i))
			}
			s.caughtUp(t)
			wantInbox(live)
			wantInbox(resume(t, s, hello.LastID, "alice", "team:7"))
		})
	}
}

func wantInbox(c *client) {
	c.Helper()
	for _, want := range []string{"rowcast.inbox 0", "rowcast.inbox 2", "message 4", "rowcast.inbox 5"} {
		e := c.notification()
		for e.Name == "rowcast.hello" {
			e = c.notification()
		}
		if got := e.Name + " " + strings.Trim(e.Data, `"`); got != want {
			c.Errorf("got %s, want %s", got, want)
		}
	}
}

// A hub without Hub.Inbox sends no changes of inboxes. A stream without a user receives none either.
func TestStreamsWithoutAnInbox(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	without := serve(t, dsn)
	with := serve(t, dsn, func(s *site) { s.hub.Inbox = true })
	clients := []*client{listen(t, without, "alice"), listen(t, with)}
	for _, c := range clients {
		c.hello()
	}
	db := connect(t, dsn)
	for _, recipient := range []string{"rowcast.inbox:alice", "rowcast.inbox:*", feed.Everyone} {
		insert(t, db, recipient, recipient)
	}
	for _, c := range clients {
		c.wantData(`"*"`)
	}
}

// With Hub.Inbox, a stream may still have 100 groups, and names of the greatest length.
func TestInboxWithManyGroups(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	s := serve(t, dsn, func(s *site) { s.hub.Inbox, s.hub.Memory = true, 1 })
	recipients := []string{"alice"}
	for i := range 99 {
		recipients = append(recipients, fmt.Sprintf("team:%d", i))
	}
	long := "team:" + strings.Repeat("x", feed.MaxRecipient-5)
	recipients = append(recipients, long)
	live := listen(t, s, recipients...)
	id := live.hello()
	db := connect(t, dsn)
	for _, recipient := range []string{long, "rowcast.inbox:team:98", "rowcast.inbox:team:99", feed.InboxOf(long)} {
		insert(t, db, recipient, recipient[:min(21, len(recipient))])
	}
	insert(t, db, "alice", "last")
	s.caughtUp(t)
	resumed := resume(t, s, id, recipients...)
	resumed.hello()
	for _, c := range []*client{live, resumed} {
		c.wantData(quote(long[:21]), `"rowcast.inbox:team:98"`, quote(feed.InboxOf(long)[:21]), `"last"`)
	}
}
