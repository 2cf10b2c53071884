package main_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"regexp"
	"strings"
	"sync"
	"testing"

	"rowcast/sql/dbtest"
)

// An authApp is an app with an authentication endpoint.
type authApp struct {
	*httptest.Server
	mu     sync.Mutex
	answer http.HandlerFunc
	asked  []*http.Request
}

func newAuthApp(t *testing.T, answer http.HandlerFunc) *authApp {
	a := &authApp{answer: answer}
	a.Server = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		a.mu.Lock()
		a.asked = append(a.asked, r)
		answer := a.answer
		a.mu.Unlock()
		answer(w, r)
	}))
	t.Cleanup(a.Close)
	return a
}

// answers sets the handler that answers from now on.
func (a *authApp) answers(answer http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

// questions returns the requests that the app has received.
func (a *authApp) questions() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// saying returns a handler that answers with a status and a text.
func saying(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// hijacked returns a handler that writes a text, which need not be HTTP, to the connection and closes the connection.
func hijacked(text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err == nil {
			_, _ = io.WriteString(conn, text)
			_ = conn.Close()
		}
	}
}

// isAlice returns a handler that accepts the user alice, with the group team:7, for a number of seconds.
func isAlice(seconds float64) http.HandlerFunc {
	return saying(200, fmt.Sprintf(`{"recipient": "alice", "groups": ["team:7"], "expires_in": %g}`, seconds))
}

const aliceAndTeam = `{"recipients":["alice","team:7"],"heartbeat":15}`

// The app receives the credentials, the client's address, and how the client has reached the hub, but not other headers
// of the client, such as X-Other. The headers X-Forwarded-Proto and X-Forwarded-Host are passed on only from a trusted
// proxy. The last address in X-Forwarded-For is the client's, also behind a trusted proxy. A request without
// credentials, with two Authorization headers or with a uid in the URL is denied, and the app is not asked.
func TestAppReceivesCredentials(t *testing.T) {
	t.Parallel()
	app := newAuthApp(t, isAlice(300))
	h := secure(t, "--auth-url", app.URL+"/rowcast-auth?x=1")
	headers := []string{"Cookie", "session=1; b=2", "Authorization", "Token x", "X-Forwarded-For", "192.0.2.1", "X-Other", "o", "User-Agent", "browser", "X-Forwarded-Proto", "https", "X-Forwarded-Host", "app.example"}
	if status, says := listenTo(t, h, "?last_event_id=x", headers...); status != 200 || says != aliceAndTeam {
		t.Errorf("got %d, %s, want 200, %s", status, says, aliceAndTeam)
	}
	q := app.questions()[0]
	for name, want := range map[string]string{"Cookie": "session=1; b=2", "Authorization": "Token x", "X-Forwarded-For": "192.0.2.1, 127.0.0.1", "X-Other": "", "Accept": "application/json", "X-Forwarded-Proto": "http", "X-Forwarded-Host": strings.TrimPrefix(h.url, "http://"), "Rowcast-Check": "open"} {
		if got := q.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if got := q.Header.Get("User-Agent"); !regexp.MustCompile(`^rowcast/[\w.+-]+$`).MatchString(got) {
		t.Errorf("User-Agent: got %q, want rowcast/ and the version", got)
	}
	if q.Method != "GET" || q.RequestURI != "/rowcast-auth?x=1" {
		t.Errorf("the app received %s %s, want GET /rowcast-auth?x=1", q.Method, q.RequestURI)
	}
	if status, says := listenTo(t, h, ""); status != 401 || len(app.questions()) != 1 {
		t.Errorf("without credentials: got %d, %s, and %d requests to the app, want 401 and still 1 request", status, says, len(app.questions()))
	}
	if status, says := listenTo(t, h, "", append(headers, "Authorization", "Token y")...); status != 401 || len(app.questions()) != 1 {
		t.Errorf("with two Authorization headers: got %d, %s, and %d requests to the app, want 401 and still 1 request", status, says, len(app.questions()))
	}
	if status, says := listenTo(t, h, "?uid=bob", headers...); status != 400 || len(app.questions()) != 1 {
		t.Errorf("with a uid in the URL: got %d, %s, and %d requests to the app, want 400 and still 1 request", status, says, len(app.questions()))
	}
	behindProxy := secure(t, "--auth-url", app.URL, "--trusted-proxy", "127.0.0.1")
	listenTo(t, behindProxy, "", headers...)
	q = app.questions()[1]
	for name, want := range map[string]string{"X-Forwarded-For": "192.0.2.1, 192.0.2.1", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "app.example"} {
		if got := q.Header.Get(name); got != want {
			t.Errorf("%s behind a trusted proxy: got %q, want %q", name, got, want)
		}
	}
}

// A valid grant opens a stream. A client is denied if the app answers 401 or 403, or if the id of the user or the name
// of a group is not allowed. After any other answer, or without one, the hub asks the client to retry later. The hub
// does not follow a redirect to another server. If an answer of the app opens no stream, the hub does not repeat its
// text. The log, the metrics and the hub's answers contain no credentials.
func TestAnswersOfTheApp(t *testing.T) {
	t.Parallel()
	elsewhere := newAuthApp(t, isAlice(300))
	app := newAuthApp(t, nil)
	h := secure(t, "--auth-url", app.URL, "--auth-timeout", "10s", "--log-format", "text")
	redirect := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL+"/login", status) }
	}
	tests := []struct {
		name   string
		answer http.HandlerFunc
		status int
		want   string
	}{
		{"a valid grant", isAlice(300), 200, aliceAndTeam},
		{"no groups", saying(200, `{"recipient": "alice", "expires_in": 60}`), 200, aliceOnly},
		{"401", saying(401, "top secret"), 401, "not signed in: the app answered 401\n"},
		{"403", saying(403, "top secret"), 403, "not allowed: the app answered 403\n"},
		{"302", redirect(302), 200, later},
		{"307", redirect(307), 200, later},
		{"404", saying(404, "top secret"), 200, later},
		{"429", saying(429, ""), 200, later},
		{"500", saying(500, "top secret"), 200, later},
		{"204", saying(204, ""), 200, later},
		{"an empty body", saying(200, ""), 200, later},
		{"HTML", saying(200, "<html>top secret"), 200, later},
		{"groups of a wrong type", saying(200, `{"recipient": "alice", "groups": "team:7", "expires_in": 60}`), 200, later},
		{"no recipient", saying(200, `{"expires_in": 60}`), 200, later},
		{"a key in another case", saying(200, `{"Recipient": "alice", "expires_in": 60}`), 200, later},
		{"two recipients", saying(200, `{"recipient": "bob", "expires_in": 60, "recipient": "alice"}`), 200, later},
		{"two recipients, one escaped", saying(200, `{"recipient": "bob", "expires_in": 60, "\u0072ecipient": "alice"}`), 200, later},
		{"two lists of groups", saying(200, `{"recipient": "alice", "expires_in": 60, "groups": [], "groups": ["team:7"]}`), 200, later},
		{"additional keys", saying(200, ` {"RECIPIENT": "bob", "role": {"recipient": "bob"}, "recipient": "alice", "groups": null, "expires_in": 6e1}`+"\r\n\t "), 200, aliceOnly},
		{"two answers", saying(200, `{"recipient": "alice", "expires_in": 60}{}`), 200, later},
		{"text after the answer", saying(200, `{"recipient": "alice", "expires_in": 60} top secret`), 200, later},
		{"text long after the answer", saying(200, `{"recipient": "alice", "expires_in": 60}`+strings.Repeat(" ", 64<<10)+"top secret"), 200, later},
		{"an answer without the last brace", saying(200, `{"recipient": "alice", "expires_in": 60`), 200, later},
		{"a list", saying(200, `[{"recipient": "alice", "expires_in": 60}]`), 200, later},
		{"a list of keys and values", saying(200, `["recipient", "alice", "expires_in", 60]`), 200, later},
		{"null", saying(200, "null"), 200, later},
		{"expires_in that overflows", saying(200, `{"recipient": "alice", "expires_in": 1e999}`), 200, later},
		{"no expires_in", saying(200, `{"recipient": "alice"}`), 200, later},
		{"a negative expires_in", isAlice(-1), 200, later},
		{"a body that is too long", saying(200, strings.Repeat(" ", 1<<20)+`{"recipient": "alice", "expires_in": 60}`), 200, later},
		{"text that is not HTTP", hijacked("top secret\r\n\r\n"), 200, later},
		{"a line that is not a header", hijacked("HTTP/1.1 200 OK\r\ntop secret\r\n\r\n"), 200, later},
		{"a redirect with an invalid URL", hijacked("HTTP/1.1 302 Found\r\nLocation: http://top secret:port/\r\nContent-Length: 0\r\n\r\n"), 200, later},
		{"a connection closed without an answer", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 200, later},
		{"no answer in time", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 200, later},
		{"an answer that stops in the middle", func(w http.ResponseWriter, r *http.Request) {
			_, _ = io.WriteString(w, `{"recipient": "alice",`)
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		}, 200, later},
		{"the name of a group as the recipient", saying(200, `{"recipient": "team:7", "expires_in": 60}`), 403, `the user's id contains ":", which only the name of a group may` + "\n"},
		{"everyone as the recipient", saying(200, `{"recipient": "*", "expires_in": 60}`), 403, `the user's id is "*", which means everyone` + "\n"},
		{"everyone as a group", saying(200, `{"recipient": "alice", "groups": ["*"], "expires_in": 60}`), 403, `the name of a group is "*", which means everyone` + "\n"},
		{"the id of a user as a group", saying(200, `{"recipient": "alice", "groups": ["bob"], "expires_in": 60}`), 403, `the name of a group does not contain ":", so it could be a user's id` + "\n"},
	}
	said, unknown := "", 0
	for i, tt := range tests {
		app.answers(tt.answer)
		status, says := listenTo(t, h, "", "Cookie", fmt.Sprintf("session=hidden%d", i), "Authorization", "Bearer hidden")
		if status != tt.status || !strings.HasSuffix(says, tt.want) {
			t.Errorf("%s: got %d, %s, want %d and %s at the end", tt.name, status, says, tt.status, tt.want)
		}
		said += says
		if tt.want == later {
			unknown++
		}
	}
	app.Close()
	if status, says := listenTo(t, h, "", "Cookie", "session=hidden"); status != 200 || says != later {
		t.Errorf("after the app has stopped: got %d, %s, want 200, %s", status, says, later)
	}
	if got := elsewhere.questions(); len(got) > 0 {
		t.Errorf("the hub followed a redirect to another server, which received the headers %v", got[0].Header)
	}
	said += h.err.String() + ask(t, "GET", h.url+"/metrics").body
	if strings.Contains(said, "hidden") || strings.Contains(said, "top secret") {
		t.Errorf("an answer of the hub, the log or a metric contains a credential or a text of the app: %s", said)
	}
	for _, want := range []string{
		"it redirected (302) instead of answering 401 itself", "it answered 500", "connection refused",
		"no answer within 10s (requests running: 1)", fmt.Sprintf("rowcast_auth_unavailable_total %d\n", unknown+1),
	} {
		if !strings.Contains(said, want) {
			t.Errorf("the answers, the log and the metrics: got %s, want %q in it", said, want)
		}
	}
}

