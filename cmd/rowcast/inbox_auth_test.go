package main_test

import (
	"net/http"
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

// With --auth-url, the hub asks the app for the user and the user's groups, for an inbox as for a stream. A client that
// the app denies has no inbox. While the app fails, the hub answers with 503.
func TestInboxOfTheAppsUsers(t *testing.T) {
	t.Parallel()
	app := newAuthApp(t, isAlice(300))
	dsn := dbtest.Inbox(t)
	h := startHub(t, dsn, "--inbox", "--auth-url", app.URL)
	alice := inboxClient{t, h.url, []string{"Cookie", "session=1"}}
	alice.list("")
	inserter(t, dsn)("alice=1", "team:7=2", "bob=3")
	list := alice.list("")
	if got := list.state(); got != "2, 1" {
		t.Errorf("got the rows %s, want 2, 1, which are for the group and the user", got)
	}
	if got := alice.mark("read", list.idOf(t, "2")); got.Unread != 1 {
		t.Errorf("%d rows are unread, want 1", got.Unread)
	}
	first := app.questions()[0].Header
	if first.Get("Cookie") != "session=1" || first.Get("Rowcast-Check") != "open" || first.Get("Rowcast-Topics") != "" {
		t.Errorf("the first request to the app has the headers %q, want the cookie, Rowcast-Check: open and no Rowcast-Topics", first)
	}
	for status, answer := range map[int]http.HandlerFunc{401: saying(401, ""), 403: saying(403, ""), 503: saying(500, "")} {
		app.answers(answer)
		other := inboxClient{t, h.url, []string{"Cookie", "session=" + http.StatusText(status)}}
		for _, got := range []answerOf{{"the list", ask(t, "GET", h.url+"/inbox", other.headers...)}, {"a change", other.post("read", `{"ids": ["1"]}`)}} {
			if got.status != status || (got.header.Get("Retry-After") != "") != (status == 503) || strings.Contains(got.body, "items") {
				t.Errorf("%s: got %d, %q, %s, want %d, Retry-After only if the status is 503, and no items", got.what, got.status, got.header, got.body, status)
			}
		}
	}
	app.answers(isAlice(300))
	before := len(app.questions())
	again := inboxClient{t, h.url, []string{"Cookie", "session=2"}}
	stream := openStream(t, h, "", "", again.headers...)
	again.list("")
	if asked := len(app.questions()) - before; asked > 2 || stream.recipients != "alice team:7" {
		t.Errorf("got the recipients %q and %d requests to the app for a stream and a list, want alice team:7 and at most 2", stream.recipients, asked)
	}
}

// An answerOf is an answer with a description of its request.
type answerOf struct {
	what string
	answer
}

// A client without a credential has no inbox, even if it may open a public stream. With --insecure-uid, the parameter
// uid names the user.
func TestInboxNeedsAUser(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	for want, h := range map[string]*hub{
		"send a token in the header Authorization: Bearer TOKEN\n": startHub(t, dsn, "--inbox", "--jwt-secret", secret),
		"an inbox belongs to a user: send a credential\n":          startHub(t, dsn, "--inbox", "--jwt-secret", secret, "--public"),
		"uid is missing: open /inbox":                              startHub(t, dsn, "--inbox", "--insecure-uid"),
	} {
		client := inboxClient{T: t, url: h.url}
		for what, got := range map[string]answer{"the list": ask(t, "GET", h.url+"/inbox"), "a change": client.post("read", `{"ids": ["1"]}`)} {
			if got.status != 401 || !strings.HasPrefix(got.body, want) || got.header.Get("WWW-Authenticate") != "Bearer" || got.header.Get("Cache-Control") != "no-store" {
				t.Errorf("%s: got %d, %q, %s, want 401, WWW-Authenticate: Bearer, Cache-Control: no-store and %s at the beginning of the body", what, got.status, got.header, got.body, want)
			}
		}
		h.err.await(t, `msg="a request for an inbox was denied" status=401`)
	}
	h := startHub(t, dsn, "--inbox", "--insecure-uid")
	inserter(t, dsn)("alice=1")
	if got := (inboxClient{T: t, url: h.url}).list("?uid=alice").state(); got != "1" {
		t.Errorf("got the rows %q with ?uid=alice, want 1", got)
	}
}

// With --auth-url, a page of another origin cannot read or change an inbox, unless --cors-origin allows the origin. The
// hub decides by the headers Origin and Sec-Fetch-Site, because browsers send some requests without a preflight
// request.
func TestInboxRefusesOtherOrigins(t *testing.T) {
	t.Parallel()
	const ours, foreign = "https://app.example.com", "https://evil.example.com"
	app := newAuthApp(t, isAlice(300))
	h := startHub(t, dbtest.Inbox(t), "--inbox", "--auth-url", app.URL, "--cors-origin", ours)
	for _, test := range []struct {
		headers []string
		status  int
	}{
		{[]string{"Origin", foreign}, 403},
		{[]string{"Origin", "null"}, 403},
		{[]string{"Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Sec-Fetch-Site", "same-site"}, 403},
		{[]string{"Origin", foreign, "Sec-Fetch-Site", "cross-site"}, 403},
		{[]string{"Origin", ours, "Sec-Fetch-Site", "cross-site"}, 200},
		{[]string{"Sec-Fetch-Site", "same-origin"}, 200},
		{[]string{"Origin", h.url}, 200},
		{nil, 200},
	} {
		client := inboxClient{t, h.url, append([]string{"Cookie", "session=1"}, test.headers...)}
		for what, got := range map[string]answer{"the list": ask(t, "GET", h.url+"/inbox", client.headers...), "a change": client.post("read", `{"ids": ["1"]}`)} {
			if got.status != test.status {
				t.Errorf("%q: %s: got %d, %s, want %d", test.headers, what, got.status, got.body, test.status)
			}
			allowed := got.header.Get("Access-Control-Allow-Origin") == ours && got.header.Get("Access-Control-Allow-Credentials") == "true"
			if want := len(test.headers) > 0 && test.headers[1] == ours; allowed != want {
				t.Errorf("%q: %s: the page may read the answer: %t, want %t", test.headers, what, allowed, want)
			}
		}
	}
	// An HTML form of another page can send cookies, but not the type application/json.
	form := send(t, "POST", h.url+"/inbox/read", `{"ids": ["1"]}`, "Cookie", "session=1", "Content-Type", "text/plain")
	if form.status != 415 {
		t.Errorf("got %d for a form, want 415", form.status)
	}
	for origin, want := range map[string]string{ours: ours, foreign: ""} {
		got := ask(t, "OPTIONS", h.url+"/inbox/read", "Origin", origin,
			"Access-Control-Request-Method", "POST", "Access-Control-Request-Headers", "authorization,content-type").header
		if got.Get("Access-Control-Allow-Origin") != want || (got.Get("Access-Control-Allow-Methods") == "POST") != (want != "") {
			t.Errorf("%s: got %q for a preflight request, want Access-Control-Allow-Origin: %q, and POST only for an allowed origin", origin, got, want)
		}
	}
	if got := ask(t, "GET", h.url+"/inbox", "Cookie", "session=1", "Origin", ours).header.Get("Access-Control-Expose-Headers"); got != "Retry-After, Date" {
		t.Errorf("got Access-Control-Expose-Headers: %q for an allowed origin, want Retry-After and Date, which the element reads", got)
	}
	for _, vary := range []string{"Origin", "Cookie"} {
		got := ask(t, "GET", h.url+"/inbox", "Cookie", "session=1", "Origin", ours).header.Values("Vary")
		if !strings.Contains(strings.Join(got, ", "), vary) {
			t.Errorf("got Vary %q, want %s in it", got, vary)
		}
	}
}

// A page may send the name of its user in the parameter user. If the token belongs to another user, the hub answers
// with 412 and changes nothing.
func TestInboxRequestNamesItsUser(t *testing.T) {
	t.Parallel()
	h, dsn := inboxHub(t)
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'notify', '"one"')`)
	alice := h.inboxOf(t, "alice")
	id := alice.list("?user=alice").idOf(t, "one")
	if got := alice.post("read?user=bob", `{"ids": ["`+id+`"]}`); got.status != http.StatusPreconditionFailed {
		t.Errorf("for another user: got %d, %s, want 412", got.status, got.body)
	}
	if got := alice.list("").Unread; got != 1 {
		t.Errorf("after a request for another user: got %d unread rows, want 1", got)
	}
	if got := alice.change("read?user=alice", `{"ids": ["`+id+`"]}`).Unread; got != 0 {
		t.Errorf("after a request for the user: got %d unread rows, want 0", got)
	}
}
