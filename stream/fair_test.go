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

// A slowSource delays each read until the test lets it continue, and records the recipient. Each page is empty and does
// not advance the client's cursor, so a client reads without end. Recipients in short have read everything after one
// page.
type slowSource struct {
	source
	short   []string
	next    chan struct{} // a value lets one read continue
	mu      sync.Mutex
	reading []string
	read    []string // in the order in which they ended
}

func (s *slowSource) Page(ctx context.Context, from, to cursor.Cursor, recipients []string) ([]feed.Row, cursor.Cursor, uint64, error) {
	recipient := recipients[0]
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
		return nil, to, 0, err
	}
	return nil, from, 0, err
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

// serveSlowly serves a hub with a slowSource. It returns a cursor from which a client cannot resume by the memory
// alone.
func serveSlowly(t *testing.T, reads int, short ...string) (*fakeFeed, *slowSource, string) {
	t.Helper()
	slow := &slowSource{short: short, next: make(chan struct{})}
	f := serveFeed(t, func(s *site) { s.hub.Source, s.hub.Reads, s.hub.Memory = slow, reads, 1 })
	for range 3 {
		f.publish("nobody", "message", "1")
	}
	return f, slow, start.String()
}

// A user with many clients whose pages are slow does not delay other users.
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

// Many users that read without end take turns. A further user waits for at most one page of each.
func TestAttackManySlowUsers(t *testing.T) {
	t.Parallel()
	const users, clients, reads = 30, 2, 2
	f, slow, id := serveSlowly(t, reads, "honest")
	for i := range users * clients {
		resume(t, f.site, id, fmt.Sprint("greedy", i%users)).hello()
	}
	eventually(t, "as many read as may", func() bool { slow.mu.Lock(); defer slow.mu.Unlock(); return len(slow.reading) == reads })
	honest := resume(t, f.site, id, "honest")
	honest.hello()
	eventually(t, "all others wait", func() bool { return f.hub.WaitingCalls() == users*clients+1-reads })
	pages := 0
	for ; slow.count(&slow.read, "honest") == 0; pages++ {
		if pages > users+reads {
			t.Fatalf("the user had no turn after %d pages of %d users", pages, users)
		}
		slow.next <- struct{}{}
		eventually(t, "the next read begins", func() bool {
			slow.mu.Lock()
			defer slow.mu.Unlock()
			return len(slow.read) == pages+1 && len(slow.reading) == reads
		})
	}
	t.Logf("the user had a turn after %d pages", pages)
}

// A client that disconnects while it waits or reads gives its turn to another client.
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
