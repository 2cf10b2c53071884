package inbox_test

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"rowcast/listener/failures"
	"rowcast/stream"
	"rowcast/stream/inbox"
)

// patience limits each wait of the tests.
const patience = 30 * time.Second

// A store calls its functions for List and Mark. Undo, and a call whose function is nil, return {}.
type store struct {
	list func(ctx context.Context, user string) (json.RawMessage, error)
	mark func(ctx context.Context, user, action string, ids []int64, upTo string) (json.RawMessage, error)
}

func (s store) List(ctx context.Context, user string, _ []string, _ int, _ string) (json.RawMessage, error) {
	if s.list == nil {
		return json.RawMessage("{}"), nil
	}
	return s.list(ctx, user)
}

func (s store) Mark(ctx context.Context, user string, _ []string, action string, ids []int64, upTo string) (json.RawMessage, error) {
	if s.mark == nil {
		return json.RawMessage("{}"), nil
	}
	return s.mark(ctx, user, action, ids, upTo)
}

func (store) Undo(context.Context, string, []string, string) (json.RawMessage, error) {
	return json.RawMessage("{}"), nil
}

// byHeader takes the user from the header User.
func byHeader(r *http.Request) (stream.Grant, error) {
	return stream.Grant{User: r.Header.Get("User")}, nil
}

// handler returns a handler of a store. configure may change it.
func handler(t *testing.T, s store, configure ...func(*inbox.Handler)) *inbox.Handler {
	h := &inbox.Handler{Store: s, Authenticate: byHeader, Logger: slog.New(slog.NewTextHandler(t.Output(), nil)), Failures: new(failures.Record)}
	for _, c := range configure {
		c(h)
	}
	return h
}

// get requests the list of a user.
func get(t *testing.T, h http.Handler, user string) *httptest.ResponseRecorder {
	r := httptest.NewRequestWithContext(t.Context(), http.MethodGet, "/inbox", nil)
	r.Header.Set("User", user)
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	return w
}

// receive returns the next value of a channel.
func receive[T any](t *testing.T, from <-chan T, what string) (value T) {
	t.Helper()
	select {
	case value = <-from:
	case <-time.After(patience):
		t.Fatalf("waited %v for %s", patience, what)
	}
	return value
}

// The bytes of answers to slow clients are limited, in total and for each user. A user who has reached the limit does
// not block the answers to other users. When a client has disconnected, its answer no longer counts.
func TestAnswersOfSlowClientsAreBounded(t *testing.T) {
	t.Parallel()
	const size = 16 << 20 // more than the buffers of the sockets
	answer := json.RawMessage(`"` + strings.Repeat("x", size-2) + `"`)
	h := handler(t, store{list: func(_ context.Context, user string) (json.RawMessage, error) {
		if user == "small" {
			return json.RawMessage("{}"), nil
		}
		return answer, nil
	}}, func(h *inbox.Handler) { h.Answers = 4 * size })
	server := httptest.NewServer(h)
	defer server.Close()
	var open []net.Conn
	slow := func(user string) {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, conn)
		fmt.Fprintf(conn, "GET /inbox HTTP/1.1\r\nHost: a\r\nUser: %s\r\n\r\n", user)
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		if line, err := bufio.NewReaderSize(conn, 16).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
			t.Fatalf("got %q, %v, want the beginning of an answer", line, err)
		}
	}
	slow("alice")
	if got := get(t, h, "alice"); got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") != "1" {
		t.Errorf("got %d, %q for a user above a quarter of the limit, want 503 and Retry-After: 1", got.Code, got.Header())
	}
	for _, user := range []string{"bob", "carol", "dave"} {
		slow(user)
	}
	if got := get(t, h, "erin"); got.Code != http.StatusServiceUnavailable {
		t.Errorf("got %d for a user when the limit is reached, want 503", got.Code)
	}
	for _, conn := range open {
		_ = conn.Close()
	}
	for deadline := time.Now().Add(patience); get(t, h, "erin").Code != http.StatusOK; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for an answer after the slow clients have disconnected", patience)
		}
	}
	if got := get(t, h, "small"); got.Code != http.StatusOK {
		t.Errorf("got %d for a small answer, want 200", got.Code)
	}
}

