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

// Only a few read the table at a time. The others wait for their turn with their stream open, and those who are live wait for none
// of them. Who leaves makes room: while it reads at once, and while it waits without ever having read.
func TestFewReadTheTableAtATime(t *testing.T) {
	t.Parallel()
	const turns = 3
	dsn, g := dbtest.Database(t), newGate()
	s := serve(t, dsn, func(s *site) {
		s.listener.Config.Tracer, s.replays = g, turns
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
			t.Errorf("%s: the cursor is %s, want %s", name, got, id)
		}
		for range 3 {
			c.expect(":\n")
		}
	}
	eventually(t, "it is the turn of as many as may", func() bool { return len(g.reading()) == turns })
	insert(t, db, "live", "1")
	live.wantTold(`"1"`)

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
	eventually(t, "those who waited are gone", func() bool { return s.hub.Stats.Streams.Load() == 8 })
	clients[left[0]].close()
	eventually(t, "who was reading is gone", func() bool { return s.hub.Stats.Streams.Load() == 7 })
	eventually(t, "it is somebody else's turn", func() bool { return len(g.reading()) == turns })
	close(g.open)
	for name, c := range clients {
		if !slices.Contains(left, name) {
			c.wantTold(quote(name))
		}
	}
	read, most := g.sum()
	for name := range clients {
		if want := !slices.Contains(left[1:], name); slices.Contains(read, name) != want {
			t.Errorf("%s has read: %v, want %v", name, !want, want)
		}
	}
	if most != turns {
		t.Errorf("%d read at a time, want %d", most, turns)
	}
}

// A gate holds up the queries with which streams are brought forward, and knows for whom they are.
type gate struct {
	open chan struct{} // closed to let them through

	mu     sync.Mutex
	inside []string
	read   []string // have ever been inside
	most   int      // were inside at a time
}

func newGate() *gate { return &gate{open: make(chan struct{})} }

// reading are those who are inside.
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

// insideKey is where a query's context says for whom it is.
type insideKey struct{}

// TraceQueryStart knows a replay's query by its argument with the recipients.
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
