package listener_test

import (
	"context"
	"testing"
	"time"

	"rowcast/listener"
)

// What has been deleted stays in the indexes until vacuum, which may be long, here for an old snapshot. Nothing that
// a hub does walks through it: its beginning, its fetches, the replays, and deletion itself.
func TestPlansAfterRetention(t *testing.T) {
	t.Parallel()
	const rows = 100_000
	dsn := alone(t)
	conn, old := connect(t, dsn), connect(t, dsn)
	exec(t, conn, "ALTER TABLE rowcast.notifications SET UNLOGGED, SET (autovacuum_enabled = off)") // fills faster
	before := present(t, conn)
	fillHistory(t, conn, rows)
	exec(t, old, "BEGIN ISOLATION LEVEL REPEATABLE READ")
	exec(t, old, "SELECT FROM rowcast.notifications LIMIT 1")
	r := newRetention(t, dsn, 5000)
	r.Keep = time.Microsecond
	began := time.Now()
	for deleted := int64(1); deleted > 0; {
		var err error
		if deleted, err = r.Round(limited(t)); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("deleted in %v", time.Since(began))
	if left := one[int](t, conn, "SELECT count(*)::int FROM rowcast.notifications"); left > 200 {
		t.Fatalf("%d rows are left", left)
	}

	session, err := newListener(t, dsn).Connect(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	exec(t, session, "SELECT rowcast.cursor()") // compiled once a session
	now := present(t, conn)
	horizon := one[string](t, conn, "SELECT horizon::text FROM rowcast.history")
	fresh := now.Before(now.AnchorXid()) // has seen all but the newest transaction
	for name, q := range map[string]struct {
		text string
		args []any
	}{
		"fetch":  {listener.FetchQuery, listener.QueryArgs(listener.FetchQuery, now, nil, 512)},
		"replay": {listener.ReplayQuery, listener.QueryArgs(listener.ReplayQuery, fresh, &now, 512, []string{"user1", "user2"})},
		"end":    {listener.EndQuery, []any{horizon, "5000", "1 microsecond"}},
		"warm":   {listener.WarmQuery, []any{"999999999", "67108864"}},
		"cursor": {"SELECT rowcast.cursor()", nil},
	} {
		plan, explained := explain(t, session, q.text, q.args)
		t.Logf("%s: %d blocks, %v ms", name, plan.Hit+plan.Read, plan.Time)
		if plan.Hit+plan.Read > 400 {
			t.Errorf("%s: read %d blocks:\n%s", name, plan.Hit+plan.Read, explained)
		}
	}
	// Against which this is measured: a cursor from before all that, which a hub that knows the horizon does not read
	// from.
	plan, _ := explain(t, session, listener.FetchQuery, listener.QueryArgs(listener.FetchQuery, before, nil, 512))
	t.Logf("from the beginning: %d blocks, %v ms", plan.Hit+plan.Read, plan.Time)
	if plan.Hit+plan.Read < 1000 {
		t.Errorf("the dead entries are gone: from the beginning only %d blocks are read", plan.Hit+plan.Read)
	}
}
