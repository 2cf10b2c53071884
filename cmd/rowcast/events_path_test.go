package main_test

import (
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

// With --events-path, the stream is at this path, and the answers 404 and 401 name this path.
func TestEventsPath(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn, "--events-path", "/v1/live-updates")
	tail := start(t, nil, "tail", "--uid", "alice", "--verbose", "--json", "--url", h.url+"/v1/live-updates")
	tail.out.await(t, "rowcast.hello")
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
	tail.out.await(t, `"data":1`)

	if got := ask(t, "GET", h.url+"/events?uid=alice"); got.status != 404 || got.body != "not found: the stream is at /v1/live-updates\n" {
		t.Errorf("/events: got %d, %q, want 404 and the path of the stream", got.status, got.body)
	}
	if got := ask(t, "GET", h.url+"/v1/live-updates"); got.status != 401 || got.body != "uid is missing: open /v1/live-updates?uid=alice\n" {
		t.Errorf("without a uid: got %d, %q, want 401 and the path of the stream", got.status, got.body)
	}
	if got := ask(t, "GET", h.url+"/v1/live-updates?uid=alice", "Host", "evil.example"); got.status != 403 {
		t.Errorf("with the host evil.example: got %d, want 403", got.status)
	}
	askUntil(t, h.url+"/metrics", "(?m)^rowcast_auth_denied_total 2$") // both denials are counted
}

// A hub does not start if the path of the stream is the path of another answer, at --listen or at --admin-listen. That
// includes /disconnect without --admin-listen and /inbox without --inbox, so that the operator can add these flags
// later.
func TestEventsPathOfAnotherAnswer(t *testing.T) {
	t.Parallel()
	for _, path := range []string{"/rowcast.js", "/healthz", "/readyz", "/metrics", "/disconnect", "/inbox", "/inbox/read"} {
		for _, admin := range [][]string{nil, {"--admin-listen", "127.0.0.1:0"}} {
			args := append([]string{"serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", nobodyThere, "--events-path", path}, admin...)
			code, _, stderr := run(t, nil, args...)
			want := "rowcast: --events-path: the hub uses " + path + " for another purpose: choose another path, such as /stream\n"
			if code != 2 || !strings.HasSuffix(stderr, want) {
				t.Errorf("%s %v: got %d, %q, want 2, %q", path, admin, code, stderr, want)
			}
		}
	}
}
