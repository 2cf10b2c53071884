package listener_test

import (
	"context"
	"testing"
	"time"

	"rowcast/listener"
)

// Deleted rows stay in the indexes until vacuum removes them, which an old snapshot can delay for long. The queries of
// a hub do not read through these rows if the cursor is above the horizon.
func TestPlansAfterRetention(t *testing.T) {
	t.Parallel()
	const rows = 100_000
	dsn := alone(t)
	conn, old := connect(t, dsn), connect(t, dsn)
	// UNLOGGED makes the inserts faster. Autovacuum would make the numbers of blocks vary.
	exec(t, conn, "ALTER TABLE rowcast.notifications SET UNLOGGED, SET (autovacuum_enabled = off)")
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
		t.Fatalf("got %d rows after the deletion, want at most 200", left)
	}

	session, err := newListener(t, dsn).Connect(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = session.Close(context.Background()) })
	exec(t, session, "SELECT rowcast.cursor()") // compiles the function, so that the call below reads fewer blocks
	now := present(t, conn)
	horizon := one[string](t, conn, "SELECT horizon::text FROM rowcast.history")
	fresh := now.Before(now.AnchorXid()) // a cursor that has not seen the newest transaction with rows
	for name, q := range map[string]struct {
		text string
		args []any
	}{
		"fetch":  {listener.FetchQuery, listener.QueryArgs(listener.FetchQuery, now, nil, 512)},
		"near":   {listener.NearQuery, listener.QueryArgs(listener.NearQuery, now, nil, 512)},
		"replay": {listener.ReplayQuery, listener.QueryArgs(listener.ReplayQuery, fresh, &now, 512, []string{"*", "user1", "user2"})},
		"end":    {listener.EndQuery, []any{horizon, "5000", "1", "9000000000"}},
		"warm":   {listener.WarmQuery, []any{"999999999", "67108864"}},
		"cursor": {"SELECT rowcast.cursor()", nil},
	} {
		plan, explained := explain(t, session, q.text, q.args)
		t.Logf("%s: %d blocks, %v ms", name, plan.Hit+plan.Read, plan.Time)
		if plan.Hit+plan.Read > 400 {
			t.Errorf("%s: read %d blocks, want at most 400:\n%s", name, plan.Hit+plan.Read, explained)
		}
	}
	// For comparison, a fetch from a cursor before the deleted rows must read many blocks. A hub resets such a cursor,
	// because it is below the horizon.
	plan, _ := explain(t, session, listener.FetchQuery, listener.QueryArgs(listener.FetchQuery, before, nil, 512))
	t.Logf("from the beginning: %d blocks, %v ms", plan.Hit+plan.Read, plan.Time)
	if plan.Hit+plan.Read < 1000 {
		t.Errorf("from the beginning: read %d blocks, want at least 1000, because the index must still have the deleted rows", plan.Hit+plan.Read)
	}
}
