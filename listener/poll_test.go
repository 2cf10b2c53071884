package listener_test

import (
	"errors"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/listener/cursor"
	"rowcast/sql/dbtest"
)

func pollOnly(l *listener.Listener) { l.PollOnly, l.PollInterval = true, 10*time.Millisecond }

func TestPollOnly(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	testPollOnly(t, dsn, dsn)
}

// Behind a transaction pooler, each transaction may run in another session. So Preflight returns an error, unless
// PollOnly is set. With PollOnly, a listener and a replayer work through the pooler.
func TestPgBouncer(t *testing.T) {
	t.Parallel()
	direct := dbtest.Database(t)
	pooled := dbtest.PgBouncer(t, direct, "transaction", 5)

	err := newListener(t, pooled).Preflight(limited(t))
	if !errors.Is(err, listener.ErrPooled) {
		t.Errorf("through the pooler: got %v, want %v", err, listener.ErrPooled)
	}
	if err := newListener(t, direct).Preflight(limited(t)); err != nil {
		t.Errorf("without the pooler: got %v, want no error", err)
	}
	poller := newListener(t, pooled)
	pollOnly(poller)
	if err := poller.Preflight(limited(t)); err != nil {
		t.Errorf("with PollOnly, through the pooler: got %v, want no error", err)
	}
	testPollOnly(t, direct, pooled)
}

// testPollOnly inserts rows through the connection string write. A listener with PollOnly and a replayer read them
// through the connection string read.
func testPollOnly(t *testing.T, write, read string) {
	conn, locker := connect(t, write), connect(t, write)
	r := listen(t, read, pollOnly)
	begin := r.next(t).Cursor
	exec(t, locker, "BEGIN")
	insert(t, locker, "held open")
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'notify', '{"msg": "hi"}')`)
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data) SELECT '*', to_jsonb(repeat('x', i)) FROM generate_series(1, 1000) i`)
	if row := r.rows(t, 1001)[0]; row.Recipient != "alice" || row.Event != "notify" || string(row.Data) != `{"msg": "hi"}` {
		t.Errorf(`got %+v with data %s, want event notify and data {"msg": "hi"} for alice`, row, row.Data)
	}
	exec(t, locker, "COMMIT")
	wantData(t, r.rows(t, 1), `"held open"`)
	if one[bool](t, conn, heldExclusively) {
		t.Error("a listener with PollOnly has taken the park lock, want it not to")
	}

	replayer, err := r.NewReplayer(t.Context(), 2)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	r.caughtUp(t)
	end := r.last.Cursor
	rows := replay(t, replayer, begin.String(), end.String(), []string{"alice"})
	if len(rows) != len(r.read) {
		t.Errorf("replayed %d rows, want %d", len(rows), len(r.read))
	}
	for name, c := range map[string]cursor.Cursor{"last": end, "first": begin} {
		if valid, err := replayer.IsValid(limited(t), c, end); err != nil || !valid {
			t.Errorf("IsValid of the %s cursor: got %t and error %v, want true", name, valid, err)
		}
	}
}
