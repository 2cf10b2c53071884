package stream_test

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// seldom makes a hub that fetches only when somebody asks.
func seldom(s *site) { s.listener.PollOnly, s.listener.PollInterval = true, time.Hour }

// A client that comes from a faster hub is neither reset nor told anything again: this hub catches up with it.
func TestAClientAheadOfItsHub(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	fast, slow := serve(t, dsn), serve(t, dsn, seldom)
	slow.caughtUp(t) // its first fetch must not come later
	db := connect(t, dsn)
	c := listen(t, fast, "alice")
	c.hello()
	insert(t, db, "alice", "1")
	insert(t, db, "alice", "2")
	c.wantTold(`"1"`, `"2"`)
	id := c.decoder.LastID
	c = resume(t, slow, id, "alice")
	if got := c.hello(); got != id {
		t.Errorf("got %s, want %s", got, id)
	}
	insert(t, db, "alice", "3")
	slow.caughtUp(t)
	c.wantTold(`"3"`)
}

// The same if the database goes away in the middle of catching up.
func TestAClientAheadOfItsHubWhenTheDatabaseGoes(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	fast, slow := serve(t, dsn), serve(t, dsn, seldom)
	slow.caughtUp(t) // its first fetch must not come later
	db, lock := connect(t, dsn), connect(t, dsn)
	c := listen(t, fast, "alice")
	c.hello()
	insert(t, db, "alice", "1")
	c.wantTold(`"1"`)

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
	c.wantTold(`"2"`)
}

// While a hub is telling a transaction in pages, who comes has to wait until it is whole: a cursor cannot say that two are told
// by halves.
func TestNobodyJoinsInTheMiddleOfATransaction(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	halfway, whole := make(chan struct{}), make(chan struct{})
	goOn := sync.OnceFunc(func() { close(whole) })
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
	t.Cleanup(goOn)
	early := listen(t, s, "alice")
	id := early.hello()
	large, db := connect(t, dsn), connect(t, dsn)
	exec(t, large, "BEGIN")
	insert(t, large, "alice", "1") // the older transaction is told after the younger
	insert(t, db, "alice", "younger")
	early.wantTold(`"younger"`)
	for i := range 4 {
		insert(t, large, "alice", fmt.Sprint(i+2))
	}
	exec(t, large, "COMMIT")
	dbtest.Receive(t, halfway, "the hub to be in the middle of the transaction")
	known, unknown := resume(t, s, id, "alice"), listen(t, s, "alice")
	for _, c := range []*client{known, unknown} {
		for range 4 {
			c.expect(":\n")
		}
	}
	goOn()
	early.wantTold(`"1"`, `"2"`, `"3"`, `"4"`, `"5"`)
	known.hello()
	known.wantTold(`"1"`, `"2"`, `"3"`, `"4"`, `"5"`, `"younger"`)
	unknown.hello()
	insert(t, db, "alice", "6")
	for _, c := range []*client{early, known, unknown} {
		c.wantTold(`"6"`)
	}
}

// Between what is remembered and what comes live there is neither a gap nor a repetition, however fast it comes.
func TestJoiningMissesNothing(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Backlog = 64 << 10 })
	const last, ahead = 3000, 300
	var clients [4]struct{ told, joined int }
	told := make([]chan int, len(clients))
	var all sync.WaitGroup
	for i := range clients {
		told[i] = make(chan int, last)
		all.Go(func() {
			defer close(told[i])
			for id := start.String(); clients[i].told < last; clients[i].joined++ {
				c := resume(t, f.site, id, "alice")
				c.hello()
				for n := 0; n < 5+20*i && clients[i].told < last; n++ {
					e := c.told()
					clients[i].told++
					if e.Data != fmt.Sprint(clients[i].told) {
						t.Errorf("told %s after %d", e.Data, clients[i].told-1)
						return
					}
					told[i] <- clients[i].told
					id = e.LastID
				}
				c.close()
			}
		})
	}
	for n := 1; n <= last; n++ {
		f.tell([]string{"alice", ""}[n%2], "message", fmt.Sprint(n))
		for i := range clients {
			if n > ahead {
				dbtest.Receive(t, told[i], "a client that fell behind") // nobody falls far behind
			}
		}
	}
	dbtest.Wait(t, all.Wait, "every client to be told everything")
	for i := range clients {
		t.Logf("client %d joined %d times", i, clients[i].joined)
	}
}

// Many events can look as if a client had missed them, which it has heard on another hub: there another transaction came before them
// that it still misses. It is told just that, or nothing if that is for somebody else, and becomes live.
func TestAClientThatHasSeenNearlyAll(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	late := f.tell("bob", "message", `"late"`)
	for range 3000 {
		f.tell("alice", "message", `"seen"`)
	}
	c := f.now
	c.Xip = []uint64{late.Xid}
	both, alice := resume(t, f.site, c.String(), "alice", "bob"), resume(t, f.site, c.String(), "alice")
	both.hello()
	alice.hello()
	both.wantTold(`"late"`)
	f.tell("", "message", `"live"`)
	both.wantTold(`"live"`)
	alice.wantTold(`"live"`)
	replayed, pages := f.hub.Stats.Replayed.Load(), f.hub.Stats.Pages.Load()
	if replayed > 3 || pages != 0 { // live may have come before they were
		t.Errorf("%d events were replayed, %d pages read", replayed, pages)
	}
}
