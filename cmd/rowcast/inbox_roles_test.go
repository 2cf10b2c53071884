package main_test

import (
	"fmt"
	"strings"
	"testing"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// With the rights that migrate grants, a hub serves inboxes, and an app calls the functions for any user. No role of a
// hub, an app or a sender can read or change the tables of the inbox directly. A hub with --inbox does not start if its
// role may not use the inbox.
func TestRolesOfTheInbox(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	runSQL(t, dsn, "REVOKE EXECUTE ON ALL FUNCTIONS IN SCHEMA rowcast FROM PUBLIC") // as some administrators do
	appRole, app := login(t, dsn, "App")
	hubRole, hub := login(t, dsn, "Hub")
	senderRole, sender := login(t, dsn, "Sender")
	succeed(t, "migrate", "--database-url", dsn, "--inbox")
	succeed(t, "migrate", "--database-url", dsn, "--sender-role", senderRole)
	runSQL(t, dsn, `GRANT USAGE ON SCHEMA rowcast TO "`+hubRole+`"`, `GRANT SELECT ON ALL TABLES IN SCHEMA rowcast TO "`+hubRole+`"`,
		`GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA rowcast TO "`+hubRole+`"`, `REVOKE EXECUTE ON FUNCTION rowcast.inbox_version() FROM "`+hubRole+`"`,
		`REVOKE ALL ON rowcast.inbox_users, rowcast.inbox_states, rowcast.inbox_changes FROM "`+hubRole+`"`, `GRANT INSERT ON rowcast.epoch TO "`+hubRole+`"`)
	code, _, stderr := run(t, nil, "serve", "--inbox", "--insecure-uid", "--retain", "0", "--listen", "127.0.0.1:0", "--database-url", hub)
	if code != 1 || !strings.Contains(stderr, "permission denied for function inbox_version (SQLSTATE 42501): run rowcast doctor, which prints the missing rights") {
		t.Errorf("without the right: got %d, %s, want 1 and how to find the missing rights", code, stderr)
	}
	succeed(t, "migrate", "--database-url", dsn, "--app-role", appRole, "--hub-role", hubRole)
	h := startHub(t, hub, "--inbox", "--insecure-uid")
	inserter(t, app)("alice=1", "bob=2")
	inserter(t, sender)("alice=3")
	alice := inboxClient{T: t, url: h.url}
	list := alice.list("?uid=alice")
	if got := list.state(); got != "3, 1" {
		t.Errorf("got the rows %s, want 3, 1, which are for alice", got)
	}
	for _, user := range []string{"alice", "bob"} {
		runSQL(t, app, "SELECT rowcast.inbox_mark('"+user+"', 'read', up_to => rowcast.inbox('"+user+"')->>'cursor')")
	}
	if got := alice.list("?uid=alice").state(); got != "3 read, 1 read" {
		t.Errorf("got %s after the app has marked the rows, want 3 read, 1 read", got)
	}
	for role, dsn := range map[string]string{"app": app, "hub": hub, "sender": sender} {
		for _, table := range []string{"inbox_users", "inbox_states", "inbox_changes"} {
			if got := valueOf(t, dsn, "SELECT has_table_privilege('rowcast."+table+"', 'SELECT, INSERT, UPDATE, DELETE, TRUNCATE')::text"); got != "false" {
				t.Errorf("the role of the %s has a right on the table %s, want none", role, table)
			}
		}
	}
	if got := valueOf(t, sender, "SELECT has_function_privilege('rowcast.inbox(text, text[], integer, text)', 'EXECUTE')::text"); got != "false" {
		t.Error("the role of a sender may read inboxes, want that it may not")
	}
}

// Rows that a watched table sends are in the inbox.
func TestWatchedRowsAreInTheInbox(t *testing.T) {
	t.Parallel()
	h, dsn := inboxHub(t)
	alice := h.inboxOf(t, "alice")
	alice.list("")
	stream := openStream(t, h, "", "", alice.headers...)
	runSQL(t, dsn, "CREATE TABLE orders (id integer, customer text, status text)")
	succeed(t, "watch", "orders", "--database-url", dsn, "--recipient", "customer", "--data", "to_jsonb(status)")
	runSQL(t, dsn, "INSERT INTO orders VALUES (1, 'alice', 'sent'), (2, 'bob', 'lost')")
	stream.wants("sent")
	list := alice.list("")
	if list.state() != "sent" {
		t.Fatalf("got the rows %s, want only sent, from the watched table", list.state())
	}
	if got := alice.mark("read", list.idOf(t, "sent")); got.Unread != 0 {
		t.Errorf("%d rows are unread, want none", got.Unread)
	}
	if event := decodeEvent(t, stream.next("rowcast.inbox")); event.Action != "read" || event.IDs[0] != list.idOf(t, "sent") {
		t.Errorf("got the event %+v, want the action read for the row of the watched table", event)
	}
}

// A user with a long name receives the events about the inbox. The recipient of these events has a hash instead of the
// name, because the length of a recipient is limited.
func TestInboxOfALongName(t *testing.T) {
	t.Parallel()
	h, dsn := inboxHub(t)
	long := strings.Repeat("é", 128)
	user := h.inboxOf(t, long)
	user.list("")
	inserter(t, dsn)(long + "=1")
	list := user.list("")
	stream := openStream(t, h, "", list.Cursor, user.headers...)
	user.mark("read", list.idOf(t, "1"))
	if event := decodeEvent(t, stream.next("rowcast.inbox")); event.Action != "read" {
		t.Errorf("got the event %+v, want the action read", event)
	}
	if got := valueOf(t, dsn, "SELECT rowcast.inbox_twin('"+long+"')"); !strings.HasPrefix(got, "rowcast.inbox#") {
		t.Errorf("the events have the recipient %s, want rowcast.inbox# and a hash", got)
	}
}

// rowcast doctor says which version of the inbox is installed. Its check of free connections includes the connections
// for inboxes.
func TestDoctorKnowsTheInbox(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	code, found, out := examine(t, dsn)
	want := "ok the schema has the version that this rowcast needs: " + schemaVersion + "; the inbox has version " + fmt.Sprint(sql.InboxVersion())
	if found["migrations"] != want || code != 0 {
		t.Errorf("got %d, %s, want 0, %s", code, out, want)
	}
	if want := "free connections; a hub with --inbox needs up to 12"; !strings.HasSuffix(found["connections"], want) {
		t.Errorf("got  %s\nwant %s at the end", found["connections"], want)
	}
	runSQL(t, dsn, "DO $$ BEGIN EXECUTE format('ALTER DATABASE %I CONNECTION LIMIT 15', current_database()); END $$")
	_, found, _ = examine(t, dsn)
	if want := "free connections; a hub with --inbox needs up to 12, and a reserve of 4 → raise the database's CONNECTION LIMIT"; !strings.Contains(found["connections"], want) {
		t.Errorf("got  %s\nwant %s", found["connections"], want)
	}
}
