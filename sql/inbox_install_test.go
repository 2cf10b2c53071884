package sql_test

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// inboxVersion returns the version of the inbox in a database.
func inboxVersion(t *testing.T, conn *pgx.Conn) int64 {
	t.Helper()
	version, err := sql.InstalledInbox(dbtest.Context(t), conn)
	if err != nil {
		t.Fatal(err)
	}
	return version
}

// Migrate and the printed script install the inbox only if they are asked to. They do not change an installed inbox,
// even after a test suite has truncated all tables. Both create the same schema.
func TestInboxIsInstalledOnDemand(t *testing.T) {
	t.Parallel()
	psql, pgDump := dbtest.Client(t, "psql"), dbtest.Client(t, "pg_dump")
	migrated, scripted := dbtest.Empty(t), dbtest.Empty(t)
	migrate := func(inbox bool) {
		t.Helper()
		m := sql.Migrator{DSN: migrated, Inbox: inbox}
		if _, _, err := m.Migrate(dbtest.Context(t)); err != nil {
			t.Fatal(err)
		}
	}
	script := func(inbox bool) { applyScript(t, psql, scripted, sql.Script{Inbox: inbox}) }
	for _, tt := range []struct {
		dsn     string
		install func(inbox bool)
	}{{migrated, migrate}, {scripted, script}} {
		conn := connect(t, tt.dsn)
		tt.install(false)
		const objects = `SELECT concat((SELECT count(*) FROM pg_class WHERE relname ~ 'inbox'), (SELECT count(*) FROM pg_proc WHERE proname ~ 'inbox'),
			(SELECT count(*) FROM pg_trigger WHERE tgname ~ 'inbox'))`
		if got := text(t, conn, objects); got != "000" || inboxVersion(t, conn) != 0 {
			t.Errorf("without --inbox: got the numbers of relations, functions and triggers %s, want 000 and no version", got)
		}
		for _, inbox := range []bool{true, true, false} {
			tt.install(inbox)
			if got := inboxVersion(t, conn); got != sql.InboxVersion() {
				t.Errorf("got version %d of the inbox, want %d", got, sql.InboxVersion())
			}
			run(t, conn, `TRUNCATE rowcast.notifications, rowcast.history, rowcast.epoch, rowcast.migrations, rowcast.inbox_users,
				rowcast.inbox_states, rowcast.inbox_changes`)
		}
		tt.install(false)
	}
	if got, want := dump(t, pgDump, scripted), dump(t, pgDump, migrated); got != want {
		t.Errorf("the schemas differ; from the script:\n%s\nfrom Migrate:\n%s", got, want)
	}
}

// The inbox does not make an INSERT slower: it adds no index, constraint or column to the table, and no trigger for
// INSERT or UPDATE.
func TestInboxCostsInsertsNothing(t *testing.T) {
	t.Parallel()
	const costs = `SELECT concat_ws(' ',
		(SELECT count(*) FROM pg_index WHERE indrelid = 'rowcast.notifications'::regclass),
		(SELECT count(*) FROM pg_trigger WHERE tgrelid = 'rowcast.notifications'::regclass AND tgtype & (4 | 16) <> 0),
		(SELECT count(*) FROM pg_constraint WHERE 'rowcast.notifications'::regclass IN (conrelid, confrelid)),
		(SELECT count(*) FROM pg_attribute WHERE attrelid = 'rowcast.notifications'::regclass AND attnum > 0))`
	with, without := text(t, connect(t, dbtest.Inbox(t)), costs), text(t, connect(t, dbtest.Database(t)), costs)
	if with != without {
		t.Errorf("with the inbox: got %s indexes, triggers, constraints and columns, want %s", with, without)
	}
}

