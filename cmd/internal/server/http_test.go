package server

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/failures"
	"rowcast/stream"
	"rowcast/stream/auth"
)

// A failingSocket is a listening socket whose first calls of Accept fail. The remaining calls report that the socket is
// closed.
type failingSocket struct {
	net.Listener
	failures int
}

func (f *failingSocket) Accept() (net.Conn, error) {
	if f.failures--; f.failures < 0 {
		return nil, net.ErrClosed
	}
	return nil, &net.OpError{Op: "accept", Net: "tcp", Err: os.NewSyscallError("accept4", syscall.EMFILE)}
}

func (f *failingSocket) Close() error { return nil }

// The server keeps an idle connection longer than load balancers do. Otherwise they would answer 502 for a request that
// they send while the server closes the connection.
func TestIdleConnectionsOutliveThoseOfLoadBalancers(t *testing.T) {
	t.Parallel()
	s := &Server{Logger: slog.New(slog.DiscardHandler), idle: newIdleConns(1)}
	server, err := s.newServer(t.Context(), "127.0.0.1:0", http.NotFoundHandler(), s.idle)
	if err != nil {
		t.Fatal(err)
	}
	defer server.socket.Close()
	if got := server.http.IdleTimeout; got <= 10*time.Minute {
		t.Errorf("an idle connection is closed after %v, want more than 10 minutes", got)
	}
}

// A failure to accept a connection, for example because no file descriptor is free, is logged and counted.
func TestAcceptFailure(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	s := New(&pgx.ConnConfig{}, slog.New(slog.NewTextHandler(&log, nil)))
	server, err := s.newServer(t.Context(), "127.0.0.1:0", http.NotFoundHandler(), s.idle)
	if err != nil {
		t.Fatal(err)
	}
	_ = server.socket.Close()
	socket, ok := server.socket.(acceptor)
	if !ok {
		t.Fatalf("the socket is a %T, want an acceptor", server.socket)
	}
	synctest.Test(t, func(t *testing.T) { // in a bubble, because net/http sleeps after each failure
		socket.Listener = &failingSocket{failures: 20}
		_ = server.http.Serve(socket)
		if got := s.Failures.Of(failures.Accept); got.Total != 20 || !got.Failing() {
			t.Errorf("accepting connections: got the state %+v, want 20 failures in Total, and a state that is failing", got)
		}
	})
	const line = `level=WARN msg="cannot accept connections" error="accept tcp: accept4: too many open files"`
	if n := strings.Count(log.String(), line); n < 5 || n > 10 {
		t.Errorf("got %d lines about this failure, want 5 to 10; the log is:\n%s", n, log.String())
	}
}

// pipes is a listening socket whose connections are pipes in memory, for tests in a synctest bubble. A write returns
// when the other side has read everything that was written.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (p pipes) Close() error   { close(p); return nil } // net/http calls Close once
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// dial opens a connection and sends text.
func (p pipes) dial(t *testing.T, text string) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	p <- server
	if _, err := io.WriteString(client, text); err != nil {
		t.Fatal(err)
	}
	return client
}

// inBubble runs test in a synctest bubble. s is a hub without a database, whose HTTP server accepts the connections of
// p.
func inBubble(t *testing.T, maxIdle int, test func(t *testing.T, p pipes, s *Server)) {
	synctest.Test(t, func(t *testing.T) {
		s := New(&pgx.ConnConfig{}, slog.New(slog.DiscardHandler))
		s.Listen, s.idle = "127.0.0.1:0", newIdleConns(maxIdle)
		servers, err := s.open(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		_ = servers[0].socket.Close()
		p := make(pipes)
		servers[0].socket = p
		ended := make(chan error, 1)
		go func() { ended <- servers[0].run() }()
		synctest.Wait()
		test(t, p, s)
		if err := servers[0].http.Close(); err != nil {
			t.Error(err)
		}
		<-ended
	})
}

// timeToClose calls do every second until do fails because the server has closed the connection. It returns the time
// until then, or a time of more than an hour if the connection stays open.
func timeToClose(do func() error) time.Duration {
	began := time.Now()
	for now := range time.Tick(time.Second) {
		if do() != nil || now.Sub(began) > time.Hour {
			break
		}
	}
	return time.Since(began)
}

// The time for the header and the body of a request is limited, even if the client sends a byte every second, or
// nothing.
func TestAttackSlowRequest(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{
		"nothing":             "",
		"in the request line": "GET /healthz HT",
		"in the header":       "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
		"in the body":         "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			inBubble(t, 10, func(t *testing.T, p pipes, s *Server) {
				conn := p.dial(t, begin)
				go func() { _, _ = io.Copy(io.Discard, conn) }()
				took := timeToClose(func() error {
					if begin == "" {
						_, err := io.WriteString(conn, "")
						s.idle.mu.Lock()
						defer s.idle.mu.Unlock()
						if len(s.idle.conns) == 0 {
							return io.EOF
						}
						return err
					}
					_, err := io.WriteString(conn, "x")
					return err
				})
				if took > 17*time.Second {
					t.Errorf("the connection was open for %v, want at most 17s", took)
				}
			})
		})
	}
}

