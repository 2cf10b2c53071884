package listener_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

func TestRowsArriveAsInserted(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	r := listen(t, dsn)
	conn := connect(t, dsn)
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'notify', '{"msg": "hi\nthere"}')`)
	got := r.rows(t, 1)[0]
	if got.Recipient != "alice" || got.Event != "notify" || string(got.Data) != `{"msg": "hi\nthere"}` || got.ID != 1 || got.Size != 20 {
		t.Errorf("got %+v with data %s, want row 1 for alice, with event notify, the data that was inserted and size 20", got, got.Data)
	}
	insert(t, conn, "to everyone")
	got = r.rows(t, 1)[0]
	if got.Recipient != feed.Everyone || got.Event != "message" || string(got.Data) != `"to everyone"` || got.ID != 2 {
		t.Errorf("got %+v with data %s, want row 2 for everyone, with event message and the data that was inserted", got, got.Data)
	}
}

func TestCommitsOutOfOrder(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	r := listen(t, dsn)
	var writers []*pgx.Conn
	for i := range 5 {
		writers = append(writers, connect(t, dsn))
		exec(t, writers[i], "BEGIN")
		insert(t, writers[i], fmt.Sprint(i))
	}
	for _, i := range []int{3, 0, 4, 1} {
		if i == 4 {
			exec(t, writers[i], "ROLLBACK")
			wantData(t, r.caughtUp(t))
			continue
		}
		exec(t, writers[i], "COMMIT")
		wantData(t, r.rows(t, 1), fmt.Sprintf(`"%d"`, i))
	}
	exec(t, writers[2], "SAVEPOINT s")
	insert(t, writers[2], "rolled back")
	exec(t, writers[2], "ROLLBACK TO s")
	insert(t, writers[2], "in s")
	exec(t, writers[2], "RELEASE s; COMMIT")
	wantData(t, r.rows(t, 2), `"2"`, `"in s"`)
	wantData(t, r.caughtUp(t))
}

func TestCopy(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	r := listen(t, dsn)
	table, columns := pgx.Identifier{"rowcast", "notifications"}, []string{"recipient", "data"}
	rows := [][]any{{"alice", "1"}, {feed.Everyone, "2"}, {"bob", "3"}}
	if _, err := connect(t, dsn).CopyFrom(limited(t), table, columns, pgx.CopyFromRows(rows)); err != nil {
		t.Fatal(err)
	}
	wantData(t, r.rows(t, 3), "1", "2", "3")
}

// A large transaction is delivered in several pages. A cursor in the middle of the transaction is not whole.
func TestBigTransactions(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	for _, pageRows := range []int{7, 512} {
		t.Run(fmt.Sprintf("%d rows a page", pageRows), func(t *testing.T) {
			r := listen(t, dsn, func(l *listener.Listener) { l.PageRows = pageRows })
			conn := connect(t, dsn)
			exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data) SELECT '*', to_jsonb(i) FROM generate_series(1, 10000) i`)
			insert(t, conn, "the next")
			for len(r.read) < 10001 {
				b := r.next(t)
				inside := len(b.Rows) > 0 && len(r.read) < 10000
				if inside && b.Cursor.Whole() {
					t.Fatalf("the cursor %s is whole after %d of 10000 rows, want it not to be whole", b.Cursor, len(r.read))
				}
				if len(b.Rows) > pageRows {
					t.Errorf("got %d rows in one page, want at most %d", len(b.Rows), pageRows)
				}
			}
			for i, row := range r.read[:10000] {
				if string(row.Data) != fmt.Sprint(i+1) {
					t.Fatalf("row %d: got data %s, want %d", i+1, row.Data, i+1)
				}
			}
			r.stop()
		})
	}
}

func TestPagesAreBoundedInBytes(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	const half = 500_000 // about the bytes in the text of each row; PageBytes limits the text, not its compressed form
	r := listen(t, dsn, func(l *listener.Listener) { l.PageBytes = 2*half + half/2 })
	exec(t, connect(t, dsn), `INSERT INTO rowcast.notifications (recipient, data) SELECT '*', to_jsonb(i || repeat('x', $1)) FROM generate_series(1, 9) i`, half)
	for len(r.read) < 9 {
		if b := r.next(t); len(b.Rows) > 3 {
			t.Errorf("got %d rows of %d bytes in one page, want at most 3", len(b.Rows), half)
		}
	}
	for i, row := range r.read {
		if row.Size != half+3 || int64(len(row.Data)) != row.Size || row.Data[1] != byte('1'+i) {
			t.Errorf("row %d: got %d bytes and size %d, beginning with %s, want %d for both, beginning with \"%d",
				i+1, len(row.Data), row.Size, row.Data[:3], half+3, i+1)
		}
	}
}

