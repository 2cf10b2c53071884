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

// An original is a database from before it was copied, with the cursors that its clients were left with.
type original struct {
	dsn string
	// cursors are those after each row: "1", "2", "3". All are told before the copy is made.
	cursors []string
}

// newOriginal makes one on a server that gives so many other numbers after the first row's.
func newOriginal(t *testing.T, between int) *original {
	t.Helper()
	o := &original{dsn: dbtest.Cluster(t).DSN("postgres")}
	migrate(t, o.dsn)
	h := serve(t, o.dsn)
	tail := h.tail(t, "alice")
	o.cursors = append(o.cursors, tell(t, o.dsn, tail, "1"))
	burn(t, o.dsn, between)
	for _, data := range []string{"2", "3"} {
		o.cursors = append(o.cursors, tell(t, o.dsn, tail, data))
	}
	h.stop()
	tail.stop()
	return o
}

// tell inserts a row and returns the cursor with which it arrives.
func tell(t *testing.T, dsn string, tail *process, data string) string {
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
		t.Fatalf("migrate: %d, %s", code, stderr)
	}
}

// burn makes a server give transaction numbers.
func burn(t *testing.T, dsn string, n int) {
	t.Helper()
	runSQL(t, dsn, fmt.Sprintf("DO $$ BEGIN FOR i IN 1..%d LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$", n))
}

// postgres prepares one of PostgreSQL's client programs, or skips the test.
func postgres(t *testing.T, program string, args ...string) *exec.Cmd {
	t.Helper()
	return exec.CommandContext(dbtest.Context(t), dbtest.Client(t, program), args...)
}

// restore copies a database to an empty one, by a dump.
func restore(t *testing.T, from, to string) {
	t.Helper()
	dump, err := postgres(t, "pg_dump", "-Fc", from).Output()
	if err != nil {
		t.Fatalf("pg_dump: %v", err)
	}
	into := postgres(t, "pg_restore", "--exit-on-error", "-d", to)
	into.Stdin = bytes.NewReader(dump)
	if out, err := into.CombinedOutput(); err != nil {
		t.Fatalf("pg_restore: %v: %s", err, out)
	}
}

// resume opens a stream where a client had stopped.
func (h *hub) resume(t *testing.T, cursor string) *process {
	t.Helper()
	tail := start(t, nil, "tail", "--verbose", "--json", "--url", h.url+"/events", "--uid", "alice", "--last-event-id", cursor)
	tail.out.await(t, "rowcast.hello")
	return tail
}

// wantReset waits until a client is told that its cursor was not honoured.
func wantReset(t *testing.T, tail *process) {
	t.Helper()
	tail.out.await(t, `"event":"rowcast.reset","data":{"reason": ?"history"}`)
}

// wantData fails unless a client was told these rows, of which the last has arrived, and was reset no more than once if at all.
func wantData(t *testing.T, tail *process, resets int, want ...string) {
	t.Helper()
	tail.out.await(t, fmt.Sprintf(`"data":%s}`, want[len(want)-1]))
	if got := dataOf(t, tail.out); !slices.Equal(got, want) {
		t.Errorf("told %v, want %v", got, want)
	}
	if got := strings.Count(tail.out.String(), "rowcast.reset"); got != resets {
		t.Errorf("reset %d times, want %d: %s", got, resets, tail.out)
	}
}

// valueOf is what a query says, as text.
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

// A dump is restored on a server that has yet to give some of its rows' numbers, or has given them to rows of its own by now. Then
// serve refuses until migrate has made the old rows history, all of them: from a cursor that is exact for the lower ones, the
// others would be missed.
func TestRestoredWhereNumbersAreLower(t *testing.T) {
	t.Parallel()
	const ahead = 2000
	o := newOriginal(t, ahead)
	for name, catchUp := range map[string]bool{"not given yet": false, "given by now": true} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Stranger(t).DSN("postgres")
			burn(t, dsn, ahead/2)
			restore(t, o.dsn, dsn)
			kept := "1 1 1"
			if catchUp {
				runSQL(t, dsn, `INSERT INTO rowcast.notifications (data) VALUES ('4')`)
				kept += " " + valueOf(t, dsn, "SELECT xid::text FROM rowcast.notifications WHERE data = '4'")
				burn(t, dsn, ahead+100)
				if valueOf(t, dsn, "SELECT (pg_current_xact_id() > ALL (SELECT xid FROM rowcast.notifications))::text") != "true" {
					t.Fatal("the server has not given the rows' numbers")
				}
			}
			code, _, stderr := run(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", dsn)
			if want := "rowcast: rowcast.notifications was restored from another server: run rowcast migrate\n"; code != 1 || stderr != want {
				t.Fatalf("got %d, %q, want 1, %q", code, stderr, want)
			}
			migrate(t, dsn)
			if got := valueOf(t, dsn, "SELECT string_agg(xid::text, ' ' ORDER BY id) FROM rowcast.notifications"); got != kept {
				t.Errorf("the rows have xids %s, want %s", got, kept)
			}
			h := serve(t, dsn)
			tails := []*process{h.tail(t, "alice")}
			for _, cursor := range o.cursors {
				tails = append(tails, h.resume(t, cursor))
				wantReset(t, tails[len(tails)-1])
			}
			here := tell(t, dsn, tails[0], "5")
			burn(t, dsn, ahead+100) // the old rows' numbers
			tell(t, dsn, tails[0], "6")
			for i, tail := range tails {
				wantData(t, tail, min(i, 1), "5", "6")
			}
			wantData(t, h.resume(t, here), 0, "6")
		})
	}
}

