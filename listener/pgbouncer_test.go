package listener_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// A hub works through a pooler in session mode, and logs no warning.
func TestSessionPooler(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	pooled := dbtest.PgBouncer(t, dsn, "session", 10)
	if err := newListener(t, pooled).Preflight(limited(t)); err != nil {
		t.Fatalf("Preflight: %v", err)
	}
	var log lines
	r := listen(t, pooled, func(l *listener.Listener) {
		l.Logger = slog.New(slog.NewTextHandler(&log, nil))
		l.Disconnect = func(recipient string) { t.Errorf("got a request to disconnect %q, want none", recipient) }
	})
	r.waitForLock(t, 1)
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	r.caughtUp(t)
	if strings.Contains(log.text(), "level=WARN") || len(r.messages) > 0 {
		t.Errorf("got %d messages, want no messages and no warnings; the log is\n%s", len(r.messages), log.text())
	}
}

// A hub refuses a pooler in transaction mode, but with PollOnly it works through the pooler. The session behind the
// pooler does not keep the hub's settings.
func TestTransactionPooler(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	pooled := dbtest.PgBouncer(t, dsn, "transaction", 1)
	if err := newListener(t, pooled).Preflight(limited(t)); !errors.Is(err, listener.ErrPooled) {
		t.Errorf("Preflight: got %v, want %v", err, listener.ErrPooled)
	}
	begin := one[string](t, conn, "SELECT rowcast.cursor()")
	r := listen(t, pooled, func(l *listener.Listener) { l.PollOnly = true })
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	replayer, err := r.NewReplayer(limited(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	wantData(t, replay(t, replayer, begin, r.last.Cursor.String(), nil), `"1"`)
	config, err := pgx.ParseConfig(pooled)
	if err != nil {
		t.Fatal(err)
	}
	config.DefaultQueryExecMode = pgx.QueryExecModeExec
	other, err := pgx.ConnectConfig(limited(t), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = other.Close(limited(t)) })
	for setting, want := range map[string]string{"search_path": `"$user", public`, "enable_seqscan": "on", "row_security": "on"} {
		if got := one[string](t, other, "SELECT current_setting($1)", setting); got != want {
			t.Errorf("a session behind the pooler has %s = %s, want %s", setting, got, want)
		}
	}
}

// A hub refuses PgBouncer in statement mode, with PollOnly too, because it needs transactions.
func TestStatementPooler(t *testing.T) {
	t.Parallel()
	pooled := dbtest.PgBouncer(t, dbtest.Database(t), "statement", 1)
	if err := newListener(t, pooled).Preflight(limited(t)); !errors.Is(err, listener.ErrPooled) {
		t.Errorf("Preflight: got %v, want %v", err, listener.ErrPooled)
	}
	l := newListener(t, pooled)
	l.PollOnly = true
	if err := l.Preflight(limited(t)); !errors.Is(err, listener.ErrStatementPooled) {
		t.Errorf("Preflight with PollOnly: got %v, want %v", err, listener.ErrStatementPooled)
	}
}
