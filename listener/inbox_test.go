package listener_test

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// newInbox returns an Inbox with two connections.
func newInbox(t *testing.T, dsn string, configure ...func(*listener.Listener)) *listener.Inbox {
	t.Helper()
	l := newListener(t, dsn)
	for _, c := range configure {
		c(l)
	}
	inbox, err := l.NewInbox(limited(t), 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(inbox.Close)
	return inbox
}

// If NewInbox fails, it returns no Inbox, because a call of Close would panic.
func TestNewInboxFails(t *testing.T) {
	t.Parallel()
	inbox, err := newListener(t, dbtest.Empty(t)).NewInbox(limited(t), 0)
	if inbox != nil || err == nil {
		t.Errorf("with 0 connections: got %v and the error %v, want nil and an error", inbox, err)
	}
}

// An inboxPage has the fields that the tests check in the results of List, Mark and Undo.
type inboxPage struct {
	Items []struct {
		ID   string
		Read bool
	}
	Before, Cursor, Undo string
	Unseen, Unread       int
	Undone               bool
}

// inboxOf returns a function that decodes the result of a call. The test fails if the call has failed.
func inboxOf(t *testing.T) func(json.RawMessage, error) inboxPage {
	return func(result json.RawMessage, err error) (p inboxPage) {
		t.Helper()
		if err == nil {
			err = json.Unmarshal(result, &p)
		}
		if err != nil {
			t.Fatal(err)
		}
		return p
	}
}

// An Inbox lists the rows of a user and changes their state, with and without PollOnly.
func TestInboxListsAndMarks(t *testing.T) {
	t.Parallel()
	for name, pooled := range map[string]bool{"without PollOnly": false, "with PollOnly": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Inbox(t)
			inbox := newInbox(t, dsn, func(l *listener.Listener) { l.PollOnly = pooled })
			ctx, page := limited(t), inboxOf(t)
			if err := inbox.Check(ctx); err != nil {
				t.Fatal(err)
			}
			if p := page(inbox.List(ctx, "alice", nil, 20, "")); len(p.Items) != 0 {
				t.Errorf("got %+v before the first INSERT, want no items", p)
			}
			db := connect(t, dsn)
			exec(t, db, `INSERT INTO rowcast.notifications (recipient, data)
				VALUES ('alice', '1'), ('team:7', '2'), ('bob', '3'), ('team:8', '4'), ('*', '5')`)
			p := page(inbox.List(ctx, "alice", []string{"team:7"}, 2, ""))
			if len(p.Items) != 2 || p.Unread != 3 || p.Before == "" {
				t.Fatalf("got %+v, want 2 items, 3 in Unread, and a value of Before", p)
			}
			rest := page(inbox.List(ctx, "alice", []string{"team:7"}, 2, p.Before))
			if len(rest.Items) != 1 || rest.Items[0].ID != "1" || rest.Before != "" {
				t.Errorf("got %+v, want the oldest row as the last page", rest)
			}
			marked := page(inbox.Mark(ctx, "alice", []string{"team:7"}, "read", []int64{1, 3, 4, 999}, ""))
			if marked.Unread != 2 {
				t.Errorf("%d rows are unread after one of three was read, want 2", marked.Unread)
			}
			all := page(inbox.Mark(ctx, "alice", []string{"team:7"}, "read", nil, p.Cursor))
			if all.Unread != 0 {
				t.Errorf("%d rows are unread after all were read, want none", all.Unread)
			}
			if undone := page(inbox.Undo(ctx, "alice", []string{"team:7"}, all.Undo)); !undone.Undone || undone.Unread != 2 {
				t.Errorf("got %+v, want Undone, and two unread rows again", undone)
			}
			if bob := page(inbox.List(ctx, "bob", nil, 20, "")); len(bob.Items) != 2 || bob.Items[1].Read {
				t.Errorf("got %+v for bob, want two rows: the row for everyone, and his own row, unread", bob)
			}
		})
	}
}

