package main_test

import (
	"bufio"
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// A clientGroup is a number of clients of a hub, each with its own user. They connect and disconnect together, and
// resume from their cursors.
type clientGroup struct {
	testing.TB
	address string
	members []*member
	reading sync.WaitGroup
}

// newClientGroup returns clients that are not connected yet and have no cursor.
func newClientGroup(t testing.TB, url string, size int) *clientGroup {
	c := &clientGroup{TB: t, address: strings.TrimPrefix(url, "http://")}
	for i := range size {
		c.members = append(c.members, &member{uid: uid(i)})
	}
	return c
}

func uid(i int) string { return "user" + strconv.Itoa(i) }

// A member is a client of a clientGroup. It records the rows that it receives.
type member struct {
	uid  string
	conn net.Conn

	mu       sync.Mutex
	decoder  sse.Decoder
	first    int // the index in the rowLog of the first row that the client must receive
	received []int
	failed   error
	greeted  chan struct{} // closed when rowcast.hello has arrived
	want     int           // the number of rows after which the client has caught up
	back     chan struct{} // closed when the client has caught up
}

// connect connects all members. It returns the time from the first connection until each member has received
// rowcast.hello and the rows that it had missed.
func (c *clientGroup) connect(log *rowLog) time.Duration {
	c.Helper()
	began := c.connectAll(log)
	c.catchUp()
	return time.Since(began)
}

// connectAll connects all members and waits until each has received rowcast.hello. It returns the time at which it
// began to connect.
func (c *clientGroup) connectAll(log *rowLog) (began time.Time) {
	c.Helper()
	for _, m := range c.members {
		m.want = 0
		if m.decoder.LastID != "" {
			m.want = len(log.of(m.uid, m.first))
		}
	}
	began = time.Now()
	// At most 256 connections begin at a time. If the kernel's queue for new connections were full, a connection would
	// take a second longer.
	slots := make(chan struct{}, 256)
	var coming sync.WaitGroup
	for _, m := range c.members {
		slots <- struct{}{}
		coming.Go(func() {
			defer func() { <-slots }()
			if err := m.connect(c); err != nil {
				c.Errorf("%s: %v", m.uid, err)
			}
		})
	}
	coming.Wait()
	return began
}

// catchUp waits until all members have received the rows that they had missed when connectAll was called.
func (c *clientGroup) catchUp() {
	c.Helper()
	for _, m := range c.members {
		if err := await(m.back, "the missed rows"); err != nil {
			c.Fatalf("%s: %v; received %d of %d rows", m.uid, err, m.count(), m.want)
		}
	}
}

// connect connects the member, and waits for rowcast.hello.
func (m *member) connect(c *clientGroup) error {
	conn, err := net.Dial("tcp", c.address)
	if err != nil {
		return err
	}
	fresh := m.decoder.LastID == ""
	m.conn, m.greeted, m.back = conn, make(chan struct{}), make(chan struct{})
	_, err = fmt.Fprintf(conn, "GET /events?uid=%s HTTP/1.1\r\nHost: %s\r\nLast-Event-ID: %s\r\n\r\n", m.uid, c.address, m.decoder.LastID)
	if err != nil {
		return err
	}
	c.reading.Go(func() { m.read(fresh) })
	return await(m.greeted, "rowcast.hello")
}

// await waits until a channel is closed, for at most 4*waitLimit.
func await(closed <-chan struct{}, what string) error {
	select {
	case <-closed:
		return nil
	case <-time.After(4 * waitLimit):
		return fmt.Errorf("waited %v for %s", 4*waitLimit, what)
	}
}

// read records events until the connection ends, and closes m.back once all wanted rows have come. If fresh is true,
// the member has connected without a cursor, and the id of its first event tells which row is the first that it must
// receive.
func (m *member) read(fresh bool) {
	response, err := http.ReadResponse(bufio.NewReaderSize(m.conn, 512), nil)
	if err != nil {
		return
	}
	back := sync.OnceFunc(func() { close(m.back) })
	for e, err := range m.decoder.Events(response.Body) {
		if err != nil {
			return // the connection was closed
		}
		if fresh {
			// A cursor begins with the id of the last row before it. Ids begin with 1 and indexes with 0, so this id is
			// the index of the next row.
			id, _, _ := strings.Cut(e.LastID, "-")
			m.first, m.failed = strconv.Atoi(id)
			fresh = false
		}
		if m.note(e) >= m.want {
			back()
		}
	}
}

// note records the row of an event, if there is one, and returns the number of rows so far.
func (m *member) note(e sse.Event) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Name {
	case "rowcast.hello":
		close(m.greeted)
	case "rowcast.void", "rowcast.beat":
	default:
		n, err := strconv.Atoi(e.Data)
		if err != nil {
			m.failed = fmt.Errorf("received the event %s with the data %s, want a number as data", e.Name, e.Data)
			break
		}
		m.received = append(m.received, n)
	}
	return len(m.received)
}

