package listener_test

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// A row that comes without a notification is found by a safety poll, and counts as unnotified.
func TestSafetyPollFindsRowsWithoutANotification(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	exec(t, conn, "ALTER TABLE rowcast.notifications DISABLE TRIGGER ring")
	hub := listen(t, dsn, func(l *listener.Listener) { l.Look = 20 * time.Millisecond })
	hub.waitForLock(t, 1)
	const rows = 5
	for range rows {
		insert(t, conn, "by replication, say")
		wantData(t, hub.rows(t, 1), `"by replication, say"`)
	}
	// The fetch that follows the park lock may find the first row. Only safety polls find the other rows.
	hub.until(t, func() bool { return hub.Stats.Unnotified.Load() >= rows-1 })
	if got := hub.Stats.Unnotified.Load(); got > rows {
		t.Errorf("%d rows count as unnotified, want at most %d", got, rows)
	}
}

// A safety poll can find a row just before the row's notification comes. The row then does not count as unnotified.
func TestNotificationJustAfterASafetyPoll(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn, notifier := connect(t, dsn), connect(t, dsn)
	exec(t, conn, "SET rowcast.ring = off") // only the safety polls find rows
	hub := listen(t, dsn, func(l *listener.Listener) {
		l.Look = 20 * time.Millisecond
		deliver := l.Deliver
		l.Deliver = func(b feed.Batch) {
			if len(b.Rows) > 0 {
				if _, err := notifier.Exec(limited(t), "NOTIFY rowcast"); err != nil {
					t.Error(err)
				}
			}
			deliver(b)
		}
	})
	hub.waitForLock(t, 1)
	const rows = 10
	for range rows {
		insert(t, conn, "notified late")
		wantData(t, hub.rows(t, 1), `"notified late"`)
		hub.next(t) // the batch of the fetch for the notification
	}
	// On a loaded machine, some notifications may come too late.
	if got := hub.Stats.Unnotified.Load(); got > rows/2 {
		t.Errorf("%d of %d rows count as unnotified, want at most half of them", got, rows)
	}
}

// A role that inserts rows without notifications, one after the other, does not fill the log.
func TestTheLogOfUnnotifiedRowsIsLimited(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	var log lines
	hub := listen(t, dsn, func(l *listener.Listener) {
		l.Look, l.Logger = 20*time.Millisecond, slog.New(slog.NewTextHandler(&log, nil))
	})
	hub.waitForLock(t, 1)
	exec(t, conn, "SET rowcast.ring = off")
	began := time.Now()
	for range 10 {
		counted := hub.Stats.Unnotified.Load()
		insert(t, conn, "unnotified")
		hub.until(t, func() bool { return hub.Stats.Unnotified.Load() > counted })
	}
	most := 5 + int(time.Since(began)/(10*time.Second)) + 1 // at once, and then one in 10 s
	if got := strings.Count(log.text(), "arrived without a notification"); got < 1 || got > most {
		t.Errorf("the log has %d lines about 10 rows, want from 1 to %d", got, most)
	}
}
