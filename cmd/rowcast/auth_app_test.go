package main_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// An authApp is an app that is asked who is who.
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

func (a *authApp) answers(answer http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = answer
}

func (a *authApp) questions() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.asked
}

// saying answers with a text.
func saying(status int, text string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(status)
		_, _ = io.WriteString(w, text)
	}
}

// isAlice lets alice listen for a number of seconds.
func isAlice(seconds float64) http.HandlerFunc {
	return saying(200, fmt.Sprintf(`{"recipient": "alice", "groups": ["team:7"], "expires_in": %g}`, seconds))
}

const aliceAndTeam = `{"recipients":["alice","team:7"],"heartbeat":15}`

// The app gets the credentials and where they come from, and nothing else of the request; once, for those who come together.
func TestTheAppIsAsked(t *testing.T) {
	t.Parallel()
	app := newAuthApp(t, isAlice(300))
	h := secure(t, "--auth-url", app.URL+"/rowcast-auth?x=1")
	headers := []string{"Cookie", "session=1; b=2", "Authorization", "Token x", "X-Forwarded-For", "192.0.2.1", "X-Other", "o", "User-Agent", "browser"}
	if status, says := listenTo(t, h, "?last_event_id=x", headers...); status != 200 || says != "" && says != aliceAndTeam {
		t.Errorf("got %d, %s", status, says)
	}
	q := app.questions()[0]
	for name, want := range map[string]string{"Cookie": "session=1; b=2", "Authorization": "Token x", "X-Forwarded-For": "192.0.2.1, 127.0.0.1", "X-Other": "", "Accept": "application/json"} {
		if got := q.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
	if q.Method != "GET" || q.RequestURI != "/rowcast-auth?x=1" {
		t.Errorf("got %s %s", q.Method, q.RequestURI)
	}
	if status, says := listenTo(t, h, ""); status != 401 || len(app.questions()) != 1 {
		t.Errorf("without credentials: got %d, %s, and %d questions, want 401 and no other", status, says, len(app.questions()))
	}
	if status, _ := listenTo(t, h, "?uid=bob", headers...); status != 400 {
		t.Errorf("with a uid in the URL: got %d, want 400", status)
	}
}

// Only a clear no is a no. All else will pass, so the client comes back; credentials go nowhere else, and into no log.
func TestWhatTheAppAnswers(t *testing.T) {
	t.Parallel()
	elsewhere := newAuthApp(t, isAlice(300))
	app := newAuthApp(t, nil)
	h := secure(t, "--auth-url", app.URL, "--auth-timeout", "500ms", "--log-format", "text")
	redirect := func(status int) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, elsewhere.URL+"/login", status) }
	}
	tests := []struct {
		name   string
		answer http.HandlerFunc
		status int
		want   string
	}{
		{"yes", isAlice(300), 200, aliceAndTeam},
		{"no groups", saying(200, `{"recipient": "alice", "expires_in": 60}`), 200, aliceOnly},
		{"401", saying(401, "top secret"), 401, "the app does not know who you are\n"},
		{"403", saying(403, "top secret"), 403, "the app does not let you listen\n"},
		{"302", redirect(302), 200, later},
		{"307", redirect(307), 200, later},
		{"404", saying(404, "top secret"), 200, later},
		{"429", saying(429, ""), 200, later},
		{"500", saying(500, "top secret"), 200, later},
		{"204", saying(204, ""), 200, later},
		{"empty", saying(200, ""), 200, later},
		{"HTML", saying(200, "<html>top secret"), 200, later},
		{"groups of a wrong type", saying(200, `{"recipient": "alice", "groups": "team:7", "expires_in": 60}`), 200, later},
		{"no recipient", saying(200, `{"expires_in": 60}`), 200, later},
		{"no time", saying(200, `{"recipient": "alice"}`), 200, later},
		{"negative time", isAlice(-1), 200, later},
		{"endless", saying(200, strings.Repeat(" ", 1<<20)+`{"recipient": "alice", "expires_in": 60}`), 200, later},
		{"cut off", func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) }, 200, later},
		{"slow", func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, 200, later},
		{"a group for a recipient", saying(200, `{"recipient": "team:7", "expires_in": 60}`), 403, `the user's id has a ":" in it, as only a group's key may` + "\n"},
		{"a user for a group", saying(200, `{"recipient": "alice", "groups": ["bob"], "expires_in": 60}`), 403, `a group's key has no ":" in it, so it could be a user's id` + "\n"},
	}
	said := ""
	for i, tt := range tests {
		app.answers(tt.answer)
		status, says := listenTo(t, h, "", "Cookie", fmt.Sprintf("session=hidden%d", i), "Authorization", "Bearer hidden")
		if status != tt.status || !strings.HasSuffix(says, tt.want) {
			t.Errorf("%s: got %d, %s, want %d, %s", tt.name, status, says, tt.status, tt.want)
		}
		said += says
	}
	app.Close()
	if status, says := listenTo(t, h, "", "Cookie", "session=hidden"); status != 200 || says != later {
		t.Errorf("no app: got %d, %s, want to come back later", status, says)
	}
	if got := elsewhere.questions(); len(got) > 0 {
		t.Errorf("the credentials went elsewhere: %v", got[0].Header)
	}
	said += h.err.String() + ask(t, "GET", h.url+"/metrics").body
	if strings.Contains(said, "hidden") || strings.Contains(said, "top secret") {
		t.Errorf("what is secret was written: %s", said)
	}
	for _, want := range []string{"it redirects (302), where it shall answer 401 itself", "it says 500", "connection refused", "rowcast_unknown_total 16\n"} {
		if !strings.Contains(said, want) {
			t.Errorf("got %s, want %q in it", said, want)
		}
	}
}

