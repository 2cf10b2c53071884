package listener_test

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// Any role that can connect can send any number of notifications. A flood of notifications costs a listener little
// memory and few log lines. The next row is delivered, and no request to disconnect is dropped. The test is not
// parallel, because it measures the heap of the process.
func TestAttackFloodsOfNotify(t *testing.T) {
	const message, disconnect = "rowcast", "rowcast.disconnect"
	for _, flood := range []struct {
		name, channel string
		payload       string // an SQL expression; i is the number of the notification
		times         int64
		wanted        bool // the hub handles messages and requests to disconnect
		dropped       bool // some notifications must be dropped
		malformed     bool // the payloads are malformed
	}{
		{name: "requests to disconnect", channel: disconnect, payload: "i || repeat('x', 240)", times: 100_000, wanted: true},
		{name: "requests of other hubs to disconnect", channel: disconnect + "ed", payload: "repeat('x', 7700) || ' ' || i", times: 10_000, wanted: true},
		{name: "requests to disconnect that the hub ignores", channel: disconnect, payload: "i || repeat('x', 240)", times: 100_000},
		{name: "malformed requests to disconnect", channel: disconnect, payload: "i || repeat('x', 257)", times: 100_000, wanted: true, malformed: true},
		{name: "messages", channel: message, payload: "i || repeat('x', 7900)", times: 10_000, wanted: true, dropped: true},
		{name: "short messages", channel: message, payload: "i::text", times: 100_000, wanted: true, dropped: true},
		{name: "messages that the hub ignores", channel: message, payload: "i || repeat('x', 7900)", times: 10_000},
		{name: "malformed messages", channel: message, payload: "'{' || i", times: 100_000, wanted: true, dropped: true, malformed: true},
	} {
		t.Run(flood.name, func(t *testing.T) {
			dsn := dbtest.Database(t)
			conn := connect(t, dsn)
			var disconnected, sent atomic.Int64
			var log lines
			r := listen(t, dsn, func(l *listener.Listener) {
				l.Logger = slog.New(slog.NewTextHandler(&log, nil))
				l.Message = nil
				l.Timeout = limit // a loaded machine may take long to receive the flood, and the session must last
				if flood.wanted {
					l.Message = func(feed.Message) { sent.Add(1) }
					l.Disconnect = func(string) { disconnected.Add(1) }
				}
			})
			r.waitForLock(t, 1)
			before := log.count()
			exec(t, conn, "SET ROLE "+createRole(t, dsn, "stranger"))
			peak := peakHeap(t)
			exec(t, conn, "SELECT count(pg_notify($1, "+flood.payload+")) FROM generate_series(1, $2) i", flood.channel, flood.times)
			exec(t, conn, "RESET ROLE")
			insert(t, conn, "after the flood")
			wantData(t, r.rows(t, 1), `"after the flood"`)
			for range 2 { // the second call returns after all earlier notifications were handled
				r.caughtUp(t)
			}
			grown, written := peak(), log.count()-before
			t.Logf("the live heap has grown by %.1f MiB at most, the log by %d lines; %d messages were delivered, %d dropped, %d requests to disconnect, %d malformed",
				float64(grown)/(1<<20), written, sent.Load(), r.Stats.Dropped.Load(), disconnected.Load(), r.Stats.Malformed.Load())
			if most := int64(12 << 20); grown > most {
				t.Errorf("the live heap has grown by %d bytes, want at most %d", grown, most)
			}
			if written > 12 {
				t.Errorf("the log has %d lines about the flood, want at most 12:\n%s", written, log.text())
			}
			if got := r.Stats.Dropped.Load(); (got > 0) != flood.dropped {
				t.Errorf("got %d dropped notifications, want %s", got, someOrNone(flood.dropped))
			}
			answered := sent.Load() + disconnected.Load() + r.Stats.Dropped.Load() + r.Stats.Malformed.Load()
			want := flood.times
			if !flood.wanted {
				want = 0
			}
			if answered != want {
				t.Errorf("%d notifications were delivered, dropped or malformed, want %d", answered, want)
			}
			if flood.malformed != (r.Stats.Malformed.Load() > 0) {
				t.Errorf("got %d malformed notifications, want %s", r.Stats.Malformed.Load(), someOrNone(flood.malformed))
			}
		})
	}
}

func someOrNone(some bool) string {
	if some {
		return "some"
	}
	return "none"
}

// peakHeap watches the size of the live heap until the returned function is called. This function returns by how many
// bytes the live heap had grown at most. A garbage collection also counts what is allocated while it runs, which may be
// much if the machine is busy. Memory that a flood retains is in use in several collections. So only the smallest of
// every three sizes in a row counts.
func peakHeap(t *testing.T) func() int64 {
	t.Helper()
	before := watchHeap(t)
	highest := before
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		sizes, last := [3]uint64{before, before, before}, uint64(0)
		for ticker := time.NewTicker(time.Millisecond); ; {
			select {
			case <-ticker.C:
				if collections := collections(); collections != last {
					sizes, last = [3]uint64{sizes[1], sizes[2], liveHeap()}, collections
					highest = max(highest, slices.Min(sizes[:]))
				}
			case <-stop:
				ticker.Stop()
				return
			}
		}
	}()
	end := sync.OnceFunc(func() {
		close(stop)
		<-done
	})
	t.Cleanup(end)
	return func() int64 {
		end()
		return int64(highest) - int64(before)
	}
}

type lines struct {
	mu  sync.Mutex
	log bytes.Buffer
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.Write(line)
}

func (l *lines) text() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.log.String()
}

func (l *lines) count() int { return strings.Count(l.text(), "\n") }

// Notifications that the listener does not answer with a fetch do not delay the safety poll. Examples are messages to a
// listener without Message. Otherwise any role could hide rows forever by sending such notifications.
func TestAttackNotificationsDoNotPutOffTheSafetyPoll(t *testing.T) {
	t.Parallel()
	for _, channel := range []string{"rowcast", "rowcast.disconnect", "rowcast.unparked"} {
		t.Run(channel, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			conn, stranger := connect(t, dsn), connect(t, dsn)
			r := listen(t, dsn, func(l *listener.Listener) { l.Look, l.Message = 500*time.Millisecond, nil })
			r.waitForLock(t, 1)
			defer notifyAgainAndAgain(t, stranger, channel)()
			exec(t, conn, "SET rowcast.ring = off")
			for range 3 { // the fetch after the lock was taken may find the first row, so only the others need a safety poll
				insert(t, conn, "not notified for")
				wantData(t, r.rows(t, 1), `"not notified for"`)
			}
		})
	}
}

// notifyAgainAndAgain sends notifications on a channel until the returned function is called.
func notifyAgainAndAgain(t *testing.T, conn *pgx.Conn, channel string) (stop func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ctx.Err() == nil; i++ {
			if _, err := conn.Exec(ctx, "SELECT pg_notify($1, $2)", channel, fmt.Sprint(i)); err != nil && ctx.Err() == nil {
				t.Errorf("notify: %v", err)
				return
			}
		}
	}()
	return func() { cancel(); <-done }
}
