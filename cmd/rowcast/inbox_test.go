package main_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/golang-jwt/jwt/v5"

	"rowcast/sql/dbtest"
)

// Without --inbox, the paths of the inbox do not exist, and the database needs no inbox.
func TestInboxIsOffByDefault(t *testing.T) {
	t.Parallel()
	h := serve(t, dbtest.Database(t))
	for _, request := range []string{"GET /inbox?uid=alice", "POST /inbox/read?uid=alice"} {
		method, path, _ := strings.Cut(request, " ")
		if got := ask(t, method, h.url+path); got.status != 404 || got.body != "not found: start the hub with --inbox to serve the inbox\n" {
			t.Errorf("%s: got %d, %s, want 404 and the advice to use --inbox", request, got.status, got.body)
		}
	}
	if metrics := ask(t, "GET", h.url+"/metrics").body; strings.Contains(metrics, "rowcast_inbox") {
		t.Error("/metrics has metrics of the inbox, want none")
	}
}

// serve --inbox fails at the start if the inbox is not installed, and says how to install it. If the database is still
// starting, serve waits for it.
func TestInboxMustBeInstalled(t *testing.T) {
	t.Parallel()
	code, _, stderr := run(t, nil, "serve", "--insecure-uid", "--inbox", "--listen", "127.0.0.1:0", "--database-url", dbtest.Database(t))
	const want = "rowcast: the inbox is not installed; run: rowcast migrate --inbox --hub-role ROLE, where ROLE is the role of this hub\n"
	if code != 1 || stderr != want {
		t.Errorf("got %d, %q, want 1, %q", code, stderr, want)
	}
	dsn := newRefuser(t, "57P03").dsn() // the server is starting
	h := start(t, nil, "serve", "--insecure-uid", "--inbox", "--listen", "127.0.0.1:0", "--database-url", dsn)
	url := "http://" + h.err.await(t, `msg="waiting for PostgreSQL" listen=([0-9.:]+)`)[1]
	if got := ask(t, "GET", url+"/inbox?uid=alice"); got.status != 503 || got.header.Get("Retry-After") == "" {
		t.Errorf("got %d, %q, while the database is starting, want 503 and Retry-After", got.status, got.header)
	}
}

// A client can list rows, change their state and undo a change, and gets the counts. The streams of the user receive
// an event about each change. The streams of other users do not.
func TestInbox(t *testing.T) {
	t.Parallel()
	h, dsn := inboxHub(t)
	insert := inserter(t, dsn)
	alice, bob := h.inboxOf(t, "alice", "team:7"), h.inboxOf(t, "bob", "team:7")
	stream, others := openStream(t, h, "", "", alice.headers...), openStream(t, h, "", "", bob.headers...)
	if stream.recipients != "alice team:7" {
		t.Errorf("the stream has the recipients %s, want alice team:7", stream.recipients)
	}
	if first := alice.list(""); len(first.Items) != 0 || first.Unread != 0 || first.Cursor == "" {
		t.Errorf("got %+v, want an empty list with a cursor", first)
	}
	insert("alice=1", "team:7=2", "*=3", "carol=4", "team:8=5")
	stream.wants("1", "2", "3")
	others.wants("2", "3")
	list := alice.list("")
	if list.state() != "3, 2, 1" || list.Unseen != 3 || list.Unread != 3 {
		t.Fatalf("got the rows %q, %d unseen, %d unread, want the rows \"3, 2, 1\", 3 unseen, 3 unread", list.state(), list.Unseen, list.Unread)
	}
	if page := alice.list("?limit=2"); page.state() != "3, 2" || alice.list("?limit=2&before="+page.Before).state() != "1" {
		t.Errorf("got %s and %s as pages, want \"3, 2\" and \"1\"", page.state(), alice.list("?limit=2&before="+page.Before).state())
	}
	alice.all("seen", list.Cursor)
	read := alice.mark("read", list.idOf(t, "2"))
	if got := alice.list("").state(); read.Unread != 2 || got != "3 seen, 2 read, 1 seen" {
		t.Errorf("got %d unread and the rows %q, want 2 unread and the rows \"3 seen, 2 read, 1 seen\"", read.Unread, got)
	}
	for _, want := range []string{"seen", "read"} {
		if got := decodeEvent(t, stream.next("rowcast.inbox")); got.Action != want {
			t.Errorf("got the event %+v, want %s", got, want)
		}
	}
	archived := alice.all("archive", list.Cursor)
	if got := alice.list(""); len(got.Items) != 0 || got.Unread != 0 {
		t.Errorf("got %s after all were archived, want no rows", got.state())
	}
	if undone := alice.change("undo", fmt.Sprintf(`{"undo": %q}`, archived.Undo)); !undone.Undone || undone.Unread != 2 {
		t.Errorf("got %+v, want undone and 2 unread rows", undone)
	}
	if got := bob.list("").state(); got != "3 read, 2 read" {
		t.Errorf("got %s for another user, want 3 read, 2 read, because rows for groups and for everyone from before a user's first visit count as read", got)
	}
	insert("bob=6")
	others.wants("6") // and no event about the inbox of alice
}

