package sql_test

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// Marking all as read marks the rows that were visible to the list, and no others. A row that is committed later stays
// unread, even if its transaction has a lower number than the rows of the list.
func TestInboxAllIsWhatTheListShowed(t *testing.T) {
	t.Parallel()
	v := alice(t)
	open := connect(t, v.conn.Config().ConnString())
	run(t, open, "BEGIN")
	slow := send(t, open, "*")
	shown := send(t, v.conn, "alice")
	list := v.list()
	run(t, open, "COMMIT")
	later := send(t, v.conn, "alice")
	v.markAll("read", list.Cursor)
	for id, want := range map[int64]rowState{slow: {}, shown: {true, true, false}, later: {}} {
		if got := v.stateOf(id); got != want {
			t.Errorf("row %d: got %+v, want %+v", id, got, want)
		}
	}
}

// A row that was marked as unread becomes read again if all rows are marked as read up to the cursor of a list that
// contains the row. With the cursor of an older list, only the rows of that list change, and a newer row stays unread.
func TestInboxUnreadAfterAll(t *testing.T) {
	t.Parallel()
	v := alice(t)
	first := send(t, v.conn, "alice")
	old := v.list()
	second := send(t, v.conn, "alice")
	v.markAll("read", v.list().Cursor)
	v.mark("unread", first, second)
	for _, step := range []struct {
		cursor      string
		wantFirst   bool
		wantSecond  bool
		wantVersion int64
	}{{old.Cursor, true, false, 3}, {old.Cursor, true, false, 3}, {v.list().Cursor, true, true, 4}} {
		got := v.markAll("read", step.cursor)
		if got.Version != step.wantVersion {
			t.Errorf("got version %d, want %d", got.Version, step.wantVersion)
		}
		if f, s := v.stateOf(first).read, v.stateOf(second).read; f != step.wantFirst || s != step.wantSecond {
			t.Errorf("the first and the second row are read: got %v, %v, want %v, %v", f, s, step.wantFirst, step.wantSecond)
		}
	}
}

// Marking all rows sends no event if no row changes. Otherwise, two devices that mark their lists as seen would send
// each other events for ever.
func TestInboxAllWithoutEffectSendsNoEvent(t *testing.T) {
	t.Parallel()
	v := alice(t)
	send(t, v.conn, "alice")
	const events = "SELECT count(*)::text FROM rowcast.notifications WHERE recipient = 'rowcast.inbox:alice'"
	for _, action := range []string{"seen", "read", "archive"} {
		v.markAll(action, v.list().Cursor)
		before := text(t, v.conn, events)
		for range 3 {
			v.markAll(action, v.list().Cursor)
		}
		if after := text(t, v.conn, events); after != before {
			t.Errorf("after %s without effect: got %s events in total, want %s", action, after, before)
		}
	}
}