func (m *member) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.received)
}

// disconnect closes all connections at once, and waits until no member reads any more.
func (c *clientGroup) disconnect() {
	for _, m := range c.members {
		_ = m.conn.Close()
	}
	c.reading.Wait()
}

// wantAll waits until all members have caught up with the log, for at most waitLimit, and checks that each has received
// its rows once and in order.
func (c *clientGroup) wantAll(log *rowLog) {
	c.Helper()
	deadline := time.Now().Add(waitLimit)
	wrong := 0
	for _, m := range c.members {
		want := log.of(m.uid, m.first)
		for m.count() < len(want) && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		m.mu.Lock()
		if m.failed != nil || !slices.Equal(m.received, want) {
			if wrong++; wrong < 5 {
				c.Errorf("%s received the rows %v (error: %v), want %v and no error", m.uid, m.received, m.failed, want)
			}
		}
		m.mu.Unlock()
	}
	if wrong > 0 {
		c.Fatalf("%d of %d members did not receive exactly their rows", wrong, len(c.members))
	}
}

// A rowLog has the committed rows in the order of their commits. The data of a row is its index.
type rowLog struct {
	mu   sync.Mutex
	rows int
	by   map[string][]int // the indexes of the rows by recipient
}

// note records one row for each recipient.
func (l *rowLog) note(recipients ...string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.by == nil {
		l.by = make(map[string][]int)
	}
	for _, r := range recipients {
		l.by[r] = append(l.by[r], l.rows)
		l.rows++
	}
}

// add inserts the next row, and records it if the INSERT has succeeded. It must not be called by two goroutines at the
// same time.
func (l *rowLog) add(ctx context.Context, db *pgx.Conn, recipient string) error {
	_, err := db.Exec(ctx, "INSERT INTO rowcast.notifications (recipient, data) VALUES ($1, to_jsonb($2::int))", recipient, l.rows)
	if err == nil {
		l.note(recipient)
	}
	return err
}

// write inserts at most rate rows per second until stop is called. Row n, counted from 0, is for all users if n is a
// multiple of everyone, and otherwise for a random user.
func (l *rowLog) write(t testing.TB, db *pgx.Conn, users, rate, everyone int) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		ticker := time.NewTicker(time.Second / time.Duration(rate))
		defer ticker.Stop()
		for n := 0; ; n++ {
			select {
			case <-ctx.Done():
				return
			case <-ticker.C:
			}
			recipient := feed.Everyone
			if n%everyone != 0 {
				recipient = uid(rand.IntN(users))
			}
			if err := l.add(t.Context(), db, recipient); err != nil {
				t.Errorf("insert: %v", err)
				return
			}
		}
	}()
	return func() { cancel(); receive(t, done, "the end of the inserts") }
}

// await waits until n more rows were inserted.
func (l *rowLog) await(t testing.TB, n int) {
	t.Helper()
	count := func() int {
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.rows
	}
	before := count()
	waitFor(t, fmt.Sprintf("%d more rows", n), func() bool { return count() >= before+n })
}

// of returns the indexes of the rows for a user and for everyone, from the index first on.
func (l *rowLog) of(uid string, first int) []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	rows := slices.Sorted(slices.Values(slices.Concat(l.by[uid], l.by[feed.Everyone])))
	from, _ := slices.BinarySearch(rows, first)
	return rows[from:]
}

// A row whose INSERT has failed is not in a rowLog.
func TestRowLogHasNoFailedRow(t *testing.T) {
	t.Parallel()
	db, err := pgx.Connect(t.Context(), dbtest.Database(t))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close(context.Background())
	log := &rowLog{}
	if err := log.add(t.Context(), db, ""); err == nil {
		t.Error("the INSERT of a row with an empty recipient has succeeded, want an error")
	}
	if err := log.add(t.Context(), db, "alice"); err != nil {
		t.Error(err)
	}
	if got := log.of("alice", 0); log.rows != 1 || !slices.Equal(got, []int{0}) {
		t.Errorf("the log has %d rows, want 1; its rows for alice are %v, want [0]", log.rows, got)
	}
}
