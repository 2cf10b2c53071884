package sql_test

import (
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"
)

// If a transaction was in progress when all rows were archived, its rows appear when it commits: in the list, on its
// pages and in the counts. They disappear when all rows are archived again. A transaction sees its own rows before it
// commits.
func TestInboxRowsThatCommitAfterAll(t *testing.T) {
	t.Parallel()
	v := alice(t)
	var open []*pgx.Conn
	for i := range 12 {
		conn := connect(t, v.conn.Config().ConnString())
		run(t, conn, "BEGIN")
		for _, recipient := range []string{"alice", "team:7", "*", "bob"}[i%3:] {
			send(t, conn, recipient)
		}
		send(t, conn, "alice")
		send(t, v.conn, "alice")
		open = append(open, conn)
	}
	all := func() {
		t.Helper()
		cursor := v.list().Cursor
		for _, action := range []string{"read", "archive"} {
			v.markAll(action, cursor)
		}
		if got := v.list().summary(); got != "0 unseen, 0 unread" {
			t.Fatalf("after all rows were marked as read and archived: got %s, want an empty list", got)
		}
	}
	all()
	own := v
	own.conn = open[5]
	if got, want := own.list().summary(), "alice 1, * 1, 2 unseen, 2 unread"; got != want {
		t.Errorf("in a transaction that is open: got %s, want %s", got, want)
	}
	const late = `SELECT coalesce(string_agg(id::text, ' ' ORDER BY xid DESC, id DESC), '') FROM rowcast.notifications
		WHERE recipient IN ('alice', 'team:7', '*') AND NOT pg_visible_in_snapshot(xid, (SELECT read FROM rowcast.inbox_users))`
	for _, half := range [][]*pgx.Conn{open[6:], open[:6]} {
		for i, conn := range half {
			run(t, conn, []string{"COMMIT", "COMMIT", "ROLLBACK"}[i%3])
		}
		want := text(t, v.conn, late)
		count := len(strings.Fields(want))
		if list := v.list(); list.Unread != count || list.Unseen != count || count == 0 {
			t.Errorf("got %d unread and %d unseen rows, want %d of each, and at least one", list.Unread, list.Unseen, count)
		}
		if got := strings.Join(v.allPages(2), " "); got != want {
			t.Errorf("got the rows %s, want %s", got, want)
		}
		all()
	}
}

// allPages returns the ids of the rows on all pages.
func (v visitor) allPages(size int) (ids []string) {
	v.t.Helper()
	for before := (*string)(nil); len(ids) < 100; {
		page := v.page(size, before)
		for _, item := range page.Items {
			ids = append(ids, item.ID)
		}
		if before = page.Before; before == nil {
			return ids
		}
	}
	v.t.Fatalf("the pages do not end: %v", ids)
	return nil
}
