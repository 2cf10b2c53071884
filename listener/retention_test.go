package listener_test

import (
	"context"
	"log/slog"
	"strconv"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/sql"
	"rowcast/sql/dbtest"
)

// Old rows go from the oldest on, whole transactions at a time, and the horizon moves behind them: a cursor from before is too old
// and a later one is not. The newest transaction stays, whatever its age: cursors are checked by it.
func TestRetention(t *testing.T) {
	t.Parallel()
	dsn := alone(t)
	conn, open := connect(t, dsn), connect(t, dsn)
	const old = `INSERT INTO rowcast.notifications (recipient, data, created_at) SELECT 'alice', to_jsonb(i), now() - interval '1 hour' FROM generate_series(1, 7) i`
	before := present(t, conn)
	for range 5 {
		exec(t, conn, old)
	}
	kept := present(t, conn)
	insert(t, conn, "young")
	exec(t, conn, old) // behind a young one, so it stays

	l := newListener(t, dsn)
	replayer, err := l.NewReplayer(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	r := &listener.Retention{
		Replayer: replayer, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)),
		Keep: 30 * time.Minute, Every: time.Millisecond, Rows: 10,
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	deadline := time.After(patience)
	for r.Deleted.Load() < 35 {
		select {
		case <-deadline:
			t.Fatalf("deleted %d rows, want 35", r.Deleted.Load())
		case <-time.After(time.Millisecond):
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	if got := one[int64](t, open, "SELECT count(*) FROM rowcast.notifications"); got != 8 {
		t.Errorf("%d rows are left, want 8", got)
	}
	horizon, err := strconv.ParseUint(one[string](t, conn, "SELECT horizon::text FROM rowcast.history"), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	if before.SeenBelow(horizon) || !kept.SeenBelow(horizon) {
		t.Errorf("with horizon %d, %v must be too old and %v must not", horizon, before, kept)
	}
	// A page tells the horizon, so that a replay that deletion has overtaken is not taken for complete.
	_, _, told, err := replayer.Page(t.Context(), before, present(t, conn).Reached(cursor.Cursor{Epoch: epochOf(t, dsn)}), []string{"alice"})
	if err != nil || told != horizon {
		t.Errorf("the page says horizon %d, %v, want %d", told, err, horizon)
	}
}

// alone is a database on a server of its own: transactions of any database of a server hold deletion back.
func alone(t *testing.T) string {
	t.Helper()
	dsn := dbtest.Cluster(t).DSN("postgres")
	if _, _, err := sql.Migrate(t.Context(), dsn); err != nil {
		t.Fatal(err)
	}
	return dsn
}

// epochOf is the tag of the present epoch, which begins when the first of ours connects.
func epochOf(t *testing.T, dsn string) cursor.Tag {
	t.Helper()
	tag, err := cursor.ParseTag(one[string](t, connect(t, dsn), "SELECT rowcast.epoch_tag()"))
	if err != nil {
		t.Fatal(err)
	}
	return tag
}

// What a long transaction holds back is not deleted: nobody can say yet that it has been seen.
func TestRetentionWaitsForRunningTransactions(t *testing.T) {
	t.Parallel()
	dsn := alone(t)
	conn, open := connect(t, dsn), connect(t, dsn)
	exec(t, open, "BEGIN")
	exec(t, open, "SELECT pg_current_xact_id()")
	for range 2 {
		exec(t, conn, "INSERT INTO rowcast.notifications (data, created_at) VALUES ('1', now() - interval '1 hour')")
	}
	replayer, err := newListener(t, dsn).NewReplayer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	r := &listener.Retention{Replayer: replayer, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Keep: time.Minute}
	if deleted, err := r.Round(t.Context()); err != nil || deleted != 0 {
		t.Errorf("deleted %d, %v, want 0", deleted, err)
	}
	exec(t, open, "COMMIT")
	if deleted, err := r.Round(t.Context()); err != nil || deleted != 1 {
		t.Errorf("after the end of the transaction deleted %d, %v, want all but the newest", deleted, err)
	}
}
