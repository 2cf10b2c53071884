package stream_test

import (
	"context"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"slices"
	"testing"
	"time"

	"rowcast/sql/dbtest"
	"rowcast/stream"
	"rowcast/stream/sse"
)

// Transactions are held open and committed out of order. Three hubs fetch them in different portions, and so send them
// in different orders. A client that stops after any event resumes on any hub without a loss or a repetition. Then it
// resumes again from random events that it has received from that hub.
func TestResumingAfterEveryEvent(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	sites := []*site{
		serve(t, dsn),
		serve(t, dsn, fetchRarely, func(s *site) { s.hub.Memory, s.listener.PageRows = 1, 2 }),
		serve(t, dsn, fetchRarely, func(s *site) { s.hub.Backlog = 250 }),
	}
	w := &walk{t: t, sites: sites, recipients: [][]string{{"alice", "team:7"}, {"bob"}}}
	w.begin()
	writeLedger(t, &w.ledger, sites, dsn)
	w.read(t, connect(t, dsn))
	stops := w.live()
	for level, most := range []int{1 << 20, 40, 20} {
		rand.Shuffle(len(stops), func(i, j int) { stops[i], stops[j] = stops[j], stops[i] })
		stops = stops[:min(most, len(stops))]
		t.Logf("round %d: resume from %d cursors on each of %d hubs", level+1, len(stops), len(sites))
		var next []stop
		for _, s := range stops {
			for _, site := range sites {
				next = append(next, w.resume(site, s)...)
			}
		}
		stops = next
	}
}

// writeLedger executes the transactions. The first hub fetches after each statement, the other hubs after several
// statements.
func writeLedger(t *testing.T, h *ledger, sites []*site, dsn string) {
	single, long, mixed, saved, late := h.session(connect(t, dsn)), h.session(connect(t, dsn)), h.session(connect(t, dsn)),
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
	do(long.insert(ctx, "alice", everyone))
	do(mixed.open(ctx))
	do(mixed.insert(ctx, "alice", "bob", everyone))
	do(saved.open(ctx))
	do(saved.insert(ctx, "team:7"))
	do(saved.exec(ctx, "SAVEPOINT s"))
	do(saved.insert(ctx, "alice"))
	do(saved.exec(ctx, "ROLLBACK TO s"))
	do(saved.insert(ctx, "alice"))
	do(mixed.commit(ctx))
	do(single.insert(ctx, "alice"))
	do(long.insert(ctx, "team:7"))
	do(late.open(ctx))
	do(late.insert(ctx, "alice", "bob"))
	do(long.commit(ctx))
	sites[1].caughtUp(t)
	do(single.insert(ctx, everyone, "alice", "bob", "team:7", "alice"))
	do(mixed.open(ctx))
	do(mixed.insert(ctx, "alice", "bob", everyone))
	do(mixed.rollback(ctx))
	do(saved.commit(ctx))
	sites[2].caughtUp(t)
	do(single.insert(ctx, "bob"))
	do(late.insert(ctx, "alice"))
	do(late.commit(ctx))
	sites[1].caughtUp(t)
	do(single.insert(ctx, "alice", everyone))
	for _, s := range sites {
		s.caughtUp(t)
	}
}

// A walk resumes clients from cursors that other clients have received.
type walk struct {
	ledger
	t          *testing.T
	sites      []*site
	recipients [][]string
	clients    []*client // live from the beginning: one on each site for each set of recipients
}

// A stop is a place where a client can stop: a cursor, and the events that the client has received until then.
type stop struct {
	recipients []string
	id         string
	received   []sse.Event
}

func (w *walk) begin() {
	for _, recipients := range w.recipients {
		for _, site := range w.sites {
			w.clients = append(w.clients, listen(w.t, site, recipients...))
		}
	}
}

// live returns the stops of the clients that were live from the beginning.
func (w *walk) live() (stops []stop) {
	for i, c := range w.clients {
		stops = append(stops, w.follow(c, stop{recipients: w.recipients[i/len(w.sites)]})...)
	}
	return stops
}

// resume resumes a client from a stop and returns the stops of the new stream (see follow).
func (w *walk) resume(site *site, first stop) []stop {
	if rand.IntN(3) == 0 {
		resume(w.t, site, first.id, first.recipients...).close() // a connection that is closed at once must have no effect
	}
	c := resume(w.t, site, first.id, first.recipients...)
	defer c.close()
	stops := w.follow(c, first)
	if got, want := parse(w.t, stops[0].id).String(), first.id; got != want {
		w.t.Errorf("rowcast.hello has the id %s, want %s", got, want)
	}
	return stops
}

// follow reads until all rows have been received, and checks them. It returns the stops before the first event and
// after each event.
func (w *walk) follow(c *client, first stop) (stops []stop) {
	w.t.Helper()
	received := slices.Clone(first.received)
	stops = append(stops, stop{first.recipients, c.hello(), received})
	for range w.countRows(first.recipients) - len(received) {
		e := c.want("notify")
		received = append(received, e)
		stops = append(stops, stop{first.recipients, e.LastID, slices.Clone(received)})
	}
	for _, wrong := range w.check(first.recipients, received) {
		w.t.Fatalf("recipients %q, from the cursor %q: %s", first.recipients, first.id, wrong)
	}
	return stops
}

// countRows returns the number of rows for the recipients and for everyone.
func (w *walk) countRows(recipients []string) (n int) {
	for _, r := range w.rows {
		if r.recipient == everyone || slices.Contains(recipients, r.recipient) {
			n++
		}
	}
	return n
}