// A request that does not get its turn in time is answered with 503. So is a request if its call of Store takes too
// long.
func TestRequestsEndAfterTheTimeout(t *testing.T) {
	t.Parallel()
	var mu sync.Mutex
	observed := map[int]int{}
	h := handler(t, store{list: func(ctx context.Context, _ string) (json.RawMessage, error) {
		<-ctx.Done()
		return nil, ctx.Err()
	}}, func(h *inbox.Handler) {
		h.Calls, h.Timeout = 1, 50*time.Millisecond
		h.Observe = func(action string, status int, took time.Duration) {
			mu.Lock()
			defer mu.Unlock()
			if action == "list" && took > 0 {
				observed[status]++
			}
		}
	})
	codes := make(chan int, 3)
	for i := range cap(codes) {
		go func() { codes <- get(t, h, fmt.Sprint(i)).Code }()
	}
	for range cap(codes) {
		if code := receive(t, codes, "an answer"); code != http.StatusServiceUnavailable {
			t.Errorf("got %d, want 503", code)
		}
	}
	if mu.Lock(); observed[http.StatusServiceUnavailable] != 3 {
		t.Errorf("observed %v, want three times 503", observed)
	}
	mu.Unlock()
	if state := h.Failures.Of(failures.Inbox); state.Total != 3 || !state.Failing() {
		t.Errorf("got %+v, want three failures and an operation that is failing", state)
	}
}

// When a client disconnects, the call of List is cancelled and does not count as a failure of the database. The answer
// is not 200, because the client may have closed only its side of the connection. A call of Mark continues.
func TestClientsThatDisconnect(t *testing.T) {
	t.Parallel()
	begun, ended, status := make(chan struct{}), make(chan error, 1), make(chan int, 2)
	h := handler(t, store{
		list: func(ctx context.Context, _ string) (json.RawMessage, error) {
			close(begun)
			<-ctx.Done()
			return nil, ctx.Err()
		},
		mark: func(ctx context.Context, _, _ string, _ []int64, _ string) (json.RawMessage, error) {
			ended <- ctx.Err()
			return json.RawMessage("{}"), nil
		},
	}, func(h *inbox.Handler) { h.Observe = func(_ string, s int, _ time.Duration) { status <- s } })
	ctx, cancel := context.WithCancel(t.Context())
	go func() {
		<-begun
		cancel()
	}()
	r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/inbox", nil)
	r.Header.Set("User", "alice")
	w := httptest.NewRecorder()
	h.ServeHTTP(w, r)
	if got := receive(t, status, "the status"); got != 499 || w.Code != 499 {
		t.Errorf("observed the status %d, and answered %d, want 499", got, w.Code)
	}
	if total := h.Failures.Of(failures.Inbox).Total; total != 0 {
		t.Errorf("%d failures are counted, want none", total)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel() // the client has disconnected before the call
	r = httptest.NewRequestWithContext(gone, http.MethodPost, "/inbox/read", strings.NewReader(`{"ids": ["1"]}`))
	r.Header.Set("User", "alice")
	r.Header.Set("Content-Type", "application/json")
	h.ServeHTTP(httptest.NewRecorder(), r)
	if err := receive(t, ended, "the change"); err != nil {
		t.Errorf("the context of a change has ended: got %v, want no error", err)
	}
}

// An error of the Authenticator that is not a Denial is answered with 503. The client does not see the text of the
// error.
func TestAuthenticationThatFails(t *testing.T) {
	t.Parallel()
	h := handler(t, store{}, func(h *inbox.Handler) {
		h.Authenticate = func(*http.Request) (stream.Grant, error) { return stream.Grant{}, errors.New("secret") }
	})
	got := get(t, h, "alice")
	if got.Code != http.StatusServiceUnavailable || got.Header().Get("Retry-After") == "" || strings.Contains(got.Body.String(), "secret") {
		t.Errorf("got %d, %q, %s, want 503, Retry-After, and a body without the error", got.Code, got.Header(), got.Body)
	}
}

// A request of a page that was loaded for another user is refused before it reads or changes anything.
func TestRequestsForAnotherUserAreRefused(t *testing.T) {
	t.Parallel()
	var calls atomic.Int64
	h := handler(t, store{
		list: func(context.Context, string) (json.RawMessage, error) {
			calls.Add(1)
			return json.RawMessage("{}"), nil
		},
		mark: func(context.Context, string, string, []int64, string) (json.RawMessage, error) {
			calls.Add(1)
			return json.RawMessage("{}"), nil
		},
	})
	for query, want := range map[string]int{
		"?user=alice": 200, "?user=bob": 412, "?user=": 412, "?user=ALICE": 412, "?user=alice&user=bob": 412, "?user=bob&user=alice": 412,
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			path := map[string]string{http.MethodGet: "/inbox", http.MethodPost: "/inbox/read"}[method]
			r := httptest.NewRequestWithContext(t.Context(), method, path+query, strings.NewReader(`{"ids": ["1"]}`))
			r.Header.Set("User", "alice")
			r.Header.Set("Content-Type", "application/json")
			w := httptest.NewRecorder()
			before := calls.Load()
			h.ServeHTTP(w, r)
			if called := calls.Load() > before; w.Code != want || called != (want == 200) {
				t.Errorf("%s %s%s: got %d, %s, and Store was called: %v; want %d, and a call only with 200", method, path, query, w.Code, w.Body, called, want)
			}
		}
	}
}

