package sql_test

import (
	"strings"
	"testing"
)

// The app has added columns to the table. Whatever their names are, no function of the inbox takes such a column for a
// name of its own. The test gives the columns all names that appear in the functions.
func TestInboxWithColumnsOfTheApp(t *testing.T) {
	t.Parallel()
	v := alice(t)
	names := strings.Fields(text(t, v.conn, `SELECT string_agg(DISTINCT name[1], ' ')
		FROM pg_proc, regexp_matches(prosrc, '\m[a-z_]+\M', 'g') AS name
		WHERE pronamespace = 'rowcast'::regnamespace AND (proname ~ '^inbox' OR proname IN ('cursor', 'cursor_snapshot'))
		AND NOT EXISTS (SELECT FROM pg_attribute WHERE attrelid = 'rowcast.notifications'::regclass AND attname = name[1])`))
	if len(names) < 100 {
		t.Fatalf("found only %d names", len(names))
	}
	run(t, v.conn, `ALTER TABLE rowcast.notifications ADD COLUMN "`+strings.Join(names, `" text, ADD COLUMN "`)+`" text`)
	open := connect(t, v.conn.Config().ConnString())
	run(t, open, "BEGIN")
	late := send(t, open, "alice")
	first, second := send(t, v.conn, "team:7"), send(t, v.conn, "alice")

	v.mark("read", first)
	v.undo(v.mark("archive", first).Undo)
	v.mark("unread", first)
	all := v.markAll("read", v.list().Cursor)
	if got, want := v.list().summary(), "alice 1 seen read, team:7 1 seen read, 0 unseen, 0 unread"; got != want {
		t.Errorf("after all rows were marked as read: got %s, want %s", got, want)
	}
	v.undo(all.Undo)
	v.mark("archive", second)
	if got, want := v.list().summary(), "team:7 1 seen, 0 unseen, 1 unread"; got != want {
		t.Errorf("after an undo: got %s, want %s", got, want)
	}
	v.markAll("archive", v.list().Cursor)
	run(t, open, "COMMIT")
	if got, want := v.list().summary(), "alice 1, 1 unseen, 1 unread"; got != want {
		t.Errorf("after the commit of a transaction that was in progress when all rows were archived: got %s, want %s", got, want)
	}
	run(t, v.conn, "DELETE FROM rowcast.notifications WHERE id = $1", late)
	if got, want := v.list().summary(), "0 unseen, 0 unread"; got != want {
		t.Errorf("after the last row was deleted: got %s, want %s", got, want)
	}
}
