package main_test

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"rowcast/sql/dbtest"
)

// This file has attacks with odd requests and with line breaks. Other files have related tests: slow requests, unread
// answers and idle connections are in cmd/internal/server, half-open connections in limits_test.go, and clients that
// never read in package stream.

// raw opens a connection and sends a text unchanged.
func raw(t *testing.T, url, sent string) net.Conn {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(waitLimit))
	go func() { _, _ = io.WriteString(conn, sent) }() // the hub may close the connection before it has read the whole text
	return conn
}

// statuses sends a text and returns the status of each answer, until the hub closes the connection or a stream begins.
func statuses(t *testing.T, url, sent string) (all string) {
	t.Helper()
	reader := bufio.NewReader(raw(t, url, sent))
	for {
		response, err := http.ReadResponse(reader, nil)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			t.Fatalf("%.100q: after the statuses %q, the hub neither answers nor closes the connection", sent, all)
		}
		if err != nil {
			return strings.TrimSpace(all)
		}
		all += fmt.Sprint(response.StatusCode, " ")
		if response.Header.Get("Content-Type") == "text/event-stream" {
			return strings.TrimSpace(all)
		}
		_, _ = io.Copy(io.Discard, response.Body)
	}
}

// maxHead is the documented maximum of a request line and its headers together, in bytes.
const maxHead = 16 << 10

