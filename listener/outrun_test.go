package listener_test

import (
	"strconv"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/listener/feed"
)

// If retention deletes rows before a listener reads them, the next batch has the Reset "expired". The listener
// continues after the rows that are visible then.
func TestUnreadRowsAreDeleted(t *testing.T) {
	t.Parallel()
	t.Run("the next page", func(t *testing.T) { testUnreadRows(t, 0) })
	// With PageRows 1, the listener asks for another page of the same snapshot after the page of one row.
	t.Run("the next page of the same snapshot", func(t *testing.T) { testUnreadRows(t, 1) })
}

func testUnreadRows(t *testing.T, pageRows int) {
	t.Parallel()
	conn, r := aging(t, 10)
	blocked, release := make(chan struct{}), make(chan struct{})
	l := listen(t, conn.Config().ConnString(), func(l *listener.Listener) {
		l.PageRows = pageRows
		deliver := l.Deliver
		l.Deliver = func(b feed.Batch) {
			deliver(b)
			if len(b.Rows) > 0 && string(b.Rows[0].Data) == `"read"` {
				close(blocked)
				<-release
			}
		}
	})
	insert(t, conn, "read")
	receive(t, "the first row", blocked)
	const old = `INSERT INTO rowcast.notifications (recipient, data, created_at) VALUES ('alice', '"deleted"', now() - interval '1 hour')`
	exec(t, conn, "UPDATE rowcast.notifications SET created_at = now() - interval '1 hour'")
	exec(t, conn, old)
	insert(t, conn, "missed")
	wantDeleted(t, r, "the row that was read, and the next one", 2)
	close(release)
	wantExpired(t, l, `"read"`)
	insert(t, conn, "next")
	wantData(t, l.rows(t, 1), `"next"`)
}

// wantExpired receives batches until one has a Reset, and checks that this is "expired". The batches before it may only
// have rows with the given data.
func wantExpired(t *testing.T, l *reader, data string) {
	t.Helper()
	for {
		b := l.next(t)
		if b.Reset != "" {
			if b.Reset != listener.ResetExpired || len(b.Rows) > 0 {
				t.Errorf("got reset %q with %d rows, want reset %q without rows", b.Reset, len(b.Rows), listener.ResetExpired)
			}
			return
		}
		for _, row := range b.Rows {
			if string(row.Data) != data {
				t.Fatalf("got row %.40s before the reset, want no such row, because a row before it was deleted", row.Data)
			}
		}
	}
}

// large inserts a row that is old and too large to be read with its page.
func large(t *testing.T, conn *pgx.Conn) {
	t.Helper()
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data, created_at)
		SELECT 'alice', to_jsonb(string_agg(md5(i::text), '')), now() - interval '1 hour' FROM generate_series(1, 1000) i`)
}

// If retention deletes rows after their page was listed and before their data is read, the next batch of a listener has
// the Reset "expired". A replay reports the horizon of the deletion, so that its client is reset.
func TestListedRowsAreDeleted(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"fetch", "replay"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn, r := aging(t, 10)
			gate := newGate(t, rowStatement)
			dsn := conn.Config().ConnString()
			if name == "fetch" {
				l := listen(t, dsn, gate.into)
				large(t, conn)
				gate.wait(t)
				insert(t, conn, "missed")
				wantDeleted(t, r, "the row that is being read", 1)
				gate.open()
				wantExpired(t, l, "")
				insert(t, conn, "next")
				wantData(t, l.rows(t, 1), `"next"`)
				return
			}
			gate.into(r.Listener)
			if err := r.Listener.Preflight(limited(t)); err != nil { // Preflight begins the epoch
				t.Fatal(err)
			}
			from := present(t, conn)
			large(t, conn)
			insert(t, conn, "young")
			end := present(t, conn)
			replayer, err := r.Listener.NewReplayer(limited(t), 1)
			if err != nil {
				t.Fatal(err)
			}
			t.Cleanup(replayer.Close)
			horizon := make(chan uint64, 1)
			go func() {
				_, _, h, err := replayer.Page(limited(t), from, end, []string{"alice"})
				if err != nil {
					t.Errorf("replay: %v", err)
				}
				horizon <- h
			}()
			gate.wait(t)
			wantDeleted(t, r, "the row that is being read", 1)
			gate.open()
			if h := receive(t, "the end of the replay", horizon); from.SeenBelow(h) {
				t.Errorf("the page has horizon %d, below which cursor %s has seen everything, want a higher one", h, from)
			}
		})
	}
}

// If somebody empties the table after retention has moved the horizon, rowcast.cursor() still returns a cursor that has
// seen everything below the horizon. A listener that begins then delivers the next row, and no Reset.
func TestTableIsEmptiedAfterRetention(t *testing.T) {
	t.Parallel()
	for _, statement := range []string{"DELETE FROM rowcast.notifications", "TRUNCATE rowcast.notifications"} {
		t.Run(statement, func(t *testing.T) {
			t.Parallel()
			conn, r := aging(t, 10)
			aged(t, conn, 60)
			insert(t, conn, "young")
			wantDeleted(t, r, "the old row", 1)
			exec(t, conn, statement)
			horizon, err := strconv.ParseUint(one[string](t, conn, "SELECT horizon::text FROM rowcast.history"), 10, 64)
			if err != nil {
				t.Fatal(err)
			}
			if c := present(t, conn); horizon <= cursor.First || !c.SeenBelow(horizon) {
				t.Errorf("got the cursor %s, want one that has seen everything below the horizon %d, which retention has moved", c, horizon)
			}
			l := listen(t, conn.Config().ConnString())
			if b := l.next(t); b.Reset != "" {
				t.Errorf("the first batch has the reset %q, want none", b.Reset)
			}
			insert(t, conn, "next")
			wantData(t, l.rows(t, 1), `"next"`)
		})
	}
}

// In another epoch, the cursor of an emptied table is not valid if retention has moved the horizon, because the server can
// have assigned the numbers below the horizon again after a restore. If retention has never moved the horizon, the cursor
// is valid, because it has seen no transaction.
func TestCursorOfAnEmptiedTableInAnotherEpoch(t *testing.T) {
	t.Parallel()
	conn, r := aging(t, 10)
	before := present(t, conn)
	aged(t, conn, 60)
	insert(t, conn, "young")
	wantDeleted(t, r, "the old row", 1)
	exec(t, conn, "TRUNCATE rowcast.notifications")
	after := present(t, conn)
	if err := r.Listener.Preflight(limited(t)); err != nil { // Preflight begins another epoch
		t.Fatal(err)
	}
	replayer := newReplayer(t, conn.Config().ConnString(), 512)
	for _, tt := range []struct {
		name   string
		cursor cursor.Cursor
		want   bool
	}{{"before", before, true}, {"after", after, false}} {
		valid, err := replayer.IsValid(limited(t), tt.cursor, present(t, conn))
		if err != nil || valid != tt.want {
			t.Errorf("%s the move of the horizon, cursor %s is valid: %t, with error %v, want %t and no error", tt.name, tt.cursor, valid, err, tt.want)
		}
	}
}