// Marking all rows stores no state for single rows, even if there are thousands.
func TestInboxAllStoresNoStates(t *testing.T) {
	t.Parallel()
	v := alice(t)
	run(t, v.conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', '1' FROM generate_series(1, 5000)")
	if got := v.list(); got.Unread != 100 || got.Unseen != 100 {
		t.Errorf("got %d unread and %d unseen rows, want 100 and 100, which stands for more than 99", got.Unread, got.Unseen)
	}
	got := v.markAll("read", v.list().Cursor)
	if got.Unread != 0 || got.Unseen != 0 {
		t.Errorf("after all was read: got %+v, want 0 unread and 0 unseen rows", got)
	}
	if states := text(t, v.conn, "SELECT count(*)::text FROM rowcast.inbox_states"); states != "0" {
		t.Errorf("got %s rows in inbox_states, want none", states)
	}
}

// The cursor of an event can be in the middle of a transaction. "All" up to this cursor marks the rows of the
// transaction up to the event, and no later ones.
func TestInboxAllUpToAnEvent(t *testing.T) {
	t.Parallel()
	v := alice(t)
	run(t, v.conn, "BEGIN")
	before := send(t, v.conn, "alice")
	cursor := text(t, v.conn, "SELECT rowcast.cursor()") // has seen the row that this transaction has inserted
	after := send(t, v.conn, "alice")
	run(t, v.conn, "COMMIT")
	undo := v.markAll("read", cursor).Undo
	if b, a := v.stateOf(before), v.stateOf(after); !b.read || a.read {
		t.Errorf("got %+v before the event and %+v after it, want that only the row before the event is read", b, a)
	}
	v.undo(undo)
	if b := v.stateOf(before); b.read || !b.seen {
		t.Errorf("after undo: got %+v, want a row that is seen and not read", b)
	}
}

// Undo restores the state before a change, except for rows that were changed since. Another device can undo the change,
// too.
func TestInboxUndo(t *testing.T) {
	t.Parallel()
	for _, action := range []string{"read", "archive"} {
		for _, byAll := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, all %v", action, byAll), func(t *testing.T) {
				t.Parallel()
				v := alice(t)
				changed, again, kept := send(t, v.conn, "alice"), send(t, v.conn, "*"), send(t, v.conn, "team:7")
				var change inboxChange
				if byAll {
					change = v.markAll(action, v.list().Cursor)
				} else {
					change = v.mark(action, changed, again, kept)
				}
				// A device learns the version from the event of the change, and passes it to undo.
				if version := strconv.FormatInt(change.Version, 10); change.Undo == nil || *change.Undo != version {
					t.Errorf("the undo of the change is missing or is not the version, want %s", version)
				}
				v.mark("un"+action, again)
				v.mark(action, again)
				if byAll {
					v.mark(action, kept) // "all" has set this state; now it is also the row's own state
				}
				other := v
				other.conn = connect(t, v.conn.Config().ConnString())
				if got := other.undo(change.Undo); !got.Undone {
					t.Errorf("undo: got %+v, want that something is undone", got)
				}
				is := func(id int64) bool {
					s := v.stateOf(id)
					return action == "read" && s.read || action == "archive" && s.archived
				}
				if got, want := fmt.Sprint(is(changed), is(again), is(kept)), fmt.Sprint(false, true, byAll); got != want {
					t.Errorf("after undo, the rows changed, again and kept have the state: got %s, want %s", got, want)
				}
				if got := v.undo(change.Undo); got.Undone {
					t.Errorf("a second undo: got %+v, want that nothing is undone", got)
				}
			})
		}
	}
}

// "All" cannot be undone after another "all" with the same action, unless the other "all" is undone first. The last ten
// changes of a user can be undone, and older ones cannot.
func TestInboxUndoIsBounded(t *testing.T) {
	t.Parallel()
	v := alice(t)
	send(t, v.conn, "alice")
	older := v.markAll("read", v.list().Cursor)
	send(t, v.conn, "alice")
	newer := v.markAll("read", v.list().Cursor)
	if got := v.undo(older.Undo); got.Undone || got.Unread != 0 {
		t.Errorf("undo of the older \"all\": got %+v, want that nothing is undone", got)
	}
	if got := v.undo(newer.Undo); !got.Undone || got.Unread != 1 {
		t.Errorf("undo of the newer \"all\": got %+v, want 1 unread row", got)
	}
	if got := v.undo(older.Undo); !got.Undone || got.Unread != 2 {
		t.Errorf("undo of the older \"all\" after the newer one was undone: got %+v, want 2 unread rows", got)
	}
	var changes []inboxChange
	for range 11 {
		changes = append(changes, v.mark("archive", send(t, v.conn, "alice")))
	}
	if first, second := v.undo(changes[0].Undo), v.undo(changes[1].Undo); first.Undone || !second.Undone {
		t.Errorf("undo of the first and the second of 11 changes: got %+v and %+v, want that only the second is undone", first, second)
	}
	if got := text(t, v.conn, "SELECT count(*)::text FROM rowcast.inbox_changes"); got != "9" {
		t.Errorf("got %s stored changes, want 9", got)
	}
}

// The pages of a list contain each row once, although rows arrive and are deleted between the pages, and some rows have
// the same time and transaction.
func TestInboxPages(t *testing.T) {
	t.Parallel()
	v := alice(t)
	run(t, v.conn, `INSERT INTO rowcast.notifications (recipient, data) SELECT ('{alice,team:7,*,bob}'::text[])[1 + i % 4], '1' FROM generate_series(1, 80) i`)
	for range 40 {
		send(t, v.conn, "alice")
	}
	var want, got []string
	for _, item := range v.list().Items {
		want = append(want, item.ID)
	}
	for before := (*string)(nil); ; {
		page := v.page(7, before)
		for _, item := range page.Items {
			got = append(got, item.ID)
		}
		if before = page.Before; before == nil {
			break
		}
		send(t, v.conn, "alice")
		run(t, v.conn, "DELETE FROM rowcast.notifications WHERE id = $1", got[len(got)-1])
	}
	if strings.Join(got, " ") != strings.Join(want, " ") {
		t.Errorf("got the rows %v, want %v", got, want)
	}
}

