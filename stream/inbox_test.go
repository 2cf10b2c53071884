package stream_test

import (
	"fmt"
	"strings"
	"testing"

	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// With Hub.Inbox, the changes of an inbox are events rowcast.inbox. A stream receives those of its user, of its groups and
// of everyone, live and when it resumes, from the memory and from the table. rowcast.hello does not name their recipients.
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

// Without Hub.Inbox, and on a stream without a user, no stream receives the changes of an inbox.
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

// A stream may have as many groups with an inbox as without, with names of any length.
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
