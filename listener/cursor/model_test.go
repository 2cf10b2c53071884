package cursor_test

import (
	"iter"
	"math/rand/v2"
	"os"
	"strconv"
	"testing"

	"rowcast/listener/cursor"
)

// world is one history: a database, several hubs that fetch from it at their own moments, and clients that come and go.
type world struct {
	*rand.Rand
	plan
	db       *database
	hubs     []*hub
	clients  []*client
	findings []finding
	resets   int
	begun    int // times that hubs began, and remembered nothing
}

// formula is how the cursors along a batch are computed.
func (w *world) formula(from, to cursor.Cursor) func(cursor.Row) cursor.Cursor {
	if wrong := w.omit.formula(); wrong != nil {
		return func(r cursor.Row) cursor.Cursor { return wrong(from, to, r) }
	}
	if w.omit == cursorMovesBetween { // to may be in the middle of a transaction, which NewSteps refuses
		to.Xid, to.ID = 0, 0
	}
	return cursor.NewSteps(from, to).After
}

func (w *world) report(what string, c *client) {
	w.findings = append(w.findings, finding{what, c, nil})
}

// plan says what kind of history it is.
type plan struct {
	omit    corner
	crashes int
	lost    int  // how many of the last commits each crash may take back
	alone   bool // there is one hub that never ends, and no page
}

// play lets a history happen, and judges it.
func play(seed uint64, p plan) *world {
	rng := rand.New(rand.NewPCG(seed, 0))
	w := &world{Rand: rng, plan: p, db: newDatabase(rng, p.omit)}
	for range 15 {
		w.db.step() // what was before the hubs came
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
		w.findings = append(w.findings, judge(c, w.db.table)...)
	}
	return w
}

// step lets something happen somewhere.
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

// openPage is a client whose first cursor comes with a page, once the transaction that rendered it is committed.
func (w *world) openPage(p *page) {
	c := w.newClient()
	c.last, c.baseline = text(p.cursor), p.shows
	c.check(c.last)
}

// act does something to a client's stream.
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
	case n < 8 && !c.stream.registered:
		c.stream.join()
	default:
		c.receive(1 + c.IntN(4))
	}
}

// crash restarts the database. Hubs come back with the cursors that they had, and so do clients.
func (w *world) crash(lost int) {
	w.db.crash(min(lost, len(w.db.log)))
	for _, h := range w.hubs {
		h.reopen()
	}
}

// finish ends all transactions, and lets the hubs read and the clients receive everything.
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
		for tries := 0; !c.stream.registered; tries++ {
			if c.stream.join(); tries == 1000 {
				w.report("never registered", c)
				break
			}
		}
		c.receive(len(c.stream.owed))
	}
}

// TestHistories: whatever happens, each client is told each row that concerns it once, and in order.
func TestHistories(t *testing.T) {
	t.Parallel()
	histories, told := 0, 0
	for seed := range seeds(t, 1500) {
		w := play(seed, plan{})
		for _, f := range w.findings {
			t.Errorf("ROWCAST_SEED=%d: %v", seed, f)
		}
		if w.resets != 0 {
			t.Errorf("ROWCAST_SEED=%d: %d clients were reset", seed, w.resets)
		}
		for _, c := range w.clients {
			told += len(c.told)
		}
		histories++
	}
	if told < 10*histories {
		t.Errorf("%d rows told in %d histories: they show nothing", told, histories)
	}
}

// seeds are as many as ROWCAST_HISTORIES says, else the usual number, or a tenth of it with -short; from ROWCAST_SEED on, or
// from anywhere. They end with the first that fails.
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

// number is an environment variable's, or the default.
func number(t *testing.T, name string, otherwise uint64) uint64 {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return otherwise
	}
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	return n
}
