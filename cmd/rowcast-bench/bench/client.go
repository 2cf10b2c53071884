package bench

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// clients is the child process with the role clients. It has one stream for each user. Each stream has a goroutine that
// reads it and does little else, so that the clients use little CPU. When the server ends a stream, the client
// reconnects and resumes from its last event id.
type clients struct {
	streams []*stream
	tally   atomic.Pointer[tally]
}

func newClients(context.Context) (actions, error) {
	c := new(clients)
	c.tally.Store(new(tally))
	return actions{
		"connect":    action(c.connect),
		"expect":     action(c.expect),
		"await":      action(c.await),
		"reach":      action(c.reach),
		"disconnect": action(c.disconnect),
	}, nil
}

// connecting is the maximum number of connections that are being opened at the same time.
const connecting = 64

type connectTo struct {
	Address string
	Streams int
}

// connect opens streams, up to 64 (the constant connecting) at the same time. It returns the seconds until all were
// open. A stream is open when its hello, or any comment, has arrived.
func (c *clients) connect(ctx context.Context, to connectTo) (seconds float64, err error) {
	if err := checkDescriptors(to.Streams); err != nil {
		return 0, err
	}
	began := time.Now()
	var group errgroup.Group
	group.SetLimit(connecting)
	for i := range to.Streams {
		s := &stream{clients: c, number: len(c.streams), address: to.Address}
		c.streams = append(c.streams, s)
		group.Go(func() error {
			if err := s.open(); err != nil {
				return fmt.Errorf("stream %d of %d: %w", i+1, to.Streams, err)
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return 0, err
	}
	seconds = time.Since(began).Seconds()
	for _, s := range c.streams {
		go s.follow(ctx)
	}
	return seconds, nil
}

// checkDescriptors returns an error if the limit of open files is too low for the streams. The Go runtime has already
// raised the soft limit.
func checkDescriptors(streams int) error {
	const others = 50
	limit, err := maxDescriptors()
	if err != nil {
		return err
	}
	if limit < uint64(streams)+others {
		return fmt.Errorf("%d streams need as many file descriptors and %d more, but a process may have only %d (ulimit -Hn)", streams, others, limit)
	}
	return nil
}

func (c *clients) expect(_ context.Context, e expectation) (nothing, error) {
	c.tally.Store(newTally(e, len(c.streams)))
	return nothing{}, nil
}

// await returns when all expected rows have arrived. It fails if a row was repeated or not expected, or if no expected
// row arrives for 20 to 40 s.
func (c *clients) await(context.Context, nothing) (arrivals, error) {
	t := c.tally.Load()
	const limit = 20 * time.Second
	for before := int64(-1); ; {
		select {
		case <-t.all:
			return t.arrivals()
		case <-time.After(limit):
		}
		now := t.arrived.Load()
		if now == before {
			return t.arrivals()
		}
		before = now
	}
}

// reach returns when count rows have arrived.
func (c *clients) reach(ctx context.Context, count int64) (nothing, error) {
	for c.tally.Load().arrived.Load() < count {
		select {
		case <-ctx.Done():
			return nothing{}, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nothing{}, nil
}

// disconnect closes the connection of every oneIn-th stream. These clients reconnect and resume.
func (c *clients) disconnect(_ context.Context, oneIn int) (nothing, error) {
	for i := 0; i < len(c.streams); i += oneIn {
		c.streams[i].close()
	}
	return nothing{}, nil
}

// A stream is a client with its present connection.
type stream struct {
	clients *clients
	number  int
	address string

	mu    sync.Mutex
	conn  *net.TCPConn
	lines *bufio.Reader

	lastID []byte // the id of the last complete event

	// The fields below describe the event that is being read.
	id  []byte
	row row
}

// A row has the numbers in the data of an event.
type row struct {
	number int64 // the number of the row, from 1
	sent   int64 // the time from which the latency is measured (see awaitDue), in nanoseconds since 1970
}

var errNoHello = errors.New("the stream ended before its hello")

// open connects, requests the stream and waits for its hello or a comment. The stream contains all rows that are
// inserted after open has returned.
func (s *stream) open() error {
	dialer := net.Dialer{Timeout: time.Minute, KeepAlive: -1}
	conn, err := dialer.Dial("tcp", s.address)
	if err != nil {
		return err
	}
	tcp := conn.(*net.TCPConn)
	_ = tcp.SetLinger(0) // so that no port stays in TIME_WAIT
	s.mu.Lock()
	s.conn = tcp
	s.mu.Unlock()
	_ = tcp.SetDeadline(time.Now().Add(time.Minute))
	request := "GET /events?uid=" + user(s.number) + " HTTP/1.1\r\nHost: " + s.address + "\r\nAccept: text/event-stream\r\n"
	if len(s.lastID) > 0 {
		request += "Last-Event-ID: " + string(s.lastID) + "\r\n"
	}
	if _, err := tcp.Write([]byte(request + "\r\n")); err != nil {
		return err
	}
	s.lines = bufio.NewReader(tcp)
	response, err := http.ReadResponse(s.lines, nil) //nolint:bodyclose // closing the connection closes the body
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", response.Status)
	}
	if len(response.TransferEncoding) > 0 { // otherwise the lines are read from the connection itself
		s.lines = bufio.NewReader(response.Body)
	}
	for {
		line, _, err := s.lines.ReadLine()
		if err != nil {
			return fmt.Errorf("%w: %w", errNoHello, err)
		}
		if bytes.Contains(line, []byte("hello")) || bytes.HasPrefix(line, []byte(":")) {
			return tcp.SetDeadline(time.Time{})
		}
	}
}

// user returns the recipient of the rows of a stream.
func user(number int) string { return "user" + strconv.Itoa(number) }

// follow reads the stream until ctx ends. It reconnects after each lost connection.
func (s *stream) follow(ctx context.Context) {
	for ctx.Err() == nil {
		s.read()
		s.close()
		for s.open() != nil && ctx.Err() == nil {
			s.close()
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (s *stream) close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.Close()
}

// read reads a connection to its end. It ignores the part of a line that exceeds the buffer, because the
// numbers of a row are at the beginning.
func (s *stream) read() {
	s.id, s.row = nil, row{}
	for continued := false; ; {
		line, more, err := s.lines.ReadLine()
		if err != nil {
			return
		}
		if !continued {
			s.line(line)
		}
		continued = more
	}
}

// line interprets a line of the stream. An empty line ends an event, and only then is the row counted. rowcast sends an
// incomplete event again after the reconnect.
func (s *stream) line(line []byte) {
	switch {
	case len(line) == 0:
		if s.row.number > 0 {
			s.clients.tally.Load().count(s.number, s.row)
		}
		if len(s.id) > 0 {
			s.lastID = append(s.lastID[:0], s.id...)
		}
		s.id, s.row = s.id[:0], row{}
	case bytes.HasPrefix(line, []byte("id: ")):
		s.id = append(s.id[:0], line[len("id: "):]...)
	case bytes.HasPrefix(line, []byte("data: ")):
		s.row = parseRow(line[len("data: "):])
	}
}

// dataFormat is the format of the data of a row. PostgreSQL prints the keys of a jsonb value in this order. A hub in
// JavaScript prints no spaces, and rounds the time by up to 128 ns.
const dataFormat = `{"n": %d, "at": %d, "msg": "Bob liked your post"}`

// parseRow returns the two numbers of data in dataFormat. It returns the zero row for other data, such as a hello.
func parseRow(data []byte) (r row) {
	rest, ok := bytes.CutPrefix(data, []byte(`{"n":`))
	if !ok {
		return r
	}
	r.number, rest = leadingInt(rest)
	rest = bytes.TrimPrefix(bytes.TrimPrefix(rest, []byte(",")), []byte(" "))
	if rest, ok = bytes.CutPrefix(rest, []byte(`"at":`)); ok {
		r.sent, _ = leadingInt(rest)
	}
	return r
}

// leadingInt returns the number at the beginning of a text, after a space if there is one.
func leadingInt(text []byte) (n int64, rest []byte) {
	text = bytes.TrimPrefix(text, []byte(" "))
	for len(text) > 0 && '0' <= text[0] && text[0] <= '9' {
		n, text = 10*n+int64(text[0]-'0'), text[1:]
	}
	return n, text
}
