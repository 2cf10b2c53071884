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

// A gate stops a listener at the instant at which it is about to say something to the server, once.
type gate struct {
	t       *testing.T
	text    []byte
	once    sync.Once
	reached chan struct{}
	opened  chan struct{}
	open    func()
}

// newGate stops a listener before its first statement that holds the text, until it is opened.
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
		t.Fatalf("the listener never said %s", g.text)
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
			case <-c.gate.t.Context().Done(): // before the test stops the listener
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
	insert(t, connect(t, dsn), "not rung for, as nobody is parked")
	gate.open()
	hub.rows(t, 1)
}

func TestFetchesAfterTheLookAtAnothersLock(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	straggler := connect(t, dsn)
	exec(t, straggler, "BEGIN")
	insert(t, straggler, "not rung for, as nobody is parked")

	gate := newGate(t, "relied_on")
	relying := listen(t, dsn, gate.into)
	gate.wait(t)
	exec(t, straggler, "COMMIT")
	listen(t, dsn).parked(t, 1)
	gate.open()
	relying.rows(t, 1)
	if parks := relying.Stats.ParkLocks.Load(); parks != 0 {
		t.Errorf("got %d parkings, want 0: two cannot have the lock", parks)
	}
}

// pollsFromTheFirstRow makes a listener unpark when it is rung, and poll for longer than any test takes.
func pollsFromTheFirstRow(l *listener.Listener) { l.Busy = 1e-100 }

func TestRingsTheOthersAfterUnlocking(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	gate := newGate(t, "pg_advisory_unlock")
	holder := listen(t, dsn, gate.into, pollsFromTheFirstRow)
	holder.parked(t, 1)
	pid := one[int](t, conn, `SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND classid = $1
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database())`, sql.ParkLock1)
	relying := listen(t, dsn)
	relying.until(t, func() bool { return relying.Stats.Fetches.Load() >= 2 }) // at the beginning, and after the look

	insert(t, conn, "unparks the holder")
	gate.wait(t)
	// Had the holder rung by now, the other would look again and find the lock still held.
	relying.caughtUp(t)
	relying.caughtUp(t)
	gate.open()
	eventually(t, conn, "SELECT NOT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND pid = $1)", pid)
	insert(t, conn, "not rung for by its transaction, unless the other has parked by now")
	relying.until(t, func() bool { return len(relying.told) == 2 })
}