// Differences finds objects of the inbox that are missing or altered, and returns statements that repair them.
func TestInboxDifferences(t *testing.T) {
	t.Parallel()
	for harm, want := range map[string]string{
		"DROP TRIGGER inbox_deleted ON rowcast.notifications":                                         "trigger rowcast.notifications.inbox_deleted is missing",
		"ALTER TABLE rowcast.notifications DISABLE TRIGGER inbox_truncated":                           "property enabled of rowcast.notifications.inbox_truncated is DISABLED instead of ALWAYS",
		"DROP INDEX rowcast.inbox_states_unread_idx":                                                  "index rowcast.inbox_states.inbox_states_unread_idx is missing",
		"DROP FUNCTION rowcast.inbox_twin(text)":                                                      "function rowcast.inbox_twin(recipient text) is missing",
		"DROP FUNCTION rowcast.inbox_version()":                                                       "function rowcast.inbox_version() is missing",
		"GRANT EXECUTE ON FUNCTION rowcast.inbox(text, text[], integer, text) TO PUBLIC":              "FUNCTION rowcast.inbox(recipient text, groups text[], page integer, before text) can be called by PUBLIC, that is by every role",
		"CREATE OR REPLACE FUNCTION rowcast.inbox_version() RETURNS int LANGUAGE sql AS 'SELECT 1+0'": "function rowcast.inbox_version() does not have the definition that rowcast migrate installs",
	} {
		t.Run(harm, func(t *testing.T) {
			t.Parallel()
			conn := connect(t, dbtest.Inbox(t))
			run(t, conn, "SET search_path = pg_catalog, pg_temp")
			if all, err := sql.Differences(dbtest.Context(t), conn); err != nil || len(all) > 0 {
				t.Fatalf("before: got %v, %v, want no differences", all, err)
			}
			run(t, conn, harm)
			all, err := sql.Differences(dbtest.Context(t), conn)
			if err != nil || len(all) != 1 || all[0].String() != want {
				t.Fatalf("got %v, %v\nwant %s", all, err, want)
			}
			mendAll(t, conn)
		})
	}
}

// Differences finds each function that PUBLIC may call, although it may not after the installation. The statements that
// create a missing function again do not let PUBLIC call it.
func TestPrivateFunctionsStayPrivate(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Inbox(t))
	run(t, conn, "CREATE TABLE public.t (id int); SELECT rowcast.watch('public.t', 'id')")
	const private = `SELECT string_agg(format('FUNCTION rowcast.%I(%s)', proname, pg_get_function_identity_arguments(oid)), E'\n' ORDER BY proname)
		FROM pg_proc WHERE pronamespace = 'rowcast'::regnamespace AND NOT has_function_privilege('pg_monitor', oid, 'EXECUTE')`
	want := text(t, conn, private)
	run(t, conn, "GRANT EXECUTE ON ALL FUNCTIONS IN SCHEMA rowcast TO PUBLIC; SET search_path = pg_catalog, pg_temp")
	all, err := sql.Differences(dbtest.Context(t), conn)
	var got []string
	for _, d := range all {
		got = append(got, d.Object)
	}
	slices.Sort(got)
	if names := strings.Split(want, "\n"); err != nil || !slices.Equal(got, slices.Sorted(slices.Values(names))) {
		t.Errorf("got the functions %q, %v, want %q", got, err, names)
	}
	mendAll(t, conn)
	for name := range strings.SplitSeq(want, "\n") {
		if strings.Contains(name, ".watch_") {
			continue // only rowcast.watch() creates the function of a watched table
		}
		run(t, conn, "DROP "+name+" CASCADE")
		mendAll(t, conn)
		if got := text(t, conn, private); got != want {
			t.Errorf("after %s was created again: got the private functions\n%s\nwant\n%s", name, got, want)
		}
	}
}

// eventsOf returns the events about inboxes. Each has the recipient, and the data without the version and the counts.
func eventsOf(t *testing.T, conn *pgx.Conn) (events []string) {
	t.Helper()
	const find = `SELECT recipient, data - '{version,unseen,unread,more}'::text[] FROM rowcast.notifications WHERE starts_with(recipient, 'rowcast.') ORDER BY id`
	rows, err := conn.Query(dbtest.Context(t), find)
	if err != nil {
		t.Fatal(err)
	}
	events, err = pgx.CollectRows(rows, func(row pgx.CollectableRow) (string, error) {
		var recipient string
		var data json.RawMessage
		err := row.Scan(&recipient, &data)
		return recipient + " " + string(data), err
	})
	if err != nil {
		t.Fatal(err)
	}
	return events
}

// Each change that has an effect sends one event to the streams of the user. In the recipient of the event, a long name
// is replaced by its hash.
func TestInboxChangesSendEvents(t *testing.T) {
	t.Parallel()
	v := alice(t)
	id := send(t, v.conn, "alice")
	v.mark("seen", id, 1<<40)
	v.mark("seen", id)
	cursor := v.list().Cursor
	undo := v.markAll("archive", cursor).Undo
	v.undo(undo)
	v.undo(undo)
	long := visitor{t, v.conn, strings.Repeat("ü", 128), nil}
	last := send(t, v.conn, long.name)
	long.mark("read", last)
	want := []string{
		fmt.Sprintf(`rowcast.inbox:alice {"ids": ["%d"], "action": "seen"}`, id),
		fmt.Sprintf(`rowcast.inbox:alice {"up_to": "%s", "action": "archive"}`, cursor),
		`rowcast.inbox:alice {"action": "reload"}`,
		fmt.Sprintf(`rowcast.inbox#%x {"ids": ["%d"], "action": "read"}`, sha256.Sum256([]byte(long.name)), last),
	}
	if got := eventsOf(t, v.conn); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
}

