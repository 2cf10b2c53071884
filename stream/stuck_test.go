package stream_test

import (
	"testing"
)

// Clients that do not read share the memory of large pending events, whether their streams were live or resume. Not
// parallel: it measures the heap.
func TestStalledClientsSharePendingEvents(t *testing.T) {
	const stalled, size = 50, 1 << 20
	f := serveFeed(t, smallSendBuffers, func(s *site) { s.hub.Backlog = 2 * size })
	before := f.now.String()
	var clients []*client
	for range stalled / 2 {
		c := openStalled(t, f.site, "alice")
		c.hello()
		clients = append(clients, c)
	}
	empty := heap()
	f.publish("alice", "message", text(size))
	f.publish("alice", "message", text(size+1))
	for range stalled / 2 {
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
		t.Logf("%s: %d bytes in use for %d stalled clients", when, grown, stalled)
		if each := (grown - 2*size) / stalled; each > 128<<10 {
			t.Errorf("%s: %d bytes for each client besides the shared events", when, each)
		}
	}
	begin(size)
	check("while the first event is written")
	for _, c := range clients {
		c.expect(text(size)[100:] + "\n\n")
	}
	begin(size + 1)
	check("while the second event is written")
	if got := f.hub.Stats.Overflows.Load(); got != 0 {
		t.Errorf("%d overflows", got)
	}
}
