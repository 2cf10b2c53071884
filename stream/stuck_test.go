package stream_test

import (
	"testing"
)

// Clients that do not read share what they are owed, however large it is: those who were live, and those who resume. Not parallel: it
// looks at the heap.
func TestStuckClientsShareWhatTheyAreOwed(t *testing.T) {
	const stuck, size = 50, 1 << 20
	f := serveFeed(t, little, func(s *site) { s.hub.Backlog = 2 * size })
	before := f.now.String()
	var clients []*client
	for range stuck / 2 {
		c := deaf(t, f.site, "alice")
		c.hello()
		clients = append(clients, c)
	}
	empty := heap()
	f.tell("alice", "message", text(size))
	f.tell("alice", "message", text(size+1))
	for range stuck / 2 {
		c := open(t, f.site, request{recipients: []string{"alice"}, header: before, buffer: 8 << 10})
		for c.line() != "event: rowcast.hello\n" {
		}
		c.line() // its data
		c.expect("\n")
		clients = append(clients, c)
	}
	begin := func(size int) {
		for _, c := range clients {
			if id := c.line(); len(id) < 4 || id[:4] != "id: " {
				t.Fatalf("got %q, want an id", id)
			}
			c.expect("data: " + text(size)[:100])
		}
	}
	check := func(when string) {
		grown := heap() - empty
		t.Logf("%s: %d bytes in use for %d stuck clients", when, grown, stuck)
		if each := (grown - 2*size) / stuck; each > 128<<10 {
			t.Errorf("%s: %d bytes for each besides what they share", when, each)
		}
	}
	begin(size)
	check("in the first event")
	for _, c := range clients {
		c.expect(text(size)[100:] + "\n\n")
	}
	begin(size + 1)
	check("in the second")
	if got := f.hub.Stats.Overflows.Load(); got != 0 {
		t.Errorf("%d overflows", got)
	}
}
