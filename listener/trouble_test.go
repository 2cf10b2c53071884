package listener_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"runtime"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener"
	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// While a transaction that did not send a NOTIFY stays open, no hub can take the park lock and sleep. Nevertheless, the
// rows of other transactions are delivered soon, and the hubs do not poll at full speed.
func TestTransactionThatStaysOpen(t *testing.T) {
	t.Parallel()
	for _, hubs := range []int{1, 2} {
		t.Run(fmt.Sprintf("hubs=%d", hubs), func(t *testing.T) {
			t.Parallel()
			// While other tests use the CPUs, a row may take long in any case, so one of several rounds is enough.
			const rounds, most = 4, 250 * time.Millisecond
			for round := 1; ; round++ {
				median := deliverBesideStraggler(t, hubs)
				if median <= most {
					break
				}
				if round == rounds {
					t.Fatalf("rows of other transactions took %v at the median, want at most %v in one of %d rounds", median, most, rounds)
				}
			}
		})
	}
}

// deliverBesideStraggler starts hubs while a transaction that did not send a NOTIFY is open. It returns the median time
// until the rows of other transactions have been delivered. When the transaction has ended, its row must be delivered
// and a hub must take the park lock.
func deliverBesideStraggler(t *testing.T, hubs int) (median time.Duration) {
	t.Helper()
	dsn := dbtest.Database(t)
	straggler, writer := connect(t, dsn), connect(t, dsn)
	exec(t, straggler, "BEGIN")
	insert(t, straggler, "late")
	var readers []*reader
	for range hubs {
		readers = append(readers, listen(t, dsn))
	}
	median = deliverOthers(t, writer, readers)
	exec(t, straggler, "COMMIT")
	for _, r := range readers {
		wantData(t, r.rows(t, 1), `"late"`)
	}
	readers[0].until(t, func() bool {
		var locks int64
		for _, r := range readers {
			locks += r.Stats.ParkLocks.Load()
		}
		return locks > 0
	})
	return median
}

// deliverOthers inserts rows for 2.5 s, one after the other, and returns the median time until all readers have received
// a row. It also checks that the first reader does not poll at full speed.
func deliverOthers(t *testing.T, writer *pgx.Conn, readers []*reader) (median time.Duration) {
	t.Helper()
	// The loop is long enough for some waits in the queue of the lock, and for the gaps between these waits.
	var took []time.Duration
	began, fetches := time.Now(), readers[0].Stats.Fetches.Load()
	for time.Since(began) < 2500*time.Millisecond {
		time.Sleep(rand.N(30 * time.Millisecond)) // the rows come at random times in these waits and gaps
		start := time.Now()
		insert(t, writer, "other")
		for _, r := range readers {
			wantData(t, r.rows(t, 1), `"other"`)
		}
		took = append(took, time.Since(start))
	}
	elapsed := time.Since(began)
	fetches = readers[0].Stats.Fetches.Load() - fetches - int64(len(took))
	slices.Sort(took)
	median = took[len(took)/2]
	t.Logf("%d rows of other transactions took %v at the median, %v at most; %.0f fetches a second in addition to one for each row",
		len(took), median, took[len(took)-1], float64(fetches)/elapsed.Seconds())
	if most := elapsed.Milliseconds() / 6; fetches > most {
		t.Errorf("%d fetches in %v besides one for each row, want at most %d, because the hub must not poll at full speed", fetches, elapsed, most)
	}
	return median
}

