package main_test

import (
	"fmt"
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

// testCookies checks, in a real browser, which pages can open a stream with the user's cookie.
func testCookies(t *testing.T, chromium browser) {
	t.Parallel()
	s := newStage(t)
	dsn := dbtest.Database(t)
	tokens := []string{"--jwt-secret", secret, "--jwt-cookie", "session"}
	other, allowing := startHub(t, dsn, tokens...), startHub(t, dsn, append(tokens, "--cors-origin", s.URL)...)
	profile := chromium.profile(t)
	signedOut := profile.open(t, s.URL)
	signedOut.await("window.listen")
	value[bool](signedOut, fmt.Sprintf("listen('%s/events', { withCredentials: true, user: 'alice' }), true", allowing.url))
	signedOut.await("stream.state === 'signed-out'")

	s.page = profile.open(t, s.URL)
	s.await("window.listen")
	// Cookies do not depend on the port, so this cookie of the page's host is also a cookie of both hubs.
	value[string](s.page, fmt.Sprintf("document.cookie = 'session=%s'", signed(t, nil)))

	value[bool](s.page, fmt.Sprintf("listen('%s/events', { withCredentials: true }), true", allowing.url))
	s.await("stream.state === 'open'")
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'notify', '7')`)
	s.await("heard.length === 1")
	s.want("heard", []any{[]any{"notify", 7.}})

	// A page that is opened after the user has signed in does not stay signed out because of an older page.
	value[bool](s.page, fmt.Sprintf(`window.named = new RowcastSource("%s/events", { withCredentials: true, user: "alice" }),
		states.length = 0, named.onstate = ({ state }) => states.push(state), true`, allowing.url))
	s.await("named.state === 'open'")
	s.want("states", []any{"open"})
	signedOut.await("stream.state === 'open'")
	value[bool](signedOut, "stream.close(), true")

	for what, ask := range map[string]string{
		"an EventSource":  `new Promise(done => { const source = new EventSource('%s/events', { withCredentials: true }); source.onopen = () => done("open"); source.onerror = () => done(source.readyState === 2 ? "closed" : "again") })`,
		"a fetch":         `fetch('%s/events', { credentials: "include" }).then(() => "open", () => "closed")`,
		"a no-cors fetch": `fetch('%s/events', { credentials: "include", mode: "no-cors" }).then(answer => answer.body === null ? "closed" : "open")`,
	} {
		value[bool](s.page, fmt.Sprintf("window.result = null, "+ask+".then(result => window.result = result), true", other.url))
		s.await("result !== null")
		if got := value[string](s.page, "result"); got != "closed" {
			t.Errorf("%s from a page of another origin: got %s, want closed", what, got)
		}
	}
	if got, want := ask(t, "GET", other.url+"/metrics").body, "rowcast_auth_denied_total 3\n"; !strings.Contains(got, want) || !strings.Contains(got, "rowcast_streams_opened_total 0\n") {
		t.Errorf("got %s, want three denied requests and no opened stream", got)
	}
	if got, want := other.err.String(), "may not use this hub (the hub's option --cors-origin"; !strings.Contains(got, want) {
		t.Errorf("got the log %s, want %s in it", got, want)
	}
	value[bool](s.page, "stream.close(), named.close(), true")
}