// The variable HTTP_PROXY makes requests to the app go through a proxy, with the cookies, unless NO_PROXY names the app.
func TestProxyOfTheEnvironment(t *testing.T) {
	t.Parallel()
	proxy := newAuthApp(t, saying(200, `{"recipient": "alice", "expires_in": 60}`))
	dsn := dbtest.Database(t)
	for _, tt := range []struct{ noProxy, want string }{
		{"", "http://app.invalid/auth"},
		{"app.invalid", ""},
	} {
		p := spawnProgram(t, []string{"HTTP_PROXY=" + proxy.URL, "NO_PROXY=" + tt.noProxy}, 0,
			"serve", "--listen=127.0.0.1:0", "--database-url", dsn, "--auth-url", "http://app.invalid/auth")
		url := "http://" + p.err.await(t, `msg=listening addr=([0-9.:]+)`)[1]
		before := len(proxy.questions())
		ask(t, "HEAD", url+"/events", "Cookie", "session=1")
		got := ""
		for _, r := range proxy.questions()[before:] {
			got += r.RequestURI
			if cookie := r.Header.Get("Cookie"); cookie != "session=1" {
				t.Errorf("the proxy received the cookie %q, want session=1", cookie)
			}
		}
		if got != tt.want {
			t.Errorf("NO_PROXY=%s: the proxy was asked for %q, want %q", tt.noProxy, got, tt.want)
		}
	}
}