// A client that has received no row resumes from the last heartbeat.
func TestResumingFromAHeartbeat(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	s := serve(t, dsn, func(s *site) { s.hub.Heartbeat = 20 * time.Millisecond; s.hub.Memory = 1 })
	db, open := connect(t, dsn), connect(t, dsn)
	exec(t, open, "BEGIN")
	insert(t, open, "alice", "held open")
	c := listen(t, s, "alice")
	hello := c.hello()
	insert(t, db, "bob", "for another recipient")
	s.caughtUp(t)
	id := hello
	for parse(t, id).Xmax == parse(t, hello).Xmax {
		id = c.want("rowcast.beat").LastID
	}
	c.close()
	insert(t, db, "alice", "while disconnected")
	exec(t, open, "COMMIT")
	s.caughtUp(t)
	c = resume(t, s, id, "alice")
	if got := c.hello(); got != id {
		t.Errorf("rowcast.hello has the id %s, want %s", got, id)
	}
	c.wantData(`"held open"`, `"while disconnected"`)
}

// If a request has several cursors, the last header that is not empty applies. Without such a header, the last
// parameter for a cursor that is not empty applies, whatever its name is.
func TestTheLastCursorApplies(t *testing.T) {
	t.Parallel()
	f := newFeed(t)
	first := f.publish(everyone, "message", "1").Cursor.String()
	second := f.publish(everyone, "message", "2").Cursor.String()
	f.publish(everyone, "message", "3")
	now := f.now.String()
	const reset = "" // rowcast.hello has no id if rowcast.reset follows
	for _, tt := range []struct {
		headers []string
		query   string
		want    string
	}{
		{nil, "", now},
		{nil, "last_event_id=" + first, first},
		{nil, "lastEventId=" + first, first},
		{nil, "lastEventID=" + first, first},
		{nil, "Last_Event_ID=" + first, first},
		{nil, "last%5Fevent%5Fid=%37" + first[1:], first},
		{nil, "last_event_id=" + first + "&last_event_id=" + second, second},
		{nil, "lastEventId=" + second + "&x=1&last_event_id=" + first, first},
		{nil, "last_event_id=" + first + "&lastEventID=" + second, second},
		{nil, "last_event_id=" + first + "&lastEventId=&last_event_id", first},
		{nil, "lasteventid=" + first, first},
		{nil, "eventid=" + first, now},
		{[]string{second}, "last_event_id=" + first, second},
		{[]string{first, second}, "", second},
		{[]string{second, first, ""}, "last_event_id=x", first},
		{[]string{""}, "last_event_id=" + first, first},
		{[]string{first}, "last_event_id=x&lastEventId=%zz", first},
		// A text that is not a cursor is never ignored.
		{nil, "last_event_id=x", reset},
		{nil, "last_event_id=" + first + "&lastEventId=x", reset},
		{nil, "last_event_id=%zz", reset},
		{nil, "last_event_id=" + first + "&lastEventId=%zz", reset},
		{nil, "last_event_id=" + first + ";x=1", reset},
		{nil, "last_event_id=%20", reset},
		{[]string{first, "x"}, "", reset},
		{[]string{"x"}, "last_event_id=" + first, reset},
		{nil, "last_event_id=x&lastEventId=" + first, first},
		{nil, "x=%zz&%zz=1&y;z=1&last_event_id=" + first, first},
	} {
		got, reason := beginning(t, f.hub, tt.headers, tt.query)
		if got != tt.want || (tt.want == reset) != (reason == `{"reason": "malformed"}`) {
			t.Errorf("headers %q and query %q: rowcast.hello has the id %q and rowcast.reset has the data %q, want the id %q, and a reset (malformed) only if this id is empty",
				tt.headers, tt.query, got, reason, tt.want)
		}
	}
}

// beginning opens a stream with the headers Last-Event-ID and the query. It returns the id of rowcast.hello, and the
// data of rowcast.reset if the client is reset.
func beginning(t *testing.T, hub *stream.Hub, headers []string, query string) (id, reset string) {
	t.Helper()
	ctx, leave := context.WithCancel(t.Context())
	defer leave()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/", nil)
	r.ProtoMajor = 2 // over HTTP/2, Serve writes through w
	r.Header["Last-Event-Id"], r.URL.RawQuery = headers, query
	w := &helloOnly{header: http.Header{}, leave: leave}
	hub.Serve(w, r, stream.Grant{})
	for e, err := range sse.Events(&w.body) {
		if err != nil {
			t.Fatal(err)
		}
		switch e.Name {
		case "rowcast.hello":
			id = e.LastID
		case "rowcast.reset":
			reset = e.Data
		}
	}
	return id, reset
}

// A stream that resumes from the result of rowcast.cursor() continues exactly where the snapshot of the calling
// statement ends, without a gap and without a repetition.
func TestFromAPageToItsStream(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	s := serve(t, dsn)
	open, db := connect(t, dsn), connect(t, dsn)
	insert(t, db, "alice", "on the page")
	exec(t, open, "BEGIN")
	insert(t, open, "alice", "not committed yet")
	exec(t, db, "BEGIN")
	insert(t, db, "alice", "before the cursor, in its transaction")
	var id string
	if err := db.QueryRow(dbtest.Context(t), "SELECT rowcast.cursor()").Scan(&id); err != nil {
		t.Fatal(err)
	}
	insert(t, db, "alice", "after the page")
	exec(t, db, "COMMIT")
	exec(t, open, "COMMIT")
	c := resume(t, s, id, "alice")
	c.hello()
	c.wantData(`"after the page"`, `"not committed yet"`)
}
