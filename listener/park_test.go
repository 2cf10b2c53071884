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

// Nobody looks for rows in this test, so a row whose transaction did not ring and that was not found by the fetch
// after parking comes only with the next bell. Its writer is the only one in the database and waits for it, so there
// is none.
func TestNoRowWaitsForTheLook(t *testing.T) {
	t.Parallel()
	proofs := []*parkProof{{hubs: 1}, {hubs: 2}}
	databases := make([]*parkDatabase, 18)
	var made sync.WaitGroup
	for i := range databases {
		databases[i] = &parkDatabase{}
		made.Go(func() { databases[i].dsn = dbtest.Database(t) })
	}
	await(t, "the databases", &made)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	var all sync.WaitGroup
	for i, db := range databases {
		proof := proofs[i%len(proofs)]
		proof.begin(t, db)
		all.Go(func() { proof.run(ctx, t, db) })
	}
	await(t, "the writers", &all)
	for _, proof := range proofs {
		t.Logf("%d hubs: %d parkings, %d bells, %d rows told, %d missed",
			proof.hubs, proof.parks.Load(), proof.bells.Load(), proof.told.Load(), proof.missed.Load())
		if proof.missed.Load() > 0 {
			t.Errorf("%d hubs: %d rows missed", proof.hubs, proof.missed.Load())
		} else if proof.parks.Load() < 100 {
			t.Errorf("%d hubs: %d parkings prove nothing", proof.hubs, proof.parks.Load())
		}
	}
}

// A parkProof is what the databases of one kind have in common.
type parkProof struct {
	hubs int

	parks, bells, told, missed atomic.Int64
}

// A parkDatabase has some hubs and one writer.
type parkDatabase struct {
	dsn    string
	hubs   []*listener.Listener
	post   *post
	writer *sparseWriter
}

// One commit is more than so many a second, and a moment later less: nearly every bell unparks, and soon the hub
// parks again.
const oneCommit = 19.9

func (p *parkProof) begin(t *testing.T, db *parkDatabase) {
	db.post = &post{t: t, hubs: p.hubs, letters: map[string]*letter{}}
	for hub := range p.hubs {
		l := newListener(t, db.dsn)
		l.Busy, l.Quiet = oneCommit, oneCommit
		l.PollInterval = 4 * time.Millisecond
		l.Config.AfterNetConnect = delayLock
		l.Deliver = func(b feed.Batch) { db.post.deliver(hub, b.Rows) }
		run(t, l)
		db.hubs = append(db.hubs, l)
	}
	db.writer = &sparseWriter{conn: connect(t, db.dsn), post: db.post, pause: 15 * time.Millisecond}
}

// delayLock delays what is asked on the connection of the park lock, so that much can happen between a fetch and what
// is asked before or after it.
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

// run lets the writer write.
func (p *parkProof) run(ctx context.Context, t *testing.T, db *parkDatabase) {
	var parks, bells int64 // counted so far
	for ctx.Err() == nil {
		names, err := db.writer.transact(ctx)
		if err != nil && ctx.Err() == nil {
			t.Error(err)
			return
		}
		missed := db.post.wait(names)
		p.missed.Add(int64(missed))
		p.told.Add(int64(len(names) - missed))
		before := parks
		parks, bells = p.count(db, parks, bells)
		db.writer.adapt(parks > before)
	}
}

func (p *parkProof) count(db *parkDatabase, parks, bells int64) (nowParks, nowBells int64) {
	for _, l := range db.hubs {
		nowParks += l.Stats.ParkLocks.Load()
		nowBells += l.Stats.Wakeups.Load()
	}
	p.parks.Add(nowParks - parks)
	p.bells.Add(nowBells - bells)
	return nowParks, nowBells
}

// A post knows which rows are on their way, by their recipients, and at which hubs they have arrived.
type post struct {
	t    *testing.T
	hubs int

	mu      sync.Mutex
	letters map[string]*letter
}

type letter struct {
	at         map[int]bool // hubs
	everywhere chan struct{}
}

// send is told of a row before it is inserted.
func (p *post) send(recipient string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.letters[recipient] = &letter{at: map[int]bool{}, everywhere: make(chan struct{})}
}

func (p *post) deliver(hub int, rows []feed.Row) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, row := range rows {
		letter := p.letters[row.Recipient]
		if letter == nil || letter.at[hub] {
			p.t.Errorf("hub %d: %s was told twice, or was rolled back", hub, row.Recipient)
			continue
		}
		letter.at[hub] = true
		if len(letter.at) == p.hubs {
			close(letter.everywhere)
		}
	}
}

// recall is told of rows that were rolled back.
func (p *post) recall(recipients []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, recipient := range recipients {
		if at := p.letters[recipient].at; len(at) > 0 {
			p.t.Errorf("%s was rolled back and told", recipient)
		}
		delete(p.letters, recipient)
	}
}

// wait waits for committed rows to have arrived everywhere. Far longer than that takes, but it does not take for
// ever.
func (p *post) wait(recipients []string) (missed int) {
	deadline, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	for _, recipient := range recipients {
		p.mu.Lock()
		letter := p.letters[recipient]
		p.mu.Unlock()
		select {
		case <-letter.everywhere:
			p.mu.Lock()
			delete(p.letters, recipient)
			p.mu.Unlock()
		case <-deadline.Done():
			missed++ // and may come later
		}
	}
	return missed
}
