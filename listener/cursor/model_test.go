package cursor_test

import (
	"iter"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"rowcast/listener/cursor"
)

// A world is one history: a database, one or three hubs that fetch from it at any time, and clients that connect and
// disconnect.
type world struct {
	*rand.Rand
	plan
	db       *database
	hubs     []*hub
	clients  []*client
	findings []finding
	resets   int
	begun    int // the number of times that a hub began with an empty memory
}

// formula returns the function that computes the cursors of the rows of a batch.
func (w *world) formula(from, to cursor.Cursor) func(cursor.Row) cursor.Cursor {
	if wrong := w.omit.formula(); wrong != nil {
		return func(r cursor.Row) cursor.Cursor { return wrong(from, to, r) }
	}
	if w.omit == batchEndsBetween || w.omit == liveBetween { // NewSteps panics if to is in the middle of a transaction
		to.Xid, to.ID = 0, 0
	}
	return cursor.NewSteps(from, to).After
}

func (w *world) report(what string, c *client) {
	w.findings = append(w.findings, finding{what, c, nil})
}

// A plan describes a kind of history.
type plan struct {
	omit    rule
	crashes int
	lost    int  // a crash loses at most this number of the last commits
	alone   bool // there is one hub, which is never restarted, and no web page
}

// play plays a history and checks it.
func play(seed uint64, p plan) *world {
	rng := rand.New(rand.NewPCG(seed, 0))
	w := &world{Rand: rng, plan: p, db: newDatabase(rng, p.omit)}
	for range 15 {
		w.db.step() // before the hubs begin
	}
	w.hubs = []*hub{w.newHub(0, 1+rng.IntN(3))}
	if !p.alone {
		w.hubs = append(w.hubs, w.newHub(85, 1+rng.IntN(2)), w.newHub(rng.IntN(85), 1+rng.IntN(5)))
	}
	for range 4 {
		w.newClient()
	}
	for crashes := range p.crashes + 1 {
		for range 100 + rng.IntN(150) {
			w.step()
		}
		if crashes < p.crashes {
			w.crash(rng.IntN(p.lost + 1))
		}
	}
	w.finish()
	for _, c := range w.clients {
		w.findings = append(w.findings, checkClient(c, w.db.table)...)
	}
	return w
}

// step performs one action of the database, a hub or a client.
func (w *world) step() {
	switch w.IntN(6) {
	case 0, 1:
		if t := w.db.step(); t != nil && t.page != nil && t.committed && !w.alone {
			w.openPage(t.page)
		}
	case 2:
		h := w.hubs[w.IntN(len(w.hubs))]
		if w.IntN(100) == 0 && !w.alone {
			h.boot()
		}
		if w.IntN(100) >= h.lag {
			h.work()
		}
	default:
		c := w.clients[w.IntN(len(w.clients))]
		if c.act(); w.IntN(100) == 0 && len(w.clients) < 15 {
			w.carry(c)
		}
	}
}

// openPage adds a client whose first cursor comes from a web page, after the transaction that rendered the page has
// committed.
func (w *world) openPage(p *page) {
	c := w.newClient()
	c.last, c.baseline = text(p.cursor), p.shows
	c.check(c.last)
}

// act performs one action on a client's stream.
func (c *client) act() {
	if c.asleep > 0 {
		c.asleep--
		return
	}
	switch n := c.IntN(12); {
	case c.stream == nil:
		if n < 4 {
			c.connect(c.hubs[c.IntN(len(c.hubs))])
		}
	case n < 2:
		c.stream.close()
	case n == 2:
		c.stream.beat(c.stream)
	case n < 8 && !c.stream.isLive:
		c.stream.join()
	default:
		c.receive(1 + c.IntN(4))
	}
}

// crash makes the database crash and lose some commits. Then the hubs continue (see reopen). Clients keep their
// cursors.
func (w *world) crash(lost int) {
	w.db.crash(min(lost, len(w.db.log)))
	for _, h := range w.hubs {
		h.reopen()
	}
}

// finish ends all transactions. Then the hubs read and the clients receive everything.
func (w *world) finish() {
	for len(w.db.running) > 0 {
		w.db.end(w.db.running[0], true)
	}
	for _, h := range w.hubs {
		h.page += len(w.db.table)
		h.catchUp()
		h.page -= len(w.db.table)
	}
	for _, c := range w.clients {
		if c.stream == nil {
			c.connect(w.hubs[w.IntN(len(w.hubs))])
		}
		for tries := 0; !c.stream.isLive; tries++ {
			if c.stream.join(); tries == 1000 {
				w.report("the stream is not live after 1,000 steps", c)
				break
			}
		}
		c.receive(len(c.stream.pending))
	}
}

// In each history without a crash, each client receives the rows that checkClient expects, and no client is reset.
func TestHistories(t *testing.T) {
	t.Parallel()
	histories, received := 0, 0
	for seed := range seeds(t, 1500) {
		w := play(seed, plan{})
		for _, f := range w.findings {
			t.Errorf("ROWCAST_SEED=%d: %v", seed, f)
		}
		if w.resets != 0 {
			t.Errorf("ROWCAST_SEED=%d: got %d resets, want 0", seed, w.resets)
		}
		for _, c := range w.clients {
			received += len(c.received)
		}
		histories++
	}
	if received < 10*histories {
		t.Errorf("got %d delivered rows in %d histories, want at least 10 in each on average: these histories show nothing", received, histories)
	}
}

// seeds returns ROWCAST_HISTORIES seeds, beginning with ROWCAST_SEED. If these variables are not set, it returns the
// usual number of seeds, or a tenth of them with -short, beginning with a random seed. It returns no further seed after
// a seed that has failed the test.
func seeds(t *testing.T, usual uint64) iter.Seq[uint64] {
	t.Helper()
	if testing.Short() {
		usual /= 10
	}
	first, histories := number(t, "ROWCAST_SEED", rand.Uint64()), number(t, "ROWCAST_HISTORIES", usual)
	t.Logf("%d histories from ROWCAST_SEED=%d", histories, first)
	return func(yield func(uint64) bool) {
		for i := uint64(0); i < histories && !t.Failed() && yield(first+i); i++ {
		}
	}
}

// number returns the value of an environment variable, or a default if it is not set.
func number(t *testing.T, name string, usual uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return usual
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