func TestLostSessions(t *testing.T) {
	t.Parallel()
	for _, name := range []string{"rowcast listener", "rowcast park lock"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			conn := connect(t, dsn)
			hub := listen(t, dsn)
			var want []string
			const rounds = 3
			for round := range rounds {
				hub.waitForLock(t, int64(round+1))
				const terminate = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = current_database() AND application_name = $1`
				for i := range 10 {
					if i == 3 && !one[bool](t, conn, terminate, name) {
						t.Fatal("cannot terminate the session")
					}
					insert(t, conn, fmt.Sprint(round, i))
					want = append(want, fmt.Sprintf(`"%d %d"`, round, i))
				}
				hub.until(t, func() bool { return len(hub.read) >= len(want) })
				hub.until(t, func() bool { return hub.Stats.Sessions.Load() == int64(round+2) })
			}
			hub.caughtUp(t)
			wantData(t, hub.read, want...)
		})
	}
}

func TestAnotherHubTakesOver(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	holder := listen(t, dsn)
	holder.waitForLock(t, 1)
	relying := listen(t, dsn, func(l *listener.Listener) { l.Look = 50 * time.Millisecond })
	holder.stop()
	insert(t, conn, "notified or not")
	relying.rows(t, 1)
	relying.waitForLock(t, 1)
	if unnotified := relying.Stats.Unnotified.Load(); unnotified != 0 {
		t.Errorf("%d rows count as unnotified, want 0: a row that comes while no hub holds the park lock does not count", unnotified)
	}
}

// insertByAll inserts rows one by one, on all connections at the same time.
func insertByAll(t *testing.T, conns []*pgx.Conn, each int) {
	t.Helper()
	var all sync.WaitGroup
	for _, conn := range conns {
		all.Go(func() {
			for range each {
				if _, err := conn.Exec(limited(t), `INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '1')`); err != nil {
					t.Error(err)
				}
			}
		})
	}
	await(t, "the writers", &all)
}

func TestPollsAtHighRates(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	hub := listen(t, dsn, func(l *listener.Listener) { l.Busy, l.Quiet = 200, 100 })
	hub.waitForLock(t, 1)
	// While other tests use the CPUs, it may take some rounds until the hub measures a high rate.
	const writers, each, rounds = 4, 250, 20
	var conns []*pgx.Conn
	for range writers {
		conns = append(conns, connect(t, dsn))
	}
	for round, before := 1, int64(0); ; round++ {
		insertByAll(t, conns, each)
		hub.rows(t, writers*each)
		wakeups := hub.Stats.Wakeups.Load()
		if wakeups-before < writers*each/10 {
			break
		}
		if round == rounds {
			t.Fatalf("%d notifications for the last %d commits, want fewer than a tenth", wakeups-before, writers*each)
		}
		before = wakeups
	}

	// The hub may release the park lock again after its next fetch. So the test looks at the lock after two fetches.
	for deadline := time.Now().Add(patience); ; {
		hub.caughtUp(t)
		hub.caughtUp(t)
		if one[bool](t, conns[0], heldExclusively) {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for the hub to sleep again", patience)
		}
	}
	wakeups := hub.Stats.Wakeups.Load()
	insert(t, conns[0], "notifies again")
	hub.rows(t, 1)
	if got := hub.Stats.Wakeups.Load(); got != wakeups+1 {
		t.Errorf("got %d notifications for a row while the hub slept, want 1", got-wakeups)
	}
}

// heldExclusively is a query that reports whether a session of this database holds the park lock exclusively.
var heldExclusively = fmt.Sprintf(`SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND classid = %d
	AND mode = 'ExclusiveLock' AND granted AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`, sql.ParkLock1)

func TestTwoPhaseCommit(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	t.Cleanup(func() { _, _ = conn.Exec(context.Background(), "ROLLBACK PREPARED 'two'") })
	hub := listen(t, dsn, pollsFromTheFirstRow)
	hub.waitForLock(t, 1)

	exec(t, conn, "BEGIN")
	insert(t, conn, "notifies")
	_, err := conn.Exec(limited(t), "PREPARE TRANSACTION 'one'")
	var refused *pgconn.PgError
	if !errors.As(err, &refused) || refused.Code != "0A000" {
		t.Fatalf("PREPARE TRANSACTION: got error %v, want SQLSTATE 0A000, because the transaction has sent a NOTIFY", err)
	}

	exec(t, conn, "SET rowcast.ring = off")
	exec(t, conn, "BEGIN")
	insert(t, conn, "does not notify")
	exec(t, conn, "PREPARE TRANSACTION 'two'")
	exec(t, conn, "COMMIT PREPARED 'two'")
	wantData(t, hub.caughtUp(t), `"does not notify"`)

	exec(t, conn, "RESET rowcast.ring")
	eventually(t, conn, heldExclusively[:7]+"NOT "+heldExclusively[7:])
	exec(t, conn, "BEGIN")
	insert(t, conn, "need not notify")
	exec(t, conn, "PREPARE TRANSACTION 'two'")
	hub.caughtUp(t)
	exec(t, conn, "COMMIT PREPARED 'two'")
	wantData(t, hub.rows(t, 1), `"need not notify"`)
}

func TestCatchUp(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	hub := listen(t, dsn)
	hub.waitForLock(t, 1)
	exec(t, conn, "ALTER TABLE rowcast.notifications DISABLE TRIGGER ring")
	for i := range 20 {
		insert(t, conn, fmt.Sprint(i))
		wantData(t, hub.caughtUp(t), fmt.Sprintf(`"%d"`, i))
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	hub.stop()
	if err := hub.CatchUp(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("CatchUp after the end of Run: got error %v, want %v", err, context.Canceled)
	}
}

// While there is no session with PostgreSQL, clients can call CatchUp and give up again and again. The listener keeps
// nothing for the calls that were given up. The test is not parallel, because it measures the memory of the whole process.
func TestCatchUpsThatAreGivenUpUseNoMemory(t *testing.T) {
	const calls, most = 200_000, 2 << 20
	l := new(listener.Listener)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	memory := func() uint64 {
		var stats runtime.MemStats
		runtime.GC()
		runtime.ReadMemStats(&stats)
		return stats.HeapAlloc
	}
	before := memory()
	for range calls {
		_ = l.CatchUp(ctx)
	}
	if after := memory(); after > before+most {
		t.Errorf("%d calls that were given up use %d bytes, want at most %d", calls, after-before, most)
	}
	runtime.KeepAlive(l)
}

func TestCatchUpOutlivesTheSession(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	locker, conn := connect(t, dsn), connect(t, dsn)
	hub := listen(t, dsn)
	hub.waitForLock(t, 1)
	exec(t, locker, "BEGIN")
	insert(t, locker, "row")
	exec(t, locker, "LOCK rowcast.notifications")
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	go func() { done <- hub.CatchUp(ctx) }()
	const waiting = `FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'rowcast listener' AND wait_event_type = 'Lock'`
	eventually(t, conn, "SELECT EXISTS (SELECT "+waiting+")")
	query[bool](t, conn, "SELECT pg_terminate_backend(pid) "+waiting)
	exec(t, locker, "COMMIT")
	if err := receive(t, "CatchUp", done); err != nil {
		t.Errorf("CatchUp: %v", err)
	}
}
