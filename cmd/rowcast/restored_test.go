package main_test

import (
	"bytes"
	"context"
	"fmt"
	"os/exec"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// An original is a database that will be copied, with cursors of a client.
type original struct {
	dsn     string
	cursors []string // the cursor after each of the rows "1", "2" and "3"
}

// newOriginal returns an original. After the first row, its server assigns transaction numbers to other transactions.
// The argument between is the number of these transactions.
func newOriginal(t *testing.T, between int) *original {
	t.Helper()
	o := &original{dsn: dbtest.Cluster(t).DSN("postgres")}
	migrate(t, o.dsn)
	h := serve(t, o.dsn)
	tail := h.tail(t, "alice")
	o.cursors = append(o.cursors, insertAndAwait(t, o.dsn, tail, "1"))
	burn(t, o.dsn, between)
	for _, data := range []string{"2", "3"} {
		o.cursors = append(o.cursors, insertAndAwait(t, o.dsn, tail, data))
	}
	h.stop()
	tail.stop()
	return o
}

// insertAndAwait inserts a row and returns the cursor with which the row arrives.
func insertAndAwait(t *testing.T, dsn string, tail *process, data string) string {
	t.Helper()
	runSQL(t, dsn, fmt.Sprintf("INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '%s')", data))
	tail.out.await(t, fmt.Sprintf(`"data":%s}`, data))
	events := eventsOf(t, tail.out)
	return events[len(events)-1].ID
}

// migrate runs rowcast migrate.
func migrate(t *testing.T, dsn string) {
	t.Helper()
	if code, _, stderr := run(t, nil, "migrate", "--database-url", dsn); code != 0 {
		t.Fatalf("migrate: got exit code %d, %s, want 0", code, stderr)
	}
}

// burn makes a server assign n transaction numbers.
func burn(t *testing.T, dsn string, n int) {
	t.Helper()
	runSQL(t, dsn, fmt.Sprintf("DO $$ BEGIN FOR i IN 1..%d LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$", n))
}

// postgres returns a command that runs a client program of PostgreSQL. If no suitable version is installed, the test is
// skipped or fails (see dbtest.Client).
func postgres(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(dbtest.Context(t), dbtest.Client(t, program), args...)
}

// restore copies a database to an empty one with pg_dump and pg_restore.
func restore(t *testing.T, source, target string) {
	t.Helper()
	dump, err := postgres(t, "pg_dump", "-Fc", source).Output()
	if err != nil {
		t.Fatalf("pg_dump: %v", err)
	}
	into := postgres(t, "pg_restore", "--exit-on-error", "-d", target)
	into.Stdin = bytes.NewReader(dump)
	if out, err := into.CombinedOutput(); err != nil {
		t.Fatalf("pg_restore: %v: %s", err, out)
	}
}

// resume opens a stream for alice that resumes from a cursor.
func (h *hub) resume(t *testing.T, cursor string) *process {
	t.Helper()
	tail := start(t, nil, "tail", "--verbose", "--json", "--url", h.url+"/events", "--uid", "alice", "--last-event-id", cursor)
	tail.out.await(t, "rowcast.hello")
	return tail
}

// wantReset waits until a client has received rowcast.reset with the reason history.
func wantReset(t *testing.T, tail *process) {
	t.Helper()
	tail.out.await(t, `"event":"rowcast.reset","data":{"reason": ?"history"}`)
}

// wantData waits for the last of the wanted rows, and checks that the client has received exactly these rows and this
// number of resets.
func wantData(t *testing.T, tail *process, resets int, want ...string) {
	t.Helper()
	tail.out.await(t, fmt.Sprintf(`"data":%s}`, want[len(want)-1]))
	if got := dataOf(t, tail.out); !slices.Equal(got, want) {
		t.Errorf("received %v, want %v", got, want)
	}
	if got := strings.Count(tail.out.String(), "rowcast.reset"); got != resets {
		t.Errorf("the client was reset %d times, want %d: %s", got, resets, tail.out)
	}
}

// valueOf returns the result of a query, which must be one text.
func valueOf(t *testing.T, dsn, query string) (text string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), query).Scan(&text); err != nil {
		t.Fatalf("%s: %v", query, err)
	}
	return text
}

