package stream_test

import (
	"context"
	"testing"
	"time"

	"rowcast/sql"
	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// While PostgreSQL is stopped, and after it has started again or recovered from a crash, streams stay open. A client
// can resume while PostgreSQL is stopped. If the hub's memory does not have all rows that the client has missed, the
// client waits. No row is lost.
func TestTheDatabaseStopsAndStarts(t *testing.T) {
	t.Parallel()
	server := dbtest.Cluster(t)
	dsn := server.DSN("postgres")
	if _, _, err := sql.Migrate(dbtest.Context(t), dsn); err != nil {
		t.Fatal(err)
	}
	s := serve(t, dsn, func(s *site) {
		s.hub.Heartbeat = 100 * time.Millisecond
		s.hub.Memory = 1500 // about three events
	})
	connected, fromTheStart := listen(t, s, "alice"), listen(t, s, "alice").hello()
	connected.hello()
	var waiting *client
	rows := 0
	interrupt := func(way string, restart func(context.Context) error) {
		db := connect(t, dsn)
		for range 6 {
			insert(t, db, "alice", way)
			connected.wantData(quote(way))
			rows++
		}
		_ = db.Close(dbtest.Context(t))
		last := connected.decoder.LastID
		ctx, cancel := context.WithTimeout(t.Context(), patience)
		defer cancel()
		if err := restart(ctx); err != nil {
			t.Fatalf("cannot stop PostgreSQL and start it again (%s): %v", way, err)
		}
		insert(t, connect(t, dsn), "alice", "after it was "+way)
		connected.wantData(quote("after it was " + way))
		rows++
		// The cursor is still valid, although each restart and each crash begins another epoch.
		c := resume(t, s, last, "alice")
		c.hello()
		c.wantData(quote("after it was " + way))
	}
	interrupt("stopped", func(ctx context.Context) error {
		if err := server.Stop(ctx); err != nil {
			return err
		}
		waiting = whileStopped(t, s, connected, fromTheStart)
		return server.Start(ctx)
	})
	interrupt("crashed", func(ctx context.Context) error { return server.Restart(ctx, cluster.Immediate) })
	again := resume(t, s, fromTheStart, "alice")
	again.hello()
	for range rows {
		for _, c := range []*client{waiting, again} {
			if e := c.notification(); e.Name != "message" {
				t.Fatalf("got %v, want a row", e)
			}
		}
	}
	if got := s.hub.Stats.Resets.Load(); got != 0 {
		t.Errorf("got %d resets, want 0", got)
	}
}

// whileStopped checks what a hub does without its database. It returns a client that waits for the database.
func whileStopped(t *testing.T, s *site, connected *client, fromTheStart string) (waiting *client) {
	t.Helper()
	if !s.hub.Ready() {
		t.Error("the hub is not ready, want ready without a database")
	}
	for connected.want("rowcast.beat").Data == `{"behind": 0}` {
	}
	last := connected.decoder.LastID
	if got := resume(t, s, last, "alice").hello(); got != last {
		t.Errorf("rowcast.hello has the id %s, want %s", got, last)
	}
	listen(t, s, "bob").want("rowcast.hello")
	waiting = resume(t, s, fromTheStart, "alice")
	if got := waiting.hello(); got != fromTheStart {
		t.Errorf("rowcast.hello has the id %s, want %s", got, fromTheStart)
	}
	for range 3 {
		if got := waiting.line(); got != ":\n" {
			t.Errorf("got %q, want a comment", got)
		}
	}
	return waiting
}

func quote(text string) string { return `"` + text + `"` }
