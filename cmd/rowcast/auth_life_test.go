package main_test

import (
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"rowcast/stream/sse"
)

// hear opens a stream and returns its events when it has ended.
func hear(t *testing.T, h *hub, headers ...string) (events []sse.Event) {
	t.Helper()
	request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, h.url+"/events", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set(headers[0], headers[1])
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for event, err := range sse.Events(response.Body) {
		if err != nil {
			t.Fatal(err)
		}
		events = append(events, event)
	}
	return events
}

// wantByeAndEnd checks that a stream was told of its end, and then from where to come back.
func wantByeAndEnd(t *testing.T, events []sse.Event, bye string) {
	t.Helper()
	n := len(events)
	if n < 3 || events[n-2].Name != "rowcast.bye" || events[n-2].Data != bye || events[n-1].Name != "rowcast.beat" || events[n-1].LastID == "" {
		t.Errorf("got %v, want %s and a last beat", events, bye)
	}
}

// A stream ends with its token, which it is told, and the token then opens no other.
func TestAStreamEndsWithItsToken(t *testing.T) {
	t.Parallel()
	h := secure(t, "--jwt-secret", secret, "--jwt-leeway", "0s")
	exp := time.Now().Add(3 * time.Second).Truncate(time.Second)
	token := signed(t, jwt.MapClaims{"exp": exp.Unix()})
	events := hear(t, h, bearer(token)...)
	if late := time.Since(exp); late < 0 || late > 5*time.Second {
		t.Errorf("it ended %v after the token", late)
	}
	if data := events[len(events)-2].Data; data != `{"reason": "expired", "expires_in": 0}` {
		wantByeAndEnd(t, events, `{"reason": "expired", "expires_in": 1}`)
	}
	tail := start(t, nil, "tail", "--url", h.url+"/events", "--token", token)
	if code := tail.wait(); code != 1 || !strings.HasSuffix(tail.err.String(), "/events answered 401 Unauthorized: the token has expired\n") {
		t.Errorf("tail: got %d, %s", code, tail.err)
	}
	status, says := listenTo(t, h, "", bearer(token)...)
	if status != 401 || !strings.HasSuffix(says, "the token has expired\n") {
		t.Errorf("again: got %d, %s, want 401", status, says)
	}
}

// The app is asked again while the stream goes on. It ends when the app says no.
func TestAStreamIsRenewedByTheApp(t *testing.T) {
	t.Parallel()
	app := newAuthApp(t, isAlice(1))
	h := secure(t, "--auth-url", app.URL)
	go func() {
		for len(app.questions()) < 3 {
			time.Sleep(time.Millisecond)
		}
		app.answers(saying(401, ""))
	}()
	wantByeAndEnd(t, hear(t, h, "Cookie", "session=1"), `{"reason": "expired", "expires_in": 0}`)
	if got := len(app.questions()); got != 4 {
		t.Errorf("%d questions, want 4", got)
	}
}

// Other groups are another stream: it ends, and the next one has them.
func TestAStreamEndsWhenTheGroupsChange(t *testing.T) {
	t.Parallel()
	app := newAuthApp(t, isAlice(1))
	h := secure(t, "--auth-url", app.URL)
	go func() {
		for len(app.questions()) < 1 {
			time.Sleep(time.Millisecond)
		}
		app.answers(saying(200, `{"recipient": "alice", "expires_in": 300}`))
	}()
	wantByeAndEnd(t, hear(t, h, "Cookie", "session=1"), `{"reason": "expired", "expires_in": 0}`)
	if _, says := listenTo(t, h, "", "Cookie", "session=1"); says != aliceOnly {
		t.Errorf("then: got %s", says)
	}
}

// While the app is away open streams go on, but not for long.
func TestAStreamOutlivesTheAppByTheGrace(t *testing.T) {
	t.Parallel()
	app := newAuthApp(t, isAlice(1))
	h := secure(t, "--auth-url", app.URL, "--auth-grace", "2s")
	go func() {
		for len(app.questions()) < 1 {
			time.Sleep(time.Millisecond)
		}
		app.answers(saying(503, ""))
	}()
	opened := time.Now()
	wantByeAndEnd(t, hear(t, h, "Cookie", "session=1"), `{"reason": "expired", "expires_in": 0}`)
	if lasted := time.Since(opened); lasted < 3*time.Second {
		t.Errorf("it ended after %v, want the second and the grace", lasted)
	}
}

