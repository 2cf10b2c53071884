package torture_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"hash/crc32"
	"io"
	"math"
	"math/rand/v2"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"

	"rowcast/listener/cursor"
	"rowcast/stream/sse"
)

// A client reads the stream of a user, with one connection after another.
type client struct {
	name    string
	record  record
	hubs    []*hub
	journal *journal
	random  *rand.Rand
	decoder sse.Decoder
	visits  []visit
	sent    string // the last cursor that the client sent or received; see receive for the exception
	quiet   bool   // the writers have stopped
	marker  bool   // the last row has been received, or a reset may have skipped it
	wrong   []string
}

// lastEvent is the event name of the last row.
const lastEvent = "last"

// A visit is a connection of a client.
type visit struct {
	hub       int
	from, to  string // the cursor that the client sent, and the last cursor that it received
	began     time.Duration
	ended     time.Duration
	how       string
	delivered int
}

// A behaviour determines how a client behaves during a visit.
type behaviour struct {
	bytes int           // the client closes the connection after this number of bytes
	stay  time.Duration // the client closes the connection after this time
	slow  time.Duration // the pause before each small read
	stall time.Duration // one long pause; 0 for none
	after int           // the number of bytes that the client reads before the long pause
	query bool          // the cursor is sent as a query parameter
}

const forever = 1 << 60

// choose returns a random behaviour.
func (c *client) choose() behaviour {
	m := behaviour{bytes: math.MaxInt, stay: forever, query: c.random.IntN(3) == 0}
	switch c.random.IntN(10) {
	case 0, 1, 2:
		m.bytes = c.random.IntN(3000)
	case 3, 4, 5, 6:
		m.bytes = c.random.IntN(100_000)
	}
	m.stay = c.upTo(6 * time.Second)
	switch c.random.IntN(10) {
	case 0, 1:
		m.slow = c.upTo(40 * time.Millisecond)
	case 2:
		m.stall, m.after = c.upTo(3*time.Second), c.random.IntN(20_000)
	}
	return m
}

func (c *client) upTo(d time.Duration) time.Duration { return time.Duration(c.random.Int64N(int64(d))) }

// roam connects to one hub after another until quiet ends. Some pauses last up to 6 s. After such a pause, a hub may
// have to read the missed rows from the table.
func (c *client) roam(quiet context.Context) {
	for quiet.Err() == nil {
		c.visit(quiet, c.random.IntN(len(c.hubs)), c.choose(), false)
		pause := c.upTo(300 * time.Millisecond)
		if c.random.IntN(12) == 0 {
			pause = c.upTo(6 * time.Second)
		}
		wait(quiet, pause)
	}
}

// finish reads from one hub after another, each time until the client has caught up. The first hub sends all missing
// rows, so each row that another hub sends is a repetition, unless a reset came before it.
func (c *client) finish(ctx context.Context) {
	c.quiet = true
	first := c.random.IntN(len(c.hubs))
	for i := range c.hubs {
		for !c.visit(ctx, (first+i)%len(c.hubs), behaviour{bytes: math.MaxInt, stay: forever}, true) {
			if ctx.Err() != nil {
				c.wrong = append(c.wrong, fmt.Sprintf("did not catch up at %s; received the last row, or a reset that may have skipped it: %t", c.hubs[(first+i)%len(c.hubs)].name, c.marker))
				return
			}
			wait(ctx, 50*time.Millisecond)
		}
	}
}