// A request with the id of a row that the user does not receive changes nothing. The answer is the same as for an id
// that does not exist.
func TestForeignIDsInAnInbox(t *testing.T) {
	t.Parallel()
	h, dsn := inboxHub(t)
	insert := inserter(t, dsn)
	alice, bob := h.inboxOf(t, "alice", "team:7"), h.inboxOf(t, "bob")
	alice.list("")
	bob.list("")
	insert("bob=1", "team:8=2", "alice=3")
	id := bob.list("").Items[0].ID
	for _, action := range []string{"seen", "read", "unread", "archive", "unarchive"} {
		missing, got := alice.post(action, `{"ids": ["999999"]}`), alice.post(action, `{"ids": ["`+id+`"]}`)
		if got.status != 200 || got.body != missing.body {
			t.Errorf("%s: got %d, %s, for the id of another user's row, and %s for an id without a row, want 200 and the same body", action, got.status, got.body, missing.body)
		}
	}
	if got := bob.list(""); got.state() != "1" || got.Unseen != 1 || got.Unread != 1 {
		t.Errorf("got %s, %d unseen, %d unread, want only the row 1, unseen and unread", got.state(), got.Unseen, got.Unread)
	}
	if got := valueOf(t, dsn, "SELECT count(*)::text FROM rowcast.inbox_states"); got != "0" {
		t.Errorf("%s states are stored, want none", got)
	}
}

// A row for a group is in the list only while the user is in the group. If the user leaves the group and joins it
// again, the row has the same state as before.
func TestGroupsOfAnInboxChange(t *testing.T) {
	t.Parallel()
	h, dsn := inboxHub(t)
	insert := inserter(t, dsn)
	member, left := h.inboxOf(t, "alice", "team:7"), h.inboxOf(t, "alice")
	member.list("")
	insert("team:7=1", "team:7=2", "alice=3")
	list := member.list("")
	member.mark("read", list.idOf(t, "1"))
	if got := left.list(""); got.state() != "3" || got.Unread != 1 {
		t.Errorf("got %s, %d unread, without the group, want only the row 3, and 1 unread", got.state(), got.Unread)
	}
	if got := left.mark("read", list.idOf(t, "2")); got.Unread != 1 {
		t.Errorf("%d rows are unread without the group, want 1", got.Unread)
	}
	if got := member.list(""); got.state() != "3, 2, 1 read" || got.Unread != 2 {
		t.Errorf("got %q, %d unread, with the group again, want \"3, 2, 1 read\", 2 unread", got.state(), got.Unread)
	}
}

