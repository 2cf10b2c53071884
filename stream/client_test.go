package stream_test

import (
	"bufio"
	"errors"
	"io"
	"iter"
	"net"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"rowcast/listener/cursor"
	"rowcast/stream/sse"
)

// A client receives a stream. The test controls when the client reads.
type client struct {
	testing.TB
	conn     net.Conn // nil if an http.Client opened the connection
	response *http.Response
	body     *bufio.Reader
	decoder  sse.Decoder
	next     func() (sse.Event, error, bool)
}

// A request describes a client's request for a stream.
type request struct {
	recipients []string
	header     string // Last-Event-ID
	query      string // last_event_id
	poll       bool
	head       http.Header // further headers, or nil
	buffer     int         // the size of the client's receive buffer; 0 for the system's default
}

// listen opens a stream for the recipients. The request has no cursor.
func listen(t testing.TB, s *site, recipients ...string) *client {
	t.Helper()
	return open(t, s, request{recipients: recipients})
}

// resume opens a stream from a cursor.
func resume(t testing.TB, s *site, id string, recipients ...string) *client {
	t.Helper()
	return open(t, s, request{recipients: recipients, header: id})
}

// open opens a stream over a new connection, which is closed at the end of the test.
func open(t testing.TB, s *site, r request) *client {
	t.Helper()
	conn, err := dial(s.url, r)
	if err != nil {
		t.Fatal(err)
	}
	return begin(t, conn)
}

// begin reads the head of the response from a connection, which is closed at the end of the test.
func begin(t testing.TB, conn net.Conn) *client {
	t.Helper()
	response, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	c := newClient(t, response)
	c.conn = conn
	t.Cleanup(func() { _ = conn.Close() })
	return c
}

func newClient(t testing.TB, response *http.Response) *client {
	c := &client{TB: t, response: response, body: bufio.NewReader(response.Body)}
	next, stop := iter.Pull2(c.decoder.Events(c.body))
	c.next = next
	t.Cleanup(stop)
	t.Cleanup(func() { _ = response.Body.Close() })
	return c
}

// dial opens a connection and sends the request. The deadline of the connection is patience from now.
func dial(address string, r request) (net.Conn, error) {
	query := url.Values{"recipient": r.recipients}
	if r.query != "" {
		query.Set("last_event_id", r.query)
	}
	if r.poll {
		query.Set("poll", "1")
	}
	request, err := http.NewRequest(http.MethodGet, address+"?"+query.Encode(), nil)
	if err != nil {
		return nil, err
	}
	if r.head != nil {
		request.Header = r.head
	}
	if r.header != "" {
		request.Header.Set("Last-Event-ID", r.header)
	}
	dialer := net.Dialer{Control: r.control, Timeout: patience}
	conn, err := dialer.Dial("tcp", request.URL.Host)
	if err != nil {
		return nil, err
	}
	if err = conn.SetDeadline(time.Now().Add(patience)); err == nil {
		err = request.Write(conn)
	}
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	return conn, nil
}

// If the request sets the size of the receive buffer, control sets this size, and limits packets to the size that is
// usual on a network. With the 64 KB packets of the loopback interface, a client that reads slowly would seem to read
// nothing.
func (r request) control(_, _ string, conn syscall.RawConn) (err error) {
	if r.buffer == 0 {
		return nil
	}
	controlErr := conn.Control(func(fd uintptr) { err = limitBuffer(fd, r.buffer) })
	return errors.Join(controlErr, err)
}

// line reads one line of the response.
func (c *client) line() string {
	c.Helper()
	line, err := c.body.ReadString('\n')
	if err != nil {
		c.Fatalf("got %q (%v), want a line", line, err)
	}
	return line
}

// skipBeats reads heartbeats until the next block is another event. It must be called between two blocks.
func (c *client) skipBeats() {
	c.Helper()
	const beat = "event: rowcast.beat\n"
	for {
		if next, err := c.body.Peek(len(beat)); err != nil || string(next) != beat {
			return
		}
		for c.line() != "\n" {
		}
	}
}

// expect reads the next bytes, which must be equal to want.
func (c *client) expect(want string) {
	c.Helper()
	got := make([]byte, len(want))
	n, err := io.ReadFull(c.body, got)
	if err != nil || string(got) != want {
		const shown = 1000
		c.Fatalf("got %.*q, %v, want %.*q", shown, got[:n], err, shown, want)
	}
}

// expectRun reads n bytes, each of which must be b. It does not store them.
func (c *client) expectRun(b byte, n int) {
	c.Helper()
	buffer := make([]byte, 4<<10)
	for n > 0 {
		read, err := c.body.Read(buffer[:min(n, len(buffer))])
		if i := slices.IndexFunc(buffer[:read], func(got byte) bool { return got != b }); i >= 0 {
			c.Fatalf("got %q, want only %q", buffer[i:read], b)
		}
		if n -= read; err != nil {
			c.Fatalf("read: got %v, want %d more bytes", err, n)
		}
	}
}

// event returns the next event other than rowcast.void, with which every stream begins.
func (c *client) event() sse.Event {
	c.Helper()
	e, err, ok := c.next()
	if ok && e.Name == "rowcast.void" {
		e, err, ok = c.next()
	}
	if err != nil || !ok {
		c.Fatalf("got no event after the id %s, want one (error: %v; nil means that the stream has ended)", c.decoder.LastID, err)
	}
	return e
}

// want returns the next event, which must have the given name.
func (c *client) want(name string) sse.Event {
	c.Helper()
	e := c.event()
	if e.Name != name {
		c.Fatalf("got the event %s with the data %s and the id %s, want the event %s", e.Name, e.Data, e.LastID, name)
	}
	return e
}

// hello reads the beginning of a stream and returns the id of rowcast.hello.
func (c *client) hello() string {
	c.Helper()
	return c.want("rowcast.hello").LastID
}

// notification returns the next event that is not a heartbeat.
func (c *client) notification() sse.Event {
	c.Helper()
	for {
		if e := c.event(); e.Name != "rowcast.beat" {
			return e
		}
	}
}

// wantData checks the data of the next events, ignoring heartbeats.
func (c *client) wantData(want ...string) {
	c.Helper()
	var got []string
	for range want {
		got = append(got, c.notification().Data)
	}
	if !slices.Equal(got, want) {
		c.Errorf("received %s, want %s", strings.Join(got, " "), strings.Join(want, " "))
	}
}

// wantEnd reads the rest of the stream, which must contain only heartbeats.
func (c *client) wantEnd() {
	c.Helper()
	for {
		e, err, ok := c.next()
		switch {
		case err != nil:
			c.Fatalf("got the error %v, want the end of the stream", err)
		case !ok:
			return
		case e.Name != "rowcast.beat":
			c.Errorf("got %s %s, want the end of the stream", e.Name, e.Data)
		}
	}
}

// close closes the connection.
func (c *client) close() { _ = c.conn.Close() }

func parse(t testing.TB, id string) cursor.Cursor {
	t.Helper()
	c, err := cursor.Parse(id)
	if err != nil {
		t.Fatalf("%q: %v", id, err)
	}
	return c
}