// A page reads a limited number of rows. If most of them are archived, the page has few items or none, but the
// following pages still reach the oldest row.
func TestInboxPagesOfArchivedRows(t *testing.T) {
	t.Parallel()
	v := alice(t)
	oldest := send(t, v.conn, "alice")
	run(t, v.conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', '1' FROM generate_series(1, 4000)")
	run(t, v.conn, `INSERT INTO rowcast.inbox_states (recipient, id, archived, archived_version)
		SELECT 'alice', id, true, 1 FROM rowcast.notifications WHERE id > $1`, oldest)
	var items, pages int
	for before := (*string)(nil); ; pages++ {
		page := v.page(20, before)
		items += len(page.Items)
		if before = page.Before; before == nil {
			break
		}
	}
	if items != 1 || pages == 0 || pages > 10 {
		t.Errorf("got %d items, and %d pages before the last one, want 1 item, and from 1 to 10 pages", items, pages)
	}
}

// A cursor is refused in a transaction that cannot see the last row of the cursor. Otherwise "all" would leave out this
// row without an error.
func TestInboxRefusesCursorsOfUnseenRows(t *testing.T) {
	t.Parallel()
	v := alice(t)
	dsn := v.conn.Config().ConnString()
	writer, reader := connect(t, dsn), connect(t, dsn)
	run(t, writer, "BEGIN")
	id := send(t, writer, "alice")
	xid, err := strconv.Atoi(text(t, writer, "SELECT pg_current_xact_id()::text"))
	if err != nil {
		t.Fatal(err)
	}
	send(t, v.conn, "bob") // so that the writer's transaction is below the xmax of the reader's snapshot
	run(t, reader, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT 1")
	run(t, writer, "COMMIT")
	fields := strings.Split(v.list().Cursor, "-")
	cursor := fmt.Sprintf("%d-%d-%d--%s-%s", id, xid, xid+1, fields[len(fields)-2], fields[len(fields)-1])
	const all = "SELECT rowcast.inbox_mark('alice', 'read', up_to => $1)"
	_, err = reader.Exec(dbtest.Context(t), all, cursor)
	if failure, ok := errors.AsType[*pgconn.PgError](err); !ok || failure.Code != "55000" {
		t.Errorf("in an older snapshot: got %v, want SQLSTATE 55000", err)
	}
	run(t, reader, "ROLLBACK")
	if _, err := reader.Exec(dbtest.Context(t), all, cursor); err != nil {
		t.Errorf("in a new snapshot: got %v, want no error", err)
	}
	if got := v.stateOf(id); !got.read {
		t.Errorf("got %+v, want that the row is read", got)
	}
}

// Invalid arguments are refused with errors that say what is wrong. Cursors of another history, and cursors that are
// ahead of the database, are refused, too. A cursor of the same epoch with another anchor is accepted.
func TestInboxRefuses(t *testing.T) {
	t.Parallel()
	v := alice(t)
	id := send(t, v.conn, "alice")
	cursor := v.list().Cursor
	fields := strings.Split(cursor, "-")
	xmax, err := strconv.Atoi(fields[2])
	if err != nil {
		t.Fatal(err)
	}
	changed := func(field int, value string) string {
		other := append([]string{}, fields...)
		other[field] = value
		return fmt.Sprintf("SELECT rowcast.inbox_mark('alice', 'read', up_to => '%s')", strings.Join(other, "-"))
	}
	otherEpoch := strings.NewReplacer(fields[4], "00000000", fields[5], "00000000").Replace(cursor)
	for _, tt := range []struct{ query, code, want string }{
		{"SELECT rowcast.inbox(NULL)", "22023", "NULL cannot be a user"},
		{"SELECT rowcast.inbox('*')", "22023", "'*' cannot be a user"},
		{"SELECT rowcast.inbox('rowcast.inbox:bob')", "22023", "cannot be a user"},
		{"SELECT rowcast.inbox(repeat('x', 257))", "22023", "cannot be a user"},
		{"SELECT rowcast.inbox(E'a\\nb')", "22023", "cannot be a user"},
		{"SELECT rowcast.inbox(E'\\u007f')", "22023", "cannot be a user"},
		{"SELECT rowcast.inbox(E'a\\u0085')", "22023", "cannot be a user"},
		{"SELECT rowcast.inbox_mark(E'a\\nb', 'read', ids => '{1}')", "22023", "cannot be a user"},
		{"SELECT rowcast.inbox_undo(E'a\\nb', '1')", "22023", "cannot be a user"},
		{"SELECT rowcast.inbox('alice', ARRAY[E'team:\\x1f'])", "22023", "invalid groups"},
		{"SELECT rowcast.inbox('alice', '{rowcast.inbox:bob}')", "22023", "invalid groups"},
		{"SELECT rowcast.inbox('alice', '{NULL}')", "22023", "invalid groups"},
		{"SELECT rowcast.inbox('alice', array_fill('x'::text, '{257}'))", "22023", "invalid groups"},
		{"SELECT rowcast.inbox('alice', page => 0)", "22023", "page must be from 1 to 100"},
		{"SELECT rowcast.inbox('alice', page => 101)", "22023", "page must be from 1 to 100"},
		{"SELECT rowcast.inbox('alice', before => '7')", "22023", `before must be the value of "before" in an earlier result`},
		{"SELECT rowcast.inbox('alice', before => '7.9999999999999999999')", "22023", `before must be the value of "before" in an earlier result`},
		{"SELECT rowcast.inbox_mark('alice', 'delete', ids => '{1}')", "22023", "unknown action 'delete'"},
		{"SELECT rowcast.inbox_mark('alice', 'read')", "22023", "give either ids or up_to"},
		{"SELECT rowcast.inbox_mark('alice', 'read', ids => '{1}', up_to => '" + cursor + "')", "22023", "give either ids or up_to"},
		{"SELECT rowcast.inbox_mark('alice', 'read', ids => array_fill(1::bigint, '{1001}'))", "22023", "more than 1,000 ids"},
		{"SELECT rowcast.inbox_mark('alice', 'unread', up_to => '" + cursor + "')", "22023", "unread needs ids"},
		{"SELECT rowcast.inbox_mark('alice', 'unarchive', up_to => '" + cursor + "')", "22023", "unarchive needs ids"},
		{"SELECT rowcast.inbox_undo('alice', 'x')", "22023", "malformed undo"},
		{"SELECT rowcast.inbox_mark('alice', 'read', up_to => 'x')", "22023", `malformed cursor "x"`},
		{changed(2, "02"), "22023", "malformed cursor"},
		{changed(3, "~"), "22023", "malformed cursor"},
		{changed(3, "~gA"), "22023", "malformed cursor"},
		{changed(3, "~zzzzzzzzzzzA"), "22023", "malformed cursor"},                          // the number of the transaction would be negative
		{changed(3, "~"+strings.Repeat("zzzzzzzzzzzA", 4096)), "22023", "malformed cursor"}, // the last number would be below the lowest bigint
		{changed(1, "2"), "22023", "malformed cursor"},
		{changed(2, strconv.Itoa(xmax+1<<30)), "55000", "the cursor is ahead of the database"},
		{"SELECT rowcast.inbox_mark('alice', 'read', up_to => '" + otherEpoch + "')", "55000", "the cursor is of another history of the database"},
	} {
		_, err := v.conn.Exec(dbtest.Context(t), tt.query)
		failure, _ := errors.AsType[*pgconn.PgError](err)
		if failure == nil || failure.Code != tt.code || !strings.Contains(failure.Message, tt.want) {
			t.Errorf("%s: got %v, want SQLSTATE %q and the message %q", tt.query, err, tt.code, tt.want)
		}
	}
	if got := v.stateOf(id); got != (rowState{}) {
		t.Errorf("after all calls: got %+v, want a row that is not seen, read or archived", got)
	}
	run(t, v.conn, changed(0, strconv.FormatInt(id+1, 10))) // in the same epoch, the anchor does not matter
	if got := v.stateOf(id); !got.read {
		t.Errorf("after a cursor with another anchor: got %+v, want a row that is read", got)
	}
}

// At most 5,000 rows can be marked as unread, or be unarchived, one by one since "all", because each list reads the state
// of these rows. The undo of an "all" has the same limit.
func TestInboxLimitsRowsThatAllDoesNotChange(t *testing.T) {
	t.Parallel()
	limits := map[string]string{"unread": "more than 5,000 rows would be marked as unread", "unarchive": "more than 5,000 rows would be unarchived"}
	for action, opposite := range map[string]string{"read": "unread", "archive": "unarchive"} {
		t.Run(action, func(t *testing.T) {
			t.Parallel()
			v := alice(t)
			v.list()
			run(t, v.conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', '1' FROM generate_series(1, 5001)")
			older := v.list().Cursor
			ids := append(v.newest(5001), send(t, v.conn, "alice"))
			v.markAll(action, v.list().Cursor)
			const mark, undo = "SELECT rowcast.inbox_mark('alice', $1, ids => $2)", "SELECT rowcast.inbox_undo('alice', $1)"
			refused := func(query string, args ...any) {
				t.Helper()
				_, err := v.conn.Exec(dbtest.Context(t), query, args...)
				if failure, _ := errors.AsType[*pgconn.PgError](err); failure == nil || failure.Code != "22023" || !strings.Contains(failure.Message, limits[opposite]) {
					t.Errorf("%s: got %v, want an error about the limit", query, err)
				}
			}
			for part := range slices.Chunk(ids[:5000], 1000) {
				v.mark(opposite, part...)
			}
			refused(mark, opposite, ids[5001:])
			v.mark(action, ids[0])
			v.mark(opposite, ids[0])
			swept := v.markAll(action, older)
			v.mark(opposite, ids[5001])
			refused(undo, swept.Undo)
			v.mark(action, ids[5001])
			if got := v.undo(swept.Undo); !got.Undone {
				t.Error("the undo that leads to 5,000 rows has undone nothing")
			}
			all := v.markAll(action, v.list().Cursor)
			if got := v.mark(opposite, ids[5001]); got.Version == 0 {
				t.Error("no row could be changed after all")
			}
			refused(undo, all.Undo) // the rows that all has changed would count again
			one := v.mark(action, ids[5001])
			if got := v.undo(all.Undo); !got.Undone {
				t.Error("the undo of the newest all has undone nothing")
			}
			v.mark(action, ids[0])
			v.mark(opposite, ids[0])
			refused(undo, one.Undo)
		})
	}
}

// A cursor of an earlier epoch of the database is accepted if its last row still exists.
func TestInboxCursorOfAnEarlierEpoch(t *testing.T) {
	t.Parallel()
	v := alice(t)
	id := send(t, v.conn, "alice")
	cursor := v.list().Cursor
	run(t, v.conn, "UPDATE rowcast.epoch SET token = gen_random_uuid(); INSERT INTO rowcast.epoch DEFAULT VALUES ON CONFLICT DO NOTHING")
	v.markAll("read", cursor)
	if got := v.stateOf(id); !got.read {
		t.Errorf("got %+v, want a row that is read", got)
	}
}

// The roles of apps and hubs may call the functions of the inbox, but may not use its tables or internal functions. The
// role of a sender may not call the functions.
func TestInboxRights(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	conn := connect(t, dsn)
	app, sender, hub := createRole(t, conn, "app"), createRole(t, conn, "sender"), createRole(t, conn, "hub")
	if err := sql.Grant(dbtest.Context(t), dsn, sql.Roles{Apps: []string{app}, Senders: []string{sender}, Hubs: []string{hub}}); err != nil {
		t.Fatal(err)
	}
	for _, role := range []string{app, hub} {
		setRole(t, conn, role)
		v := visitor{t, conn, "alice", nil}
		v.mark("seen", 1)
		v.markAll("archive", v.list().Cursor)
		wantForbidden(t, conn, "SELECT FROM rowcast.inbox_states", "UPDATE rowcast.inbox_users SET version = 1", "SELECT rowcast.inbox_visit('bob')",
			"SELECT rowcast.inbox_page('bob', '{bob}', 1, '9', 9)", "SELECT rowcast.cursor_snapshot('x')")
	}
	setRole(t, conn, sender)
	wantForbidden(t, conn, "SELECT rowcast.inbox('bob')", "SELECT rowcast.inbox_mark('bob', 'read', ids => '{1}')", "SELECT rowcast.inbox_undo('bob', '1')")
}

// The list and the counts are read with one snapshot, although the function runs several statements while another
// connection changes the inbox.
func TestInboxIsOneSnapshot(t *testing.T) {
	t.Parallel()
	v := alice(t)
	other := v
	other.conn = connect(t, v.conn.Config().ConnString())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for range 60 {
			id := send(t, other.conn, "alice")
			other.mark("read", id)
			other.mark("archive", send(t, other.conn, "alice"))
		}
	}()
	for running := true; running; {
		select {
		case <-done:
			running = false
		default:
		}
		list := v.list()
		unread := 0
		for _, item := range list.Items {
			if !item.Read {
				unread++
			}
		}
		if unread != list.Unread {
			t.Errorf("got %d unread rows in the list, and the count %d, want the same number", unread, list.Unread)
		}
	}
}