// A dump is restored on a server that has not yet assigned the transaction numbers of some rows, or has assigned them
// to other transactions since the restore. serve refuses to start until migrate has set the transaction number of each
// row of the dump to 1. If migrate changed only some of the numbers, clients that resume would lose rows.
func TestRestoredWhereNumbersAreLower(t *testing.T) {
	t.Parallel()
	const ahead = 2000
	o := newOriginal(t, ahead)
	for name, catchUp := range map[string]bool{"the numbers are not assigned yet": false, "the numbers are assigned by now": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Stranger(t).DSN("postgres")
			burn(t, dsn, ahead/2)
			restore(t, o.dsn, dsn)
			kept := "1 1 1"
			if catchUp {
				runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '4')`)
				kept += " " + valueOf(t, dsn, "SELECT xid::text FROM rowcast.notifications WHERE data = '4'")
				burn(t, dsn, ahead+100)
				if valueOf(t, dsn, "SELECT (pg_current_xact_id() > ALL (SELECT xid FROM rowcast.notifications))::text") != "true" {
					t.Fatal("the server has not assigned all transaction numbers of the rows")
				}
			}
			code, _, stderr := run(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", dsn)
			if want := "rowcast: rowcast.notifications was restored from another server: run rowcast migrate\n"; code != 1 || stderr != want {
				t.Fatalf("got %d, %q, want 1, %q", code, stderr, want)
			}
			migrate(t, dsn)
			if got := valueOf(t, dsn, "SELECT string_agg(xid::text, ' ' ORDER BY id) FROM rowcast.notifications"); got != kept {
				t.Errorf("the rows have the transaction numbers %s, want %s", got, kept)
			}
			h := serve(t, dsn)
			tails := []*process{h.tail(t, "alice")}
			for _, cursor := range o.cursors {
				tails = append(tails, h.resume(t, cursor))
				wantReset(t, tails[len(tails)-1])
			}
			here := insertAndAwait(t, dsn, tails[0], "5")
			burn(t, dsn, ahead+100) // by now the server has assigned the numbers that the old rows had
			insertAndAwait(t, dsn, tails[0], "6")
			for i, tail := range tails {
				wantData(t, tail, min(i, 1), "5", "6")
			}
			wantData(t, h.resume(t, here), 0, "6")
		})
	}
}

// A dump is restored on a server that has already assigned the transaction numbers of all rows of the dump. Nothing
// needs to be corrected: new rows have higher numbers, so the cursors of the original stay exact. A client is reset if
// the anchor of its cursor is not in the dump. The anchor is a row of the highest transaction that the cursor has seen.
func TestRestoredWhereNumbersAreHigher(t *testing.T) {
	t.Parallel()
	o := newOriginal(t, 0)
	old := serve(t, o.dsn)
	tail := old.tail(t, "alice")
	late, err := pgx.Connect(t.Context(), o.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer late.Close(context.Background())
	exec := func(statement string) {
		t.Helper()
		if _, err := late.Exec(t.Context(), statement); err != nil {
			t.Fatal(err)
		}
	}
	// The transaction of row 4 is in flight during the dump. The rows 5 and 6 have higher transaction numbers. Row 5 is in
	// the dump. It is the anchor of the cursors in the variables "before" and "with". Row 6 is not in the dump. It is the
	// anchor of the cursor in the variable "after".
	exec("BEGIN; INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '4')")
	before := insertAndAwait(t, o.dsn, tail, "5")
	dsn := dbtest.Stranger(t).DSN("postgres")
	burn(t, dsn, 2000)
	restore(t, o.dsn, dsn)
	exec("COMMIT")
	tail.out.await(t, `"data":4}`)
	events := eventsOf(t, tail.out)
	with := events[len(events)-1].ID
	after := insertAndAwait(t, o.dsn, tail, "6")
	exec("DELETE FROM rowcast.notifications WHERE data = '1'")
	old.stop()

	h := serve(t, dsn)
	tests := []struct {
		cursor string
		resets int
		want   []string
	}{
		{o.cursors[0], 0, []string{"2", "3", "5", "7"}},
		{o.cursors[2], 0, []string{"5", "7"}},
		{before, 0, []string{"7"}},
		{with, 0, []string{"7"}},
		{after, 1, []string{"7"}},
	}
	fresh := h.tail(t, "alice")
	var tails []*process
	for _, tt := range tests {
		tails = append(tails, h.resume(t, tt.cursor))
	}
	wantReset(t, tails[len(tails)-1])
	here := insertAndAwait(t, dsn, fresh, "7")
	wantData(t, fresh, 0, "7")
	for i, tt := range tests {
		wantData(t, tails[i], tt.resets, tt.want...)
	}
	h.stop()
	migrate(t, dsn)
	h = serve(t, dsn)
	tail = h.resume(t, o.cursors[2])
	wantData(t, tail, 0, "5", "7")
	insertAndAwait(t, dsn, tail, "8")
	wantData(t, h.resume(t, here), 0, "8")
}

// A dump without the rows contains the retention horizon of the original. On the new server, this horizon would make
// every cursor too old, so serve refuses to start until migrate has corrected the horizon.
func TestRestoredWithoutTheRows(t *testing.T) {
	t.Parallel()
	o := newOriginal(t, 2000)
	runSQL(t, o.dsn, "UPDATE rowcast.history SET horizon = (SELECT xid FROM rowcast.notifications ORDER BY xid DESC LIMIT 1)", "DELETE FROM rowcast.notifications")
	dsn := dbtest.Stranger(t).DSN("postgres")
	restore(t, o.dsn, dsn)
	code, _, stderr := run(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", dsn)
	if !regexp.MustCompile("run rowcast migrate\n$").MatchString(stderr) || code != 1 {
		t.Fatalf("got %d, %q, want 1 and the advice to run rowcast migrate", code, stderr)
	}
	migrate(t, dsn)
	h := serve(t, dsn)
	here := insertAndAwait(t, dsn, h.tail(t, "alice"), "1")
	insertAndAwait(t, dsn, h.resume(t, here), "2")
	wantData(t, h.resume(t, here), 0, "2")
}

// The databases of a server share one counter of transaction numbers. After a copy to another database of the server,
// by CREATE DATABASE or by a dump, nothing needs to be corrected. Cursors from before the copy are valid in the
// original and in the copies. A later cursor is valid only in the database that it comes from.
func TestCopiedToAnotherDatabaseOfTheServer(t *testing.T) {
	t.Parallel()
	c := dbtest.Cluster(t)
	runSQL(t, c.DSN("template1"), "CREATE DATABASE app", "CREATE DATABASE restored")
	dsns := []string{c.DSN("app"), c.DSN("copied"), c.DSN("restored")}
	migrate(t, dsns[0])
	h := serve(t, dsns[0])
	tail := h.tail(t, "alice")
	first := insertAndAwait(t, dsns[0], tail, "1")
	last := insertAndAwait(t, dsns[0], tail, "2")
	h.stop()
	restore(t, dsns[0], dsns[2])
	runSQL(t, c.DSN("template1"), "CREATE DATABASE copied TEMPLATE app")

	var hubs []*hub
	var cursors []string
	for i, dsn := range dsns {
		h := serve(t, dsn)
		hubs = append(hubs, h)
		tail, resumed := h.resume(t, last), h.resume(t, first)
		cursors = append(cursors, insertAndAwait(t, dsn, tail, fmt.Sprint(10+i)))
		wantData(t, tail, 0, fmt.Sprint(10+i))
		wantData(t, resumed, 0, "2", fmt.Sprint(10+i))
	}
	for i, h := range hubs {
		var tails []*process
		for j, cursor := range cursors {
			tails = append(tails, h.resume(t, cursor))
			if j != i {
				wantReset(t, tails[j])
			}
		}
		insertAndAwait(t, dsns[i], tails[i], "3")
		for j, tail := range tails {
			wantData(t, tail, min(1, max(i-j, j-i)), "3")
		}
	}
}
