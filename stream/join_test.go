package stream_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"time"

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
