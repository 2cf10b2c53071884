package listener_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// A stop is a place where a client's connection may end: the number of rows delivered until then, and the cursor.
type stop struct {
	delivered int
	cursor    string
}

// stops returns all places at which a client that was connected from the beginning can stop. The result whole has the
// places between two transactions.
func (r *reader) stops(batches []feed.Batch) (stops []stop, whole []stop) {
	delivered := 0
	for _, b := range batches {
		for _, row := range b.Rows {
			delivered++
			stops = append(stops, stop{delivered, row.Cursor.String()})
		}
		if at := (stop{delivered, b.Cursor.String()}); b.Cursor.Whole() && (len(whole) == 0 || whole[len(whole)-1] != at) {
			stops, whole = append(stops, at), append(whole, at)
		}
	}
	return stops, whole
}

// Transactions stay open and commit out of order. A client stops after each event, resumes, and stops again after each
// event that it then receives. It must receive each missing row once. If a transaction began after the end of another,
// its rows must come after the rows of the other.
func TestResumingIsExact(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	var batches []feed.Batch
	var truth record
	hub := listen(t, dsn, func(l *listener.Listener) {
		// With so few rows, pages can end in the middle of transactions, and inside each of the three arms of fetchQuery.
		l.PageRows = 3
		deliver := l.Deliver
		l.Deliver = func(b feed.Batch) {
			batches = append(batches, kept(b))
			deliver(b)
		}
	})
	truth.write(t, dsn, 6, 6)
	hub.caughtUp(t)
	hub.stop()
	if err := truth.check(nil, hub.read, truth.committed()); err != nil {
		t.Fatal(err)
	}
	stops, whole := hub.stops(batches)
	t.Logf("%d rows of %d transactions, %d places to stop at", len(hub.read), 6*6, len(stops))
	for _, recipients := range [][]string{nil, {"a"}, {"c", "b", "nobody"}, {"a", "b", "c"}} {
		t.Run(fmt.Sprint(recipients), func(t *testing.T) {
			t.Parallel()
			s := subscriber{record: &truth, read: hub.read, recipients: recipients}
			s.small, s.large = newReplayer(t, dsn, 1+rand.N(3)), newReplayer(t, dsn, 512)
			for _, stop := range stops {
				end := whole[len(whole)-1]
				if rand.N(3) == 0 { // sometimes the client resumes at a hub that has read fewer rows
					end = whole[rand.N(len(whole))]
				}
				if end.delivered >= stop.delivered {
					s.resume(t, stop, end)
				}
			}
			t.Logf("%d replays of %d rows", s.replays, s.rows)
		})
	}
}

func newReplayer(t *testing.T, dsn string, pageRows int) *listener.Replayer {
	t.Helper()
	l := newListener(t, dsn)
	l.PageRows = pageRows
	replayer, err := l.NewReplayer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	return replayer
}

// replay reads all pages from one cursor to another, and returns their rows: the rows for the recipients and for
// everyone.
func replay(t *testing.T, r *listener.Replayer, from, to string, recipients []string) (delivered []feed.Row) {
	t.Helper()
	c, err := cursor.Parse(from)
	if err != nil {
		t.Fatalf("%s: %v", from, err)
	}
	end, err := cursor.Parse(to)
	if err != nil {
		t.Fatalf("%s: %v", to, err)
	}
	for c.String() != end.String() {
		rows, next, _, err := r.Page(limited(t), c, end, append(slices.Clone(recipients), feed.Everyone))
		if err != nil {
			t.Fatal(err)
		}
		if next.String() == c.String() && len(rows) == 0 {
			t.Fatalf("no progress from %s to %s", c, end)
		}
		delivered, c = append(delivered, rows...), next
	}
	return delivered
}

// A subscriber is a client that resumes with a set of recipients.
type subscriber struct {
	*record
	read       []feed.Row // the rows that the hub has read
	recipients []string

	small, large  *listener.Replayer // replayers with small and with large pages
	replays, rows int
}

func (s *subscriber) resume(t *testing.T, from, to stop) {
	t.Helper()
	before, want := concern(s.read[:from.delivered], s.recipients), ids(concern(s.read[from.delivered:to.delivered], s.recipients))
	replayer := s.small
	if rand.N(2) == 0 {
		replayer = s.large
	}
	rows := s.replay(t, replayer, from.cursor, to.cursor, before, want)
	for i := range rows { // the client stops again after each row of the first replay
		s.replay(t, s.large, rows[i].Cursor.String(), to.cursor, slices.Concat(before, rows[:i+1]), ids(rows[i+1:]))
	}
}

func (s *subscriber) replay(t *testing.T, replayer *listener.Replayer, from, to string, before []feed.Row, want []int64) []feed.Row {
	t.Helper()
	rows := replay(t, replayer, from, to, s.recipients)
	if err := s.check(before, rows, want); err != nil {
		t.Fatalf("from %s to %s: %v", from, to, err)
	}
	s.replays++
	s.rows += len(rows)
	return rows
}

// If one statement reads the rows and the cursor of a web page, a replay from this cursor returns exactly the rows that
// the statement did not see.
func TestResumingFromAPage(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	listen(t, dsn) // begins the epoch; a replay must end at a cursor of the present epoch
	var truth record
	truth.write(t, dsn, 6, 20)
	committed := truth.committed()
	conn := connect(t, dsn)
	end := one[string](t, conn, "SELECT rowcast.cursor()")
	replayer := newReplayer(t, dsn, 7)
	ofWriters := 0
	for _, page := range truth.pages {
		c, err := cursor.Parse(page.cursor)
		if err != nil {
			t.Fatalf("%s: %v", page.cursor, err)
		}
		if c.String() != page.cursor {
			t.Errorf("the database writes a cursor as %s, Go writes it as %s, want the same text", page.cursor, c)
		}
		if !c.Whole() {
			ofWriters++
		}
		want := slices.DeleteFunc(slices.Clone(committed), func(id int64) bool { return slices.Contains(page.shows, id) })
		rows := replay(t, replayer, page.cursor, end, []string{"a", "b", "c"})
		if err := truth.check(nil, rows, want); err != nil {
			t.Errorf("from %s: %v", page.cursor, err)
		}
	}
	t.Logf("%d pages, %d of transactions that had written", len(truth.pages), ofWriters)
	if ofWriters == 0 || ofWriters == len(truth.pages) {
		t.Errorf("got %d pages of transactions that had written and %d other pages, want at least one of each kind", ofWriters, len(truth.pages)-ofWriters)
	}
}

func TestReplayIgnoresRepeatedRecipients(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	listen(t, dsn)
	begin := one[string](t, conn, "SELECT rowcast.cursor()")
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('a', '1'), ('*', '2'), ('b', '3')`)
	end := one[string](t, conn, "SELECT rowcast.cursor()")
	wantData(t, replay(t, newReplayer(t, dsn, 512), begin, end, []string{"a", "a", feed.Everyone, "a"}), "1", "2")
}
