package torture_test

import (
	"context"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"rowcast/listener/feed"
	"rowcast/sql"
	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

const (
	writers = 6
	clients = 40
	// short is the default duration of the breakages.
	short = 20 * time.Second
)

// A torture is a run of the test.
type torture struct {
	*testing.T
	seed    uint64
	length  time.Duration
	cluster *cluster.Cluster
	dsn     string
	journal *journal
	pacing  pacing
	hubs    []*hub
	proxy   *proxy
	clients []*client
	breaker *breaker
}

func TestTorture(t *testing.T) {
	tt := prepare(t)
	stopWriting := tt.write()
	stopRoaming := tt.roam()
	tt.breaker.run(t.Context(), tt.length)
	tt.stall()
	stopWriting()
	last := tt.writeLast()
	stopRoaming()
	tt.finish(last)
	for _, h := range tt.hubs {
		if err := h.stop(); err != nil {
			t.Error(err)
		}
		if n := h.crashes.Load(); n > 0 {
			t.Errorf("%s has logged %d data races or panics, want 0", h.name, n)
		}
	}
	tt.check()
}

// prepare reads the environment variables and starts the server, the proxy and the hubs.
func prepare(t *testing.T) *torture {
	t.Helper()
	tt := &torture{T: t, seed: rand.Uint64(), length: short, journal: newJournal()}
	if text := os.Getenv("ROWCAST_TORTURE"); text != "" {
		length, err := time.ParseDuration(text)
		if err != nil {
			t.Fatalf("ROWCAST_TORTURE: %v", err)
		}
		tt.length = length
	}
	if text := os.Getenv("ROWCAST_TORTURE_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatalf("ROWCAST_TORTURE_SEED: %v", err)
		}
		tt.seed = seed
	}
	t.Logf("ROWCAST_TORTURE=%v ROWCAST_TORTURE_SEED=%d", tt.length, tt.seed)
	tt.startServer()
	var proxied string
	tt.proxy, proxied = startProxy(t, dbtest.TCP(t, tt.cluster, "torture"))
	tt.hubs = newHubs(t, tt.dsn, proxied)
	for _, h := range tt.hubs {
		if err := h.start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(h.kill)
	}
	tt.breaker = &breaker{
		t: t, cluster: tt.cluster, hubs: tt.hubs, proxy: tt.proxy, journal: tt.journal, pacing: &tt.pacing,
		random: tt.random(0), long: tt.length > time.Minute, counts: map[string]int{},
	}
	return tt
}

