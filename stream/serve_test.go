package stream_test

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/textproto"
	"reflect"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	"rowcast/stream"
)

func TestHeaders(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	conn, err := dial(f.url, request{recipients: []string{"alice"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	head := textproto.NewReader(bufio.NewReader(conn))
	if status, err := head.ReadLine(); status != "HTTP/1.1 200 OK" {
		t.Errorf("got the status line %q (%v), want HTTP/1.1 200 OK", status, err)
	}
	got, err := head.ReadMIMEHeader()
	if err != nil {
		t.Fatal(err)
	}
	delete(got, "Date")
	// The response has no Content-Length. It has no chunks, because some proxies delay chunks. The body ends with the
	// connection.
	want := textproto.MIMEHeader{
		"Content-Type":      {"text/event-stream"},
		"Cache-Control":     {"no-store, no-transform"},
		"X-Accel-Buffering": {"no"},
		"Connection":        {"close"},
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestHelloHasTheClientsCursor(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	e := f.publish("alice", "message", "1")
	f.publish("bob", "message", "2")
	c := resume(t, f.site, e.Cursor.String())
	c.expect(":\n" + void(e.Cursor.String()))
	wantRetry(t, c.line(), 3*time.Second)
	c.expect(hello(e.Cursor.String()))
}

func TestDataNeverBecomesFields(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, f.site, "alice")
	id := c.hello()
	f.hub.Send(feed.Message{Recipient: everyone, Event: "x", Data: []byte("a\nid: 1\r\rdata: b\n\n")})
	const data = "a\nid: 1\n\ndata: b\n\n"
	if e := c.want("x"); e.Data != data || e.LastID != id {
		t.Errorf("got %q with the id %s, want %q with the id %s", e.Data, e.LastID, data, id)
	}
	f.hub.Send(feed.Message{Recipient: everyone, Event: "x\nid: 1", Data: []byte("1")})
	if e := c.want("message"); e.Data != "1" || e.LastID != id {
		t.Errorf("got %q with the id %s, want 1 and the id %s", e.Data, e.LastID, id)
	}
}

// Each client is sent a random retry time, so that clients that lost their hub together do not reconnect together.
func TestRetryIsRandom(t *testing.T) {
	t.Parallel()
	f := serveFeed(t, func(s *site) { s.hub.Retry = time.Minute })
	seen := map[time.Duration]bool{}
	for range 20 {
		c := listen(t, f.site)
		c.hello()
		seen[c.decoder.Retry] = true
		if c.decoder.Retry < 30*time.Second || c.decoder.Retry >= 90*time.Second {
			t.Errorf("got the retry time %v, want 30 s to 90 s", c.decoder.Retry)
		}
	}
	if len(seen) < 15 {
		t.Errorf("20 clients received %d different retry times, want at least 15", len(seen))
	}
}

func wantRetry(t *testing.T, line string, mean time.Duration) {
	t.Helper()
	digits := regexp.MustCompile(`^retry: ([0-9]+)\n$`).FindStringSubmatch(line)
	if digits == nil {
		t.Fatalf("got %q, want a retry field", line)
	}
	ms, err := strconv.Atoi(digits[1])
	if got := time.Duration(ms) * time.Millisecond; err != nil || got < mean/2 || got > mean*3/2 {
		t.Errorf("the retry time is %v, want from half to one and a half times %v", got, mean)
	}
}

// Over TLS and HTTP/2, streams are written through net/http and have the same contents.
func TestOtherProtocols(t *testing.T) {
	t.Parallel()
	for name, proto := range map[string]string{"h2": "HTTP/2.0", "http/1.1": "HTTP/1.1"} {
		t.Run(name+" over TLS", func(t *testing.T) {
			t.Parallel()
			f := newFeed(t)
			run(t, f.hub.Run)
			c := listenTLS(t, f, proto == "HTTP/2.0", "alice")
			if c.response.Proto != proto || c.response.StatusCode != http.StatusOK {
				t.Errorf("got %s %s, want %s 200", c.response.Proto, c.response.Status, proto)
			}
			c.expect(":\n" + void(start.String()))
			c.line()
			c.expect(hello(start.String(), "alice"))
			for i := range 50 {
				e := f.publish("alice", "message", fmt.Sprint(i))
				c.expect("data: " + fmt.Sprint(i) + "\nid: " + e.Cursor.String() + "\n\n")
			}
			large := f.publish("alice", "message", `"`+strings.Repeat("x", 3<<20)+`"`)
			c.expect("data: " + string(large.Data) + "\nid: " + large.Cursor.String() + "\n\n")
			_ = c.response.Body.Close()
			eventually(t, "the stream of the disconnected client ends", func() bool { return f.hub.Stats.Streams.Load() == 0 })
		})
	}
}

// listenTLS opens a stream over TLS, with HTTP/2 or 1.1.
func listenTLS(t *testing.T, f *fakeFeed, http2 bool, recipient string) *client {
	t.Helper()
	server := httptest.NewUnstartedServer(f.site)
	server.EnableHTTP2 = http2
	server.StartTLS()
	t.Cleanup(server.Close)
	response, err := server.Client().Get(server.URL + "?recipient=" + recipient)
	if err != nil {
		t.Fatal(err)
	}
	return newClient(t, response)
}

func TestPlainHTTP2(t *testing.T) {
	t.Parallel()
	f := newFeed(t)
	run(t, f.hub.Run)
	var both http.Protocols
	both.SetUnencryptedHTTP2(true)
	server := httptest.NewUnstartedServer(f.site)
	server.Config.Protocols = &both
	server.Start()
	t.Cleanup(server.Close)
	transport := &http.Transport{Protocols: &both, TLSClientConfig: &tls.Config{}}
	t.Cleanup(transport.CloseIdleConnections)
	response, err := transport.RoundTrip(httptest.NewRequest(http.MethodGet, server.URL, nil))
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, response)
	c.hello()
	f.publish(everyone, "message", "1")
	c.wantData("1")
}

func TestHTTP10(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := sendRaw(t, f.site, "GET /?recipient=alice HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
	if len(c.response.TransferEncoding) > 0 || c.response.ContentLength != -1 {
		t.Errorf("got %v, want no Transfer-Encoding and no length", c.response)
	}
	c.hello()
	f.publish("alice", "message", "1")
	c.wantData("1")
}

// A stream and the answer to a poll begin even if the client has announced a body and does not send it. net/http would
// wait for the body before it sends the head of the response. The stream would stay open, although its client accepts
// nothing.
func TestABodyThatIsNotSent(t *testing.T) {
	t.Parallel()
	for _, announced := range []string{"Content-Length: 5", "Transfer-Encoding: chunked"} {
		for _, query := range []string{"recipient=alice", "recipient=alice&poll=1&last_event_id=" + start.String()} {
			t.Run(announced+" "+query, func(t *testing.T) {
				t.Parallel()
				f := serveFeed(t)
				f.publish("alice", "message", "1")
				c := sendRaw(t, f.site, "GET /?"+query+" HTTP/1.1\r\nHost: x\r\n"+announced+"\r\n\r\n")
				c.hello()
				f.publish("alice", "message", "2")
				want := "2"
				if strings.Contains(query, "poll") {
					want = "1"
				}
				c.wantData(want)
			})
		}
	}
}

// sendRaw sends the bytes of a request unchanged, and reads the head of the response.
func sendRaw(t *testing.T, s *site, request string) *client {
	t.Helper()
	conn, err := net.Dial("tcp", strings.TrimPrefix(s.url, "http://"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, request); err != nil {
		t.Fatal(err)
	}
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, response)
	c.conn = conn
	return c
}

// Headers that a middleware has set are sent with a stream and with "retry later".
func TestCORSHeadersSurvive(t *testing.T) {
	t.Parallel()
	f, stopped := newFeed(t), newFeed(t)
	run(t, f.hub.Run)
	run(t, stopped.hub.Run)()
	for _, hub := range []*stream.Hub{f.hub, stopped.hub} {
		server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Access-Control-Allow-Origin", "https://app.example")
			w.Header().Add("Vary", "Origin")
			hub.Serve(w, r, stream.Grant{})
		}))
		t.Cleanup(server.Close)
		header := listen(t, &site{url: server.URL}).response.Header
		if header.Get("Access-Control-Allow-Origin") != "https://app.example" || header.Get("Vary") != "Origin" {
			t.Errorf("got the headers %v, want the two headers of the middleware", header)
		}
	}
}

// Behind a middleware that hides Flush, the hub opens no stream, because its events would be delayed. The status is
// 200, so the client retries.
func TestAWriterThatCannotFlush(t *testing.T) {
	t.Parallel()
	f := newFeed(t)
	w := httptest.NewRecorder()
	f.hub.Serve(struct{ http.ResponseWriter }{w}, httptest.NewRequest(http.MethodGet, "/", nil), stream.Grant{})
	if w.Code != http.StatusOK || f.hub.Stats.Streams.Load() != 0 {
		t.Errorf("got the status %d and %d streams, want 200 and none", w.Code, f.hub.Stats.Streams.Load())
	}
}

// A cursor with a thousand transactions in flight, whose numbers are far apart, has at most 7,500 bytes. Many proxies
// limit a header to 8 KiB.
func TestALongCursorFitsInAHeader(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	long := cursor.Cursor{Xmax: 1 << 40, Epoch: start.Epoch, Anchor: start.Anchor}
	for i := range uint64(1000) {
		long.Xip = append(long.Xip, long.Xmax-(1000-i)*2147483)
	}
	f.hub.Publish(feed.Batch{Cursor: long})
	id := listen(t, f.site).hello()
	if len(id) > 7500 || parse(t, id).Xmax != long.Xmax || len(parse(t, id).Xip) != 1000 {
		t.Errorf("the id has %d bytes, want at most 7500 and the whole cursor: %s", len(id), id)
	}
	if got := resume(t, f.site, id).hello(); got != id {
		t.Errorf("rowcast.hello has the id %s, want %s", got, id)
	}
}

// The data of a row may be a part of a larger buffer. The hub does not write past the end of the data, whatever its
// size.
func TestDataIsNotAppendedTo(t *testing.T) {
	t.Parallel()
	f := serveFeed(t)
	c := listen(t, f.site, "alice")
	c.hello()
	for _, size := range []int{100, 100 << 10} {
		buffer := []byte(text(size) + "the next row")
		e := f.event(f.now.Xmax, "alice", "message", "")
		e.Data = buffer[:size]
		f.now = e.Cursor.Reached(cursor.Cursor{Xmax: e.Xid + 1, Epoch: f.now.Epoch})
		f.hub.Publish(feed.Batch{Rows: []feed.Row{e}, Cursor: f.now})
		c.wantData(text(size))
		if got := string(buffer[size:]); got != "the next row" {
			t.Errorf("%d bytes of data: the bytes after them have become %q, want them unchanged", size, got)
		}
	}
}

// If a middleware keeps responses from being streamed, the hub opens no stream. It logs that at a limited rate.
func TestResponsesThatCannotBeStreamedDoNotFillTheLog(t *testing.T) {
	t.Parallel()
	var log bytes.Buffer
	f := newFeed(t, func(s *site) { s.hub.Logger = slog.New(slog.NewTextHandler(&log, nil)) })
	for range 100 {
		wrapped := struct{ http.ResponseWriter }{httptest.NewRecorder()} // a ResponseWriter without Flush
		r := httptest.NewRequest(http.MethodGet, "/", nil)
		r.ProtoMajor = 2 // over HTTP/2, Serve writes through wrapped
		f.hub.Serve(wrapped, r, stream.Grant{User: "alice"})
	}
	const message = "the response cannot be streamed; a middleware may wrap the ResponseWriter without Unwrap"
	if got := strings.Count(log.String(), message); got < 1 || got > 10 || f.hub.Stats.Streams.Load() != 0 {
		t.Errorf("%d streams are open, want none; %d of 100 requests are logged, want 1 to 10:\n%s", f.hub.Stats.Streams.Load(), got, log.String())
	}
}
