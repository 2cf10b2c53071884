package stream_test

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
	"rowcast/stream"
)

// fetchRarely makes a listener fetch at its start and when CatchUp is called, but otherwise only once an hour.
func fetchRarely(s *site) { s.listener.PollOnly, s.listener.PollInterval = true, time.Hour }

// A client that moves from a faster hub to a slower one is not reset and receives no row twice, because the slower hub
// catches up first.
func TestAClientAheadOfItsHub(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	fast, slow := serve(t, dsn), serve(t, dsn, fetchRarely)
	slow.caughtUp(t) // completes the first fetch before the rows are inserted
	db := connect(t, dsn)
	c := listen(t, fast, "alice")
	c.hello()
	insert(t, db, "alice", "1")
	insert(t, db, "alice", "2")
	c.wantData(`"1"`, `"2"`)
	id := c.decoder.LastID
	c = resume(t, slow, id, "alice")
	if got := c.hello(); got != id {
		t.Errorf("rowcast.hello has the id %s, want %s", got, id)
	}
	insert(t, db, "alice", "3")
	slow.caughtUp(t)
	c.wantData(`"3"`)
}

// If the connection to the database is lost while the slower hub catches up, the client is not reset and receives no
// row twice.
func TestAClientAheadOfItsHubWhenTheDatabaseFails(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	fast, slow := serve(t, dsn), serve(t, dsn, fetchRarely)
	slow.caughtUp(t) // completes the first fetch before the rows are inserted
	db, lock := connect(t, dsn), connect(t, dsn)
	c := listen(t, fast, "alice")
	c.hello()
	insert(t, db, "alice", "1")
	c.wantData(`"1"`)

	exec(t, lock, "BEGIN; LOCK rowcast.notifications")
	c = resume(t, slow, c.decoder.LastID, "alice")
	const waiting = `FROM pg_locks WHERE NOT granted AND locktype = 'relation' AND relation = 'rowcast.notifications'::regclass
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	eventually(t, "the slow hub fetches", func() (yes bool) {
		return lock.QueryRow(dbtest.Context(t), "SELECT count(*) > 0 "+waiting).Scan(&yes) == nil && yes
	})
	exec(t, lock, "SELECT pg_terminate_backend(pid) "+waiting)
	exec(t, lock, "ROLLBACK")
	c.hello()
	insert(t, db, "alice", "2")
	slow.caughtUp(t)
	c.wantData(`"2"`)
}

// While a hub receives a transaction in several batches, new streams wait until the transaction is complete. Otherwise
// a client without a cursor would receive only the last part of the transaction.
func TestNoStreamJoinsInTheMiddleOfATransaction(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	halfway, whole := make(chan struct{}), make(chan struct{})
	resumeWrites := sync.OnceFunc(func() { close(whole) })
	var once sync.Once
	s := serve(t, dsn, func(s *site) {
		s.hub.Heartbeat = 20 * time.Millisecond
		s.listener.PageRows = 2
		s.listener.Deliver = func(b feed.Batch) {
			if !b.Cursor.Whole() {
				once.Do(func() { close(halfway); <-whole })
			}
		}
	})
	t.Cleanup(resumeWrites)
	early := listen(t, s, "alice")
	id := early.hello()
	large, db := connect(t, dsn), connect(t, dsn)
	exec(t, large, "BEGIN")
	insert(t, large, "alice", "1") // the hub sends the older transaction after the younger one
	insert(t, db, "alice", "younger")
	early.wantData(`"younger"`)
	for i := range 4 {
		insert(t, large, "alice", fmt.Sprint(i+2))
	}
	exec(t, large, "COMMIT")
	dbtest.Receive(t, halfway, "a delivery in the middle of the transaction")
	known, unknown := resume(t, s, id, "alice"), listen(t, s, "alice")
	for _, c := range []*client{known, unknown} {
		for range 4 {
			c.expect(":\n")
		}
	}
	resumeWrites()
	early.wantData(`"1"`, `"2"`, `"3"`, `"4"`, `"5"`)
	known.hello()
	known.wantData(`"1"`, `"2"`, `"3"`, `"4"`, `"5"`, `"younger"`)
	unknown.hello()
	insert(t, db, "alice", "6")
	for _, c := range []*client{early, known, unknown} {
		c.wantData(`"6"`)
	}
}

// A client that resumes again and again while events are published misses no event, and receives no event twice.
func TestJoiningMissesNothing(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Backlog = 64 << 10 })
	const last, ahead = 3000, 300
	var clients [4]struct{ received, joined int }
	received := make([]chan int, len(clients))
	var all sync.WaitGroup
	for i := range clients {
		received[i] = make(chan int, last)
		all.Go(func() {
			defer close(received[i])
			for id := start.String(); clients[i].received < last; clients[i].joined++ {
				c := resume(t, f.site, id, "alice")
				c.hello()
				for n := 0; n < 5+20*i && clients[i].received < last; n++ {
					e := c.notification()
					clients[i].received++
					if e.Data != fmt.Sprint(clients[i].received) {
						t.Errorf("received event %s after event %d, want the next one", e.Data, clients[i].received-1)
						return
					}
					received[i] <- clients[i].received
					id = e.LastID
				}
				c.close()
			}
		})
	}
	for n := 1; n <= last; n++ {
		f.publish([]string{"alice", everyone}[n%2], "message", fmt.Sprint(n))
		for i := range clients {
			if n > ahead {
				dbtest.Receive(t, received[i], "the next event at a client") // keeps every client within 300 events of the hub
			}
		}
	}
	dbtest.Wait(t, all.Wait, "the last event at every client")
	for i := range clients {
		t.Logf("client %d joined %d times", i, clients[i].joined)
	}
}

// A client has received 3,000 events on another hub and misses one older transaction. The hub sends only this
// transaction, if it is for the client, and the stream becomes live.
func TestAClientThatMissesOneOldTransaction(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	late := f.publish("bob", "message", `"late"`)
	for range 3000 {
		f.publish("alice", "message", `"seen"`)
	}
	c := f.now
	c.Xip = []uint64{late.Xid}
	both, alice := resume(t, f.site, c.String(), "alice", "bob"), resume(t, f.site, c.String(), "alice")
	both.hello()
	alice.hello()
	both.wantData(`"late"`)
	f.publish(everyone, "message", `"live"`)
	both.wantData(`"live"`)
	alice.wantData(`"live"`)
	replayed, pages := f.hub.Stats.Replayed.Load(), f.hub.Stats.Pages.Load()
	if replayed > 3 || pages != 0 { // the live event may be replayed too, if a stream was not live yet
		t.Errorf("%d events were replayed and %d pages were read, want at most 3 events and no pages", replayed, pages)
	}
}

// A flushing is an http.ResponseWriter that calls do before each flush. It gives do what was written since the last flush.
// The time that do takes does not count for the deadline of the flush.
type flushing struct {
	http.ResponseWriter
	do      func(written string)
	written *strings.Builder
}

func (w flushing) Write(b []byte) (int, error) {
	w.written.Write(b)
	return w.ResponseWriter.Write(b)
}

func (w flushing) FlushError() error {
	w.do(w.written.String())
	w.written.Reset()
	control := http.NewResponseController(w.ResponseWriter)
	return errors.Join(control.SetWriteDeadline(time.Now().Add(patience)), control.Flush())
}

func (w flushing) Unwrap() http.ResponseWriter { return w.ResponseWriter }

// serveAlice serves a feed to the user alice. It calls do while the hub writes the head of a response. written is the
// beginning of the body, which is sent with the head.
func serveAlice(t *testing.T, f *fakeFeed, do func(written string)) *site {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		f.hub.Serve(flushing{w, do, new(strings.Builder)}, r, stream.Grant{User: "alice"})
	}))
	t.Cleanup(server.Close)
	return &site{url: server.URL}
}

// A stream whose client has missed nothing, or only a few events that are in memory, is live before rowcast.hello is
// written. Events that are published in between come after the missed events.
func TestEventsWhileTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	for name, missed := range map[string][]string{"without a cursor": nil, "nothing missed": {}, "two events missed": {`"1"`, `"2"`}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := serveFeed(t)
			for _, data := range missed {
				f.publish("alice", "", data)
			}
			alice := serveAlice(t, f, func(string) {
				f.publish("alice", "", `"published"`)
				f.hub.Send(feed.Message{Recipient: "alice", Data: []byte(`"with NOTIFY"`)})
			})
			id := ""
			if missed != nil {
				id = start.String()
			}
			c := resume(t, alice, id)
			c.hello()
			c.wantData(append(missed, `"published"`, `"with NOTIFY"`)...)
			f.publish("alice", "", `"live"`)
			c.wantData(`"live"`)
			if got := f.hub.Stats.Replayed.Load(); got != int64(len(missed)) {
				t.Errorf("%d events were replayed, want %d", got, len(missed))
			}
		})
	}
}

// Missed events are written together with the head of the response if they are in memory and have at most 16 KiB.
// Otherwise the head is written first. In both cases, the client receives what it has missed, or rowcast.reset.
func TestMissedEventsAreWrittenWithTheHead(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Memory = 64 << 10 })
	fits := text(15 << 10)
	before := f.now
	for range 8 { // more than the memory holds
		f.publish("alice", "", fits)
	}
	two := f.now
	f.publish("alice", "", fits)
	one := f.now
	f.publish("alice", "", fits)
	other := f.now
	other.Epoch++
	tests := map[string]struct {
		id     string
		missed int // the number of missed events; -1 if the client is reset
		with   bool
	}{
		"nothing missed":    {f.now.String(), 0, true},
		"few bytes":         {one.String(), 1, true},
		"more than 16 KiB":  {two.String(), 2, false},
		"not in memory":     {before.String(), 0, false}, // the source of the feed has no rows
		"another epoch":     {other.String(), 0, false},  // the source of the feed regards it as valid
		"malformed":         {"x", -1, false},
		"of another server": {cursor.Cursor{Xmax: f.now.Xmax + 1, Epoch: f.now.Epoch, Anchor: f.now.Anchor}.String(), -1, false},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			heads := make(chan string, 1)
			c := resume(t, serveAlice(t, f, func(written string) {
				select {
				case heads <- written:
				default:
				}
			}), tt.id)
			c.hello()
			for range tt.missed {
				c.wantData(fits)
			}
			if tt.missed < 0 {
				c.want("rowcast.reset")
			}
			head := dbtest.Receive(t, heads, "the head")
			if got := strings.Contains(head, "rowcast.hello"); got != tt.with {
				t.Errorf("rowcast.hello was written with the head: %v, want %v", got, tt.with)
			}
			want := 0
			if tt.with {
				want = tt.missed
			}
			if got := strings.Count(head, fits); got != want {
				t.Errorf("%d events were written with the head, want %d", got, want)
			}
		})
	}
}

// The stream of a client that does not accept the missed events that come with the head is closed after two heartbeat
// intervals.
func TestAClientThatDoesNotAcceptTheHead(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat, s.buffer = 100*time.Millisecond, 1 })
	f.publish("alice", "", text(15<<10))
	conn, err := dial(f.url, request{recipients: []string{"alice"}, header: start.String(), buffer: 1})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	eventually(t, "the stream is opened", func() bool { return f.hub.Stats.Opened.Load() == 1 })
	eventually(t, "the stream is closed", func() bool { return f.hub.Stats.Streams.Load() == 0 })
}

// A client without a cursor receives each NOTIFY message that is sent after its rowcast.hello, also if the hub publishes
// many events while the stream begins. The stream is written through net/http, so it begins in join.
func TestJoiningWithoutACursorMissesNoMessage(t *testing.T) {
	t.Parallel()
	f := newFeed(t, func(s *site) { s.hub.Backlog = 64 << 20 })
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.ProtoMajor = 2
		f.hub.Serve(w, r, stream.Grant{User: "alice"})
	}))
	t.Cleanup(server.Close)
	const clients, rounds, rows = 150, 5, 1100 // more rows than maxUnderLock
	for range clients {
		var publishing sync.WaitGroup
		publishing.Go(func() {
			for round := range rounds {
				f.publishMany(rows, "alice", fmt.Sprint(round))
				f.hub.Send(feed.Message{Recipient: "alice", Event: "sent", Data: []byte(fmt.Sprint(round))})
			}
		})
		c := listen(t, &site{url: server.URL}, "alice")
		c.hello()
		dbtest.Wait(t, publishing.Wait, "the end of the publishing")
		f.publish("alice", "end", "")
		last := "" // the round of the last row
		for e := c.event(); e.Name != "end"; e = c.event() {
			switch {
			case e.Name == "sent" && last != "" && e.Data != last:
				t.Fatalf("after the rows of round %s, the client received the message of round %s, want the message of the same round", last, e.Data)
			case e.Name == "sent":
				last = ""
			case e.Name == "message" && last != "" && e.Data != last:
				t.Fatalf("the client received the rows of round %s and no message after them, want the message of this round", last)
			case e.Name == "message":
				last = e.Data
			}
		}
		if last != "" {
			t.Fatalf("the client received the rows of round %s and no message after them, want the message of this round", last)
		}
		c.close()
	}
}

// Disconnect can end a stream while its head is written. The client receives rowcast.hello and then rowcast.bye.
func TestDisconnectedWhileTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, serveAlice(t, f, func(string) { f.hub.Disconnect("alice") }))
	c.hello()
	c.want("rowcast.bye")
	c.wantEnd()
}

// Disconnect can also end a stream just after it has become live. If the missed events and rowcast.bye are then written
// together, the stream is still closed.
func TestDisconnectedBeforeTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	f := newFeed(t)
	f.publish("alice", "", `"missed"`)
	first, closed := f.hub.EndWhileBegun("alice", start)
	if text := string(first); !strings.Contains(text, `"missed"`) || !strings.Contains(text, "rowcast.bye") {
		t.Errorf("got %q, want the missed event and rowcast.bye", text)
	}
	dbtest.Receive(t, closed, "the end of the stream")
}

// A stream begins as usual if its heartbeats were due while its head was written.
func TestHeartbeatsWhileTheHeadIsWritten(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Heartbeat = 50 * time.Millisecond })
	bob := listen(t, f.site, "bob")
	bob.hello()
	everySlot := make(chan struct{})
	conn, err := dial(serveAlice(t, f, func(string) {
		select {
		case <-everySlot:
		case <-t.Context().Done(): // the test has ended early
		}
	}).url, request{})
	if err != nil {
		t.Fatal(err)
	}
	eventually(t, "the stream of alice is opened", func() bool { return f.hub.Stats.Opened.Load() == 2 })
	for range 3 {
		bob.want("rowcast.beat")
	}
	close(everySlot)
	begin(t, conn).hello()
}