// The answer to a wrong request says what is wrong with it.
func TestWrongRequestsForAnInbox(t *testing.T) {
	t.Parallel()
	h, _ := inboxHub(t)
	alice := h.inboxOf(t, "alice")
	many := `{"ids": ["1"` + strings.Repeat(`, "1"`, 1000) + `]}`
	const json, ids = "application/json", `send {"ids": ["1", "2"]}`
	const all = ids + ` or {"all": "…"} with the cursor of the list that was shown`
	for _, test := range []struct {
		request, kind, body string
		status              int
		want                string
	}{
		{"GET /inbox?limit=0", "", "", 400, "limit must be a number from 1 to 100"},
		{"GET /inbox?limit=101", "", "", 400, "limit must be a number from 1 to 100"},
		{"GET /inbox?limit=", "", "", 400, "limit must be a number from 1 to 100"},
		{"GET /inbox?limit=1&limit=2", "", "", 400, "send limit only once"},
		{"GET /inbox?before=", "", "", 400, "before must be the value of before in the answer with the previous page"},
		{"GET /inbox?before=%00", "", "", 400, "before must be the value of before in the answer with the previous page"},
		{"GET /inbox?before=x", "", "", 400, `before must be the value of "before" in an earlier result`},
		{"GET /inbox?topic=a:1", "", "", 400, "remove topic from the URL: the inbox has the rows of the user, of the user's groups and for everyone"},
		{"GET /inbox?token=x", "", "", 400, "remove token from the URL: send a token in the Authorization header or a cookie instead"},
		{"GET /inbox?a;b", "", "", 400, "the query cannot be read: invalid semicolon separator in query"},
		{"POST /inbox", json, `{}`, 405, "method not allowed: use GET"},
		{"GET /inbox/read", "", "", 405, "method not allowed: use POST"},
		{"PUT /inbox/read", json, "{}", 405, "method not allowed: use POST"},
		{"POST /inbox/list", json, "{}", 404, "not found: the list is at /inbox, and POST requests go to /inbox/seen, read, unread, archive, unarchive or undo"},
		{"POST /inbox/other", json, "{}", 404, "not found: the list is at /inbox, and POST requests go to /inbox/seen, read, unread, archive, unarchive or undo"},
		{"POST /inbox/read/1", json, "{}", 404, "not found: the stream is at /events"},
		{"POST /inbox/read", "", `{"ids": ["1"]}`, 415, "send JSON with the header Content-Type: application/json"},
		{"POST /inbox/read", "text/plain", `{"ids": ["1"]}`, 415, "send JSON with the header Content-Type: application/json"},
		{"POST /inbox/read", json, "", 400, "the body is not a JSON object: " + all},
		{"POST /inbox/read", json, `["1"]`, 400, "the body is not a JSON object: " + all},
		{"POST /inbox/read", json, `{"ids": ["1"]} {}`, 400, "the body is not a JSON object: " + all},
		{"POST /inbox/read", json, `{}`, 400, "the body has 0 keys, and must have one: " + all},
		{"POST /inbox/read", json, `{"ids": ["1"], "all": "x"}`, 400, "the body has 2 keys, and must have one: " + all},
		{"POST /inbox/read", json, `{"ids": ["1"], "ids": ["2"]}`, 400, "a key of the body occurs twice: " + all},
		{"POST /inbox/read", json, `{"IDs": ["1"]}`, 400, `the body has the unknown key "IDs": ` + all},
		{"POST /inbox/read", json, `{"undo": "1"}`, 400, `the body has the unknown key "undo": ` + all},
		{"POST /inbox/unread", json, `{"all": "x"}`, 400, `the body has the unknown key "all": ` + ids},
		{"POST /inbox/unarchive", json, `{"all": "x"}`, 400, `the body has the unknown key "all": ` + ids},
		{"POST /inbox/read", json, `{"ids": "1"}`, 400, `ids is not an array: send ids such as ["1", "2"]`},
		{"POST /inbox/read", json, `{"ids": []}`, 400, "ids has 0 elements, and must have from 1 to 1000"},
		{"POST /inbox/read", json, many, 400, "ids has 1001 elements, and must have from 1 to 1000"},
		{"POST /inbox/read", json, `{"ids": ["1", 2]}`, 400, `element 2 of ids is not an id: send ids as text, such as "1"`},
		{"POST /inbox/read", json, `{"ids": ["01"]}`, 400, `element 1 of ids is not an id: send ids as text, such as "1"`},
		{"POST /inbox/read", json, `{"ids": ["9223372036854775808"]}`, 400, `element 1 of ids is not an id: send ids as text, such as "1"`},
		{"POST /inbox/read", json, `{"all": 1}`, 400, "all has a wrong value: " + all},
		{"POST /inbox/read", json, `{"all": "a\u0000"}`, 400, "all has a wrong value: " + all},
		{"POST /inbox/read", json, `{"all": "x"}`, 400, `malformed cursor "x"`},
		{"POST /inbox/undo", json, `{"ids": ["1"]}`, 400, `the body has the unknown key "ids": send {"undo": "…"} with the value of undo in an answer of read or archive`},
		{"POST /inbox/undo", json, `{"undo": null}`, 400, `undo has a wrong value: send {"undo": "…"} with the value of undo in an answer of read or archive`},
		{"POST /inbox/undo", json, `{"undo": "x"}`, 400, "malformed undo"},
		{"POST /inbox/read", json, `{"ids": ["` + strings.Repeat("1", 64<<10) + `"]}`, 413, "the body is longer than 64 KiB: send at most 1000 ids at once"},
	} {
		method, path, _ := strings.Cut(test.request, " ")
		headers := alice.headers
		if test.kind != "" {
			headers = append([]string{"Content-Type", test.kind}, headers...)
		}
		got := send(t, method, h.url+path, test.body, headers...)
		if got.status != test.status || got.body != test.want+"\n" {
			t.Errorf("%s %.50s: got %d, %s, want %d, %s", test.request, test.body, got.status, got.body, test.status, test.want)
		}
		allow := map[bool]string{true: "GET, HEAD", false: "POST"}[path == "/inbox"]
		if got.status == 405 && got.header.Get("Allow") != allow {
			t.Errorf("%s: got Allow: %q, want %q", test.request, got.header.Get("Allow"), allow)
		}
	}
	other, _ := inboxHub(t)
	got := alice.post("read", fmt.Sprintf(`{"all": %q}`, other.inboxOf(t, "alice").list("").Cursor))
	if want := "the cursor is of another history of the database: load the list again\n"; got.status != 409 || got.body != want {
		t.Errorf("a cursor of another database: got %d, %s, want 409, %s", got.status, got.body, want)
	}
	metrics := ask(t, "GET", h.url+"/metrics").body
	for _, want := range []string{`rowcast_inbox_requests_total{action="undo",code="4xx"} 3`, `rowcast_inbox_requests_total{action="read",code="5xx"} 0`, `rowcast_inbox_request_duration_seconds_count{action="other"} 2`} {
		if !strings.Contains(metrics, want+"\n") {
			t.Errorf("the metrics do not contain %s", want)
		}
	}
}

