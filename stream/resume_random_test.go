package stream_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// Writers hold transactions open, commit them out of order and roll back. Clients are cut off at any byte and resume on
// any hub. The hubs' database sessions are terminated. Each client receives the rows for its recipients and for
// everyone exactly once, in causal order.
func TestResumingIsExact(t *testing.T) {
	t.Parallel()
	checkExact(t, false)
}

// Clients that poll also receive each row exactly once, in causal order (see TestResumingIsExact).
func TestPollingIsExact(t *testing.T) {
	t.Parallel()
	checkExact(t, true)
}

func checkExact(t *testing.T, poll bool) {
	t.Helper()
	dsn, heartbeat := dbtest.Database(t), 60*time.Millisecond
	if poll {
		heartbeat = time.Second // a poll of the second hub, which is often behind, waits at most this long
	}
	sites := []*site{
		serve(t, dsn, func(s *site) { s.hub.Heartbeat = heartbeat }),
		// This hub polls every 100 ms, reads large transactions in pages, and keeps no event in memory.
		serve(t, dsn, func(s *site) {
			s.listener.PollOnly, s.listener.PollInterval, s.listener.PageRows = true, 100*time.Millisecond, 2
			s.hub.Memory, s.hub.Heartbeat = 1, heartbeat
		}),
		// This hub has a small memory, and a backlog of a few events.
		serve(t, dsn, func(s *site) {
			s.listener.PageRows = 5
			s.hub.Memory, s.hub.Backlog = 8<<10, 600
		}),
	}
	h, connections := &ledger{}, &atomic.Int64{}
	var readers []*reader
	for i, recipients := range [][]string{{"alice"}, {"bob", "team:7"}, {"team:7", "alice", "bob"}, {}, {"alice"}, {"alice", "team:7"}} {
		r := &reader{TB: t, sites: sites, poll: poll, recipients: recipients, connections: connections, rng: rand.New(rand.NewPCG(uint64(i), rand.Uint64()))}
		readers = append(readers, r)
		first := listen(t, sites[i%len(sites)], recipients...)
		r.decoder.LastID = first.hello()
		first.close()
	}
	var everyone sync.WaitGroup
	for _, r := range readers {
		everyone.Go(r.read)
	}
	write(t, h, dsn, connections)
	dbtest.Wait(t, everyone.Wait, "the last row at every reader")
	if t.Failed() {
		return
	}
	h.read(t, connect(t, dsn))
	received, kinds := 0, map[string]int{}
	for _, r := range readers {
		for _, wrong := range h.check(r.recipients, r.received) {
			t.Errorf("recipients %q: %s", r.recipients, wrong)
		}
		received += len(r.received)
		for kind, n := range r.resumed {
			kinds[kind] += n
		}
	}
	t.Logf("%d transactions, %d rows, %d events received, %d connections, resumed from %v", len(h.began), len(h.rows), received, connections.Load(), kinds)
	for _, s := range sites {
		t.Logf("a hub replayed %d events, read %d pages and opened %d database sessions", s.hub.Stats.Replayed.Load(), s.hub.Stats.Pages.Load(), s.listener.Stats.Sessions.Load())
	}
	if len(h.rows) < 500 || connections.Load() < 300 || kinds["in a transaction"] < 20 || sites[1].hub.Stats.Pages.Load() < 20 {
		t.Error("the test shows nothing: it had too few rows, connections, pages, or cursors in the middle of a transaction")
	}
}

// A reader is a client whose connections are cut off again and again until it has received the last row.
type reader struct {
	testing.TB
	sites      []*site
	poll       bool
	recipients []string
	rng        *rand.Rand

	connections *atomic.Int64 // the number of connections of all readers
	decoder     sse.Decoder
	received    []sse.Event
	resumed     map[string]int // the number of connections for each kind of cursor
}

func (r *reader) read() {
	r.resumed = make(map[string]int)
	oldest := r.decoder.LastID
	limit := time.Now().Add(2 * patience)
	for ended := false; !ended; r.connections.Add(1) {
		if time.Now().After(limit) {
			r.Errorf("recipients %q: waited %v for the last row; received only %d events", r.recipients, 2*patience, len(r.received))
			return
		}
		site := r.sites[r.rng.IntN(len(r.sites))]
		ask := request{recipients: r.recipients, poll: r.poll}
		switch r.rng.IntN(3) {
		case 0:
			ask.header = r.decoder.LastID
		case 1:
			ask.query = r.decoder.LastID
		default: // the header has priority
			ask.header, ask.query = r.decoder.LastID, oldest
		}
		kind := "between transactions"
		if !parse(r, r.decoder.LastID).Whole() {
			kind = "in a transaction"
		}
		r.resumed[kind]++
		var err error
		if ended, err = r.once(site, ask); err != nil {
			r.Errorf("recipients %q: %v", r.recipients, err)
			return
		}
	}
}

