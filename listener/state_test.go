package listener_test

import (
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// While the NOTIFY queue fills up, the hub polls and does not hold the park lock, so no INSERT sends a NOTIFY. When the
// queue has drained, the hub sleeps again.
func TestPollsWhileTheNotifyQueueFillsUp(t *testing.T) {
	t.Parallel()
	major, _, _ := strings.Cut(one[string](t, connect(t, dbtest.Empty(t)), "SHOW server_version"), ".")
	small := len(major) == 2 && major >= "17" // since version 17, the queue can be made so small that a test can fill it
	settings, queueLimit, some := map[string]string{}, 1e-4, 150
	if small {
		settings["max_notify_queue_pages"], queueLimit, some = "64", 0, 30
	}
	dsn, _ := logging(t, settings)
	log := &lines{}
	hub := listen(t, dsn, func(l *listener.Listener) {
		l.Look, l.QueueLimit, l.Logger = 50*time.Millisecond, queueLimit, slog.New(slog.NewTextHandler(log, nil))
	})
	hub.waitForLock(t, 1)
	conn, blocker, flood := connect(t, dsn), connect(t, dsn), connect(t, dsn)
	exec(t, blocker, "LISTEN flood")
	exec(t, blocker, "BEGIN; SELECT 1")
	const notify = "SELECT count(pg_notify('flood', i || repeat('x', 7900))) FROM generate_series(1, $1) i"
	exec(t, flood, notify, some)
	hub.until(t, hub.Stats.Crowded.Load)
	eventually(t, conn, heldExclusively[:7]+"NOT "+heldExclusively[7:])
	if small {
		fill(t, flood, notify)
	}
	wakeups := hub.Stats.Wakeups.Load()
	for range 20 {
		insert(t, conn, "1")
		wantData(t, hub.rows(t, 1), `"1"`)
	}
	hub.caughtUp(t)
	if got := hub.Stats.Wakeups.Load(); got != wakeups {
		t.Errorf("got %d INSERTs that sent a NOTIFY, want 0", got-wakeups)
	}
	if ratio := hub.Stats.NotifyQueue(); ratio < 1e-4 || ratio > 1 {
		t.Errorf("NotifyQueue returns %g, want from 0.0001 to 1", ratio)
	}
	exec(t, blocker, "COMMIT")
	eventually(t, conn, heldExclusively)
	hub.until(t, func() bool { return !hub.Stats.Crowded.Load() })
	if written := log.text(); strings.Count(written, "NOTIFY queue is filling up") != 1 || strings.Count(written, "NOTIFY queue has drained") != 1 {
		t.Errorf("want one line when the queue fills up and one when it has drained, the log is\n%s", written)
	}
}

// fill sends notifications until the NOTIFY queue is full.
func fill(t *testing.T, conn *pgx.Conn, notify string) {
	t.Helper()
	for deadline := time.Now().Add(limit); ; {
		_, err := conn.Exec(limited(t), notify, 5)
		if refused, ok := errors.AsType[*pgconn.PgError](err); ok && refused.Code == "54000" {
			return
		}
		if err != nil || time.Now().After(deadline) {
			t.Fatalf("got error %v, want the error of a full queue", err)
		}
	}
}

// If a role empties rowcast.epoch, the listener notices that another epoch has begun, and continues in the same
// session. No row is lost, and a new replayer can replay rows in the new epoch.
func TestGoesOnInAnotherEpoch(t *testing.T) {
	t.Parallel()
	for name, configure := range map[string]func(*listener.Listener){
		"listening": func(l *listener.Listener) { l.Look = 50 * time.Millisecond },
		"polling":   pollOnly,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			conn := connect(t, dsn)
			hub := listen(t, dsn, configure)
			begin := hub.next(t).Cursor
			insert(t, conn, "1")
			hub.rows(t, 1)
			exec(t, conn, "TRUNCATE rowcast.epoch")
			hub.until(t, func() bool { return hub.last.Cursor.Epoch != begin.Epoch })
			insert(t, conn, "2")
			wantData(t, hub.rows(t, 1), `"2"`)
			if hub.last.Reset != "" || hub.last.Clamp != nil {
				t.Errorf("got batch %+v, want no Reset and no Clamp", hub.last)
			}
			hub.caughtUp(t)
			begin.Epoch = hub.last.Cursor.Epoch
			wantData(t, replay(t, newReplayer(t, dsn, 512), begin.String(), hub.last.Cursor.String(), nil), `"1"`, `"2"`)
			if sessions := hub.Stats.Sessions.Load(); sessions != 1 {
				t.Errorf("got %d sessions, want 1", sessions)
			}
		})
	}
}

// Rows that come all the time do not keep the hub from reading the state.
func TestTheStateIsReadWhileRowsCome(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	hub := listen(t, dsn, func(l *listener.Listener) { l.Look = 200 * time.Millisecond })
	hub.waitForLock(t, 1)
	insert(t, conn, "before")
	hub.rows(t, 1)
	before := hub.last.Cursor.Epoch
	exec(t, conn, "TRUNCATE rowcast.epoch")
	for deadline := time.Now().Add(limit); hub.last.Cursor.Epoch == before; {
		insert(t, conn, "after")
		hub.rows(t, 1)
		if time.Now().After(deadline) {
			t.Fatalf("the hub has not noticed the new epoch within %v", limit)
		}
	}
}