// If the database refuses a value, the error is a [feed.Refused]. The error of a context that has ended is not.
func TestInboxRefusesValues(t *testing.T) {
	t.Parallel()
	ctx, inbox := limited(t), newInbox(t, dbtest.Inbox(t))
	other := inboxOf(t)(newInbox(t, dbtest.Inbox(t)).List(ctx, "alice", nil, 1, ""))
	for what, test := range map[string]struct {
		call func() (json.RawMessage, error)
		want feed.Refused
	}{
		"a malformed key of a page": {func() (json.RawMessage, error) { return inbox.List(ctx, "alice", nil, 20, "x") }, feed.Refused{Reason: `before must be the value of "before" in an earlier result`}},
		"a malformed cursor": {
			func() (json.RawMessage, error) { return inbox.Mark(ctx, "alice", nil, "read", nil, "x") }, feed.Refused{Reason: `malformed cursor "x"`},
		},
		"a cursor of another database": {
			func() (json.RawMessage, error) { return inbox.Mark(ctx, "alice", nil, "read", nil, other.Cursor) },
			feed.Refused{Reason: "the cursor is of another history of the database", Stale: true},
		},
		"a malformed undo": {func() (json.RawMessage, error) { return inbox.Undo(ctx, "alice", nil, "x") }, feed.Refused{Reason: "malformed undo"}},
		"a NUL":            {func() (json.RawMessage, error) { return inbox.Undo(ctx, "\x00", nil, "1") }, feed.Refused{Reason: "a value contains characters that the database cannot store"}},
	} {
		_, err := test.call()
		if got, ok := errors.AsType[feed.Refused](err); !ok || got != test.want {
			t.Errorf("%s: got %#v (%v), want %#v", what, got, err, test.want)
		}
	}
	ended, cancel := context.WithCancel(ctx)
	cancel()
	_, err := inbox.List(ended, "alice", nil, 20, "")
	if _, refused := errors.AsType[feed.Refused](err); err == nil || refused {
		t.Errorf("got %v after the end of the context, want an error that is not a feed.Refused", err)
	}
}

// Malformed values are refused before a connection is used, so they cost PostgreSQL nothing and are not in its log. The
// functions of the inbox refuse the same values. Well-formed values need a connection.
func TestInboxRefusesMalformedValuesWithoutAStatement(t *testing.T) {
	t.Parallel()
	ctx, dsn := limited(t), dbtest.Inbox(t)
	db, closed := connect(t, dsn), newInbox(t, dsn)
	page := inboxOf(t)(newInbox(t, dsn).List(ctx, "alice", nil, 1, ""))
	closed.Close()
	const list, undo, mark = "SELECT rowcast.inbox('alice', before => $1)", "SELECT rowcast.inbox_undo('alice', $1)", "SELECT rowcast.inbox_mark('alice', 'read', up_to => $1)"
	call := map[string]func(string) (json.RawMessage, error){
		list: func(value string) (json.RawMessage, error) { return closed.List(ctx, "alice", nil, 1, value) },
		undo: func(value string) (json.RawMessage, error) { return closed.Undo(ctx, "alice", nil, value) },
		mark: func(value string) (json.RawMessage, error) { return closed.Mark(ctx, "alice", nil, "read", nil, value) },
	}
	tags := page.Cursor[len(page.Cursor)-len("-00000000-00000000"):]
	for _, test := range []struct {
		query, value string
		malformed    bool
	}{
		{list, "007.9223372036854775807", false},
		{list, "7", true},
		{list, "7.9223372036854775808", true},
		{list, "1234567890123456789.1", true},
		{list, "7.+1", true},
		{list, "7.1\n", true},
		{undo, "123456789012345678", false},
		{undo, "1234567890123456789", true},
		{undo, "01", true},
		{undo, "-1", true},
		{undo, "1\n", true},
		{undo, "0", true},
		{mark, page.Cursor, false},
		{mark, "0-0-999999999999999999-" + tags, false},
		{mark, "0-0-1000000000000000000-" + tags, true},
		{mark, "1-1000000000000000000-1000000000000000000-" + tags, true},
		{mark, "0-0-2-" + tags, true},
		{mark, "1-0-7-~AAAA" + tags, false},
		{mark, "1-0-7-~AAAAA" + tags, true},
		{mark, "1-0-7-~gA" + tags, true},
		{mark, strings.Repeat("日", 200), true},
	} {
		_, err := call[test.query](test.value)
		refused, malformed := errors.AsType[feed.Refused](err)
		if malformed != test.malformed {
			t.Errorf("%.120q: got %v, want a feed.Refused: %v", test.value, err, test.malformed)
		}
		_, err = db.Exec(ctx, test.query, test.value)
		failed, _ := errors.AsType[*pgconn.PgError](err)
		if malformed && (failed == nil || failed.Code != "22023" || failed.Message != "rowcast: "+refused.Reason) {
			t.Errorf("%.120q: got %q, want the error of the function: %v", test.value, refused.Reason, err)
		} else if !malformed && failed != nil && failed.Code == "22023" {
			t.Errorf("%.120q: the function refused the value: %v", test.value, err)
		}
	}
}

// On a standby, List fails with an error that is not a [feed.Refused]. Otherwise a client would load its list again and
// again, because rowcast.cursor() fails on a standby with the SQLSTATE of an unknown cursor.
func TestInboxOnAStandby(t *testing.T) {
	t.Parallel()
	primary := dbtest.Cluster(t)
	m := sql.Migrator{DSN: primary.DSN("postgres"), Inbox: true}
	if _, _, err := m.Migrate(limited(t)); err != nil {
		t.Fatal(err)
	}
	inboxOf(t)(newInbox(t, primary.DSN("postgres")).List(limited(t), "alice", nil, 20, "")) // alice's first visit writes
	standby := dbtest.Standby(t, primary).DSN("postgres")
	for name, pooled := range map[string]bool{"without PollOnly": false, "with PollOnly": true} {
		_, err := newInbox(t, standby, func(l *listener.Listener) { l.PollOnly = pooled }).List(limited(t), "alice", nil, 20, "")
		if _, refused := errors.AsType[feed.Refused](err); err == nil || refused {
			t.Errorf("%s: got the error %v, want an error that is not a feed.Refused", name, err)
		}
	}
}

