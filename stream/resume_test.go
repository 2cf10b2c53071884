package stream_test

import (
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// Transactions are held open and committed out of order; three hubs see them in other portions and so tell them in other
// orders. A client that stops after any event goes on exactly with any hub, and from any event of that again, and again.
func TestResumingAfterEveryEvent(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	sites := []*site{
		serve(t, dsn),
		serve(t, dsn, seldom, func(s *site) { s.hub.Memory, s.listener.PageRows = 1, 2 }),
		serve(t, dsn, seldom, func(s *site) { s.hub.Backlog = 250 }),
	}
	w := &walk{t: t, sites: sites, recipients: [][]string{{"alice", "team:7"}, {"bob"}}}
	w.begin()
	unfold(t, &w.history, sites, dsn)
	w.read(t, connect(t, dsn))
	stops := w.live()
	for level, most := range []int{1 << 20, 40, 20} {
		rand.Shuffle(len(stops), func(i, j int) { stops[i], stops[j] = stops[j], stops[i] })
		stops = stops[:min(most, len(stops))]
		t.Logf("level %d: %d stops on %d hubs", level+1, len(stops), len(sites))
		var next []stop
		for _, s := range stops {
			for _, site := range sites {
				next = append(next, w.resume(site, s)...)
			}
		}
		stops = next
	}
}

// unfold is the history: the first hub sees each commit by itself, the others some at a time.
func unfold(t *testing.T, h *history, sites []*site, dsn string) {
	alone, long, mixed, saved, late := h.session(connect(t, dsn)), h.session(connect(t, dsn)), h.session(connect(t, dsn)),
		h.session(connect(t, dsn)), h.session(connect(t, dsn))
	do := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		sites[0].caughtUp(t)
	}
	ctx := dbtest.Context(t)
	do(long.open(ctx))
	do(long.insert(ctx, "alice", ""))
	do(mixed.open(ctx))
	do(mixed.insert(ctx, "alice", "bob", ""))
	do(saved.open(ctx))
	do(saved.insert(ctx, "team:7"))
	do(saved.exec(ctx, "SAVEPOINT s"))
	do(saved.insert(ctx, "alice"))
	do(saved.exec(ctx, "ROLLBACK TO s"))
	do(saved.insert(ctx, "alice"))
	do(mixed.commit(ctx))
	do(alone.insert(ctx, "alice"))
	do(long.insert(ctx, "team:7"))
	do(late.open(ctx))
	do(late.insert(ctx, "alice", "bob"))
	do(long.commit(ctx))
	sites[1].caughtUp(t)
	do(alone.insert(ctx, "", "alice", "bob", "team:7", "alice"))
	do(mixed.open(ctx))
	do(mixed.insert(ctx, "alice", "bob", ""))
	do(mixed.rollback(ctx))
	do(saved.commit(ctx))
	sites[2].caughtUp(t)
	do(alone.insert(ctx, "bob"))
	do(late.insert(ctx, "alice"))
	do(late.commit(ctx))
	sites[1].caughtUp(t)
	do(alone.insert(ctx, "alice", ""))
	for _, s := range sites {
		s.caughtUp(t)
	}
}

// A walk follows clients from stop to stop.
type walk struct {
	history
	t          *testing.T
	sites      []*site
	recipients [][]string
	clients    []*client // live from the beginning, one on each site for each set of recipients
}

// A stop is where a client can stop: a cursor, and what it has been told by then.
type stop struct {
	recipients []string
	id         string
	told       []sse.Event
}

func (w *walk) begin() {
	for _, recipients := range w.recipients {
		for _, site := range w.sites {
			w.clients = append(w.clients, listen(w.t, site, recipients...))
		}
	}
}

// live returns the stops of those who were there from the beginning.
func (w *walk) live() (stops []stop) {
	for i, c := range w.clients {
		stops = append(stops, w.follow(c, stop{recipients: w.recipients[i/len(w.sites)]})...)
	}
	return stops
}

