package main_test

import (
	"fmt"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// A received value is an event with the time of its arrival.
type received struct {
	sse.Event
	at time.Time
}

// receiveAll opens a stream and returns its events after it has ended. headers are the name and value of one header.
func receiveAll(t *testing.T, h *hub, headers ...string) (events []received) {
	t.Helper()
	request, err := http.NewRequestWithContext(dbtest.Context(t), http.MethodGet, h.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set(headers[0], headers[1])
	response, err := streamClient.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for event, err := range sse.Events(response.Body) {
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, received{event, time.Now()})
	}
	return events
}

// wantByeAndEnd checks that a stream ends with rowcast.bye, which has the given reason, and then a heartbeat, and that
// the client then has a cursor. It returns rowcast.bye and its expires_in.
func wantByeAndEnd(t *testing.T, events []received, reason string) (bye received, in int) {
	t.Helper()
	n := len(events)
	if n < 3 || events[n-2].Name != "rowcast.bye" || events[n-1].Name != "rowcast.beat" || events[n-1].LastID == "" {
		t.Fatalf("got %v, want at least 3 events, rowcast.bye and rowcast.beat as the last two, and an id at the end of the stream", events)
	}
	bye = events[n-2]
	if _, err := fmt.Sscanf(bye.Data, `{"reason": "`+reason+`", "expires_in": %d}`, &in); err != nil {
		t.Errorf("got %s, want the reason %s, and expires_in", bye.Data, reason)
	}
	return bye, in
}

// A stream receives rowcast.bye before its token expires. It ends when --jwt-leeway has passed since the expiry. The
// token then opens no other stream.
func TestAStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	const leeway = 6 * time.Second
	h := secure(t, "--jwt-secret", secret, "--jwt-leeway", leeway.String(), "--heartbeat", "1m") // no heartbeat comes between rowcast.bye and the last one
	exp := time.Now().Add(12 * time.Second).Truncate(time.Second)
	token := signed(t, jwt.MapClaims{"exp": exp.Unix()})
	events := receiveAll(t, h, bearer(token)...)
	if late := time.Since(exp.Add(leeway)); late < 0 || late > 15*time.Second {
		t.Errorf("the stream ended %v after exp plus the leeway, want 0s to 15s", late)
	}
	bye, in := wantByeAndEnd(t, events, "expired")
	if said := bye.at.Add(time.Duration(in) * time.Second); !bye.at.Before(exp) || in < 1 || said.Sub(exp).Abs() >= leeway-time.Second {
		t.Errorf("rowcast.bye arrived %v before exp, with expires_in %d s, want both above 0 and less than %v apart", exp.Sub(bye.at), in, leeway-time.Second)
	}
	tail := start(t, nil, "tail", "--url", h.url+"/events", "--token", token)
	if code := tail.wait(); code != 1 || !strings.HasSuffix(tail.err.String(), "/events answered 401 Unauthorized: the token has expired\n") {
		t.Errorf("tail with the expired token: got exit code %d, %s, want 1, and the error 401: the token has expired", code, tail.err)
	}
	status, says := listenTo(t, h, "", bearer(token)...)
	if status != 401 || !strings.HasSuffix(says, "the token has expired\n") {
		t.Errorf("the expired token: got %d, %s, want 401: the token has expired", status, says)
	}
}

// inTurn returns a handler that answers each request with the next of the answers, and all further requests with the
// last one.
func inTurn(answers ...http.HandlerFunc) http.HandlerFunc {
	var asked atomic.Int32
	return func(w http.ResponseWriter, r *http.Request) { answers[min(int(asked.Add(1)), len(answers))-1](w, r) }
}

// The hub asks the app again while a stream is open. The header Rowcast-Check tells the app whether the request is for
// a new or an open stream. When the app denies the request, the stream ends.
func TestAStreamIsRenewedByTheApp(t *testing.T) {
	t.Parallel()
	app := newAuthApp(t, inTurn(isAlice(1), isAlice(1), isAlice(1), saying(401, "")))
	h := secure(t, "--auth-url", app.URL)
	wantByeAndEnd(t, receiveAll(t, h, "Cookie", "session=1"), "revoked")
	var purposes []string
	for _, question := range app.questions() {
		purposes = append(purposes, question.Header.Get("Rowcast-Check"))
	}
	if want := []string{"open", "renew", "renew", "renew"}; !slices.Equal(purposes, want) {
		t.Errorf("the requests had the Rowcast-Check %q, want %q", purposes, want)
	}
}

