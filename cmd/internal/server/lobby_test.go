package server

import (
	"bufio"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/stream"
)

// pipes is a network inside of the test, whose time can be that of a synctest bubble. What is written waits for being read.
type pipes chan net.Conn

func (p pipes) Accept() (net.Conn, error) {
	conn, ok := <-p
	if !ok {
		return nil, net.ErrClosed
	}
	return conn, nil
}
func (p pipes) Close() error   { close(p); return nil } // once, says net/http
func (p pipes) Addr() net.Addr { return &net.TCPAddr{} }

// dial connects and sends something.
func (p pipes) dial(t *testing.T, sent string) net.Conn {
	t.Helper()
	client, server := net.Pipe()
	p <- server
	if _, err := io.WriteString(client, sent); err != nil {
		t.Fatal(err)
	}
	return client
}

// withinBubble serves, in a bubble, what a hub without a database does.
func withinBubble(t *testing.T, room int, test func(t *testing.T, p pipes, s *Server)) {
	synctest.Test(t, func(t *testing.T) {
		s := New(&pgx.ConnConfig{}, slog.New(slog.DiscardHandler))
		s.Listen, s.lobby = "127.0.0.1:0", newLobby(room)
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

// closedAfter is when the server closes a connection whose client does something every second.
func closedAfter(do func() error) time.Duration {
	began := time.Now()
	for now := range time.Tick(time.Second) {
		if do() != nil || now.Sub(began) > time.Hour {
			break
		}
	}
	return time.Since(began)
}

// A request that comes a byte a second has its time, for the head and for the body, and is then cut off.
func TestAttackSlowSenders(t *testing.T) {
	t.Parallel()
	for name, begin := range map[string]string{
		"nothing":        "",
		"in the request": "GET /healthz HT",
		"in the header":  "GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
		"in the body":    "POST /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100000\r\n\r\n",
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			withinBubble(t, 10, func(t *testing.T, p pipes, s *Server) {
				conn := p.dial(t, begin)
				go func() { _, _ = io.Copy(io.Discard, conn) }()
				took := closedAfter(func() error {
					if begin == "" {
						_, err := io.WriteString(conn, "")
						s.lobby.mu.Lock()
						defer s.lobby.mu.Unlock()
						if len(s.lobby.guests) == 0 {
							return io.EOF
						}
						return err
					}
					_, err := io.WriteString(conn, "x")
					return err
				})
				if took > 17*time.Second {
					t.Errorf("it was cut off after %v", took)
				}
			})
		})
	}
}

// Who asks and asks and never reads an answer is cut off, too.
func TestAttackAnswersThatNobodyReads(t *testing.T) {
	t.Parallel()
	withinBubble(t, 10, func(t *testing.T, p pipes, _ *Server) {
		conn := p.dial(t, "GET /rowcast.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
		took := closedAfter(func() error {
			_, err := io.WriteString(conn, "GET /rowcast.js HTTP/1.1\r\nHost: localhost\r\n\r\n")
			return err
		})
		if took > 17*time.Second {
			t.Errorf("it was cut off after %v", took)
		}
	})
}

// However long it takes to find out who asks, the answer has its time: a client that got none would come back for nothing, for ever.
func TestAnAnswerAfterLongThought(t *testing.T) {
	t.Parallel()
	withinBubble(t, 10, func(t *testing.T, p pipes, s *Server) {
		s.Events.Authenticate = func(*http.Request) (stream.Grant, error) {
			time.Sleep(2 * answerTime)
			return stream.Grant{}, errors.New("away")
		}
		conn := p.dial(t, "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n")
		response, err := http.ReadResponse(bufio.NewReader(conn), nil)
		if err != nil {
			t.Fatal(err)
		}
		defer response.Body.Close()
		if got, err := io.ReadAll(response.Body); err != nil || !strings.HasPrefix(string(got), "retry: ") {
			t.Errorf("got %q, %v, want to come back later", got, err)
		}
	})
}

// When there is no more room, the connection is closed that has been waiting the longest, and not one that has just asked something.
func TestLobbyMakesRoom(t *testing.T) {
	t.Parallel()
	withinBubble(t, 3, func(t *testing.T, p pipes, s *Server) {
		const request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
		ask := func(conn net.Conn, request string) (n int) {
			go func() { _, _ = io.WriteString(conn, request) }()
			n, _ = conn.Read(make([]byte, 1000))
			synctest.Wait()
			return n
		}
		kept := p.dial(t, "")
		silent := p.dial(t, "")
		synctest.Wait()
		half := p.dial(t, "GET /healthz HTTP/1.1\r\n")
		synctest.Wait()
		if ask(kept, request) == 0 {
			t.Error("there is room for three, and yet the first was closed")
		}
		_ = p.dial(t, "GET")
		synctest.Wait()
		if ask(silent, "") != 0 {
			t.Error("who had been silent the longest got an answer")
		}
		if n := s.lobby.Closed.Load(); n != 1 {
			t.Errorf("%d were closed for others, want 1", n)
		}
		if ask(half, "Host: localhost\r\n\r\n") == 0 {
			t.Error("a request that had begun later was cut off")
		}
		if ask(kept, request) == 0 {
			t.Error("who had asked since was closed")
		}
		_ = half.Close()
		synctest.Wait()
		_ = p.dial(t, "")
		synctest.Wait()
		if n := s.lobby.Closed.Load(); n != 1 {
			t.Errorf("where one had left, another was closed: %d, want 1", n)
		}
	})
}

func TestDescriptorsAreSharedOut(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		descriptors   uint64
		streams       int
		want          room
		whatIsMissing string
	}{
		{1 << 20, 0, room{1<<20 - 64 - 4 - 4 - 4096, 4096}, ""},
		{1 << 63, 0, room{1<<20 - 64 - 4 - 4 - 4096, 4096}, ""},
		{1024, 0, room{1024 - 64 - 4 - 4 - 128, 128}, ""},
		{1024, 100, room{100, 128}, ""},
		{1024, 824, room{824, 128}, ""},
		{1024, 825, room{}, "--max-connections: for 825 streams this process may have too few files open, 1024: raise the limit by 1 (ulimit -n, or LimitNOFILE= of systemd)"},
		{256, 0, room{256 - 64 - 4 - 4 - 32, 32}, ""},
		{64, 0, room{64 - 16 - 4 - 4 - 16, 16}, ""},
		{24, 0, room{}, "--replays: with 4 connections for replays, the open files that this process may have (24) leave none for streams: lower --replays, or raise the limit (ulimit -n, or LimitNOFILE= of systemd)"},
	} {
		got, err := shareOut(tt.descriptors, tt.streams, 4)
		if text := ""; err != nil {
			text = err.Error()
			if text != tt.whatIsMissing {
				t.Errorf("%d: got %s, want %q", tt.descriptors, text, tt.whatIsMissing)
			}
		} else if got != tt.want || tt.whatIsMissing != "" {
			t.Errorf("%d, %d streams: got %+v, want %+v", tt.descriptors, tt.streams, got, tt.want)
		}
	}
}