// Pages that open several streams at once cost one question, and who was denied is asked about again.
func TestTheAppsAnswersAreKept(t *testing.T) {
	t.Parallel()
	app := newAuthApp(t, isAlice(300))
	h := secure(t, "--auth-url", app.URL)
	both := make(chan struct{})
	app.answers(func(w http.ResponseWriter, r *http.Request) { <-both; isAlice(300)(w, r) })
	var tabs sync.WaitGroup
	for range 5 {
		tabs.Go(func() {
			if _, says := listenTo(t, h, "", "Cookie", "session=1"); says != aliceAndTeam {
				t.Errorf("got %s", says)
			}
		})
	}
	for len(app.questions()) == 0 {
		time.Sleep(time.Millisecond)
	}
	close(both)
	tabs.Wait()
	if got := len(app.questions()); got != 1 {
		t.Errorf("%d questions for five streams at once, want 1", got)
	}
	app.answers(saying(401, ""))
	for i := range 2 {
		if status, _ := listenTo(t, h, "", "Cookie", "session=2"); status != 401 || len(app.questions()) != 2+i {
			t.Errorf("got %d after %d questions, want 401 after %d", status, len(app.questions()), 2+i)
		}
	}
}

// However many come at once, the app is asked about 32 at a time.
func TestQuestionsAreBounded(t *testing.T) {
	t.Parallel()
	var now, most atomic.Int32
	app := newAuthApp(t, func(w http.ResponseWriter, r *http.Request) {
		n := now.Add(1)
		for before := most.Load(); n > before && !most.CompareAndSwap(before, n); before = most.Load() {
		}
		time.Sleep(20 * time.Millisecond) // long enough for the others to be there
		now.Add(-1)
		isAlice(300)(w, r)
	})
	h := secure(t, "--auth-url", app.URL, "--auth-timeout", "20s")
	var all sync.WaitGroup
	for i := range 100 {
		all.Go(func() {
			if _, says := listenTo(t, h, "", "Cookie", fmt.Sprint("session=", i)); says != aliceAndTeam {
				t.Errorf("got %s", says)
			}
		})
	}
	all.Wait()
	if got := most.Load(); got > 32 || got < 2 {
		t.Errorf("%d questions at a time, want several, and 32 at most", got)
	}
}
