package listener_test

import (
	"context"
	"log/slog"
	"maps"
	"math"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener"
	"rowcast/listener/failures"
	"rowcast/sql"
	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// logging starts a server with settings and the schema. It returns a connection string and the path of the server's
// log.
func logging(t *testing.T, settings map[string]string) (dsn, log string) {
	t.Helper()
	server := dbtest.Cluster(t)
	maps.Copy(server.Settings, settings)
	if err := server.Restart(limited(t), cluster.Fast); err != nil {
		t.Fatal(err)
	}
	dsn = server.DSN("postgres")
	if _, _, err := sql.Migrate(limited(t), dsn); err != nil {
		t.Fatal(err)
	}
	return dsn, filepath.Join(server.Dir, "log")
}

// readLog returns the log of a server, from an offset on.
func readLog(t *testing.T, path string, from int) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text[from:])
}

// A transaction that holds the park lock shared and stays open makes the hub queue for the lock again and again. These
// attempts write no error to the server's log.
func TestOpenTransactionWritesNoErrors(t *testing.T) {
	t.Parallel()
	dsn, log := logging(t, nil)
	open, conn := connect(t, dsn), connect(t, dsn)
	exec(t, open, "BEGIN")
	insert(t, open, "late")
	began := len(readLog(t, log, 0))
	hub := listen(t, dsn)
	rounds := map[time.Time]bool{}
	const queueing = `SELECT query_start FROM pg_stat_activity
		WHERE application_name = 'rowcast park lock' AND wait_event_type = 'Lock' AND wait_event = 'advisory'`
	for deadline := time.Now().Add(limit); len(rounds) < 4; time.Sleep(10 * time.Millisecond) {
		for _, start := range query[time.Time](t, conn, queueing) {
			rounds[start] = true
		}
		if time.Now().After(deadline) {
			t.Fatalf("the hub has queued for the park lock %d times, want at least 4", len(rounds))
		}
	}
	if written := readLog(t, log, began); strings.Contains(written, "ERROR") || strings.Contains(written, "STATEMENT") {
		t.Errorf("want no errors, the server's log is\n%s", written)
	}
	exec(t, open, "COMMIT")
	wantData(t, hub.rows(t, 1), `"late"`)
	eventually(t, conn, heldExclusively)
}

// A hub that gets the park lock by waiting in the queue holds the lock twice. When it begins to poll, it releases both
// holds.
func TestGivesUpTheLockThatItQueuedFor(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	open, conn := connect(t, dsn), connect(t, dsn)
	exec(t, open, "BEGIN")
	insert(t, open, "late")
	hub := listen(t, dsn, pollsFromTheFirstRow)
	eventually(t, conn, `SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()
		AND application_name = 'rowcast park lock' AND wait_event = 'advisory'`)
	exec(t, open, "COMMIT") // the hub gets the lock, reads the row and begins to poll
	hub.rows(t, 1)
	eventually(t, conn, heldExclusively[:7]+"NOT "+heldExclusively[7:])
}

// The trigger sends no NOTIFY if it gets the park lock shared, and its transaction then holds the lock until it ends. If
// transactions overlap without a gap, there can always be one that holds the lock. The hub goes to sleep nevertheless:
// while it queues for the lock, the triggers of new transactions do not get the lock, and send a NOTIFY.
func TestSleepsAmongOverlappingTransactions(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	ctx, cancel := context.WithCancel(t.Context())
	var writers sync.WaitGroup
	var open atomic.Int64
	for i := range 10 {
		conn := connect(t, dsn)
		writers.Go(func() {
			for wait := time.Duration(i) * 5 * time.Millisecond; ctx.Err() == nil; wait = 50 * time.Millisecond {
				exec(t, conn, "BEGIN")
				insert(t, conn, "x")
				open.Add(1)
				time.Sleep(wait) // the transactions must overlap
				exec(t, conn, "COMMIT")
			}
		})
	}
	defer func() {
		cancel()
		await(t, "the writers", &writers)
	}()
	for deadline := time.Now().Add(limit); open.Load() < 20; time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("the writers have inserted %d rows, want at least 20", open.Load())
		}
	}
	hub := listen(t, dsn)
	began := time.Now()
	hub.waitForLock(t, 1)
	t.Logf("slept after %v", time.Since(began))
}