func (t *torture) startServer() {
	t.cluster = dbtest.Cluster(t)
	conn, err := connect(dbtest.Context(t), t.cluster.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(t.Context())
	for _, statement := range []string{
		"CREATE DATABASE torture", "CREATE DATABASE elsewhere",
		// The server writes an asynchronous commit to disk within three times this delay. The longer it is, the more
		// commits a crash loses.
		"ALTER SYSTEM SET wal_writer_delay = '2s'", "SELECT pg_reload_conf()",
	} {
		if _, err := conn.Exec(dbtest.Context(t), statement); err != nil {
			t.Fatalf("%s: %v", statement, err)
		}
	}
	t.dsn = t.cluster.DSN("torture")
	if _, _, err := sql.Migrate(dbtest.Context(t), t.dsn); err != nil {
		t.Fatal(err)
	}
}

// random returns the random numbers of one participant. These numbers do not depend on what the other participants do.
func (t *torture) random(participant uint64) *rand.Rand {
	return rand.New(rand.NewPCG(t.seed, participant))
}

// write starts the writers. It also keeps a transaction open in their database, begins a new one after each crash or
// restart of the server, and runs shorter transactions in another database. stop stops the writers and the shorter
// transactions.
func (t *torture) write() (stop func()) {
	quiet, allQuiet := make(chan struct{}), make(chan struct{})
	var writing, idling sync.WaitGroup
	for i := range writers {
		w := &writer{
			journal: t.journal, dsn: t.dsn, random: t.random(100 + uint64(i)), pacing: &t.pacing,
			errs: func(err error) { t.Errorf("writer %d: %v", i, err) },
		}
		writing.Go(func() { w.run(t.Context(), quiet) })
	}
	elsewhere := t.random(200)
	idling.Go(func() {
		holdTransactions(t.Context(), t.dsn, allQuiet, func() time.Duration { return 1000 * time.Hour })
	})
	idling.Go(func() {
		holdTransactions(t.Context(), t.cluster.DSN("elsewhere"), quiet, func() time.Duration { return time.Duration(elsewhere.Int64N(int64(4 * time.Second))) })
	})
	t.Cleanup(func() {
		close(allQuiet)
		dbtest.Wait(t, idling.Wait, "the end of the idle transactions")
	})
	return func() {
		close(quiet)
		dbtest.Wait(t, writing.Wait, "the end of the writers")
	}
}

// writeLast writes the last row, by which a client recognises that it has received all rows.
func (t *torture) writeLast() *transaction {
	w := &writer{journal: t.journal, dsn: t.dsn, random: t.random(300), errs: func(err error) { t.Error(err) }}
	ctx := dbtest.Context(t)
	if !w.connect(ctx) {
		t.FailNow()
	}
	defer w.conn.Close(ctx)
	tx := t.journal.begin(false)
	tx.rows = []string{feed.Everyone}
	_, err := w.conn.Exec(ctx, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('*', $1, $2)`, lastEvent,
		fmt.Sprintf(`{"k": "%d.0", "sum": 0, "pad": ""}`, tx.number))
	if err != nil {
		t.Fatal(err)
	}
	w.settle(ctx, tx, nil)
	return tx
}

// roam starts the clients. stop stops them.
func (t *torture) roam() (stop func()) {
	quiet, cancel := context.WithCancel(t.Context())
	var roaming sync.WaitGroup
	for i := range clients {
		c := &client{name: fmt.Sprintf("client %d", i), hubs: t.hubs, journal: t.journal, random: t.random(1000 + uint64(i))}
		c.record.uid = user(c.random.IntN(users))
		t.clients = append(t.clients, c)
		roaming.Go(func() {
			wait(quiet, c.upTo(t.length/3))
			c.roam(quiet)
		})
	}
	return func() {
		cancel()
		dbtest.Wait(t, roaming.Wait, "the end of the clients' connections")
	}
}

// stall opens a stream at the hub with the small backlog and does not read it, until that hub has disconnected a slow
// client. Without stall, a short run on a slow machine could end before a client was too slow.
func (t *torture) stall() {
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	c := &client{hubs: t.hubs, random: t.random(400)}
	c.record.uid = user(0)
	small := len(t.hubs) - 1
	conn, err := c.open(ctx, small, behaviour{stall: forever})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	for t.hubs[small].metrics()["overflows"] == 0 {
		if ctx.Err() != nil {
			t.Fatalf("%s has disconnected no slow client, although a client has not read for %v", t.hubs[small].name, limit)
		}
		wait(ctx, 50*time.Millisecond)
	}
}

// finish removes the clients that received no rowcast.hello before the last row was written, and lets the other clients
// catch up.
func (t *torture) finish(last *transaction) {
	t.clients = slices.DeleteFunc(t.clients, func(c *client) bool { return c.record.helloAt == 0 || c.record.helloAt > last.began })
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	var finishing sync.WaitGroup
	for _, c := range t.clients {
		finishing.Go(func() { c.finish(ctx) })
	}
	dbtest.Wait(t, finishing.Wait, "the arrival of all rows at the clients")
}

// check compares the events that the clients have received with the truth, and logs the numbers.
func (t *torture) check() {
	ctx := dbtest.Context(t)
	conn, err := connect(ctx, t.dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(ctx)
	truth, disagreements, err := readTruth(ctx, conn, t.journal)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range disagreements {
		t.Errorf("the table differs from the journal: %s", d)
	}
	figures := map[string]int{loss: 0, repetition: 0}
	var deliveries, connections, justified int
	for _, c := range t.clients {
		for _, wrong := range c.wrong {
			t.Errorf("%s: %s", c.name, wrong)
		}
		faults := truth.check(&c.record)
		for _, f := range faults {
			figures[f.kind]++
		}
		t.report(truth, c, faults)
		for _, reset := range c.record.resets {
			t.Logf("%s was reset at %v by %s: %q, the cursor was %s", c.name, reset.at.Round(time.Millisecond), c.hubs[reset.hub].name, reset.reason, reset.cursor)
		}
		deliveries += len(c.record.deliveries)
		connections += len(c.visits)
		justified += len(c.record.resets)
	}
	t.Logf("%d transactions, %d rows, %d transactions lost by the server; %d deliveries to %d clients in %d connections; justified resets: %d",
		len(truth.transactions), len(truth.rows), len(truth.lost), deliveries, len(t.clients), connections, justified-figures[unjustified])
	t.Logf("breakages: %s", counted(t.breaker.counts))
	t.checkCoverage()
	t.Logf("faults: %s", counted(figures))
}

// checkCoverage checks that the run has tested these features: hubs took the park lock and received notifications,
// clients resumed, some of them from the table, and slow clients were disconnected.
func (t *torture) checkCoverage() {
	counts := map[string]int{}
	for _, h := range t.hubs {
		for name, n := range h.counts {
			counts[name] += n
		}
	}
	t.Logf("hubs: %s", counted(counts))
	for _, kind := range coverage {
		if counts[kind] == 0 {
			t.Errorf("the metric rowcast_%s_total, added up over all hubs, is 0, want more", kind)
		}
	}
}

func counted(counts map[string]int) string {
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(counts)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, counts[name]))
	}
	return strings.Join(parts, ", ")
}
