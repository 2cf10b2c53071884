package stream_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
)

// A slowSource holds up every read until the test lets one go on, and knows for whom they are. Nobody is ever done: each page is empty
// and leaves the client where it was, but for those named in short.
type slowSource struct {
	source
	short   []string
	goOn    chan struct{} // a value lets one read go on
	mu      sync.Mutex
	reading []string
	read    []string // in the order in which they ended
}

func (s *slowSource) Page(ctx context.Context, from, to cursor.Cursor, recipients []string) ([]feed.Row, cursor.Cursor, uint64, error) {
	who := recipients[0]
	s.mu.Lock()
	s.reading = append(s.reading, who)
	s.mu.Unlock()
	err := ctx.Err()
	select {
	case <-s.goOn:
	case <-ctx.Done():
		err = ctx.Err()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reading = slices.Delete(s.reading, slices.Index(s.reading, who), slices.Index(s.reading, who)+1)
	s.read = append(s.read, who)
	if slices.Contains(s.short, who) {
		return nil, to, 0, err
	}
	return nil, from, 0, err
}

func (s *slowSource) count(of *[]string, who string) (n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, name := range *of {
		if name == who {
			n++
		}
	}
	return n
}

// serveSlowly serves a hub whose memory does not reach back to the cursor that it returns.
func serveSlowly(t *testing.T, reads int, short ...string) (*fakeFeed, *slowSource, string) {
	t.Helper()
	slow := &slowSource{short: short, goOn: make(chan struct{})}
	f := serveFeed(t, func(s *site) { s.hub.Source, s.hub.Reads, s.hub.Memory = slow, reads, 1 })
	for range 3 {
		f.tell("nobody", "message", "1")
	}
	return f, slow, start.String()
}

// One user with many clients, whose pages are slow, keeps nobody else waiting.
func TestAttackManySlowResumesOfOneUser(t *testing.T) {
	t.Parallel()
	f, slow, id := serveSlowly(t, 2, "honest")
	for range 40 {
		resume(t, f.site, id, "greedy").hello()
	}
	eventually(t, "the user reads", func() bool { return slow.count(&slow.reading, "greedy") == 1 })
	honest := resume(t, f.site, id, "honest")
	honest.hello()
	eventually(t, "another user reads at once", func() bool { return slow.count(&slow.reading, "honest") == 1 })
	if got := slow.count(&slow.reading, "greedy"); got != 1 {
		t.Errorf("%d reads of one user run, want 1", got)
	}
	for slow.count(&slow.read, "honest") == 0 {
		slow.goOn <- struct{}{}
	}
}

// Many users who read without end take turns: another one waits for no more than one page of each.
func TestAttackManySlowUsers(t *testing.T) {
	t.Parallel()
	const users, clients, reads = 30, 2, 2
	f, slow, id := serveSlowly(t, reads, "honest")
	for i := range users * clients {
		resume(t, f.site, id, fmt.Sprint("greedy", i%users)).hello()
	}
	eventually(t, "they read", func() bool { slow.mu.Lock(); defer slow.mu.Unlock(); return len(slow.reading) == reads })
	honest := resume(t, f.site, id, "honest")
	honest.hello()
	eventually(t, "all wait", func() bool { return f.hub.WaitingCalls() == users*clients+1-reads })
	pages := 0
	for ; slow.count(&slow.read, "honest") == 0; pages++ {
		if pages > users+reads {
			t.Fatalf("no turn after %d pages of %d users", pages, users)
		}
		slow.goOn <- struct{}{}
		eventually(t, "the next read begins", func() bool {
			slow.mu.Lock()
			defer slow.mu.Unlock()
			return len(slow.read) == pages+1 && len(slow.reading) == reads
		})
	}
	t.Logf("a turn after %d pages", pages)
}

// A client that leaves while it waits, or while it reads, gives up its turn.
func TestTurnsAreGivenUp(t *testing.T) {
	t.Parallel()
	f, slow, id := serveSlowly(t, 1, "honest")
	reading := resume(t, f.site, id, "greedy")
	reading.hello()
	eventually(t, "it reads", func() bool { return slow.count(&slow.reading, "greedy") == 1 })
	waiting := resume(t, f.site, id, "greedy")
	waiting.hello()
	eventually(t, "it waits", func() bool { return f.hub.WaitingCalls() == 1 })
	honest := resume(t, f.site, id, "honest")
	honest.hello()
	eventually(t, "both wait", func() bool { return f.hub.WaitingCalls() == 2 })
	waiting.close()
	eventually(t, "it waits no more", func() bool { return f.hub.WaitingCalls() == 1 })
	reading.close()
	eventually(t, "the other reads", func() bool { return slow.count(&slow.reading, "honest") == 1 })
	slow.goOn <- struct{}{}
	eventually(t, "nobody is remembered", func() bool { return f.hub.WaitingCalls() == 0 && f.hub.Readers() == 0 })
}