// A deleted row is no longer in the list and the counts, and its states are removed. Its recipient gets an event,
// unless retention has deleted the row.
func TestInboxDeletedRows(t *testing.T) {
	t.Parallel()
	v := alice(t)
	kept, gone, everyone := send(t, v.conn, "alice"), send(t, v.conn, "alice"), send(t, v.conn, "*")
	v.mark("seen", kept, gone, everyone)
	run(t, v.conn, "DELETE FROM rowcast.notifications WHERE starts_with(recipient, 'rowcast.')")
	run(t, v.conn, "DELETE FROM rowcast.notifications WHERE id IN ($1, $2)", gone, everyone)
	want := []string{
		fmt.Sprintf(`rowcast.inbox:* {"ids": ["%d"], "action": "delete"}`, everyone),
		fmt.Sprintf(`rowcast.inbox:alice {"ids": ["%d"], "action": "delete"}`, gone),
	}
	if got := eventsOf(t, v.conn); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got the events\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
	}
	if got := v.list().summary(); got != "alice 1 seen, 0 unseen, 1 unread" {
		t.Errorf("got the list %s, want only the row that was not deleted", got)
	}
	const states = "SELECT count(*)::text FROM rowcast.inbox_states"
	if got := text(t, v.conn, states); got != "1" {
		t.Errorf("got %s states, want 1", got)
	}
	run(t, v.conn, "BEGIN; SET LOCAL rowcast.retention = on; DELETE FROM rowcast.notifications WHERE recipient = 'alice'; COMMIT")
	if got := eventsOf(t, v.conn); len(got) != len(want) {
		t.Errorf("after retention: got the events %q, want no more", got)
	}
	if got := text(t, v.conn, states); got != "0" {
		t.Errorf("after retention: got %s states, want none", got)
	}
}

