package server

import (
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"rowcast/stream"
)

// A visitor is a connection from an address, which notes that it was closed.
type visitor struct {
	net.Conn
	from   string
	closed bool
	do     func()
}

func (v *visitor) RemoteAddr() net.Addr {
	return &net.TCPAddr{IP: net.ParseIP(v.from), Port: 1}
}

func (v *visitor) Close() error {
	v.closed = true
	if v.do != nil {
		v.do()
	}
	return nil
}

// The connection that is closed to make room can become no stream meanwhile: the stream would write to a closed connection.
func TestLobbyClosesNoStream(t *testing.T) {
	t.Parallel()
	l := newLobby(1)
	first := &visitor{from: "192.0.2.1", do: func() {
		if l.mu.TryLock() {
			l.mu.Unlock()
			t.Error("a connection can be taken over while it is being closed")
		}
	}}
	l.follow(first, http.StateNew)
	l.follow(&visitor{from: "192.0.2.1"}, http.StateNew)
	if !first.closed || l.Closed.Load() != 1 {
		t.Errorf("the first is closed: %v; %d were, want 1", first.closed, l.Closed.Load())
	}
}

// The order in which a full lobby closes connections.
func TestLobbyChooses(t *testing.T) {
	t.Parallel()
	const a, b, c = "192.0.2.1", "192.0.2.2", "2001:db8::1"
	for name, tt := range map[string]struct {
		guests []string // an address; with "!", its request is being answered
		closed int      // which guest
	}{
		"the longest waiting":                         {[]string{a, b, c, a, b, c, "198.51.100.1", "198.51.100.2", "198.51.100.3"}, 0},
		"no request that is being answered":           {[]string{a + "!", b + "!", c, "198.51.100.1!", "198.51.100.2!", "198.51.100.3!", a + "!", b + "!", c}, 2},
		"of the address that waits most":              {[]string{a, b, c, "198.51.100.1", b, "198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5"}, 1},
		"of the address that has most":                {[]string{a, b + "!", b + "!", b, "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", "198.51.100.5"}, 3},
		"the newest request of the address with most": {[]string{a, b + "!", b + "!", b + "!", "198.51.100.1", "198.51.100.2", "198.51.100.3", "198.51.100.4", a}, 3},
		"a newcomer, if only it waits":                {[]string{a + "!", b + "!", c + "!", "198.51.100.1!", "198.51.100.2!", "198.51.100.3!", "198.51.100.4!", "198.51.100.5!", a}, 8},
		"an IPv6 network is one address":              {[]string{a, b, "2001:db8::1!", "2001:db8::2!", "2001:db8::3!", "198.51.100.1", "198.51.100.2", "198.51.100.3", a}, 4},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			l := newLobby(len(tt.guests) - 1)
			var all []*visitor
			for _, guest := range tt.guests {
				from, answered := strings.CutSuffix(guest, "!")
				v := &visitor{from: from}
				all = append(all, v)
				l.follow(v, http.StateNew)
				if answered {
					l.follow(v, http.StateActive)
				}
			}
			closed := slices.IndexFunc(all, func(v *visitor) bool { return v.closed })
			if closed != tt.closed || l.Closed.Load() != 1 {
				t.Errorf("%d was closed, want %d; closed in all: %d", closed, tt.closed, l.Closed.Load())
			}
		})
	}
}

// Behind a trusted proxy, a connection counts for the proxy's client while its request is being answered.
func TestLobbyKnowsTheClientsOfAProxy(t *testing.T) {
	t.Parallel()
	l := newLobby(4)
	proxy := func(client string) *visitor {
		v := &visitor{from: "10.0.0.1"}
		l.follow(v, http.StateNew)
		l.follow(v, http.StateActive)
		request := httptest.NewRequest(http.MethodGet, "/events", nil)
		request.RemoteAddr = client + ":0"
		request = request.WithContext(l.remember(t.Context(), v))
		l.recognise(http.NotFoundHandler()).ServeHTTP(httptest.NewRecorder(), request)
		return v
	}
	honest := []*visitor{proxy("198.51.100.1"), proxy("198.51.100.2")}
	attacker := []*visitor{proxy("192.0.2.1"), proxy("192.0.2.1"), proxy("192.0.2.1")}
	for i := range honest {
		if honest[i].closed {
			t.Error("a client is closed because another client of its proxy has many connections")
		}
	}
	late := proxy("198.51.100.3")
	if attacker[0].closed || !attacker[1].closed || !attacker[2].closed || late.closed {
		t.Errorf("closed of the attacker: %v, %v, %v, and the newcomer: %v; want the newest requests of the attacker",
			attacker[0].closed, attacker[1].closed, attacker[2].closed, late.closed)
	}
	l.follow(honest[0], http.StateIdle)
	if got := l.guests[honest[0]].home.address; got != stream.AddressOf("10.0.0.1:1") {
		t.Errorf("after the answer it counts for %v, want the proxy", got)
	}
}

// Whatever happens in whatever order, the lobby chooses as a search through all its connections does, has no more than its room, and
// remembers nothing of those that have left.
func TestLobbyAgainstAModel(t *testing.T) {
	t.Parallel()
	const seed = 1
	random := rand.New(rand.NewPCG(seed, seed))
	for range 200 {
		l := newLobby(1 + random.IntN(20))
		var there []*visitor
		for range 300 {
			if n := len(there); n > 0 && random.IntN(3) > 0 {
				v := there[random.IntN(n)]
				l.follow(v, []http.ConnState{http.StateActive, http.StateIdle, http.StateActive, http.StateHijacked, http.StateClosed}[random.IntN(5)])
			} else {
				v := &visitor{from: fmt.Sprint("192.0.2.", random.IntN(6))}
				there = append(there, v)
				l.follow(v, http.StateNew)
			}
			there = slices.DeleteFunc(there, func(v *visitor) bool { return v.closed || l.guests[v] == nil })
			checkLobby(t, l, there)
		}
		for _, v := range there {
			l.follow(v, http.StateClosed)
		}
		if len(l.guests)+len(l.households)+l.most.Len()+l.mostWaiting.Len() > 0 {
			t.Fatal("something is left of connections that have ended")
		}
	}
}

func checkLobby(t *testing.T, l *lobby, there []*visitor) {
	t.Helper()
	if len(l.guests) > l.room || len(l.guests) != len(there) {
		t.Fatalf("%d connections, want %d and at most %d", len(l.guests), len(there), l.room)
	}
	all, waiting := make(map[string]int), make(map[string]int)
	for _, v := range there {
		all[v.from]++
		if l.guests[v].waiting {
			waiting[v.from]++
		}
	}
	if len(there) == 0 {
		return
	}
	got := l.superfluous()
	from := got.conn.(*visitor).from
	switch most, mostWaiting := largest(all), largest(waiting); {
	case most > l.room/4 || mostWaiting == 0:
		if all[from] != most || got.waiting != (waiting[from] > 0) {
			t.Fatalf("it chose one of %d, waiting: %v; %v are there, %v wait", all[from], got.waiting, all, waiting)
		}
	case !got.waiting || waiting[from] != mostWaiting:
		t.Fatalf("it chose one of %d that wait, waiting: %v; %v wait", waiting[from], got.waiting, waiting)
	}
}

func largest(counts map[string]int) (n int) {
	for _, count := range counts {
		n = max(n, count)
	}
	return n
}