// resume goes on from a stop and returns those that follow.
func (w *walk) resume(site *site, from stop) []stop {
	if rand.IntN(3) == 0 {
		resume(w.t, site, from.id, from.recipients...).close() // changes nothing
	}
	c := resume(w.t, site, from.id, from.recipients...)
	defer c.close()
	stops := w.follow(c, from)
	if got, want := parse(w.t, stops[0].id).String(), from.id; got != want {
		w.t.Errorf("told the cursor %s, came from %s", got, want)
	}
	return stops
}

// follow reads until everything has been told that there is, and judges it.
func (w *walk) follow(c *client, from stop) (stops []stop) {
	w.t.Helper()
	told := slices.Clone(from.told)
	stops = append(stops, stop{from.recipients, c.hello(), told})
	for range w.owed(from.recipients) - len(told) {
		e := c.want("notify")
		told = append(told, e)
		stops = append(stops, stop{from.recipients, e.LastID, slices.Clone(told)})
	}
	for _, wrong := range w.judge(from.recipients, told) {
		w.t.Fatalf("%q from %q: %s", from.recipients, from.id, wrong)
	}
	return stops
}

// owed counts the rows for some recipients.
func (w *walk) owed(recipients []string) (n int) {
	for _, r := range w.rows {
		if r.recipient == "" || slices.Contains(recipients, r.recipient) {
			n++
		}
	}
	return n
}

// Whoever has been told nothing that concerns it still resumes from the last heartbeat.
func TestResumingFromAHeartbeat(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	s := serve(t, dsn, func(s *site) { s.hub.Heartbeat = 20 * time.Millisecond; s.hub.Memory = 1 })
	db, open := connect(t, dsn), connect(t, dsn)
	exec(t, open, "BEGIN")
	insert(t, open, "alice", "held open")
	c := listen(t, s, "alice")
	hello := c.hello()
	insert(t, db, "bob", "for another")
	s.caughtUp(t)
	id := hello
	for parse(t, id).Xmax == parse(t, hello).Xmax {
		id = c.want("rowcast.beat").LastID
	}
	c.close()
	insert(t, db, "alice", "while away")
	exec(t, open, "COMMIT")
	s.caughtUp(t)
	c = resume(t, s, id, "alice")
	if got := c.hello(); got != id {
		t.Errorf("got %s, want %s", got, id)
	}
	c.wantTold(`"held open"`, `"while away"`)
}

func TestTheHeaderWins(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	first := f.tell("", "message", "1")
	second := f.tell("", "message", "2")
	f.tell("", "message", "3")
	c := open(t, f.site, request{header: second.Cursor.String(), query: first.Cursor.String()})
	c.hello()
	c.wantTold("3")
	c = open(t, f.site, request{query: first.Cursor.String()})
	c.hello()
	c.wantTold("2", "3")
	c = open(t, f.site, request{header: start.String(), query: "nonsense"})
	c.hello()
	c.wantTold("1", "2", "3")
}

// A page that renders its state and asks for the cursor in the same statement has neither a gap nor a repetition.
func TestFromAPageToItsStream(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	s := serve(t, dsn)
	open, db := connect(t, dsn), connect(t, dsn)
	insert(t, db, "alice", "on the page")
	exec(t, open, "BEGIN")
	insert(t, open, "alice", "not committed yet")
	exec(t, db, "BEGIN")
	insert(t, db, "alice", "of the page itself")
	var id string
	if err := db.QueryRow(dbtest.Context(t), "SELECT rowcast.cursor()").Scan(&id); err != nil {
		t.Fatal(err)
	}
	insert(t, db, "alice", "after the page")
	exec(t, db, "COMMIT")
	exec(t, open, "COMMIT")
	c := resume(t, s, id, "alice")
	c.hello()
	c.wantTold(`"after the page"`, `"not committed yet"`)
}