// stall puts a relay in front of conn, and returns the connection to the relay. Once stalled is set, the relay forwards
// no data in either direction. It does not forward the end of conn either.
func stall(t *testing.T, conn net.Conn, stalled *atomic.Bool) net.Conn {
	ours, relay := net.Pipe()
	t.Cleanup(func() {
		_ = ours.Close()
		_ = conn.Close()
	})
	forward := func(to, from net.Conn) {
		for buffer := make([]byte, 1<<16); ; {
			n, err := from.Read(buffer)
			if err == nil && !stalled.Load() {
				_, err = to.Write(buffer[:n])
			}
			if err != nil && stalled.Load() && from == conn {
				return
			}
			if err != nil {
				_ = to.Close()
				return
			}
		}
	}
	go forward(conn, relay)
	go forward(relay, conn)
	return ours
}

// If the hub's second connection, which holds the park lock, no longer answers, the hub notices that and connects
// again. That holds whether or not the server has ended its side of the connection, and also while rows come so often
// that the hub never sleeps for long.
func TestNoticesAStalledParkLock(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct{ ended, rows bool }{
		"open":      {},
		"ended":     {ended: true},
		"with rows": {rows: true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			conn := connect(t, dsn)
			var stalled atomic.Bool
			var once sync.Once
			hub := listen(t, dsn, func(l *listener.Listener) {
				l.Look, l.Busy = 100*time.Millisecond, math.Inf(1) // a hub that polls would release the lock, and notice that
				l.Config.AfterNetConnect = func(_ context.Context, config *pgconn.Config, conn net.Conn) (net.Conn, error) {
					if config.RuntimeParams["application_name"] == "rowcast park lock" {
						once.Do(func() { conn = stall(t, conn, &stalled) }) // only the first connection
					}
					return conn, nil
				}
			})
			hub.waitForLock(t, 1)
			sessions := hub.Stats.Sessions.Load()
			stalled.Store(true)
			began := time.Now()
			if c.ended {
				exec(t, conn, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
					WHERE datname = current_database() AND application_name = 'rowcast park lock'`)
			}
			hub.until(t, func() bool {
				if c.rows {
					insert(t, conn, "0")
				}
				return hub.Stats.Sessions.Load() > sessions
			})
			t.Logf("noticed after %v", time.Since(began))
			insert(t, conn, "1")
			hub.rows(t, 1)
		})
	}
}

// An idle listener runs no query except its safety polls, one a second by default, and a count of foreign rows once a
// minute. That holds whether the listener holds the park lock or relies on another listener.
func TestIdleListenerMakesOneQueryASecond(t *testing.T) {
	t.Parallel()
	dsn, log := logging(t, map[string]string{"log_statement": "all", "log_line_prefix": "[%a] "})
	holder := listen(t, dsn, func(l *listener.Listener) { l.Look = 0 })
	holder.waitForLock(t, 1)
	relying := listen(t, dsn, func(l *listener.Listener) { l.Look = 0 })
	began, look := 0, int64(0)
	for _, hub := range []*reader{holder, relying} {
		before := hub.Stats.Fetches.Load()
		hub.until(t, func() bool { return hub.Stats.Fetches.Load() > before+2 }) // now the hub only makes safety polls
	}
	began, look = len(readLog(t, log, 0)), holder.Stats.Fetches.Load()+relying.Stats.Fetches.Load()
	const seconds = 4
	for _, hub := range []*reader{holder, relying} {
		before := hub.Stats.Fetches.Load()
		hub.until(t, func() bool { return hub.Stats.Fetches.Load() >= before+seconds })
	}
	queries := regexp.MustCompile(`(?m)^\[rowcast .*(statement|execute)`).FindAllString(readLog(t, log, began), -1)
	fetches := int(holder.Stats.Fetches.Load() + relying.Stats.Fetches.Load() - look)
	if len(queries) > fetches+2 || len(queries) < fetches-2 { // each hub may be in a query when the test counts
		t.Errorf("got %d queries for %d fetches, want one query for each fetch, or up to 2 more or fewer: %s", len(queries), fetches, queries)
	}
	if relying.Stats.ParkLocks.Load() > 0 || holder.Stats.ParkLocks.Load() > 1 {
		t.Error("the park lock was taken again, want one hub to hold it all the time")
	}
}

// If the holder releases the park lock without a notification, a hub that relied on the holder takes the lock.
func TestRelyingHubNoticesThatTheLockIsFree(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	exec(t, conn, "SELECT pg_advisory_lock($1, $2)", sql.ParkLock1, sql.ParkLock2)
	relying := listen(t, dsn, func(l *listener.Listener) { l.Look = 50 * time.Millisecond })
	relying.until(t, func() bool { return relying.Stats.Fetches.Load() > 3 })
	if locks := relying.Stats.ParkLocks.Load(); locks > 0 {
		t.Errorf("the hub took the lock %d times while another session held it, want 0", locks)
	}
	exec(t, conn, "SELECT pg_advisory_unlock_all()") // without a NOTIFY
	relying.waitForLock(t, 1)
}

// If the server refuses a statement for the park lock, the hub logs and counts the failure, and continues. In this
// test, the role of the hub may not use plpgsql, which queueing for the lock needs, and may not notify the other hubs.
func TestRefusedParkLockIsShown(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	open, conn := connect(t, dsn), connect(t, dsn)
	role := createRole(t, dsn, "hub", hubGrants...)
	exec(t, conn, "ALTER ROLE "+role+" LOGIN")
	exec(t, conn, "REVOKE USAGE ON LANGUAGE plpgsql FROM PUBLIC")
	exec(t, conn, "REVOKE EXECUTE ON FUNCTION pg_catalog.pg_notify FROM PUBLIC")
	exec(t, open, "BEGIN")
	insert(t, open, "late")
	var log lines
	hub := listen(t, dsn, pollsFromTheFirstRow, func(l *listener.Listener) {
		l.Config.User, l.Logger = role, slog.New(slog.NewTextHandler(&log, nil))
	})
	shown := func(of failures.Operation, line string) {
		refused := regexp.MustCompile(line + ".*SQLSTATE 42501")
		holdsSoon(t, "a failure with the log line: "+line, func() bool { return hub.Failures.Of(of).Failing() && refused.MatchString(log.text()) })
	}
	shown(failures.ParkQueue, "cannot queue for the park lock; the hub polls while a transaction that has inserted notifications is open")
	exec(t, open, "COMMIT") // the hub reads the row, and polls for a while without the lock
	wantData(t, hub.rows(t, 1), `"late"`)
	hub.waitForLock(t, 1)
	insert(t, conn, "1")
	wantData(t, hub.rows(t, 1), `"1"`)
	shown(failures.Unpark, "cannot notify the other hubs of the released park lock")
}

// If the second connection breaks while it notifies the other hubs of a release, the failure counts for the operation
// park_lock, and not for fetch. In this test, the NOTIFY ends its own session.
func TestLossDuringTheNotificationOfAReleaseCountsForTheParkLock(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	exec(t, conn, "ALTER FUNCTION pg_catalog.pg_notify(text, text) RENAME TO pg_notify_itself")
	exec(t, conn, `CREATE FUNCTION pg_catalog.pg_notify(text, text) RETURNS void LANGUAGE plpgsql AS $$ BEGIN
		IF current_setting('application_name') = 'rowcast park lock' THEN PERFORM pg_terminate_backend(pg_backend_pid()); END IF;
		PERFORM pg_notify_itself($1, $2);
	END $$`)
	hub := listen(t, dsn, func(l *listener.Listener) { l.Busy = 1e-6 }) // polls for almost a second after a row
	hub.waitForLock(t, 1)
	sessions := hub.Stats.Sessions.Load()
	insert(t, conn, "row") // the hub releases the lock
	hub.until(t, func() bool { return hub.Stats.Sessions.Load() > sessions })
	if lock, fetch := hub.Failures.Of(failures.ParkLock).Total, hub.Failures.Of(failures.Fetch).Total; lock != 1 || fetch != 0 {
		t.Errorf("the loss counts %d times for %s and %d times for %s, want 1 and 0", lock, failures.ParkLock, fetch, failures.Fetch)
	}
}
