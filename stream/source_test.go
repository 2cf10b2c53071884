package stream_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// Only a few streams read from the table at one time. The other streams that resume wait and stay open. Live streams do
// not wait. When a client disconnects while its stream reads, another stream reads at once. The stream of a client that
// disconnects while the stream waits never reads.
func TestFewStreamsReadAtOneTime(t *testing.T) {
	t.Parallel()
	const reads = 3
	dsn, g := dbtest.Database(t), newGate()
	s := serve(t, dsn, func(s *site) {
		s.listener.Config.Tracer, s.listener.Timeout, s.replays = g, patience, reads
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
	eventually(t, "three streams read", func() bool { return len(g.reading()) == reads })
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
	eventually(t, "the streams of the waiting clients end", func() bool { return s.hub.Stats.Streams.Load() == 8 })
	clients[left[0]].close()
	eventually(t, "the stream of the reading client ends", func() bool { return s.hub.Stats.Streams.Load() == 7 })
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
			t.Errorf("%s has read from the table: %v, want %v", name, !want, want)
		}
	}
	if most != reads {
		t.Errorf("at most %d clients have read at one time, want %d", most, reads)
	}
}

// A gate delays the queries of streams that resume, and records their recipients.
type gate struct {
	open chan struct{} // when this channel is closed, the queries continue

	mu     sync.Mutex
	inside []string // the recipients whose queries are delayed at the moment
	read   []string // the recipients of all queries so far
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

// TraceQueryStart delays a query of a stream that resumes, until open is closed or the query is canceled. It recognizes
// such a query by an argument with exactly one recipient besides everyone.
func (g *gate) TraceQueryStart(ctx context.Context, _ *pgx.Conn, query pgx.TraceQueryStartData) context.Context {
	var recipients []string
	for _, arg := range query.Args {
		if names, ok := arg.([]string); ok {
			recipients = own(names)
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

// own returns the recipients of a stream without everyone.
func own(recipients []string) []string {
	return slices.DeleteFunc(slices.Clone(recipients), func(r string) bool { return r == everyone })
}

// A slowSource delays each read until the test lets it continue, and records the recipient. Each page is empty and does
// not advance the client's cursor, so most clients read without end. Only the recipients in short have read everything
// after one page.
type slowSource struct {
	source
	short   []string
	next    chan struct{} // a value lets one read continue
	mu      sync.Mutex
	reading []string
	read    []string // the recipients of finished reads, in order
}

func (s *slowSource) Page(ctx context.Context, c, end cursor.Cursor, recipients []string) ([]feed.Row, cursor.Cursor, uint64, error) {
	recipient := own(recipients)[0]
	s.mu.Lock()
	s.reading = append(s.reading, recipient)
	s.mu.Unlock()
	err := ctx.Err()
	select {
	case <-s.next:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = slices.Delete(s.reading, slices.Index(s.reading, recipient), slices.Index(s.reading, recipient)+1)
	s.read = append(s.read, recipient)
	if slices.Contains(s.short, recipient) {
		return nil, end, 0, err
	}
	return nil, c, 0, err
}

func (s *slowSource) count(of *[]string, recipient string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range *of {
		if name == recipient {
			n++
		}
	}
	return n
}

// serveSlowly serves a hub with a slowSource. It returns a cursor that is older than the memory, so clients that resume
// from it call the source.
func serveSlowly(t *testing.T, reads int, short ...string) (*fakeFeed, *slowSource, string) {
	t.Helper()
	slow := &slowSource{short: short, next: make(chan struct{})}
	f := serveFeed(t, func(s *site) { s.hub.Source, s.hub.Reads, s.hub.Memory = slow, reads, 1 })
	for range 3 {
		f.publish("nobody", "message", "1")
	}
	return f, slow, start.String()
}

// Even if one user has many clients and reading their pages takes long, the stream of another user reads at once.
func TestAttackManySlowResumesOfOneUser(t *testing.T) {
	t.Parallel()
	f, slow, id := serveSlowly(t, 2, "honest")
	for range 40 {
		resume(t, f.site, id, "greedy").hello()
	}
	eventually(t, "the first user reads", func() bool { return slow.count(&slow.reading, "greedy") == 1 })
	honest := resume(t, f.site, id, "honest")
	honest.hello()
	eventually(t, "another user reads at once", func() bool { return slow.count(&slow.reading, "honest") == 1 })
	if got := slow.count(&slow.reading, "greedy"); got != 1 {
		t.Errorf("%d reads of one user run, want 1", got)
	}
	for slow.count(&slow.read, "honest") == 0 {
		slow.next <- struct{}{}
	}
}

// Users that read without end share the reads in a fair queue. A further user waits for at most about one page of each
// other user.
func TestAttackManySlowUsers(t *testing.T) {
	t.Parallel()
	const users, clients, reads = 30, 2, 2
	f, slow, id := serveSlowly(t, reads, "honest")
	for i := range users * clients {
		resume(t, f.site, id, fmt.Sprint("greedy", i%users)).hello()
	}
	eventually(t, "two streams read", func() bool { slow.mu.Lock(); defer slow.mu.Unlock(); return len(slow.reading) == reads })
	honest := resume(t, f.site, id, "honest")
	honest.hello()
	eventually(t, "all other streams wait", func() bool { return f.hub.WaitingCalls() == users*clients+1-reads })
	pages := 0
	for ; slow.count(&slow.read, "honest") == 0; pages++ {
		if pages > users+reads {
			t.Fatalf("the user has read no page after %d pages of %d other users, want one by then", pages, users)
		}
		slow.next <- struct{}{}
		eventually(t, "the next read begins", func() bool {
			slow.mu.Lock()
			defer slow.mu.Unlock()
			return len(slow.read) == pages+1 && len(slow.reading) == reads
		})
	}
	t.Logf("the first page of the user was page %d of all users", pages)
}

// If a client disconnects while its stream waits, the stream leaves the queue. If a client disconnects while its stream
// reads, another stream reads.
func TestTurnsAreGivenUp(t *testing.T) {
	t.Parallel()
	f, slow, id := serveSlowly(t, 1, "honest")
	reading := resume(t, f.site, id, "greedy")
	reading.hello()
	eventually(t, "the first client reads", func() bool { return slow.count(&slow.reading, "greedy") == 1 })
	waiting := resume(t, f.site, id, "greedy")
	waiting.hello()
	eventually(t, "the second client waits", func() bool { return f.hub.WaitingCalls() == 1 })
	honest := resume(t, f.site, id, "honest")
	honest.hello()
	eventually(t, "two clients wait", func() bool { return f.hub.WaitingCalls() == 2 })
	waiting.close()
	eventually(t, "one client waits", func() bool { return f.hub.WaitingCalls() == 1 })
	reading.close()
	eventually(t, "the third client reads", func() bool { return slow.count(&slow.reading, "honest") == 1 })
	slow.next <- struct{}{}
	eventually(t, "the queue is empty", func() bool { return f.hub.WaitingCalls() == 0 && f.hub.Readers() == 0 })
}
