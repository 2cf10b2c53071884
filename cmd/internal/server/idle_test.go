package server

import (
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"rowcast/stream"
)

// When there are too many idle connections, the server closes the connection that has been waiting for a request the
// longest. It closes no connection that has sent a request recently.
func TestIdleConnsOfAServer(t *testing.T) {
	t.Parallel()
	inBubble(t, 3, func(t *testing.T, p pipes, s *Server) {
		const request = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
		isAnswered := func(conn net.Conn, request string) bool {
			go func() { _, _ = io.WriteString(conn, request) }()
			n, _ := conn.Read(make([]byte, 1000))
			synctest.Wait()
			return n > 0
		}
		active := p.dial(t, "")
		silent := p.dial(t, "")
		synctest.Wait()
		partial := p.dial(t, "GET /healthz HTTP/1.1\r\n")
		synctest.Wait()
		if !isAnswered(active, request) {
			t.Error("the first of three connections was closed, although three are allowed")
		}
		_ = p.dial(t, "GET")
		synctest.Wait()
		if isAnswered(silent, "") {
			t.Error("the connection that had been waiting the longest was not closed")
		}
		if n := s.idle.Closed.Load(); n != 1 {
			t.Errorf("%d connections were closed, want 1", n)
		}
		if !isAnswered(partial, "Host: localhost\r\n\r\n") {
			t.Error("the connection with a partial request was closed, want it open, because another connection had waited longer")
		}
		if !isAnswered(active, request) {
			t.Error("a connection was closed that had sent a request recently")
		}
		_ = partial.Close()
		synctest.Wait()
		_ = p.dial(t, "")
		synctest.Wait()
		if n := s.idle.Closed.Load(); n != 1 {
			t.Errorf("%d connections were closed, want 1: the last connection has taken the place of one that the client had closed", n)
		}
	})
}

// A fakeConn is a connection from an address. It records whether it was closed.
type fakeConn struct {
	net.Conn
	from    string
	closed  bool
	onClose func()
}

func (c *fakeConn) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(c.from), Port: 1}
}

func (c *fakeConn) Close() error {
	c.closed = true
	if c.onClose != nil {
		c.onClose()
	}
	return nil
}

// A connection cannot become a stream while idleConns closes it. Otherwise a stream that has just begun could be
// closed.
func TestIdleConnsCloseUnderTheLock(t *testing.T) {
	t.Parallel()
	c := newIdleConns(1)
	first := &fakeConn{from: "192.0.2.1", onClose: func() {
		if c.mu.TryLock() {
			c.mu.Unlock()
			t.Error("idleConns does not hold its lock while it closes a connection")
		}
	}}
	c.track(first, http.StateNew)
	c.track(&fakeConn{from: "192.0.2.1"}, http.StateNew)
	if !first.closed || c.Closed.Load() != 1 {
		t.Errorf("closed the first connection: %v, want true; closed %d connections, want 1", first.closed, c.Closed.Load())
	}
}

// idleConns chooses the connection to close by the rules in its comment.
func TestIdleConnsVictim(t *testing.T) {
	t.Parallel()
	const a, b, c = "192.0.2.1", "192.0.2.2", "2001:db8::1"
	for name, tt := range map[string]struct {
		conns []string // the address of each connection; "!" means that its request is being answered
		want  int      // the index of the connection to close
	}{
		"the longest waiting":                          {[]string{a, b, c, a, b, c, "198.51.100.1", "198.51.100.2", "198.51.100.3"}, 0},
		"a waiting connection, not one with a request": {[]string{a + "!", b + "!", c, "198.51.100.1!", "198.51.100.2!", "198.51.100.3!", a + "!", b + "!", c}, 2},
		"the address with most waiting connections":    {[]string{a, b, c, "198.51.100.1", b, "198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5"}, 1},
		"the address with most connections":            {[]string{a, b + "!", b + "!", b, "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5"}, 3},
		"the newest request of the address with most":  {[]string{a, b + "!", b + "!", b + "!", "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", a}, 3},
		"the new connection, if no other waits":        {[]string{a + "!", b + "!", c + "!", "198.51.100.1!", "198.51.100.2!", "198.51.100.3!", "198.51.100.4!", "198.51.100.5!", a}, 8},
		"an IPv6 network is one address":               {[]string{a, b, "2001:db8::1!", "2001:db8::2!", "2001:db8::3!", "198.51.100.1", "198.51.100.2", "198.51.100.3", a}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			idle := newIdleConns(len(tt.conns) - 1)
			var all []*fakeConn
			for _, conn := range tt.conns {
				from, answering := strings.CutSuffix(conn, "!")
				c := &fakeConn{from: from}
				all = append(all, c)
				idle.track(c, http.StateNew)
				if answering {
					idle.track(c, http.StateActive)
				}
			}
			got := slices.IndexFunc(all, func(c *fakeConn) bool { return c.closed })
			if got != tt.want || idle.Closed.Load() != 1 {
				t.Errorf("closed the connection with index %d, want %d; closed %d connections, want 1", got, tt.want, idle.Closed.Load())
			}
		})
	}
}

