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

// crowd is the process of the clients: as many streams as are asked for, one a user, each with a goroutine that reads it and does
// as little else as possible. A stream that the server ends resumes from its last event id.
type crowd struct {
	streams []*stream
	tally   atomic.Pointer[tally]
}

func newClients(context.Context) (deeds, error) {
	c := new(crowd)
	c.tally.Store(new(tally))
	return deeds{
		"connect": deed(c.connect),
		"expect":  deed(c.expect),
		"await":   deed(c.await),
		"reach":   deed(c.reach),
		"bounce":  deed(c.bounce),
	}, nil
}

// connecting is how many connections are opened at a time.
const connecting = 64

type connectTo struct {
	Address string
	Streams int
}

// connect opens streams, all at once, and returns how many seconds that took. A stream is open when it has said hello.
func (c *crowd) connect(ctx context.Context, to connectTo) (seconds float64, err error) {
	if err := checkDescriptors(to.Streams); err != nil {
		return 0, err
	}
	began := time.Now()
	var group errgroup.Group
	group.SetLimit(connecting)
	for i := range to.Streams {
		s := &stream{crowd: c, number: len(c.streams), address: to.Address}
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

// checkDescriptors says in time that there will be too few. Go has raised the limit as far as it goes.
func checkDescriptors(streams int) error {
	const others = 50
	limit, err := maxDescriptors()
	if err != nil {
		return err
	}
	if limit < uint64(streams)+others {
		return fmt.Errorf("%d streams need as many file descriptors and %d more, and a process may have %d (ulimit -Hn)", streams, others, limit)
	}
	return nil
}

func (c *crowd) expect(_ context.Context, e expectation) (nothing, error) {
	c.tally.Store(newTally(e, len(c.streams)))
	return nothing{}, nil
}

// await returns when everything has arrived, and fails when nothing more comes.
func (c *crowd) await(context.Context, nothing) (arrivals, error) {
	t := c.tally.Load()
	const patience = 20 * time.Second
	for before := int64(-1); ; {
		select {
		case <-t.all:
			return t.arrivals()
		case <-time.After(patience):
		}
		now := t.arrived.Load()
		if now == before {
			return t.arrivals()
		}
		before = now
	}
}

// reach returns when so many have arrived.
func (c *crowd) reach(ctx context.Context, count int64) (nothing, error) {
	for c.tally.Load().arrived.Load() < count {
		select {
		case <-ctx.Done():
			return nothing{}, ctx.Err()
		case <-time.After(time.Millisecond):
		}
	}
	return nothing{}, nil
}

// bounce cuts off one stream in so many; they resume.
func (c *crowd) bounce(_ context.Context, oneIn int) (nothing, error) {
	for i := 0; i < len(c.streams); i += oneIn {
		c.streams[i].cut()
	}
	return nothing{}, nil
}

// A stream is a client's connection, and the next one when it is cut off.
type stream struct {
	crowd   *crowd
	number  int
	address string

	mu    sync.Mutex
	conn  *net.TCPConn
	lines *bufio.Reader

	lastID []byte // of the last whole event
	// Of the block that is being read.
	id  []byte
	row row
}

// A row is what the data of an event says of it.
type row struct {
	number int64 // from 1
	sent   int64 // when, in nanoseconds since 1970
}

var errNoHello = errors.New("the stream ended before it had said hello")

// open connects, asks for the stream and waits for its hello: from then on nothing is missed.
func (s *stream) open() error {
	dialer := net.Dialer{Timeout: time.Minute, KeepAlive: -1}
	conn, err := dialer.Dial("tcp", s.address)
	if err != nil {
		return err
	}
	tcp := conn.(*net.TCPConn)
	_ = tcp.SetLinger(0) // leaves no port behind in TIME_WAIT
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
	response, err := http.ReadResponse(s.lines, nil) //nolint:bodyclose // it is the connection, which is closed
	if err != nil {
		return err
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("the answer is %s", response.Status)
	}
	if len(response.TransferEncoding) > 0 { // else the lines stand as they are
		s.lines = bufio.NewReader(response.Body)
	}
	for {
		line, _, err := s.lines.ReadLine()
		if err != nil {
			return fmt.Errorf("%w: %w", errNoHello, err)
		}
		if bytes.Contains(line, []byte("hello")) {
			return tcp.SetDeadline(time.Time{})
		}
	}
}

// user is the recipient of a stream's rows.
func user(number int) string { return "user" + strconv.Itoa(number) }

// follow reads until the process ends, over all connections.
func (s *stream) follow(ctx context.Context) {
	for ctx.Err() == nil {
		s.read()
		s.cut()
		for s.open() != nil && ctx.Err() == nil {
			s.cut()
			time.Sleep(100 * time.Millisecond)
		}
	}
}

func (s *stream) cut() {
	s.mu.Lock()
	defer s.mu.Unlock()
	_ = s.conn.Close()
}

// read reads one connection to its end. What a line has beyond the reader's buffer is of no interest.
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

// line interprets a line. A row counts from the end of its block on: before that, it can be cut off and come again.
func (s *stream) line(line []byte) {
	switch {
	case len(line) == 0:
		if s.row.number > 0 {
			s.crowd.tally.Load().count(s.number, s.row)
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

// dataFormat is the data of a row, with the keys in the order in which PostgreSQL prints them.
const dataFormat = `{"n": %d, "at": %d, "msg": "Bob liked your post"}`

// parseRow reads the two numbers in data of ours, and nothing of others.
func parseRow(data []byte) (r row) {
	rest, ok := bytes.CutPrefix(data, []byte(`{"n": `))
	if !ok {
		return r
	}
	r.number, rest = leadingInt(rest)
	if rest, ok = bytes.CutPrefix(rest, []byte(`, "at": `)); ok {
		r.sent, _ = leadingInt(rest)
	}
	return r
}

func leadingInt(text []byte) (n int64, rest []byte) {
	for len(text) > 0 && '0' <= text[0] && text[0] <= '9' {
		n, text = 10*n+int64(text[0]-'0'), text[1:]
	}
	return n, text
}