// A request whose body does not arrive before the server's deadline is answered with 408, and changes nothing.
func TestSlowBodiesAreRefused(t *testing.T) {
	t.Parallel()
	h := handler(t, store{mark: func(context.Context, string, string, []int64, string) (json.RawMessage, error) {
		t.Error("Mark was called, want no change")
		return json.RawMessage("{}"), nil
	}})
	server := httptest.NewUnstartedServer(h)
	server.Config.ReadTimeout = 200 * time.Millisecond
	server.Start()
	defer server.Close()
	conn, err := net.Dial("tcp", server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "POST /inbox/read HTTP/1.1\r\nHost: a\r\nUser: alice\r\nContent-Type: application/json\r\nContent-Length: 500\r\n\r\n{\"ids\":")
	_ = conn.SetReadDeadline(time.Now().Add(patience))
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "HTTP/1.1 408 Request Timeout\r\n" {
		t.Errorf("got %q, %v, want 408", line, err)
	}
}

// If the app needs longer than the server's ReadTimeout to authenticate a client, a body that arrives meanwhile is read,
// and the request of a list is not given up.
func TestSlowAuthentication(t *testing.T) {
	t.Parallel()
	const limit = 2 * time.Second
	asked, sent := make(chan struct{}, 1), make(chan struct{})
	h := handler(t, store{list: func(ctx context.Context, _ string) (json.RawMessage, error) {
		return json.RawMessage("{}"), ctx.Err()
	}}, func(h *inbox.Handler) {
		h.Authenticate = func(r *http.Request) (stream.Grant, error) {
			<-time.After(2 * limit) // the app is slow
			if r.Method == http.MethodPost {
				asked <- struct{}{}
				<-sent
			}
			return byHeader(r)
		}
	})
	server := httptest.NewUnstartedServer(h)
	server.Config.ReadHeaderTimeout, server.Config.ReadTimeout = patience, limit
	server.Start()
	defer server.Close()
	request := func(head string) net.Conn {
		conn, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(patience))
		fmt.Fprint(conn, head+" HTTP/1.1\r\nHost: a\r\nUser: alice\r\n")
		return conn
	}
	post, get := request("POST /inbox/read"), request("GET /inbox")
	fmt.Fprint(post, "Content-Type: application/json\r\nContent-Length: 13\r\n\r\n{\"ids\":")
	fmt.Fprint(get, "\r\n")
	receive(t, asked, "the authentication of POST")
	fmt.Fprint(post, `["1"]`+"}")
	close(sent)
	for name, conn := range map[string]net.Conn{"POST": post, "GET": get} {
		if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
			t.Errorf("%s: got %q, %v, want 200", name, line, err)
		}
	}
}

// The handler can be mounted at another path. HEAD is answered as GET, without a body.
func TestAnotherPath(t *testing.T) {
	t.Parallel()
	server := httptest.NewServer(handler(t, store{}, func(h *inbox.Handler) { h.Path = "/api/bell" }))
	defer server.Close()
	for request, want := range map[string]int{
		"GET /api/bell": 200, "HEAD /api/bell": 200, "POST /api/bell/read": 415, "GET /inbox": 404, "GET /api/bell/": 404, "GET /api/belly": 404, "GET /api/bell/list": 404,
	} {
		method, path, _ := strings.Cut(request, " ")
		r, err := http.NewRequestWithContext(t.Context(), method, server.URL+path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("User", "alice")
		response, err := server.Client().Do(r)
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(response.Body)
		_ = response.Body.Close()
		if response.StatusCode != want || method == http.MethodHead && (len(body) > 0 || response.ContentLength != 2) {
			t.Errorf("%s: got %d, Content-Length %d and the body %q, want %d, and for HEAD Content-Length 2 and no body", request, response.StatusCode, response.ContentLength, body, want)
		}
	}
}
