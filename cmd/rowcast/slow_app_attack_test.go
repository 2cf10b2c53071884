package main_test

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"rowcast/sql/dbtest"
)

// An attacker opens up to 500 connections per second and sends a complete request on each. The hub may open 1,024
// files, and the app takes a second for each answer. A client from another address still gets a stream, and an open
// stream stays open.
func TestAttackWithASlowApp(t *testing.T) {
	t.Parallel()
	app := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(time.Second)
		if r.Header.Get("Authorization") != "Bearer alice" {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, `{"recipient": "alice", "expires_in": 300}`)
	}))
	t.Cleanup(app.Close)
	p, url := spawnServeWith(t, 1024, dbtest.Database(t), "--insecure-uid=false", "--auth-url", app.URL)
	before := tailOf(t, url)
	before.out.await(t, "rowcast.hello")

	attack(t, url, 500)
	askUntil(t, url+"/metrics", `(?m)^rowcast_idle_connections_closed_total ([1-9]\d\d|\d{4,})$`)
	during := tailOf(t, url)
	during.out.await(t, "rowcast.hello")
	for _, tail := range []*process{before, during} {
		if said := tail.err.String(); strings.Count(said, "connected to") != 1 {
			t.Errorf("a stream was interrupted: %s", said)
		}
	}
	if strings.Contains(p.err.String(), "too many open files") {
		t.Errorf("the hub ran out of file descriptors: %s", p.err)
	}
}

// tailOf starts rowcast tail for alice.
func tailOf(t *testing.T, url string) *process {
	t.Helper()
	return start(t, environment{"ROWCAST_TOKEN": "alice"}, "tail", "--verbose", "--json", "--url", url+"/events")
}

// attack opens up to rate connections per second from another address, until the test ends. It sends a complete request
// on each.
func attack(t *testing.T, url string, rate int) {
	t.Helper()
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 0, 2)}, Timeout: waitLimit}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(time.Second / time.Duration(rate))
		defer ticker.Stop()
		var open []net.Conn
		defer func() { closeAll(open) }()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-ticker.C:
			}
			conn, err := dialer.Dial("tcp", strings.TrimPrefix(url, "http://"))
			if err != nil {
				continue
			}
			_, _ = fmt.Fprintf(conn, "GET /events HTTP/1.1\r\nHost: localhost\r\nAuthorization: Bearer %d\r\n\r\n", i)
			if open = append(open, conn); len(open) > 5*rate { // the attacker keeps at most this many connections open
				_ = open[0].Close()
				open = open[1:]
			}
		}
	}()
	t.Cleanup(func() {
		close(stop)
		receive(t, ended, "the end of the attack")
	})
}

func closeAll(all []net.Conn) {
	for _, conn := range all {
		_ = conn.Close()
	}
}