// If a statement deletes more than 1,000 rows of one recipient, or rows of more than 1,000 recipients, one event asks
// the pages to load the list again.
func TestInboxManyDeletedRows(t *testing.T) {
	t.Parallel()
	v := alice(t)
	run(t, v.conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', '1' FROM generate_series(1, 1001)")
	run(t, v.conn, "DELETE FROM rowcast.notifications")
	run(t, v.conn, "INSERT INTO rowcast.notifications (recipient, data) SELECT 'user' || i, '1' FROM generate_series(1, 1001) i")
	run(t, v.conn, "DELETE FROM rowcast.notifications WHERE starts_with(recipient, 'user')")
	if got, want := fmt.Sprint(eventsOf(t, v.conn)), `[rowcast.inbox:alice {"action": "reload"} rowcast.inbox:* {"action": "reload"}]`; got != want {
		t.Errorf("got %s, want %s", got, want)
	}
}

// Some test suites empty rowcast.notifications, alone or together with the tables of the inbox. This removes the states
// of the rows, so a new row is unread, even if it gets the id of a row that was read.
func TestInboxTruncate(t *testing.T) {
	t.Parallel()
	v := alice(t)
	for _, truncate := range []string{
		"TRUNCATE rowcast.notifications RESTART IDENTITY", "TRUNCATE rowcast.inbox_states, rowcast.notifications, rowcast.inbox_users RESTART IDENTITY",
		"DELETE FROM rowcast.notifications; ALTER SEQUENCE rowcast.notifications_id_seq RESTART",
	} {
		id := send(t, v.conn, "alice")
		v.mark("read", id)
		run(t, v.conn, truncate)
		if got := send(t, v.conn, "alice"); got != id && !strings.HasPrefix(truncate, "DELETE") {
			t.Fatalf("got id %d, want %d again", got, id)
		}
		for _, item := range v.list().Items {
			if item.Read {
				t.Errorf("%s: got a row that is read, want an unread row", truncate)
			}
		}
		run(t, v.conn, "TRUNCATE rowcast.notifications RESTART IDENTITY")
	}
}

// A row cannot be deleted while a transaction that has marked it is open. So no state is left for a row that no longer
// exists.
func TestInboxMarkAndDeleteAtTheSameTime(t *testing.T) {
	t.Parallel()
	v := alice(t)
	id := send(t, v.conn, "alice")
	run(t, v.conn, "BEGIN")
	v.mark("read", id)
	other := connect(t, v.conn.Config().ConnString())
	run(t, other, "SET lock_timeout = '100ms'")
	if _, err := other.Exec(dbtest.Context(t), "DELETE FROM rowcast.notifications WHERE id = $1", id); err == nil || !strings.Contains(err.Error(), "lock timeout") {
		t.Errorf("DELETE during the transaction: got %v, want a lock timeout", err)
	}
	run(t, v.conn, "COMMIT")
	run(t, other, "DELETE FROM rowcast.notifications WHERE id = $1", id)
	if got := text(t, v.conn, "SELECT count(*)::text FROM rowcast.inbox_states"); got != "0" {
		t.Errorf("got %s states, want none", got)
	}
}

// The trigger functions of the inbox do nothing if somebody makes them triggers of another table.
func TestInboxTriggersAreOnlyForNotifications(t *testing.T) {
	t.Parallel()
	v := alice(t)
	v.mark("read", send(t, v.conn, "alice"))
	run(t, v.conn, `CREATE TABLE t AS SELECT id, recipient FROM rowcast.notifications;
		CREATE TRIGGER a AFTER DELETE ON t REFERENCING OLD TABLE AS gone FOR EACH STATEMENT EXECUTE FUNCTION rowcast.inbox_deleted();
		CREATE TRIGGER b AFTER TRUNCATE ON t FOR EACH STATEMENT EXECUTE FUNCTION rowcast.inbox_truncated()`)
	for _, statement := range []string{"DELETE FROM t", "TRUNCATE t"} {
		run(t, v.conn, statement)
		if got := text(t, v.conn, "SELECT count(*)::text FROM rowcast.inbox_states"); got != "1" {
			t.Errorf("after %s: got %s states, want 1", statement, got)
		}
	}
}

// A row with very long data is in the list without its data, so it cannot make the list slow or fail.
func TestInboxLeavesOutLongData(t *testing.T) {
	t.Parallel()
	v := alice(t)
	run(t, v.conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', to_jsonb(repeat('x', 262140))), ('*', to_jsonb(repeat('x', 262143))), ('*', '"short"')`)
	items := v.list().Items
	if len(items) != 3 || string(items[0].Data) != `"short"` || !items[1].TooLarge || string(items[1].Data) != "null" || items[2].TooLarge || len(items[2].Data) != 262142 {
		t.Errorf("got %d items, want 3, and only the second one without data", len(items))
	}
}

// A row whose data is nested too deeply for the result of rowcast.inbox() does not hide the other rows. The stack of
// the session that reads is smaller, because building a row with the deepest data that a session can insert takes long.
func TestInboxHasDeeplyNestedData(t *testing.T) {
	t.Parallel()
	v := alice(t)
	const insert = "INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', (repeat('[', $1) || '1' || repeat(']', $1))::jsonb)"
	for _, depth := range []int{255, 256, 6000} {
		run(t, v.conn, strings.ReplaceAll(insert, "$1", strconv.Itoa(depth)))
	}
	run(t, v.conn, "SET max_stack_depth = '500kB'")
	items := v.list().Items
	if len(items) != 3 {
		t.Fatalf("got %d items, want 3", len(items))
	}
	for i, depth := range []int{6000, 256, 255} {
		if tooLarge, isNull := items[i].TooLarge, string(items[i].Data) == "null"; tooLarge != (depth > 255) || isNull != tooLarge {
			t.Errorf("data with %d levels: got too_large %v, and null %v, want %v for both", depth, tooLarge, isNull, depth > 255)
		}
	}
}

// After a restore on another server, the snapshots contain transaction numbers of the earlier server. Unread rows of
// the user stay unread, and so do the rows that this server inserts later.
func TestInboxAfterARestore(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	v := visitor{t, connect(t, dsn), "alice", nil}
	v.list()
	read := send(t, v.conn, "alice")
	v.markAll("read", v.list().Cursor)
	unread := send(t, v.conn, "alice")
	run(t, v.conn, `UPDATE rowcast.history SET system_identifier = 7;
		UPDATE rowcast.notifications SET xid = (xid::text::bigint + 1000000)::text::xid8;
		UPDATE rowcast.inbox_users SET read = (SELECT format('%s:%1$s:', pg_snapshot_xmax(read)::text::bigint + 1000000)::pg_snapshot)`)
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	later := send(t, v.conn, "alice")
	for id, want := range map[int64]bool{read: true, unread: false, later: false} {
		if got := v.stateOf(id); got.read != want {
			t.Errorf("row %d: got %+v, want read %v", id, got, want)
		}
	}
}

// If the restored rows keep their transaction numbers, they also keep their state, although the snapshots of the user
// are ahead of this server. The rows that this server has inserted since the restore are unread.
func TestInboxAfterARestoreThatKeepsNumbers(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	v := visitor{t, connect(t, dsn), "alice", []string{"team:7"}}
	send(t, v.conn, "*")
	v.markAll("archive", v.list().Cursor)
	open := connect(t, dsn)
	run(t, open, "BEGIN")
	read, unread, marked := send(t, v.conn, "alice"), send(t, open, "alice"), send(t, v.conn, "*")
	undo := v.markAll("read", v.list().Cursor).Undo
	run(t, open, "COMMIT")
	v.mark("unread", marked)
	run(t, v.conn, `UPDATE rowcast.inbox_users SET visited = regexp_replace(visited::text, ':[0-9]+:', ':999999999:')::pg_snapshot,
			seen = regexp_replace(seen::text, ':[0-9]+:', ':999999999:')::pg_snapshot, read = regexp_replace(read::text, ':[0-9]+:', ':999999999:')::pg_snapshot;
		INSERT INTO rowcast.inbox_changes VALUES ('alice', 0, 'read', '{}', '3:999999999:', 0, 0);
		UPDATE rowcast.history SET system_identifier = 7`)
	restored := fmt.Sprintf(`SELECT jsonb_agg(jsonb_build_array(item -> 'id', item -> 'seen', item -> 'read'))::text
		FROM jsonb_array_elements(rowcast.inbox('alice', '{team:7}') -> 'items') AS item WHERE (item ->> 'id')::bigint <= %d`, marked)
	want := text(t, v.conn, restored)
	if state := fmt.Sprintf(`["%d", false, false], ["%d", true, true]`, unread, read); !strings.Contains(want, state) {
		t.Fatalf("before: got the states %s, want among them %s", want, state)
	}
	added := []int64{send(t, v.conn, "alice"), send(t, v.conn, "*")}
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	if got := text(t, v.conn, restored); got != want {
		t.Errorf("the restored rows: got the states %s, want %s", got, want)
	}
	for _, id := range append(added, send(t, v.conn, "team:7")) {
		if got := v.stateOf(id); got != (rowState{}) {
			t.Errorf("row %d, which this server has inserted: got %+v, want a row that is not seen, read or archived", id, got)
		}
	}
	const ahead = `SELECT count(*)::text FROM rowcast.inbox_changes WHERE pg_snapshot_xmax(before) > pg_snapshot_xmax(pg_current_snapshot())`
	if got := text(t, v.conn, ahead); got != "0" {
		t.Errorf("got %s changes with a snapshot that is ahead, want none", got)
	}
	if got := v.undo(undo); !got.Undone || v.stateOf(read).read {
		t.Errorf("undo of the \"all\" before the restore: got %+v, want that it is undone", got)
	}
}

// A restore of data into an installed schema does not change rowcast.history, but it can bring snapshots that are ahead
// of this server. The rows that this server inserts later are unread.
func TestInboxAfterARestoreIntoAnInstalledSchema(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	v := visitor{t, connect(t, dsn), "alice", []string{"team:7"}}
	v.list()
	read := send(t, v.conn, "alice")
	v.markAll("read", v.list().Cursor)
	v.markAll("archive", v.list().Cursor)
	run(t, v.conn, `UPDATE rowcast.inbox_users SET (visited, seen, read, archived) = ROW ('999999999:999999999:'::pg_snapshot,
		'999999999:999999999:'::pg_snapshot, '999999999:999999999:'::pg_snapshot, '999999999:999999999:'::pg_snapshot)`)
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	for _, recipient := range []string{"alice", "team:7", "*"} {
		if got := v.stateOf(send(t, v.conn, recipient)); got != (rowState{}) {
			t.Errorf("a later row for %s: got %+v, want a row that is not seen, read or archived", recipient, got)
		}
	}
	if got := v.stateOf(read); got != (rowState{true, true, true}) {
		t.Errorf("the restored row: got %+v, want a row that is seen, read and archived", got)
	}
}

// If a dump has no rows of rowcast.notifications and not their sequence, the server assigns the ids of the missing rows
// again. The new rows do not get the state of the missing ones.
func TestInboxAfterARestoreWithoutRows(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	v := visitor{t, connect(t, dsn), "alice", nil}
	v.list()
	run(t, v.conn, `INSERT INTO rowcast.inbox_states (recipient, id, seen, read, archived) VALUES ('alice', 1, true, true, true);
		UPDATE rowcast.history SET system_identifier = 7`)
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	id := send(t, v.conn, "alice")
	if got := v.stateOf(id); id != 1 || got != (rowState{}) {
		t.Errorf("row %d: got %+v, want row 1, not seen, read or archived", id, got)
	}
}