// If each connection has an address of its own, the connections that have been waiting the longest are closed. Each of
// them has time to send its request, however many connections an attacker opens from different addresses.
func TestIdleConnsOfManyAddresses(t *testing.T) {
	t.Parallel()
	const most = 100
	idle := newIdleConns(most)
	var all []*fakeConn
	for i := range 10 * most {
		c := &fakeConn{from: fmt.Sprintf("192.0.%d.%d", i/250, i%250)}
		all = append(all, c)
		idle.track(c, http.StateNew)
		if n := slices.IndexFunc(all, func(c *fakeConn) bool { return !c.closed }); n != max(0, len(all)-most) {
			t.Fatalf("after %d connections, the oldest open one has the index %d, want %d", len(all), n, max(0, len(all)-most))
		}
	}
}

// Behind a trusted proxy, a connection counts for the proxy's client while a request is being answered.
func TestIdleConnsBehindAProxy(t *testing.T) {
	t.Parallel()
	idle := newIdleConns(4)
	proxy := func(client string) *fakeConn {
		c := &fakeConn{from: "10.0.0.1"}
		idle.track(c, http.StateNew)
		idle.track(c, http.StateActive)
		request := httptest.NewRequest(http.MethodGet, "/events", nil)
		request.RemoteAddr = client + ":0"
		request = request.WithContext(idle.withConn(t.Context(), c))
		idle.attribute(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), request)
		return c
	}
	honest := []*fakeConn{proxy("198.51.100.1"), proxy("198.51.100.2")}
	attacker := []*fakeConn{proxy("192.0.2.1"), proxy("192.0.2.1"), proxy("192.0.2.1")}
	for i := range honest {
		if honest[i].closed {
			t.Error("an honest client's connection was closed, want it open: only another client of the same proxy has many connections")
		}
	}
	last := proxy("198.51.100.3")
	if attacker[0].closed || !attacker[1].closed || !attacker[2].closed || last.closed {
		t.Errorf("closed the attacker's connections: %v, %v, %v, want false, true, true; closed the last connection: %v, want false",
			attacker[0].closed, attacker[1].closed, attacker[2].closed, last.closed)
	}
	idle.track(honest[0], http.StateIdle)
	if got := idle.conns[honest[0]].peer.address; got != stream.AddressOf("10.0.0.1:1") {
		t.Errorf("after the answer, the connection counts for %v, want the proxy's address", got)
	}
}

// After random sequences of events, idleConns has at most max connections. The connection that it would close has the
// address and the state that the rules in its comment name. idleConns keeps no data about connections that have ended.
func TestIdleConnsAgainstAModel(t *testing.T) {
	t.Parallel()
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed))
	for range 200 {
		idle := newIdleConns(1 + random.IntN(20))
		var open []*fakeConn
		for range 300 {
			if n := len(open); n > 0 && random.IntN(3) > 0 {
				c := open[random.IntN(n)]
				idle.track(c, []http.ConnState{http.StateActive, http.StateIdle, http.StateActive, http.StateHijacked, http.StateClosed}[random.IntN(5)])
			} else {
				c := &fakeConn{from: fmt.Sprint("192.0.2.", random.IntN(6))}
				open = append(open, c)
				idle.track(c, http.StateNew)
			}
			open = slices.DeleteFunc(open, func(c *fakeConn) bool { return c.closed || idle.conns[c] == nil })
			checkIdleConns(t, idle, open)
		}
		for _, c := range open {
			idle.track(c, http.StateClosed)
		}
		if len(idle.conns)+len(idle.peers)+idle.byTotal.Len()+idle.byWaiting.Len() > 0 {
			t.Fatal("idleConns keeps data about connections that have ended")
		}
	}
}

func checkIdleConns(t *testing.T, idle *idleConns, open []*fakeConn) {
	t.Helper()
	if len(idle.conns) > idle.max || len(idle.conns) != len(open) {
		t.Fatalf("idleConns has %d connections, want the %d open ones, and at most %d", len(idle.conns), len(open), idle.max)
	}
	all, waiting := make(map[string]int), make(map[string]int)
	for _, c := range open {
		all[c.from]++
		if idle.conns[c].waiting {
			waiting[c.from]++
		}
	}
	if len(open) == 0 {
		return
	}
	got := idle.victim()
	from := got.conn.(*fakeConn).from
	switch most, mostWaiting := largest(all), largest(waiting); {
	case most > idle.max/4 || mostWaiting == 0:
		if all[from] != most || got.waiting != (waiting[from] > 0) {
			t.Fatalf("chose a connection of %s (waiting: %v), want an address with the most connections, and a waiting connection if the address has one; all connections: %v, waiting: %v", from, got.waiting, all, waiting)
		}
	case !got.waiting || waiting[from] != mostWaiting:
		t.Fatalf("chose a connection of %s (waiting: %v), want a waiting connection of an address with the most of these: %v", from, got.waiting, waiting)
	default:
		for _, c := range open {
			if other := idle.conns[c]; other.waiting && waiting[c.from] == mostWaiting && other.since < got.since {
				t.Fatalf("chose a connection of %s, although a connection of %s has been waiting longer; waiting: %v", from, c.from, waiting)
			}
		}
	}
}

func largest(counts map[string]int) (n int) {
	for _, count := range counts {
		n = max(n, count)
	}
	return n
}