// Ambiguous, unusual and long requests get the answers in the table and no others, except that the answer 431 may be
// lost. An open stream is not affected.
func TestAttackOddRequests(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn)
	bystander := h.streamOf(t, [2]string{"bystander", ""})
	const smuggled = "GET /readyz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
	long := strings.Repeat("x", 1<<20)
	requests := map[string]struct{ sent, want string }{
		// Request smuggling and protocol versions. The hub parses no request after a body or an incorrect request.
		"length and chunks":         {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, "200"},
		"length and chunks, POST":   {"POST /events HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, "405"},
		"a request inside a body":   {fmt.Sprintf("GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n", len(smuggled)) + smuggled + smuggled, "200"},
		"two lengths":               {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\nContent-Length: 5\r\n\r\n" + smuggled, "400"},
		"a list of lengths":         {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0, 5\r\n\r\n" + smuggled, "400"},
		"a signed length":           {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: +5\r\n\r\n" + smuggled, "400"},
		"a negative length":         {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nContent-Length: -1\r\n\r\n" + smuggled, "400"},
		"an unknown encoding":       {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: xchunked\r\n\r\n" + smuggled, "501"},
		"two encodings":             {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: gzip, chunked\r\n\r\n" + smuggled, "501"},
		"a blank before the colon":  {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding : chunked\r\n\r\n" + smuggled, "400"},
		"a folded header":           {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: b\r\n Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n", "200"},
		"a NUL in a header":         {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nX-A: b\x00c\r\n\r\n" + smuggled, "400"},
		"pipelined requests":        {"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" + smuggled, "200 200"},
		"HTTP/1.0 with chunks":      {"GET /healthz HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n" + smuggled, "200"},
		"HTTP/1.0, kept alive":      {"GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n5 /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"},
		"HTTP/0.9":                  {"GET /events?uid=a\r\n\r\n", "400"},
		"HTTP/2 without an upgrade": {"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "404"},
		"HTTP/9.9":                  {"GET /healthz HTTP/9.9\r\nHost: localhost\r\n\r\n", "505"},
		"an upgrade":                {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade, close\r\nUpgrade: h2c\r\n\r\n", "200"},

		// The hub checks the host that a request names, and does not clean or decode the path.
		"an absolute form":                {"GET http://evil.example/events?uid=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "403"},
		"no host":                         {"GET /healthz HTTP/1.1\r\n\r\n", "400"},
		"two hosts":                       {"GET /healthz HTTP/1.1\r\nHost: localhost\r\nHost: evil.example\r\n\r\n", "400"},
		"an empty host":                   {"GET /healthz HTTP/1.1\r\nHost: \r\nConnection: close\r\n\r\n", "200"},
		"a host with a tab":               {"GET /healthz HTTP/1.1\r\nHost: h\tub\r\n\r\n", "400"},
		"a double slash":                  {"GET //events?uid=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "404"},
		"dots":                            {"GET /x/../events?uid=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "404"},
		"an escaped path":                 {"GET /%65vents?uid=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "404"},
		"an asterisk":                     {"GET * HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "404"},
		"a control character in the path": {"GET /events\x01?uid=a HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"},

		// Methods.
		"OPTIONS *":             {"OPTIONS * HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello" + smuggled, "404"},
		"OPTIONS * at a domain": {"OPTIONS * HTTP/1.1\r\nHost: evil.example\r\nConnection: close\r\n\r\n", "403"},
		"OPTIONS":               {"OPTIONS /events?uid=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "405"},
		"PUT":                   {"PUT /events?uid=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "405"},
		"TRACE":                 {"TRACE /events?uid=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "405"},
		"CONNECT":               {"CONNECT evil.example:443 HTTP/1.1\r\nHost: evil.example:443\r\nConnection: close\r\n\r\n", "403"},
		"unknown":               {"EVENTS /events?uid=a HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n", "405"},
		"none":                  {" /events?uid=a HTTP/1.1\r\nHost: localhost\r\n\r\n", "400"},

		// Long requests. The first three have about 12,000 bytes. A cursor with 1,000 transactions in flight has fewer
		// than 7,500.
		"a long id that is not a cursor": {"GET /events?uid=a HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: " + long[:12<<10] + "\r\n\r\n", "200"},
		"a long query":                   {"GET /events?uid=a&x=" + long[:12<<10] + " HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"},
		"a query with many keys":         {"GET /events?uid=a" + strings.Repeat("&x=1", 3000) + " HTTP/1.1\r\nHost: localhost\r\n\r\n", "200"},
		"an id of 1 MiB":                 {"GET /events?uid=a HTTP/1.1\r\nHost: localhost\r\nLast-Event-ID: " + long + "\r\n\r\n", "431"},
		"a URL with 1 MiB of id":         {"GET /events?uid=a&last_event_id=" + long + " HTTP/1.1\r\nHost: localhost\r\n\r\n", "431"},
		"a header name of 1 MiB":         {"GET /events?uid=a HTTP/1.1\r\nHost: localhost\r\n" + long + ": x\r\n\r\n", "431"},
		"ten thousand headers":           {"GET /events?uid=a HTTP/1.1\r\nHost: localhost\r\n" + strings.Repeat("X-A: b\r\n", 10000) + "\r\n", "431"},
		"a line without an end":          {long, "431"},
	}
	for size, want := range map[int]string{maxHead: "200", maxHead + 1: "431"} {
		const begin, end = "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nX-A: ", "\r\n\r\n"
		requests[fmt.Sprint("a head of ", size, " bytes")] = struct{ sent, want string }{begin + long[:size-len(begin+end)] + end, want}
	}
	t.Run("requests", func(t *testing.T) {
		for name, tt := range requests {
			t.Run(name, func(t *testing.T) {
				got := statuses(t, h.url, tt.sent)
				if got == "" && tt.want == "431" {
					return // the hub did not read the whole request, so its answer was lost when it closed the connection
				}
				if got != tt.want {
					t.Errorf("%.200q: got %q, want %q", tt.sent, got, tt.want)
				}
			})
		}
	})
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('*', 'notify', '1')`)
	if got, _ := receive(t, bystander, "an event of the open stream"); got != "notify" {
		t.Errorf("an open stream received the event %q, want notify", got)
	}
}

// Bytes after the request for a stream are not parsed as a request, whether they arrive with that request or later.
func TestAttackRequestsBehindAStream(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn)
	const another = "GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n"
	for name, first := range map[string]string{
		"pipelined":    "GET /events?uid=a HTTP/1.1\r\nHost: localhost\r\n\r\n",
		"after a body": "GET /events?uid=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\n\r\nhello",
		"after chunks": "GET /events?uid=a HTTP/1.1\r\nHost: localhost\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
		"HTTP/1.0":     "GET /events?uid=a HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
	} {
		conn := raw(t, h.url, first+another+another)
		askUntil(t, h.url+"/metrics", "(?m)^rowcast_streams 1$")
		if _, err := io.WriteString(conn, another); err != nil {
			t.Fatal(err)
		}
		h.disconnect(t, dsn, "a")
		text, err := io.ReadAll(conn)
		if err != nil || strings.Count(string(text), "HTTP/1.") != 1 || !strings.Contains(string(text), "rowcast.bye") {
			t.Errorf("%s: got %q and the error %v, want one answer that contains rowcast.bye, and no error", name, text, err)
		}
		askUntil(t, h.url+"/metrics", "(?m)^rowcast_streams 0$")
	}
}

// Line breaks in rows, messages and requests do not add fields to the stream or headers to the answer.
func TestAttackLineBreaks(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn, "--cors-origin", "https://app.example.com")
	const forged = "\r\nevent: forged\r\nid: 1-1-1\rdata: forged\n\n"
	if got := ask(t, "GET", h.url+"/events?uid="+url.QueryEscape("alice"+forged)); got.status != 400 || strings.Contains(got.body, "forged") {
		t.Errorf("a user with line breaks: got %d, %s, want 400 without the forged text", got.status, got.body)
	}
	// X-Forged is a header of the request. The answer must not repeat it.
	conn := raw(t, h.url, "GET /events?uid=alice&last_event_id="+url.QueryEscape(forged)+
		" HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example.com\r\nX-Forged: 1\r\n\r\n")
	reader := bufio.NewReader(conn)
	response, err := http.ReadResponse(reader, nil)
	if err != nil {
		t.Fatal(err)
	}
	if response.Header.Get("X-Forged") != "" || response.StatusCode != 200 {
		t.Errorf("got %s, %v, want 200 and no header X-Forged", response.Status, response.Header)
	}
	names := make(chan string, 100)
	go func() {
		defer close(names)
		for lines := bufio.NewScanner(response.Body); lines.Scan(); {
			if line := lines.Text(); strings.ContainsRune(line, '\r') || strings.Contains(line, "forged") && !strings.HasPrefix(line, "data: ") {
				t.Errorf("the stream has the line %q, want no CR, and forged text only in data", line)
			} else if name, ok := strings.CutPrefix(line, "event: "); ok {
				names <- name
			}
		}
	}()
	want := func(name string) {
		t.Helper()
		if got, _ := receive(t, names, "the event "+name); got != name {
			t.Fatalf("got the event %q, want %q", got, name)
		}
	}
	want("rowcast.void")
	want("rowcast.hello")
	want("rowcast.reset") // because the last_event_id is not a cursor

	const quoted = `E'alice\r\nevent: forged\r\nid: 1-1-1\rdata: forged\n\n'`
	runSQL(t, dsn,
		`INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'row', to_jsonb(`+quoted+`::text))`,
		`SELECT pg_notify('rowcast', jsonb_build_object('recipient', 'alice', 'event', 'a message', 'data', `+quoted+`)::text)`,
		`SELECT pg_notify('rowcast', jsonb_build_object('recipient', `+quoted+`, 'data', 1)::text)`,
		`SELECT pg_notify('rowcast', jsonb_build_object('recipient', 'alice', 'event', `+quoted+`, 'data', 1)::text)`)
	// The row and the message may arrive in either order.
	first, _ := receive(t, names, "the row or the message")
	second, _ := receive(t, names, "the message or the row")
	if got := map[string]bool{first: true, second: true}; !got["row"] || !got["a message"] {
		t.Errorf("got the events %v, want \"row\" and \"a message\"", got)
	}
	h.err.await(t, "contains a line break or NUL")
	h.err.await(t, "contains a control character")
	runSQL(t, dsn, `SELECT pg_notify('rowcast.disconnect', `+quoted+`)`, `SELECT pg_notify('rowcast.disconnect', 'alice')`)
	want("rowcast.bye")
	if _, more := receive(t, names, "the end of the stream"); more {
		t.Error("after rowcast.bye, the stream has another event, want its end")
	}
}

// A line break or a control character in the Origin header adds no header to the answer. The hub does not allow an
// origin that only begins with a configured origin.
func TestAttackLineBreaksInOrigin(t *testing.T) {
	t.Parallel()
	h := serve(t, dbtest.Database(t), "--cors-origin", "https://app.example.com")
	const allows = "Access-Control-Allow-Origin: https://app.example.com\r\n"
	for sent, want := range map[string]struct {
		status string
		allows bool
	}{
		"":                    {"200 OK", true},
		"\r\nX-Forged: 1":     {"200 OK", true}, // another header of the request
		"\nX-Forged: 1":       {"200 OK", true}, // likewise
		"\r\n X-Forged: 1":    {"200 OK", false},
		"\rX-Forged: 1":       {"400 Bad Request", false},
		"\r\rX-Forged: 1":     {"400 Bad Request", false},
		"\x00X-Forged: 1":     {"400 Bad Request", false},
		"\u0085X-Forged: 1":   {"200 OK", false},
		"%0d%0aX-Forged: 1":   {"200 OK", false},
		"\r\nOrigin: forged":  {"200 OK", true}, // the hub uses the first Origin header
		"\r\n\r\nX-Forged: 1": {"200 OK", true}, // because of Connection: close, the text after the head is not parsed
	} {
		conn := raw(t, h.url, "GET /healthz HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nOrigin: https://app.example.com"+sent+"\r\n\r\n")
		got, err := io.ReadAll(conn)
		text := string(got)
		if err != nil || !strings.HasPrefix(text, "HTTP/1.1 "+want.status+"\r\n") || strings.Contains(text, allows) != want.allows || strings.Contains(strings.ToLower(text), "forged") {
			t.Errorf("%q: got %q and the error %v, want %s, the origin allowed: %v, no forged text and no error", sent, text, err, want.status, want.allows)
		}
	}
}
