package main_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// At most 16 requests of a user run or wait at one time, and they use at most half of the hub's connections for
// inboxes. So other users still get answers while these requests wait for a lock. A request that waits too long for a
// lock is answered with 503, and the failure is in the log, in /readyz and in the metrics.
func TestInboxRequestsAreLimited(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	h := startHub(t, dsn, "--inbox", "--insecure-uid")
	inserter(t, dsn)("alice=1")
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), `SELECT rowcast.inbox_mark('alice', 'read', ids => ARRAY(SELECT id FROM rowcast.notifications))`); err != nil {
		t.Fatal(err)
	}
	answers := make(chan answer, 20)
	post := func(user string) answer {
		return send(t, http.MethodPost, h.url+"/inbox/read?uid="+user, `{"ids": ["1"]}`, "Content-Type", "application/json")
	}
	for range cap(answers) {
		go func() { answers <- post("alice") }()
	}
	for refused, tries := 0, 0; refused < 4; tries++ {
		got, _ := receive(t, answers, "an answer")
		if got.status == 503 && tries < 200 { // on a slow machine, the first requests may end before the last ones arrive
			go func() { answers <- post("alice") }()
			continue
		}
		refused++
		if got.status != 429 || got.header.Get("Retry-After") != "1" || got.body != "too many requests of this user are running or waiting: try again later\n" {
			t.Errorf("got %d, %q, %s, want 429, Retry-After: 1 and that too many requests of this user are running or waiting", got.status, got.header, got.body)
		}
	}
	waitForLocks(t, dsn, "2")
	for range 10 {
		if got := post("bob"); got.status != 200 {
			t.Errorf("another user: got %d, %s, want 200", got.status, got.body)
		}
	}
	got, _ := receive(t, answers, "an answer after the lock_timeout")
	if got.status != 503 || got.header.Get("Retry-After") == "" || got.body != "the inbox cannot be read or changed now: try again later\n" {
		t.Errorf("got %d, %q, %s, want 503, Retry-After and that the inbox cannot be read or changed now", got.status, got.header, got.body)
	}
	wantFailing(t, h.url, "inbox", "55P03") // lock_not_available
	h.err.await(t, `level=WARN msg="cannot read or change an inbox" error=`)
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range 15 {
		if got, _ := receive(t, answers, "the last answers"); got.status != 200 && got.status != 503 {
			t.Errorf("got %d, %s, want 200 or 503", got.status, got.body)
		}
	}
	if got := post("alice"); got.status != 200 {
		t.Errorf("after the lock was released: got %d, %s, want 200", got.status, got.body)
	}
	if got := ask(t, http.MethodGet, h.url+"/metrics").body; !strings.Contains(got, `rowcast_inbox_requests_total{action="read",code="4xx"} 4`+"\n") {
		t.Error("/metrics does not count exactly 4 refused requests with the action read")
	}
}

// While requests for inboxes wait for a lock, an open stream receives rows, and a client can resume.
func TestStreamsContinueWhileInboxesWait(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	h := startHub(t, dsn, "--inbox", "--insecure-uid")
	stream := openStream(t, h, "?uid=alice", "")
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	tx, err := conn.Begin(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tx.Exec(t.Context(), "LOCK TABLE rowcast.inbox_users IN ACCESS EXCLUSIVE MODE"); err != nil {
		t.Fatal(err)
	}
	ended := make(chan answer, 8)
	for i := range cap(ended) {
		go func() { ended <- ask(t, http.MethodGet, h.url+"/inbox?uid="+uid(i)) }()
	}
	waitForLocks(t, dsn, "4")
	inserter(t, dsn)("alice=1")
	stream.wants("1")
	resumed := openStream(t, h, "?uid=alice", stream.lastID)
	inserter(t, dsn)("alice=2")
	resumed.wants("2")
	if err := tx.Rollback(t.Context()); err != nil {
		t.Fatal(err)
	}
	for range cap(ended) {
		if got, _ := receive(t, ended, "the answers"); got.status != 200 && got.status != 503 { // 503 if the lock was held for too long
			t.Errorf("got %d, %s, want 200 or 503", got.status, got.body)
		}
	}
}
