package listener_test

import (
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/sql/dbtest"
)

// The tests in this file show that the database and the Go code compute the same cursors and the same tags.

func TestEncodeXipAgrees(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Database(t))
	inFlight := func(c cursor.Cursor) string { return strings.Split(c.String(), "-")[3] }
	check := func(c cursor.Cursor) {
		t.Helper()
		got := one[string](t, conn, "SELECT rowcast.encode_xip($1, $2)", int64(c.Xmax), append([]uint64{}, c.Xip...))
		if want := inFlight(c); got != want {
			t.Errorf("xmax %d, in flight %v: got %s, want %s", c.Xmax, c.Xip, got, want)
		}
		if parsed, err := cursor.Parse(c.String()); err != nil || !slices.Equal(parsed.Xip, c.Xip) {
			t.Errorf("parse %s: got %v in flight and error %v, want %v in flight", c, parsed.Xip, err, c.Xip)
		}
	}
	check(cursor.Cursor{Xmax: 3})
	for shift := range 32 { // the distance from xmax is a power of two, or one less or more
		for off := -1; off <= 1; off++ {
			if distance := 1<<shift + off; distance > 0 {
				check(cursor.Cursor{Xmax: 1<<40 + uint64(distance), Xip: []uint64{1 << 40}})
			}
		}
	}
	for range 200 {
		c := cursor.Cursor{Xmax: 3 + rand.Uint64N(1<<rand.N(62))}
		spread := min(c.Xmax-3, 1<<rand.N(31)) // on a server, transactions in flight are less than 2^31 apart
		for range rand.N(1 << rand.N(11)) {
			if spread > 0 {
				c.Xip = append(c.Xip, c.Xmax-1-rand.Uint64N(spread))
			}
		}
		slices.Sort(c.Xip)
		c.Xip = slices.Compact(c.Xip)
		check(c)
	}
}

// The database and the listener compute the same tag for an anchor. The tag does not depend on the time zone of the
// session, or on PollOnly.
func TestAnchorTagsAgree(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	direct := listen(t, dsn)
	pooled := listen(t, dsn, func(l *listener.Listener) { l.PollOnly, l.PollInterval = true, 5*time.Millisecond })
	zoned := listen(t, dsn, func(l *listener.Listener) {
		l.PollOnly, l.PollInterval = true, 5*time.Millisecond
		l.Config.RuntimeParams["timezone"] = "Europe/Amsterdam" // its old offsets include seconds
	})
	exec(t, conn, "SET timezone = 'America/St_Johns'")
	dates := []string{
		"4714-11-24 00:00:00+00 BC", "4713-01-01 00:00:00+00 BC", "0001-12-31 23:59:59.999999+00 BC", "0001-01-01 00:00:00+00",
		"1677-09-21 00:12:43.145224+00", "1883-11-18 12:03:58+00", "1936-12-31 23:59:59.5+00", "1969-12-31 23:59:59.999999+00",
		"1970-01-01 00:00:00+00", "1999-12-31 23:59:59.999999+00", "2000-01-01 00:00:00+00", "2000-01-01 00:00:00.000001+00",
		"2026-02-28 12:34:56.789012+00", "2262-04-11 23:47:16.854775+00", "9999-12-31 23:59:59.999999+00",
		"10000-01-01 00:00:00+00", "294246-12-31 23:59:59.999999+00", "294276-12-31 23:59:59.999999+00",
	}
	for _, date := range dates {
		exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data, created_at) VALUES ('*', to_jsonb($1::text), $1::text::timestamptz)`, date)
	}
	want := query[string](t, conn, "SELECT rowcast.anchor_tag(id, created_at) FROM rowcast.notifications ORDER BY id")
	for name, r := range map[string]*reader{"direct": direct, "PollOnly": pooled, "PollOnly, another time zone": zoned} {
		for i, row := range r.rows(t, len(dates)) {
			if got := row.Tag.String(); got != want[i] {
				t.Errorf("%s: created_at %s: got tag %s, want %s, the tag in the database", name, dates[i], got, want[i])
			}
		}
	}
}

// The cursor of a hub and the cursor of a page that is rendered just afterwards have the same xmax and the same anchor.
// Their lists of transactions in flight can differ, because transactions of other databases can end in between.
func TestCursorsAgree(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	r := listen(t, dsn)
	conn, open := connect(t, dsn), connect(t, dsn)
	same := func(what string) {
		t.Helper()
		r.caughtUp(t)
		hub, page := r.last.Cursor, present(t, conn)
		hub.Xip, page.Xip = nil, nil
		if hub.String() != page.String() {
			t.Errorf("%s: a page has the cursor %s and the hub %s, want the same cursor apart from the transactions in flight", what, page, hub)
		}
	}
	same("no row")
	insert(t, conn, "1")
	same("one row")
	exec(t, open, "BEGIN")
	insert(t, open, "in flight")
	insert(t, conn, "2")
	same("a transaction in flight below the last row")
	exec(t, open, "COMMIT")
	same("commits out of order")
	exec(t, conn, "SELECT pg_current_xact_id()")
	same("an empty transaction")
	exec(t, conn, "DELETE FROM rowcast.notifications")
	insert(t, conn, "3")
	same("a row after the deletion of all rows")
}

// rowcast.cursor_snapshot() of the inbox and Cursor.Seen agree about which rows a cursor has seen.
func TestCursorSnapshotAgrees(t *testing.T) {
	t.Parallel()
	conn := connect(t, dbtest.Inbox(t))
	epoch, err := cursor.ParseTag(one[string](t, conn, "SELECT rowcast.epoch_tag()"))
	if err != nil {
		t.Fatal(err)
	}
	for range 20 {
		c := cursor.Cursor{Xmax: 3 + rand.Uint64N(500), Epoch: epoch, Anchor: cursor.Anchor{ID: rand.Int64N(100)}}
		running := map[uint64]bool{}
		for range rand.N(1 << rand.N(6)) {
			running[3+rand.Uint64N(c.Xmax)] = true
		}
		for xid := range running {
			if xid < c.Xmax {
				c.Xip = append(c.Xip, xid)
			}
		}
		slices.Sort(c.Xip)
		if xid := 3 + rand.Uint64N(c.Xmax-2); rand.N(2) == 0 && !slices.Contains(c.Xip, xid) {
			c.Xid, c.ID = xid, 1+rand.Int64N(1<<62)
		}
		for xid := uint64(3); xid < c.Xmax+2; xid++ {
			for _, id := range []int64{1, c.ID, c.ID + 1} {
				const seen = `SELECT pg_visible_in_snapshot($2::text::xid8, seen) OR coalesce(xid = $2::text::xid8 AND id >= $3, false) FROM rowcast.cursor_snapshot($1)`
				if xid%7 == 0 || xid == c.Xid || slices.Contains(c.Xip, xid) || xid+3 > c.Xmax {
					if got := one[bool](t, conn, seen, c.String(), strconv.FormatUint(xid, 10), id); got != c.Seen(xid, id) {
						t.Fatalf("%v: row %d of transaction %d: got seen %v, want %v", c, id, xid, got, !got)
					}
				}
			}
		}
	}
}
