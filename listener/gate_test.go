package listener_test

import (
	"bytes"
	"context"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener"
	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// A gate stops a listener once, before it sends a certain statement to the server.
type gate struct {
	t       *testing.T
	text    []byte
	once    sync.Once
	reached chan struct{}
	opened  chan struct{}
	open    func()
}

// rowStatement is a part of the statement that reads a single row (measuredQuery).
const rowStatement = "whole (recipient, event, huge, text)"

// newGate returns a gate. The gate stops a listener before the first statement that contains text, until open is
// called.
func newGate(t *testing.T, text string) *gate {
	g := &gate{t: t, text: []byte(text), reached: make(chan struct{}), opened: make(chan struct{})}
	g.open = sync.OnceFunc(func() { close(g.opened) })
	return g
}

func (g *gate) into(l *listener.Listener) {
	l.Config.AfterNetConnect = func(_ context.Context, _ *pgconn.Config, conn net.Conn) (net.Conn, error) {
		return &gatedConn{conn, g}, nil
	}
}

func (g *gate) wait(t *testing.T) {
	t.Helper()
	select {
	case <-g.reached:
	case <-time.After(patience):
		t.Fatalf("waited %v for the listener to send %q", patience, g.text)
	}
}

type gatedConn struct {
	net.Conn
	gate *gate
}

func (c *gatedConn) Write(b []byte) (int, error) {
	if bytes.Contains(b, c.gate.text) {
		c.gate.once.Do(func() {
			close(c.gate.reached)
			select {
			case <-c.gate.opened:
			case <-c.gate.t.Context().Done(): // the test has ended, and stops the listener next
			}
		})
	}
	return c.Conn.Write(b)
}

func TestFetchesAfterTheLockWasTaken(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	gate := newGate(t, "pg_try_advisory_lock")
	hub := listen(t, dsn, gate.into)
	gate.wait(t)
	insert(t, connect(t, dsn), "without a NOTIFY, because no hub sleeps")
	gate.open()
	hub.rows(t, 1)
}

func TestFetchesAfterTheLockWasSeenHeld(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	open := connect(t, dsn) // its transaction holds the park lock shared until COMMIT
	exec(t, open, "BEGIN")
	insert(t, open, "without a NOTIFY, because no hub sleeps")

	gate := newGate(t, "relied_on")
	relying := listen(t, dsn, gate.into)
	gate.wait(t)
	exec(t, open, "COMMIT")
	listen(t, dsn).waitForLock(t, 1)
	gate.open()
	relying.rows(t, 1)
	if locks := relying.Stats.ParkLocks.Load(); locks != 0 {
		t.Errorf("the relying hub took the lock %d times, want 0, because the other hub holds it", locks)
	}
}

// pollsFromTheFirstRow makes a listener release the park lock after the first row. The listener then polls, for more
// than 10 s after each row.
func pollsFromTheFirstRow(l *listener.Listener) { l.Busy = 1e-100 }

func TestNotifiesTheOtherHubsAfterTheRelease(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	gate := newGate(t, "pg_advisory_unlock")
	holder := listen(t, dsn, gate.into, pollsFromTheFirstRow)
	holder.waitForLock(t, 1)
	pid := one[int](t, conn, `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = $1
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, sql.ParkLock1)
	relying := listen(t, dsn)
	// The hub fetches a second time after it has seen that the lock is held.
	relying.until(t, func() bool { return relying.Stats.Fetches.Load() >= 2 })

	insert(t, conn, "makes the holder poll")
	gate.wait(t)
	// A hub must notify the other hubs after it has released the lock. A hub that is notified before that finds the
	// lock still held, and continues to rely on the holder.
	relying.caughtUp(t)
	relying.caughtUp(t)
	gate.open()
	eventually(t, conn, "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = $1)", pid)
	insert(t, conn, "the trigger sends no NOTIFY, unless the other hub holds the lock by now")
	relying.until(t, func() bool { return len(relying.read) == 2 })
}
