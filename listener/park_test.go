package listener_test

import (
	"context"
	"math/rand/v2"
	"net"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// The fetch after the park lock was taken finds every row that came without a NOTIFY. There are no safety polls in this
// test, so a row that this fetch has missed would come only after the next notification. But there is no next
// notification: each database has one writer, and the writer waits for the row.
func TestNoRowWaitsForASafetyPoll(t *testing.T) {
	t.Parallel()
	proofs := []*parkProof{{hubs: 1}, {hubs: 2}}
	databases := make([]*parkDatabase, 18)
	var made sync.WaitGroup
	for i := range databases {
		databases[i] = &parkDatabase{}
		made.Go(func() { databases[i].dsn = dbtest.Database(t) })
	}
	await(t, "the databases", &made)
	ctx, cancel := context.WithTimeout(t.Context(), longest)
	defer cancel()
	var all sync.WaitGroup
	enough := time.Now().Add(10 * time.Second)
	for i, db := range databases {
		proof := proofs[i%len(proofs)]
		proof.begin(t, db)
		all.Go(func() { proof.run(ctx, t, db, enough) })
	}
	await(t, "the writers", &all)
	for _, proof := range proofs {
		t.Logf("%d hubs: the lock was taken %d times, %d notifications, %d rows delivered, %d missed",
			proof.hubs, proof.locks.Load(), proof.wakeups.Load(), proof.delivered.Load(), proof.missed.Load())
		if proof.missed.Load() > 0 {
			t.Errorf("%d hubs: %d rows were missed, want 0", proof.hubs, proof.missed.Load())
		} else if proof.locks.Load() < leastLocks {
			t.Errorf("%d hubs: the lock was taken %d times in %v, want at least %d", proof.hubs, proof.locks.Load(), longest, leastLocks)
		}
	}
}

// The hubs of a parkProof must take the lock leastLocks times within the time longest. Otherwise the test shows
// nothing.
const (
	leastLocks = 100
	longest    = time.Minute
)

// A parkProof counts what happens in all databases with the same number of hubs.
type parkProof struct {
	hubs int

	locks, wakeups, delivered, missed atomic.Int64
}

// A parkDatabase has some hubs and one writer.
type parkDatabase struct {
	dsn     string
	hubs    []*listener.Listener
	tracker *tracker
	writer  *sparseWriter
}

// oneCommit is just below 20 commits a second, the rate that a hub measures right after a single commit. With oneCommit
// as Busy and Quiet, the hub polls after nearly every notification, and soon sleeps again.
const oneCommit = 19.9

func (p *parkProof) begin(t *testing.T, db *parkDatabase) {
	db.tracker = &tracker{t: t, hubs: p.hubs, pending: map[string]*pendingRow{}}
	for hub := range p.hubs {
		l := newListener(t, db.dsn)
		l.Busy, l.Quiet = oneCommit, oneCommit
		l.PollInterval = 4 * time.Millisecond
		l.Config.AfterNetConnect = delayLock
		l.Deliver = func(b feed.Batch) { db.tracker.deliver(hub, b.Rows) }
		run(t, l)
		db.hubs = append(db.hubs, l)
	}
	db.writer = &sparseWriter{conn: connect(t, db.dsn), tracker: db.tracker, pause: 15 * time.Millisecond}
}

// delayLock delays about a third of the statements on the connection of the park lock by up to 5 ms. So the writer can
// commit between a fetch and the taking or releasing of the lock, in whichever order these two happen.
func delayLock(_ context.Context, config *pgconn.Config, conn net.Conn) (net.Conn, error) {
	if config.RuntimeParams["application_name"] == "rowcast park lock" {
		conn = slowConn{conn}
	}
	return conn, nil
}

type slowConn struct{ net.Conn }

func (c slowConn) Write(b []byte) (int, error) {
	if rand.N(3) == 0 {
		time.Sleep(rand.N(5 * time.Millisecond))
	}
	return c.Conn.Write(b)
}

// run makes the writer write at least until the time enough, and until the hubs of p have taken the lock leastLocks
// times. It stops earlier if the context ends. After each transaction, it waits for the committed rows, and counts them
// as delivered or missed.
func (p *parkProof) run(ctx context.Context, t *testing.T, db *parkDatabase, enough time.Time) {
	var locks, wakeups int64 // the counts after the previous transaction
	for ctx.Err() == nil && (time.Now().Before(enough) || p.locks.Load() < leastLocks) {
		names, err := db.writer.transact(ctx)
		if err != nil && ctx.Err() == nil {
			t.Error(err)
			return
		}
		missed := db.tracker.wait(names)
		p.missed.Add(int64(missed))
		p.delivered.Add(int64(len(names) - missed))
		before := locks
		locks, wakeups = p.count(db, locks, wakeups)
		db.writer.adapt(locks > before)
	}
}

func (p *parkProof) count(db *parkDatabase, locks, wakeups int64) (nowLocks, nowWakeups int64) {
	for _, l := range db.hubs {
		nowLocks += l.Stats.ParkLocks.Load()
		nowWakeups += l.Stats.Wakeups.Load()
	}
	p.locks.Add(nowLocks - locks)
	p.wakeups.Add(nowWakeups - wakeups)
	return nowLocks, nowWakeups
}

// A tracker keeps the rows that a writer inserts until all hubs have delivered them. Each row has a recipient of its
// own, by which the tracker finds it.
type tracker struct {
	t    *testing.T
	hubs int

	mu      sync.Mutex
	pending map[string]*pendingRow
}

type pendingRow struct {
	at         map[int]bool  // the hubs that have delivered the row
	everywhere chan struct{} // closed when all hubs have delivered the row
}

// send adds a row with this recipient to the pending rows. It must be called before the row is inserted.
func (p *tracker) send(recipient string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.pending[recipient] = &pendingRow{at: map[int]bool{}, everywhere: make(chan struct{})}
}

func (p *tracker) deliver(hub int, rows []feed.Row) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, row := range rows {
		pendingRow := p.pending[row.Recipient]
		if pendingRow == nil || pendingRow.at[hub] {
			p.t.Errorf("hub %d delivered %s, want no delivery, because the hub has delivered it before or it was rolled back", hub, row.Recipient)
			continue
		}
		pendingRow.at[hub] = true
		if len(pendingRow.at) == p.hubs {
			close(pendingRow.everywhere)
		}
	}
}

// rolledBack removes the rows of a rollback, given their recipients. It checks that no hub has delivered one of the
// rows.
func (p *tracker) rolledBack(recipients []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, recipient := range recipients {
		if at := p.pending[recipient].at; len(at) > 0 {
			p.t.Errorf("%s was delivered, want it not delivered, because it was rolled back", recipient)
		}
		delete(p.pending, recipient)
	}
}

// wait waits, for at most patience, until all hubs have delivered the committed rows with these recipients. It returns the
// number of rows that a hub has not delivered by then.
func (p *tracker) wait(recipients []string) (missed int) {
	deadline, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	for _, recipient := range recipients {
		p.mu.Lock()
		pendingRow := p.pending[recipient]
		p.mu.Unlock()
		select {
		case <-pendingRow.everywhere:
			p.mu.Lock()
			delete(p.pending, recipient)
			p.mu.Unlock()
		case <-deadline.Done():
			missed++ // the row stays pending, because a hub may still deliver it
		}
	}
	return missed
}