// once connects, and reads at most a random number of bytes. It reports whether the last row has arrived.
func (r *reader) once(site *site, ask request) (ended bool, err error) {
	conn, err := dial(site.url, ask)
	if err != nil {
		return false, err
	}
	defer conn.Close()
	response, err := http.ReadResponse(bufio.NewReader(io.LimitReader(conn, r.bytes())), nil)
	if err != nil { // usually, the connection was cut off in the head of the response
		return false, onlyTimeout(err)
	}
	for e, err := range r.decoder.Events(response.Body) {
		switch {
		case err != nil:
			return false, onlyTimeout(err)
		case e.Name == "rowcast.void" || e.Name == "rowcast.hello" || e.Name == "rowcast.beat":
		case strings.HasPrefix(e.Name, "rowcast."):
			return false, fmt.Errorf("got the event %s with the data %s, want only rows", e.Name, e.Data)
		default:
			r.received = append(r.received, e)
			if e.Name == "end" {
				return true, nil
			}
		}
	}
	return false, nil
}

// bytes returns the number of bytes after which the connection is cut off.
func (r *reader) bytes() int64 {
	if r.rng.IntN(4) == 0 {
		return r.rng.Int64N(700) // cuts in the head, in rowcast.hello, or in the first events
	}
	return 400 + int64(r.rng.ExpFloat64()*1000)
}

// onlyTimeout returns err if it is a timeout. It returns nil for other errors, because the test itself causes them when
// it cuts off connections.
func onlyTimeout(err error) error {
	if errors.Is(err, os.ErrDeadlineExceeded) {
		return err
	}
	return nil
}

// write runs two writers, each with several sessions. While they run, it terminates the hubs' database sessions three
// times. Then it inserts the last row.
func write(t *testing.T, h *ledger, dsn string, connections *atomic.Int64) {
	t.Helper()
	var steps atomic.Int64
	var writers sync.WaitGroup
	for range 2 {
		w := &writer{rng: rand.New(rand.NewPCG(rand.Uint64(), 0))}
		for range 4 {
			w.sessions = append(w.sessions, h.session(connect(t, dsn)))
		}
		writers.Go(func() {
			for steps.Add(1) < 1600 && !t.Failed() {
				keepPace(&steps, connections)
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				err := w.step(ctx)
				cancel()
				if err != nil {
					t.Error(err)
				}
			}
			if err := w.finish(dbtest.Context(t)); err != nil {
				t.Error(err)
			}
		})
	}
	admin := connect(t, dsn)
	for _, at := range []int64{400, 900, 1300} {
		eventually(t, "the writers have made progress", func() bool { return steps.Load() > at || t.Failed() })
		exec(t, admin, `SELECT pg_terminate_backend(pid) FROM pg_stat_activity
			WHERE datname = current_database() AND starts_with(application_name, 'rowcast')`)
	}
	dbtest.Wait(t, writers.Wait, "the end of the writers")
	last := h.begin()
	exec(t, admin, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('*', 'end', jsonb_build_array($1::int, 1))`, last)
	h.end(last)
}

// keepPace slows the writers down while the readers, which reconnect all the time, are behind. Each wait is short,
// because readers that have received everything do not reconnect until more is written.
func keepPace(steps, connections *atomic.Int64) {
	const wait = 20 * time.Millisecond
	for began := time.Now(); connections.Load()*1600 < steps.Load()*330 && time.Since(began) < wait; {
		time.Sleep(time.Millisecond)
	}
}

// A writer has several transactions open at once.
type writer struct {
	rng      *rand.Rand
	sessions []*session
}

// step executes the next statement on one of the sessions.
func (w *writer) step(ctx context.Context) error {
	s := w.sessions[w.rng.IntN(len(w.sessions))]
	if s.transaction < 0 {
		if w.rng.IntN(3) == 0 {
			return s.insert(ctx, w.recipients(3)...)
		}
		return s.open(ctx)
	}
	switch n := w.rng.IntN(20); {
	case n < 9:
		return s.insert(ctx, w.recipients(4)...)
	case n < 10:
		return s.copy(ctx, w.recipients(12)...)
	case n < 12:
		s.saved = true
		return s.exec(ctx, "SAVEPOINT s")
	case n < 14 && s.saved:
		return s.exec(ctx, "ROLLBACK TO s")
	case n < 16:
		return s.rollback(ctx)
	}
	return s.commit(ctx)
}

func (w *writer) recipients(most int) []string {
	var some []string
	for range 1 + w.rng.IntN(most) {
		some = append(some, []string{"alice", "bob", "team:7", everyone}[w.rng.IntN(4)])
	}
	return some
}

// finish commits the open transactions.
func (w *writer) finish(ctx context.Context) error {
	for _, s := range w.sessions {
		if s.transaction >= 0 {
			if err := s.commit(ctx); err != nil {
				return err
			}
		}
	}
	return nil
}
