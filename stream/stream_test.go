package stream_test

import (
	"cmp"
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
	"rowcast/stream"
)

func TestMain(m *testing.M) {
	if arguments := os.Getenv(clientsVariable); arguments != "" {
		if err := runClients(arguments); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	if os.Getenv(peakVariable) != "" {
		if err := bePeak(); err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		return
	}
	dbtest.Main(m)
}

// patience limits most waits of the tests.
const patience = time.Minute

// A site is a hub and the server of its streams.
type site struct {
	hub      *stream.Hub
	listener *listener.Listener // nil for a hub without a database
	url      string
	listen   func(net.Listener) net.Listener // wraps the listening socket, if not nil
	socket   net.Listener                    // nil for a new socket on the loopback interface
	buffer   int                             // the size of the sockets' send buffers; 0 for the system's default
	replays  int                             // Hub.Reads, and the connections of the Replayer; 0 means two
	lasts    time.Duration                   // the time after which grants expire; 0 means never
}

// serve runs a listener and a hub on a database and serves streams until the test ends. The query parameter recipient
// names the user. If the parameter is repeated, the other values are groups. The listener makes no safety polls, so
// a row that arrives without a notification waits for the next fetch.
func serve(t testing.TB, dsn string, configure ...func(*site)) *site {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	log := slog.New(slog.NewTextHandler(t.Output(), nil))
	s := &site{
		hub:      &stream.Hub{Logger: log, Drain: time.Millisecond},
		listener: &listener.Listener{Config: config, Logger: log, Look: -1},
	}
	for _, c := range configure {
		c(s)
	}
	s.listener.Message = s.hub.Send
	deliver := s.listener.Deliver
	s.listener.Deliver = func(b feed.Batch) {
		s.hub.Publish(b)
		if deliver != nil {
			deliver(b)
		}
	}
	replayer, err := s.listener.NewReplayer(dbtest.Context(t), cmp.Or(s.replays, 2))
	if err != nil {
		t.Fatal(err)
	}
	s.hub.Source, s.hub.Reads = replayer, cmp.Or(s.replays, 2)
	t.Cleanup(replayer.Close)
	run(t, s.listener.Run)
	s.open(t)
	eventually(t, "the hub begins", s.hub.Ready)
	return s
}

// open serves the streams until the test ends. It runs the hub until the test ends or stop is called.
func (s *site) open(t testing.TB) (stop func()) {
	server := httptest.NewUnstartedServer(s)
	if s.socket != nil {
		_ = server.Listener.Close()
		server.Listener = s.socket
	}
	if s.buffer > 0 {
		server.Listener = sendBuffers{server.Listener, s.buffer}
	}
	if s.listen != nil {
		server.Listener = s.listen(server.Listener)
	}
	server.Config.MaxHeaderBytes = 8 << 20
	server.Start()
	s.url = server.URL
	t.Cleanup(server.Close)
	return run(t, s.hub.Run)
}

// sendBuffers is a listener whose connections have send buffers of the given size.
type sendBuffers struct {
	net.Listener
	size int
}

func (l sendBuffers) Accept() (net.Conn, error) {
	conn, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return conn, conn.(*net.TCPConn).SetWriteBuffer(l.size)
}

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	var grant stream.Grant
	if recipients := r.URL.Query()["recipient"]; len(recipients) > 0 {
		grant.User, grant.Groups = recipients[0], recipients[1:]
	}
	if s.lasts > 0 {
		grant.Expires = time.Now().Add(s.lasts)
	}
	s.hub.Serve(w, r, grant)
}

// caughtUp waits until the hub has published everything that was committed before the call.
func (s *site) caughtUp(t testing.TB) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := s.listener.CatchUp(ctx); err != nil {
		t.Fatalf("CatchUp: %v", err)
	}
}

// run runs a function in a goroutine until the test ends or stop is called.
func run(t testing.TB, function func(context.Context) error) (stop func()) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := function(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() {
		cancel()
		dbtest.Receive(t, done, "the return of Run after the end of its context")
	}
	t.Cleanup(stop)
	return stop
}

// eventually waits until a condition holds. It polls, because nothing signals the condition.
func eventually(t testing.TB, what string, holds func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !holds(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waiting until %s: this did not happen within %v", what, patience)
		}
	}
}

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(dbtest.Context(t), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if _, err := conn.Exec(ctx, sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// insert inserts a row whose data is a string.
func insert(t testing.TB, conn *pgx.Conn, recipient, data string) {
	t.Helper()
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ($1, to_jsonb($2::text))`, recipient, data)
}
