package listener_test

import (
	"cmp"
	"fmt"
	"log/slog"
	"maps"
	"strings"
	"sync"
	"testing"
	"time"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// A listener receives the requests of other hubs to disconnect a recipient, and the requests that are sent with NOTIFY.
// If the listener sleeps, rows that were committed before a request are delivered first. Malformed requests are logged
// and ignored. A listener with PollOnly receives no requests, but its hub can send them. Requests do not reach other
// databases.
func TestDisconnectReachesListeners(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	type delivered struct {
		who  string
		rows int // the number of rows that were delivered before the request
	}
	var log strings.Builder
	calls := make(chan delivered, 10)
	count := func(l *listener.Listener) {
		rows, deliver := 0, l.Deliver
		l.Deliver = func(b feed.Batch) { rows += len(b.Rows); deliver(b) }
		l.Disconnect = func(recipient string) { calls <- delivered{recipient, rows} }
	}
	first := listen(t, dsn, count, func(l *listener.Listener) { l.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	first.waitForLock(t, 1)
	first.caughtUp(t)
	second := listen(t, dsn, count)
	// The second listener sleeps after two fetches, because it has then seen that the first listener holds the park lock.
	second.until(t, func() bool { return second.Stats.Fetches.Load() >= 2 })
	polling := listen(t, dsn, count, func(l *listener.Listener) { l.PollOnly = true })
	listen(t, dbtest.Database(t), count)
	replayer, err := polling.NewReplayer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	insert(t, conn, "1")
	if err := replayer.Disconnect(limited(t), "alice; DROP 'é"); err != nil {
		t.Fatal(err)
	}
	exec(t, conn, "SELECT pg_notify('rowcast.disconnect', ''), pg_notify('rowcast.disconnect', '*'), pg_notify('rowcast.disconnect', $1)", strings.Repeat("x", 257))
	exec(t, conn, "SELECT pg_notify('rowcast.disconnected', 'hub *')")
	exec(t, conn, `NOTIFY "rowcast.disconnect", '{"recipient": "bob"}'`)
	got, want := map[delivered]int{}, map[delivered]int{{"alice; DROP 'é", 1}: 2, {`{"recipient": "bob"}`, 1}: 2}
	for range 4 {
		select {
		case call := <-calls:
			got[call]++
		case <-time.After(patience):
			t.Fatalf("waited %v for two listeners to receive two requests each, got %v", patience, got)
		}
	}
	if !maps.Equal(got, want) {
		t.Errorf("got requests %v, want %v", got, want)
	}
	polling.caughtUp(t)
	first.stop()
	if len(calls) > 0 {
		t.Errorf("got a request that was not expected: %v", <-calls)
	}
	const warning = `msg="ignored malformed NOTIFY payload" channel=%s error="the payload is not a user or a group: 1 to 256 bytes of UTF-8 without control characters or U+FFFD, not *, and not beginning with rowcast."`
	for channel, want := range map[string]int{"rowcast.disconnect": 3, "rowcast.disconnected": 1} {
		if got := strings.Count(log.String(), fmt.Sprintf(warning, channel)); got != want {
			t.Errorf("got %d warnings about the channel %s, want %d; the log is %s", got, channel, want, log.String())
		}
	}
	if len(first.messages) > 0 {
		t.Errorf("got %d messages, want none", len(first.messages))
	}
}

// A listener ignores the requests to disconnect that its own Replayer sends, because the clients may have reconnected
// with a new authentication. The listener of the other hub receives these requests.
func TestDisconnectIsNotEchoed(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	var heard [2]chan string
	var here *reader
	for i := range heard {
		heard[i] = make(chan string, 10)
		r := listen(t, dsn, func(l *listener.Listener) { l.Disconnect = func(recipient string) { heard[i] <- recipient } })
		here = cmp.Or(here, r)
	}
	replayer, err := here.NewReplayer(t.Context(), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	for _, recipient := range []string{"alice", "team:7 and its guests", `"bob"`, `"\u00e9`} {
		if err := replayer.Disconnect(limited(t), recipient); err != nil {
			t.Fatal(err)
		}
	}
	exec(t, connect(t, dsn), "SELECT pg_notify('rowcast.disconnected', 'alice'), pg_notify('rowcast.disconnect', 'bob')")
	for i, want := range [][]string{{"bob"}, {"alice", "team:7 and its guests", `"bob"`, `"\u00e9`, "bob"}} {
		for _, want := range want {
			select {
			case got := <-heard[i]:
				if got != want {
					t.Errorf("listener %d received %s, want %s", i, got, want)
				}
			case <-time.After(patience):
				t.Fatalf("waited %v for listener %d to receive %s", patience, i, want)
			}
		}
	}
}

// Disconnect does not wait for replays, even if one replay waits for a lock and others wait for its connection.
func TestDisconnectDoesNotWaitForReplays(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	locker, conn := connect(t, dsn), connect(t, dsn)
	heard := make(chan string, 1)
	hub := listen(t, dsn, func(l *listener.Listener) { l.Disconnect = func(recipient string) { heard <- recipient } })
	hub.waitForLock(t, 1)
	begin := hub.last.Cursor
	insert(t, conn, "1")
	hub.caughtUp(t)
	replayer := newReplayer(t, dsn, 512)
	exec(t, locker, "BEGIN; LOCK rowcast.history")
	var replays sync.WaitGroup
	for range 3 {
		replays.Go(func() { _, _, _, _ = replayer.Page(limited(t), begin, hub.last.Cursor, nil) })
	}
	eventually(t, conn, `SELECT count(*) = 1 FROM pg_stat_activity WHERE datname = current_database()
		AND application_name = 'rowcast replay' AND wait_event_type = 'Lock'`)
	if err := replayer.Disconnect(limited(t), "alice"); err != nil {
		t.Fatal(err)
	}
	exec(t, locker, "COMMIT")
	if got := receive(t, "the request to disconnect", heard); got != "alice" {
		t.Errorf("got a request to disconnect %s, want alice", got)
	}
	await(t, "the replays", &replays)
}