// The time of an answer is limited: a client that sends requests and reads no answers is disconnected.
func TestAttackUnreadAnswers(t *testing.T) {
	t.Parallel()
	inBubble(t, 10, func(t *testing.T, p pipes, _ *Server) {
		conn := p.dial(t, "GET /rowcast.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
		took := timeToClose(func() error {
			_, err := io.WriteString(conn, "GET /rowcast.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
			return err
		})
		if took > 17*time.Second {
			t.Errorf("the connection was open for %v, want at most 17s", took)
		}
	})
}

// The time limit of an answer begins after the authentication, so a slow authentication does not prevent the answer.
func TestAnswerAfterSlowAuthentication(t *testing.T) {
	t.Parallel()
	inBubble(t, 10, func(t *testing.T, p pipes, s *Server) {
		s.Events.Authenticate = func(*http.Request) (stream.Grant, error) {
			time.Sleep(2 * answerTime)
			return stream.Grant{}, errors.New("unavailable")
		}
		conn := p.dial(t, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if got, err := io.ReadAll(response.Body); err != nil || !strings.HasPrefix(string(got), "retry: ") {
			t.Errorf("got %q, %v, want a body that begins with \"retry: \"", got, err)
		}
	})
}

// A caller of /disconnect receives the answer even if its body and PostgreSQL were slow, or if the body did not arrive in
// time. Otherwise the caller would not know whether the user was disconnected.
func TestAnswerAfterSlowDisconnect(t *testing.T) {
	t.Parallel()
	for status, slowBody := range map[int]time.Duration{http.StatusServiceUnavailable: 10 * time.Second, http.StatusBadRequest: time.Minute} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				s := New(&pgx.ConnConfig{}, slog.New(slog.DiscardHandler))
				s.AdminListen = "127.0.0.1:0"
				s.disconnectOthers = func(context.Context, string) error {
					time.Sleep(10 * time.Second)
					return errors.New("no answer")
				}
				_, admin := s.routers()
				server, err := s.newServer(context.Background(), s.AdminListen, admin, newIdleConns(10))
				if err != nil {
					t.Fatal(err)
				}
				_ = server.socket.Close()
				p := make(pipes)
				go func() { _ = server.http.Serve(p) }()
				conn := p.dial(t, "POST /disconnect HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 11\r\n\r\nrecipient=")
				go func() {
					time.Sleep(slowBody)
					_, _ = io.WriteString(conn, "a") // the server may have closed the connection
				}()
				response, err := http.ReadResponse(bufio.NewReader(conn), nil)
				if err != nil || response.StatusCode != status {
					t.Errorf("got %v, %v, want the status %d", response, err, status)
				}
				_ = conn.Close()
				if err := server.http.Close(); err != nil {
					t.Error(err)
				}
				time.Sleep(slowBody) // in the bubble, until its goroutines have ended
			})
		})
	}
}

// Clients can cause only a limited number of log lines. Denials have a limit of their own, so that failures of the
// authentication are still logged.
func TestAttackLogLines(t *testing.T) {
	t.Parallel()
	const times = 2000
	var text bytes.Buffer
	s := New(&pgx.ConnConfig{}, slog.New(slog.NewTextHandler(&text, nil)))
	server, err := s.newServer(context.Background(), "127.0.0.1:0", http.NotFoundHandler(), s.idle)
	if err != nil {
		t.Fatal(err)
	}
	_ = server.socket.Close()
	s.disconnectOthers = func(context.Context, string) error { return errors.New("unavailable") }
	request := func(method, path string, handler http.HandlerFunc) {
		handler(httptest.NewRecorder(), httptest.NewRequest(method, path, nil))
	}
	for range times {
		server.http.ErrorLog.Print("http: TLS handshake error from \x1b[2J")
		s.Events.Authenticate = func(*http.Request) (stream.Grant, error) {
			return stream.Grant{}, auth.Denial{Status: 401, Reason: "no"}
		}
		request(http.MethodGet, "/events", s.Events.ServeHTTP)
		request(http.MethodPost, "/disconnect?recipient=alice", s.disconnect)
	}
	for range times {
		s.Events.Authenticate = func(*http.Request) (stream.Grant, error) { return stream.Grant{}, errors.New("unavailable") }
		request(http.MethodGet, "/events", s.Events.ServeHTTP)
	}
	for message, most := range map[string]int{
		"an HTTP connection failed": 10, "a stream was denied": 200, "cannot notify other hubs to disconnect a recipient": 10,
		"cannot authenticate a request for a stream": 200,
	} {
		if got := strings.Count(text.String(), message); got < 1 || got > most {
			t.Errorf("%q is in the log %d times, want 1 to %d", message, got, most)
		}
	}
	if strings.Contains(text.String(), "\x1b") {
		t.Error("the log contains an escape character")
	}
}