// Where a dump is restored on a server that had given the numbers of all its rows before, there is nothing to put right: its own
// rows have higher ones, so cursors of the original are exact as they are. Those that claim a row that is not in the dump are
// reset.
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
	// In flight during the dump, below the anchor of the cursors that follow, with it and without it.
	exec("BEGIN; INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '4')")
	before := tell(t, o.dsn, tail, "5")
	dsn := dbtest.Stranger(t).DSN("postgres")
	burn(t, dsn, 2000)
	restore(t, o.dsn, dsn)
	exec("COMMIT")
	tail.out.await(t, `"data":4}`)
	events := eventsOf(t, tail.out)
	with := events[len(events)-1].ID
	after := tell(t, o.dsn, tail, "6")
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
	here := tell(t, dsn, fresh, "7")
	wantData(t, fresh, 0, "7")
	for i, tt := range tests {
		wantData(t, tails[i], tt.resets, tt.want...)
	}
	h.stop()
	migrate(t, dsn)
	h = serve(t, dsn)
	tail = h.resume(t, o.cursors[2])
	wantData(t, tail, 0, "5", "7")
	tell(t, dsn, tail, "8")
	wantData(t, h.resume(t, here), 0, "8")
}

// A dump without the rows brings the horizon of what was deleted there; here it would make every cursor too old.
func TestRestoredWithoutTheRows(t *testing.T) {
	t.Parallel()
	o := newOriginal(t, 2000)
	runSQL(t, o.dsn, "UPDATE rowcast.history SET horizon = (SELECT xid FROM rowcast.notifications ORDER BY xid DESC LIMIT 1)", "DELETE FROM rowcast.notifications")
	dsn := dbtest.Stranger(t).DSN("postgres")
	restore(t, o.dsn, dsn)
	code, _, stderr := run(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", dsn)
	if !regexp.MustCompile("run rowcast migrate\n$").MatchString(stderr) || code != 1 {
		t.Fatalf("got %d, %q", code, stderr)
	}
	migrate(t, dsn)
	h := serve(t, dsn)
	here := tell(t, dsn, h.tail(t, "alice"), "1")
	tell(t, dsn, h.resume(t, here), "2")
	wantData(t, h.resume(t, here), 0, "2")
}

// Databases of one server draw from one counter. A copy there, of the files or by a dump, needs nothing to be put right: both go on
// from the cursors of before, and neither from one of the other of after.
func TestCopiedToAnotherDatabaseOfTheServer(t *testing.T) {
	t.Parallel()
	c := dbtest.Cluster(t)
	runSQL(t, c.DSN("template1"), "CREATE DATABASE app", "CREATE DATABASE restored")
	dsns := []string{c.DSN("app"), c.DSN("copied"), c.DSN("restored")}
	migrate(t, dsns[0])
	h := serve(t, dsns[0])
	tail := h.tail(t, "alice")
	first := tell(t, dsns[0], tail, "1")
	last := tell(t, dsns[0], tail, "2")
	h.stop()
	restore(t, dsns[0], dsns[2])
	runSQL(t, c.DSN("template1"), "CREATE DATABASE copied TEMPLATE app")

	var hubs []*hub
	var cursors []string
	for i, dsn := range dsns {
		h := serve(t, dsn)
		hubs = append(hubs, h)
		tail, resumed := h.resume(t, last), h.resume(t, first)
		cursors = append(cursors, tell(t, dsn, tail, fmt.Sprint(10+i)))
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
		tell(t, dsns[i], tails[i], "3")
		for j, tail := range tails {
			wantData(t, tail, min(1, max(i-j, j-i)), "3")
		}
	}
}
