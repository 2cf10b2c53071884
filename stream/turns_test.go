package stream_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// Only a few streams read from the table at one time. The others wait with their streams open. Live streams do not
// wait. A client that disconnects while it reads gives its turn to another at once. A client that disconnects while it
// waits never reads.
func TestFewStreamsReadAtOneTime(t *testing.T) {
	t.Parallel()
	const reads = 3
	dsn, g := dbtest.Database(t), newGate()
	s := serve(t, dsn, func(s *site) {
		s.listener.Config.Tracer, s.replays = g, reads
		s.hub.Memory, s.hub.Heartbeat = 1, 50*time.Millisecond
	})
	live, db := listen(t, s, "live"), connect(t, dsn)
	id := live.hello()
	clients := map[string]*client{}
	for i := range 12 {
		name := fmt.Sprint("user", i)
		insert(t, db, name, name)
		s.caughtUp(t)
		clients[name] = resume(t, s, id, name)
	}
	for name, c := range clients {
		if got := c.hello(); got != id {
			t.Errorf("%s: rowcast.hello has the id %s, want %s", name, got, id)
		}
		for range 3 {
			c.expect(":\n")
		}
	}
	eventually(t, "as many read as may", func() bool { return len(g.reading()) == reads })
	insert(t, db, "live", "1")
	live.wantData(`"1"`)

	first := g.reading()
	left := []string{first[0]}
	for name := range clients {
		if !slices.Contains(first, name) && len(left) < 6 {
			left = append(left, name)
		}
	}
	for _, name := range left[1:] {
		clients[name].close()
	}
	eventually(t, "the waiting clients are disconnected", func() bool { return s.hub.Stats.Streams.Load() == 8 })
	clients[left[0]].close()
	eventually(t, "the reading client is disconnected", func() bool { return s.hub.Stats.Streams.Load() == 7 })
	eventually(t, "another client reads", func() bool { return len(g.reading()) == reads })
	close(g.open)
	for name, c := range clients {
		if !slices.Contains(left, name) {
			c.wantData(quote(name))
		}
	}
	read, most := g.sum()
	for name := range clients {
		if want := !slices.Contains(left[1:], name); slices.Contains(read, name) != want {
			t.Errorf("%s has read: %v, want %v", name, !want, want)
		}
	}
	if most != reads {
		t.Errorf("%d clients read at one time, want %d", most, reads)
	}
}

// A gate delays the queries of streams that resume, and records their recipients.
type gate struct {
	open chan struct{} // closed to let the queries continue

	mu     sync.Mutex
	inside []string // the recipients of the delayed queries
	read   []string // the recipients of all queries
	most   int      // the largest number of queries at one time
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

// reading returns the recipients of the delayed queries.
func (g *gate) reading() []string {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.inside)
}

func (g *gate) sum() (read []string, most int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.Clone(g.read), g.most
}

// insideKey is the key of the recipient in a query's context.
type insideKey struct{}

// TraceQueryStart recognises the queries of streams that resume by their argument with the recipients.
func (g *gate) TraceQueryStart(ctx context.Context, _ *pgx.Conn, query pgx.TraceQueryStartData) context.Context {
	var recipients []string
	for _, arg := range query.Args {
		if names, ok := arg.([]string); ok {
			recipients = names
		}
	}
	if len(recipients) != 1 {
		return ctx
	}
	g.mu.Lock()
	g.inside, g.read = append(g.inside, recipients[0]), append(g.read, recipients[0])
	g.most = max(g.most, len(g.inside))
	g.mu.Unlock()
	select {
	case <-g.open:
	case <-ctx.Done():
	}
	return context.WithValue(ctx, insideKey{}, recipients[0])
}

func (g *gate) TraceQueryEnd(ctx context.Context, _ *pgx.Conn, _ pgx.TraceQueryEndData) {
	name, ok := ctx.Value(insideKey{}).(string)
	if !ok {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	if i := slices.Index(g.inside, name); i >= 0 {
		g.inside = slices.Delete(g.inside, i, i+1)
	}
}
