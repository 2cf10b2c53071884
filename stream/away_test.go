package stream_test

import (
	"context"
	"testing"
	"time"

	"rowcast/sql"
	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// While PostgreSQL is stopped, and when it comes back after that or after a crash, streams stay open; who comes is served as far
// as memory goes, and waits for the rest; and nothing is lost.
func TestTheDatabaseGoesAndComesBack(t *testing.T) {
	t.Parallel()
	server := dbtest.Cluster(t)
	dsn := server.DSN("postgres")
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	s := serve(t, dsn, func(s *site) {
		s.hub.Heartbeat = 100 * time.Millisecond
		s.hub.Memory = 1500 // some four events
	})
	always, fromTheStart := listen(t, s, "alice"), listen(t, s, "alice").hello()
	always.hello()
	var waiting *client
	told := 0
	lose := func(way string, restart func(context.Context) error) {
		db := connect(t, dsn)
		for range 6 {
			insert(t, db, "alice", way)
			always.wantTold(quote(way))
			told++
		}
		_ = db.Close(dbtest.Context(t))
		last := always.decoder.LastID
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := restart(ctx); err != nil {
			t.Fatalf("%s: %v", way, err)
		}
		insert(t, connect(t, dsn), "alice", "after it was "+way)
		always.wantTold(quote("after it was " + way))
		told++
		// The epoch is another; the cursor still holds.
		c := resume(t, s, last, "alice")
		c.hello()
		c.wantTold(quote("after it was " + way))
	}
	lose("stopped", func(ctx context.Context) error {
		if err := server.Stop(ctx); err != nil {
			return err
		}
		waiting = whileAway(t, s, always, fromTheStart)
		return server.Start(ctx)
	})
	lose("crashed", func(ctx context.Context) error { return server.Restart(ctx, cluster.Immediate) })
	again := resume(t, s, fromTheStart, "alice")
	again.hello()
	for range told {
		for _, c := range []*client{waiting, again} {
			if e := c.told(); e.Name != "message" {
				t.Fatalf("got %v", e)
			}
		}
	}
	if got := s.hub.Stats.Resets.Load(); got != 0 {
		t.Errorf("%d resets", got)
	}
}

// whileAway is what a hub does without its database. It returns a client that waits for it.
func whileAway(t *testing.T, s *site, always *client, fromTheStart string) (waiting *client) {
	t.Helper()
	if !s.hub.Ready() {
		t.Error("the hub is not ready")
	}
	for always.want("rowcast.beat").Data == `{"behind": 0}` {
	}
	last := always.decoder.LastID
	if got := resume(t, s, last, "alice").hello(); got != last {
		t.Errorf("got %s, want %s", got, last)
	}
	listen(t, s, "bob").want("rowcast.hello")
	waiting = resume(t, s, fromTheStart, "alice")
	if got := waiting.hello(); got != fromTheStart {
		t.Errorf("got %s, want %s", got, fromTheStart)
	}
	for range 3 {
		if got := waiting.line(); got != ":\n" {
			t.Errorf("got %q, want a comment", got)
		}
	}
	return waiting
}

func quote(text string) string { return `"` + text + `"` }
