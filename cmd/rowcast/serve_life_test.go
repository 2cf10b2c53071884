package main_test

import (
	"fmt"
	"net"
	"strings"
	"testing"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// While PostgreSQL is stopped or restarts, streams stay open and the hub stays ready. Afterwards, a stream receives
// every row once.
func TestServeOutlivesPostgres(t *testing.T) {
	t.Parallel()
	server := dbtest.Cluster(t)
	dsn := server.DSN("postgres")
	if code, _, stderr := run(t, nil, "migrate", "--database-url", dsn); code != 0 {
		t.Fatalf("migrate: got exit code %d, %s, want 0", code, stderr)
	}
	h := serve(t, dsn)
	tail := h.tail(t, "alice")
	insert := func(n int) string {
		return fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '%d')`, n)
	}
	runSQL(t, dsn, insert(1))
	tail.out.await(t, `"data":1}`)

	if err := server.Stop(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := askUntil(t, h.url+"/readyz", `"postgres":"disconnected"`); got.status != 200 {
		t.Errorf("readiness: got %d, want 200", got.status)
	}
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_database_connected 0$`)
	if err := server.Start(t.Context()); err != nil {
		t.Fatal(err)
	}
	runSQL(t, dsn, insert(2))
	tail.out.await(t, `"data":2}`)
	askUntil(t, h.url+"/readyz", `"postgres":"connected"`)

	if err := server.Restart(t.Context(), cluster.Immediate); err != nil {
		t.Fatal(err)
	}
	runSQL(t, dsn, insert(3))
	tail.out.await(t, `"data":3}`)
	if got := tail.err.String(); strings.Count(got, "\n") != 1 {
		t.Errorf("the stream was interrupted: %s", got)
	}
	if got, want := dataOf(t, tail.out), []string{"1", "2", "3"}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// With --poll, a hub works through a transaction pooler, which delivers no notifications. The hub does not take the
// park lock.
func TestServePolls(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dbtest.PgBouncer(t, dsn, "transaction", 5), "--poll")
	tail := h.tail(t, "alice")
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
	tail.out.await(t, `"data":1}`)
	if got := ask(t, "GET", h.url+"/metrics").body; !strings.Contains(got, "\nrowcast_park_lock_acquired_total 0\n") {
		t.Errorf("the hub took the park lock:\n%s", got)
	}
}

// Through a pooler in session mode, migrate, doctor and hubs work as they do without a pooler. A hub can use
// notifications or --poll.
func TestPoolerInSessionMode(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	pooled := dbtest.PgBouncer(t, dsn, "session", 20)
	if got, want := succeed(t, "migrate", "--database-url", pooled), "The schema rowcast is up to date: version "+schemaVersion+".\n"; got != want {
		t.Errorf("migrate: got %q, want %q", got, want)
	}
	first := serve(t, pooled).tail(t, "alice")
	second := serve(t, pooled, "--poll").tail(t, "alice")
	if _, found, out := examine(t, pooled); !strings.HasPrefix(found["LISTEN"], "ok ") || !strings.HasPrefix(found["hubs"], "ok ") {
		t.Errorf("doctor: got %s, want that LISTEN works and hubs are connected", out)
	}
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`, `NOTIFY rowcast, '{"recipient": "alice", "data": 2}'`)
	first.out.await(t, `"data":1}`)
	first.out.await(t, `"data":2}`)
	second.out.await(t, `"data":1}`)
}

func TestNotifyMessages(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	ignoring, h := serve(t, dsn, "--no-notify-messages"), serve(t, dsn)
	ignoringTail, tail := ignoring.tail(t, "alice"), h.tail(t, "alice")
	runSQL(t, dsn,
		`NOTIFY rowcast, 'hello'`,
		`NOTIFY rowcast, '{"recipient": "alice", "event": "x", "data": {"n": 1}}'`,
		`NOTIFY rowcast, '{"recipient": "bob", "data": 2}'`,
		`NOTIFY rowcast, '{"recipent": "alice", "data": 3}'`,
		`INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '4')`)
	// The hub may send the messages and the row in any order.
	tail.out.await(t, `"data":4}`)
	tail.out.await(t, `{"n":1}`)
	ignoringTail.out.await(t, `"data":4}`)
	if got, want := fmt.Sprint(dataOf(t, ignoringTail.out)), "[4]"; got != want {
		t.Errorf("with --no-notify-messages: got %s, want %s", got, want)
	}
	got := dataOf(t, tail.out)
	for _, want := range []string{`"hello"`, `{"n":1}`, "4"} {
		if !strings.Contains(fmt.Sprint(got), want) {
			t.Errorf("got %v, want %s among these events", got, want)
		}
	}
	if len(got) != 3 {
		t.Errorf("got the events %v, want three events", got)
	}
	h.err.await(t, `msg="ignored malformed NOTIFY payload" channel=rowcast error="the envelope's \\"recipent\\" is not one of data, recipient, event"`)
}

func TestLargeEventsAreOnlyAnnounced(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	tail := serve(t, dsn, "--max-event", "1kB").tail(t, "alice")
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', to_jsonb(repeat('x', 998))), ('*', to_jsonb(repeat('x', 999)))`)
	tail.out.await(t, `"event":"message",.*"data":"x{998}"`)
	tail.out.await(t, `"event":"rowcast.toolarge",.*"data":{"id":2,"size":1001}}`)
}

// A client that resets its connection before, during or after its request does not affect other streams or the hub.
func TestClientsThatResetTheirConnections(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn)
	tail := h.tail(t, "alice")
	for _, request := range []string{"", "GET", "GET /events?uid=alice HTTP/1.1\r\n", "GET /events?uid=alice HTTP/1.1\r\nHost: localhost\r\n\r\n", "\x16\x03\x01\x00\x00", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"} {
		conn, err := net.Dial("tcp", strings.TrimPrefix(h.url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := conn.Write([]byte(request)); err != nil {
			t.Fatal(err)
		}
		_ = conn.(*net.TCPConn).SetLinger(0) // so that Close resets the connection
		_ = conn.Close()
	}
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
	tail.out.await(t, `"data":1}`)
	if got := askUntil(t, h.url+"/metrics", `(?m)^rowcast_streams 1$`); got.status != 200 {
		t.Errorf("/metrics: got %d, want 200", got.status)
	}
}