// When the groups of the user change, the stream ends, and the next stream has the new groups.
func TestAStreamEndsWhenTheGroupsChange(t *testing.T) {
	t.Parallel()
	app := newAuthApp(t, inTurn(isAlice(1), saying(200, `{"recipient": "alice", "groups": ["team:8"], "expires_in": 300}`)))
	h := secure(t, "--auth-url", app.URL)
	wantByeAndEnd(t, receiveAll(t, h, "Cookie", "session=1"), "revoked")
	if _, says := listenTo(t, h, "", "Cookie", "session=1"); says != `{"recipients":["alice","team:8"],"heartbeat":15}` {
		t.Errorf("after the change of the groups: got %s, want team:8 instead of team:7", says)
	}
}

// While the app gives no valid answer, an open stream continues until --auth-grace has passed since its grant expired.
func TestStreamContinuesDuringTheGrace(t *testing.T) {
	t.Parallel()
	app := newAuthApp(t, inTurn(isAlice(1), saying(503, "")))
	h := secure(t, "--auth-url", app.URL, "--auth-grace", "2s")
	opened := time.Now()
	wantByeAndEnd(t, receiveAll(t, h, "Cookie", "session=1"), "revoked")
	if lasted := time.Since(opened); lasted < 3*time.Second {
		t.Errorf("the stream ended after %v, want at least 3s: 1s of the grant and 2s of --auth-grace", lasted)
	}
}

// Only pages of the hub's own origin and of the configured origins can open a stream with a cookie. Pages of the
// configured origins can also read an answer that denies the stream or asks to retry later.
func TestCookiesAcrossOrigins(t *testing.T) {
	t.Parallel()
	const ours, denied = "https://app.example", " may not use this hub (the hub's option --cors-origin allows an origin)\n"
	app := newAuthApp(t, isAlice(300))
	hubs := map[string]*hub{
		"token": secure(t, "--jwt-secret", secret, "--jwt-cookie", "session", "--cors-origin", ours),
		"app":   secure(t, "--auth-url", app.URL, "--cors-origin", ours),
	}
	tests := []struct {
		origin, site string
		status       int
	}{
		{"", "", 200}, // for example a program, or a page of the hub's own origin over plain HTTP
		{"", "same-origin", 200},
		{"", "none", 200},
		{"", "cross-site", 403}, // for example an image or a link on a page of another site
		{"", "same-site", 403},
		{ours, "cross-site", 200},
		{ours, "", 200},
		{"itself", "", 200},
		{"https://evil.example", "cross-site", 403},
		{"https://evil.example", "", 403},
		{"https://app.example.evil.example", "", 403},
		{"null", "", 403},
		{"null", "cross-site", 403},
		{"https://evil.example", "same-origin", 200}, // no browser sends these two values together
	}
	for name, h := range hubs {
		for _, tt := range tests {
			headers := []string{"Cookie", "session=" + signed(t, nil)}
			if tt.site != "" {
				headers = append(headers, "Sec-Fetch-Site", tt.site)
			}
			if tt.origin != "" {
				headers = append(headers, "Origin", strings.Replace(tt.origin, "itself", h.url, 1))
			}
			status, says := listenTo(t, h, "", headers...)
			if status != tt.status || status == 200 && says == later || status == 403 && !strings.HasSuffix(says, denied) {
				t.Errorf("%s, %+v: got %d, %s, want %d, with rowcast.hello or the reason of the denial", name, tt, status, says, tt.status)
			}
		}
	}
	app.answers(saying(500, ""))
	for name, h := range hubs {
		for _, cookie := range []string{"session=x", ""} { // the hub that asks the failing app answers "retry later" to session=x; all other answers are 401
			got := ask(t, "GET", h.url+"/events", "Origin", ours, "Cookie", cookie).header
			if got.Get("Access-Control-Allow-Origin") != ours || got.Get("Access-Control-Allow-Credentials") != "true" {
				t.Errorf("%s, cookie %q: got the headers %v, want CORS headers for %s with credentials", name, cookie, got, ours)
			}
		}
	}
}