func TestLargeRows(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	all := listen(t, dsn)
	most := listen(t, dsn, func(l *listener.Listener) { l.MaxData = 100 })
	// Large data that does not compress is not read with its page, but by a statement of its own.
	const random = `(SELECT string_agg(md5(i::text), '') FROM generate_series(1, $1::int) i)`
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1'),
		('*', to_jsonb(repeat('x', 98))), ('*', to_jsonb(repeat('x', 99))), ('*', to_jsonb(`+random+`)), ('*', '2')`, 10<<20/32)
	want := []int64{1, 100, 101, 10<<20 + 2, 1}
	for _, row := range slices.Concat(all.rows(t, 5), most.rows(t, 5)) {
		size := want[(row.ID-1)%5]
		if row.Size != size {
			t.Errorf("row %d: got size %d, want %d", row.ID, row.Size, size)
		}
	}
	for i, row := range all.read {
		if int64(len(row.Data)) != want[i] {
			t.Errorf("row %d: got %d bytes, want %d", row.ID, len(row.Data), want[i])
		}
	}
	for i, row := range most.read {
		if (row.Data == nil) != (want[i] > 100) {
			t.Errorf("row %d of %d bytes: got %d bytes of data, want all data of rows up to MaxData (100 bytes), and none of larger rows", row.ID, want[i], len(row.Data))
		}
	}
}

func TestRowsThatChange(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	gate := newGate(t, rowStatement)
	r := listen(t, dsn, gate.into)
	exec(t, conn, "BEGIN")
	insert(t, conn, "withdrawn at once")
	insert(t, conn, "stays")
	exec(t, conn, `DELETE FROM rowcast.notifications WHERE data = '"withdrawn at once"'; COMMIT`)
	wantData(t, r.rows(t, 1), `"stays"`)
	exec(t, conn, `UPDATE rowcast.notifications SET data = '"changed"', recipient = 'bob'`)
	wantData(t, r.caughtUp(t))

	// A row with large data is deleted after its page was listed, and before its data is read.
	const random = `(SELECT to_jsonb(string_agg(md5(i::text), '')) FROM generate_series(1, 1000) i)`
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1'), ('*', `+random+`), ('*', '3')`)
	gate.wait(t)
	exec(t, conn, `DELETE FROM rowcast.notifications WHERE octet_length(data::text) > 1000`)
	gate.open()
	wantData(t, r.rows(t, 2), "1", "3")
}

// Rows with a transaction number that the server has not assigned were restored, replicated or forged. The listener
// does not deliver such rows.
func TestForeignTransactions(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	const forge = `INSERT INTO rowcast.notifications (recipient, data, xid)
		SELECT 'alice', '"forged"', ($1::bigint + i)::text::xid8 FROM generate_series(1, 50000) i`
	before := one[string](t, conn, "SELECT rowcast.cursor()")
	exec(t, conn, forge, int64(1)<<40)
	r := listen(t, dsn)
	wantData(t, r.caughtUp(t))
	exec(t, conn, forge, int64(1)<<50)
	insert(t, conn, "real")
	wantData(t, r.rows(t, 1), `"real"`)
	wantData(t, r.caughtUp(t))
	if got := r.read[0].Cursor.Xmax; got >= 1<<40 {
		t.Errorf("the cursor has xmax %d, want less than 2^40, because the server has assigned no such high number", got)
	}

	now := present(t, conn)
	if now.Xmax >= 1<<40 {
		t.Errorf("rowcast.cursor() has xmax %d, want less than 2^40, because the server has assigned no such high number", now.Xmax)
	}
	wantData(t, replay(t, newReplayer(t, dsn, 512), before, now.String(), []string{"alice"}), `"real"`)

	// The next fetch and rowcast.cursor() do not read the forged rows at all.
	session, err := r.Connect(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	checkPlan(t, session, listener.FetchQuery, listener.QueryArgs(listener.FetchQuery, now, nil, 512), 0)
	now.Xip = nil // nearQuery would read the real row again if a transaction before it, of another test, was in flight
	checkPlan(t, session, listener.NearQuery, listener.QueryArgs(listener.NearQuery, now, nil, 512), 0)
	explained := strings.Join(query[string](t, conn, "EXPLAIN (ANALYZE, BUFFERS, COSTS off, TIMING off, SUMMARY off) SELECT rowcast.cursor()"), "\n")
	var hit int
	_, buffers, _ := strings.Cut(explained, "Buffers: shared")
	if _, err := fmt.Sscanf(buffers, " hit=%d", &hit); err != nil || hit > 200 {
		t.Errorf("want rowcast.cursor() to read at most 200 blocks from memory, and not the forged rows; the plan is\n%s", explained)
	}
}