// The token of rowcast token is one that the hub with the same variables takes, and nothing else is on stdout.
func TestTokenForTryingOut(t *testing.T) {
	t.Parallel()
	h := secure(t, "--jwt-secret", secret, "--jwt-key", fileOf(t, pemOf(t, pairs().rsa.Public()), pemOf(t, pairs().ed.Public())), "--jwt-issuer", "me", "--jwt-audience", "a,b")
	for name, args := range map[string][]string{
		"secret": nil, "RSA": {"--jwt-private-key", fileOf(t, pemOf(t, pairs().rsa))}, "Ed25519": {"--jwt-private-key", fileOf(t, pemOf(t, pairs().ed))},
	} {
		env := environment{"ROWCAST_JWT_SECRET": secret, "ROWCAST_JWT_ISSUER": "me", "ROWCAST_JWT_AUDIENCE": "b"}
		code, stdout, stderr := run(t, env, append([]string{"token", "--sub", "alice", "--group", "team:7", "--expires", "1m"}, args...)...)
		token := strings.TrimSuffix(stdout, "\n")
		if code != 0 || stderr != "" || strings.ContainsAny(token, " \n") {
			t.Fatalf("%s: got %d, %q, %q", name, code, stdout, stderr)
		}
		tail := start(t, environment{"ROWCAST_TOKEN": token}, "tail", "--verbose", "--json", "--url", h.url+"/events")
		tail.out.await(t, `"recipients":\["alice","team:7"\]`)
	}
	for want, args := range map[string][]string{
		"nothing to sign with: give --jwt-secret, --jwt-secret-file or --jwt-private-key": {"--sub", "alice"},
		`the user's id has a ":" in it, as only a group's key may`:                        {"--sub", "team:7", "--jwt-secret", secret},
		`a group's key has no ":" in it, so it could be a user's id`:                      {"--sub", "alice", "--group", "bob", "--jwt-secret", secret},
		"--expires: 0s is not a time such as 10m or 1h":                                   {"--sub", "alice", "--expires", "0s", "--jwt-secret", secret},
	} {
		if code, stdout, stderr := run(t, nil, append([]string{"token"}, args...)...); code != 1 || stdout != "" || stderr != "rowcast: "+want+"\n" {
			t.Errorf("%v: got %d, %q, %q, want %q", args, code, stdout, stderr, want)
		}
	}
}

// Pages of other origins get nothing by a cookie, and those that may can read every answer.
func TestCookiesAcrossOrigins(t *testing.T) {
	t.Parallel()
	const ours, denied = "https://app.example", "pages of this origin may not open streams here; --cors-origin lets them\n"
	app := newAuthApp(t, isAlice(300))
	hubs := map[string]*hub{
		"token": secure(t, "--jwt-secret", secret, "--jwt-cookie", "session", "--cors-origin", ours),
		"app":   secure(t, "--auth-url", app.URL, "--cors-origin", ours),
	}
	tests := []struct {
		origin, site string
		status       int
	}{
		{"", "", 200}, // no browser
		{"", "same-origin", 200},
		{"", "none", 200},
		{"", "cross-site", 403}, // an image, or a link
		{"", "same-site", 403},
		{ours, "cross-site", 200},
		{ours, "", 200},
		{"itself", "", 200},
		{"https://evil.example", "cross-site", 403},
		{"https://evil.example", "", 403},
		{"https://app.example.evil.example", "", 403},
		{"null", "", 403},
		{"null", "cross-site", 403},
		{"https://evil.example", "same-origin", 200}, // no browser
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
			if status != tt.status || status == 403 && !strings.HasSuffix(says, denied) {
				t.Errorf("%s, %+v: got %d, %s", name, tt, status, says)
			}
		}
		app.answers(saying(500, ""))
		for _, cookie := range []string{"session=x", ""} { // 401, or "come back later"
			got := ask(t, "GET", h.url+"/events", "Origin", ours, "Cookie", cookie).header
			if got.Get("Access-Control-Allow-Origin") != ours || got.Get("Access-Control-Allow-Credentials") != "true" {
				t.Errorf("%s, cookie %q: got %v", name, cookie, got)
			}
		}
	}
}