func wait(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// visit opens a stream and reads it. With toTheEnd, it returns true when c.marker is set and then a heartbeat has
// arrived. Events that are pending come before a heartbeat.
func (c *client) visit(ctx context.Context, hub int, m behaviour, toTheEnd bool) (caughtUp bool) {
	c.visits = append(c.visits, visit{hub: hub, from: c.decoder.LastID, began: c.journal.now()})
	v := &c.visits[len(c.visits)-1]
	c.sent = c.decoder.LastID
	before := len(c.record.deliveries)
	defer func() {
		v.to, v.ended, v.delivered = c.decoder.LastID, c.journal.now(), len(c.record.deliveries)-before
	}()
	ctx, cancel := context.WithTimeout(ctx, m.stay)
	defer cancel()
	conn, err := c.open(ctx, hub, m)
	if err != nil {
		v.how = err.Error()
		return false
	}
	defer conn.Close()
	defer context.AfterFunc(ctx, func() { conn.Close() })()
	response, err := http.ReadResponse(bufio.NewReader(&reader{conn: conn, behaviour: m}), nil)
	if err != nil {
		v.how = err.Error()
		return false
	}
	defer response.Body.Close()
	if response.StatusCode != http.StatusOK || response.Header.Get("Content-Type") != "text/event-stream" {
		c.wrong = append(c.wrong, fmt.Sprintf("%s answered %s, %q, want status 200 and an event stream", c.hubs[hub].name, response.Status, response.Header))
	}
	v.how = "end of stream"
	for event, err := range c.decoder.Events(response.Body) {
		if err != nil {
			v.how = err.Error()
			break
		}
		c.receive(event)
		if toTheEnd && c.marker && event.Name == "rowcast.beat" {
			return true
		}
	}
	return false
}

// open connects and requests the stream. It sets SO_LINGER of some connections to 0, so that closing them sends a TCP
// reset.
func (c *client) open(ctx context.Context, hub int, m behaviour) (net.Conn, error) {
	dialer := net.Dialer{Timeout: time.Second}
	if m.slow > 0 || m.stall > 0 {
		dialer.Control = narrow
	}
	conn, err := dialer.DialContext(ctx, "tcp", c.hubs[hub].address)
	if err != nil {
		return nil, err
	}
	if c.random.IntN(3) == 0 {
		_ = conn.(*net.TCPConn).SetLinger(0)
	}
	query, header := url.Values{"uid": {c.record.uid}}, ""
	if c.decoder.LastID != "" && m.query {
		query.Set("last_event_id", c.decoder.LastID)
	} else if c.decoder.LastID != "" {
		header = "Last-Event-ID: " + c.decoder.LastID + "\r\n"
	}
	if _, err = fmt.Fprintf(conn, "GET /events?%s HTTP/1.1\r\nHost: localhost\r\n%s\r\n", query.Encode(), header); err != nil {
		conn.Close()
	}
	return conn, err
}

// A reader reads from a connection at the speed of a behaviour, and up to the number of bytes at which the client
// closes the connection.
type reader struct {
	conn      net.Conn
	behaviour behaviour
	read      int
}

// silence is the time that a client waits for data. It is longer than the time for which a hub is frozen.
const silence = 5 * time.Second

func (r *reader) Read(p []byte) (int, error) {
	if r.read >= r.behaviour.bytes {
		return 0, io.EOF
	}
	p = p[:min(len(p), r.behaviour.bytes-r.read)]
	if r.behaviour.slow > 0 {
		time.Sleep(r.behaviour.slow)
		p = p[:min(len(p), 512)]
	}
	if r.read > r.behaviour.after && r.behaviour.stall > 0 {
		time.Sleep(r.behaviour.stall)
		r.behaviour.stall = 0
	}
	if err := r.conn.SetReadDeadline(time.Now().Add(silence)); err != nil {
		return 0, err
	}
	n, err := r.conn.Read(p)
	r.read += n
	return n, err
}

// receive records a row, a reset or the first rowcast.hello, and updates the cursor in sent.
func (c *client) receive(e sse.Event) {
	switch e.Name {
	case "rowcast.void":
		return // its id is the id of rowcast.hello, which follows
	case "rowcast.hello":
		c.hello(e)
	case "rowcast.beat":
	case "rowcast.reset":
		c.marker = c.marker || c.quiet // the reset may have skipped the last row
		var data struct{ Reason string }
		_ = json.Unmarshal([]byte(e.Data), &data)
		c.record.resets = append(c.record.resets, discontinuity{
			at: c.journal.now(), after: len(c.record.deliveries), reason: data.Reason, cursor: c.sent,
			hub: c.visits[len(c.visits)-1].hub,
		})
	default:
		c.row(e)
	}
	// rowcast.hello has the cursor at which the hub begins the stream. If a reset follows, the checker needs the cursor
	// that the client sent.
	if e.Name != "rowcast.hello" || c.sent == "" {
		c.sent = e.LastID
	}
}

func (c *client) hello(e sse.Event) {
	parsed, err := cursor.Parse(e.LastID)
	if err != nil {
		c.wrong = append(c.wrong, fmt.Sprintf("cannot parse the id %q of a rowcast.hello: %v", e.LastID, err))
	}
	if c.record.helloAt == 0 {
		c.record.hello, c.record.helloAt = parsed, c.journal.now()
	}
}

func (c *client) row(e sse.Event) {
	var data struct {
		K   string
		Sum uint32
		Pad string
	}
	err := json.Unmarshal([]byte(e.Data), &data)
	k, keyErr := parseKey(data.K)
	if err != nil || keyErr != nil || crc32.ChecksumIEEE([]byte(data.Pad)) != data.Sum || e.Name != eventOf(k) && e.Name != lastEvent {
		c.wrong = append(c.wrong, fmt.Sprintf("unexpected event %q with the id %s and the data %.100q", e.Name, e.LastID, e.Data))
		return
	}
	text, _, _ := strings.Cut(e.LastID, "-")
	id, _ := strconv.ParseInt(text, 10, 64)
	c.record.deliveries = append(c.record.deliveries, delivery{key: k, id: id, at: c.journal.now(), visit: len(c.visits) - 1, cursor: e.LastID})
	c.marker = c.marker || e.Name == lastEvent
}