// A reserved name is refused as a user and as a group, so no client can read the inbox events of another user.
func TestReservedNamesHaveNoInbox(t *testing.T) {
	t.Parallel()
	h, _ := inboxHub(t)
	for claim, value := range map[string]any{"sub": "rowcast.inbox:bob", "groups": []string{"rowcast.inbox:bob"}} {
		headers := bearer(signed(t, jwt.MapClaims{claim: value}))
		for _, path := range []string{"/events", "/inbox"} {
			if got := ask(t, http.MethodGet, h.url+path, headers...); got.status != 403 || !strings.Contains(got.body, `begins with "rowcast.", which is reserved`) {
				t.Errorf("%s with the claim %s: got %d, %s, want 403 and that the name is reserved", path, claim, got.status, got.body)
			}
		}
	}
}

// rowcast tail prints the changes of an inbox. Each change is sent as a row, so --count counts it.
func TestTailPrintsInboxChanges(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	h := startHub(t, dsn, "--inbox", "--insecure-uid")
	inserter(t, dsn)("alice=1")
	alice := inboxClient{T: t, url: h.url}
	list := alice.list("?uid=alice")
	tail := start(t, nil, "tail", "--url", h.url+"/events", "--uid", "alice", "--count", "1", "--last-event-id", list.Cursor)
	alice.change("read?uid=alice", `{"ids": ["`+list.idOf(t, "1")+`"]}`)
	if code := tail.wait(); code != 0 || !strings.Contains(tail.out.String(), `"action":"read"`) && !strings.Contains(tail.out.String(), `"action": "read"`) {
		t.Errorf("got exit code %d, %s, want 0 and the change", code, tail.out)
	}
}

// rowcast demo installs the inbox and serves it.
func TestDemoHasAnInbox(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	d := startDemo(t, dsn)
	inserter(t, dsn)("alice=1")
	alice := inboxClient{T: t, url: d.url}
	list := alice.list("?uid=alice")
	alice.change("read?uid=alice", `{"ids": ["`+list.idOf(t, "1")+`"]}`)
	if got := alice.list("?uid=alice"); got.state() != "1 read" || got.Unread != 0 {
		t.Errorf("got the rows %q and %d unread, want the rows \"1 read\" and 0 unread", got.state(), got.Unread)
	}
}