// Check returns an error if the inbox is missing, and another one if the role may not use it.
func TestInboxCheck(t *testing.T) {
	t.Parallel()
	ctx, dsn := limited(t), dbtest.Database(t)
	if err := newInbox(t, dsn).Check(ctx); !errors.Is(err, sql.ErrNoInbox) {
		t.Errorf("without the inbox: got %v, want %v", err, sql.ErrNoInbox)
	}
	dsn = dbtest.Inbox(t)
	role := createRole(t, dsn, "stranger", "USAGE ON SCHEMA rowcast")
	err := newInbox(t, dsn, func(l *listener.Listener) { l.Config.RuntimeParams["role"] = role }).Check(ctx)
	if failed, ok := errors.AsType[*pgconn.PgError](err); !ok || failed.Code != "42501" {
		t.Errorf("without rights: got %v, want insufficient_privilege", err)
	}
}

// A statement of an Inbox ends after its time limit, even if a lock keeps it waiting.
func TestInboxStatementsAreLimited(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	inbox := newInbox(t, dsn, func(l *listener.Listener) { l.Timeout = 1200 * time.Millisecond })
	db := connect(t, dsn)
	exec(t, db, "BEGIN")
	exec(t, db, "SELECT rowcast.inbox_mark('alice', 'read', up_to => rowcast.cursor()), 1")
	_, err := inbox.Mark(limited(t), "alice", nil, "read", []int64{1}, "") // without the time limit, it would wait until the test fails
	if failed, ok := errors.AsType[*pgconn.PgError](err); !ok || failed.Code != "57014" {
		t.Errorf("got %v while the row of the user is locked, want query_canceled", err)
	}
	exec(t, db, "ROLLBACK")
	if _, err := inbox.Mark(limited(t), "alice", nil, "read", []int64{1}, ""); err != nil {
		t.Errorf("got %v after the lock was released, want no error", err)
	}
}

// A transaction of the app that locks the inboxes of some users does not delay the other users for long, although the
// requests of those users take all connections.
func TestLockedInboxesDoNotDelayOtherUsers(t *testing.T) {
	t.Parallel()
	for name, pooled := range map[string]bool{"without PollOnly": false, "with PollOnly": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Inbox(t)
			inbox := newInbox(t, dsn, func(l *listener.Listener) { l.PollOnly, l.Timeout = pooled, time.Minute })
			db := connect(t, dsn)
			exec(t, db, "BEGIN")
			users := []string{"alice", "bob"} // as many users as the Inbox has connections
			for _, user := range users {
				exec(t, db, "SELECT rowcast.inbox_mark('"+user+"', 'read', up_to => rowcast.cursor())")
			}
			failed := make(chan error, len(users))
			for _, user := range users {
				go func() {
					_, err := inbox.Mark(limited(t), user, nil, "read", []int64{1}, "")
					failed <- err
				}()
			}
			for range users {
				err := <-failed
				if refused, ok := errors.AsType[*pgconn.PgError](err); !ok || refused.Code != "55P03" {
					t.Errorf("got %v while the row of the user is locked, want lock_not_available", err)
				}
			}
			if _, err := inbox.List(limited(t), "carol", nil, 20, ""); err != nil {
				t.Errorf("got %v for another user, want no error", err)
			}
			exec(t, db, "ROLLBACK")
			if _, err := inbox.Mark(limited(t), "alice", nil, "read", []int64{1}, ""); err != nil {
				t.Errorf("got %v after the lock was released, want no error", err)
			}
		})
	}
}

// A change that PostgreSQL ends because of a deadlock is made again. An app that deletes many rows may lock them in
// another order than the change.
func TestDeadlockedChangeIsMadeAgain(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	inbox, db := newInbox(t, dsn), connect(t, dsn)
	exec(t, db, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1'), ('alice', '2')")
	exec(t, db, "SET deadlock_timeout = '1h'") // so that PostgreSQL ends the change, and not this transaction
	exec(t, db, "BEGIN; DELETE FROM rowcast.notifications WHERE id = 2")
	marked := make(chan error, 1)
	go func() {
		_, err := inbox.Mark(limited(t), "alice", nil, "read", []int64{1, 2}, "")
		marked <- err
	}()
	eventually(t, connect(t, dsn), `SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()
		AND application_name = 'rowcast inbox' AND wait_event_type = 'Lock'`)
	exec(t, db, "DELETE FROM rowcast.notifications WHERE id = 1; COMMIT")
	if err := receive(t, "the change", marked); err != nil {
		t.Errorf("got %v, want no error, because the change is made again", err)
	}
}
