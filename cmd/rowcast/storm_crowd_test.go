package main_test

import (
	"bufio"
	"context"
	"errors"
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

	"rowcast/stream/sse"
)

// A crowd is many clients of one hub that come and go together, each a user of its own, and resume from where they were.
type crowd struct {
	testing.TB
	address string
	members []*member
	reading sync.WaitGroup
}

// newCrowd makes clients that are not connected yet, and have no cursor.
func newCrowd(t testing.TB, url string, size int) *crowd {
	c := &crowd{TB: t, address: strings.TrimPrefix(url, "http://")}
	for i := range size {
		c.members = append(c.members, &member{uid: uid(i)})
	}
	return c
}

func uid(i int) string { return "user" + strconv.Itoa(i) }

// A member is a client. It notes what it is told.
type member struct {
	uid  string
	conn net.Conn

	mu      sync.Mutex
	decoder sse.Decoder
	first   int // row that is to be told
	told    []int
	failed  error
	greeted chan struct{} // closed by the hello
	want    int           // rows are to be told until it has come back
	back    chan struct{} // closed when it has
}

// connect connects everybody, and returns how long that takes: from the first connection until the last has had its hello and all
// that the log has for it by now.
func (c *crowd) connect(log *rowLog) time.Duration {
	c.Helper()
	began := c.come(log)
	c.catchUp()
	return time.Since(began)
}

// come connects everybody, and returns when that began. All have had their hello.
func (c *crowd) come(log *rowLog) (began time.Time) {
	c.Helper()
	for _, m := range c.members {
		m.want = 0
		if m.decoder.LastID != "" {
			m.want = len(log.of(m.uid, m.first))
		}
	}
	began = time.Now()
	turns := make(chan struct{}, 256) // the system's queue for new connections is finite, and who does not fit waits a second
	var coming sync.WaitGroup
	for _, m := range c.members {
		turns <- struct{}{}
		coming.Go(func() {
			defer func() { <-turns }()
			if err := m.connect(c); err != nil {
				c.Errorf("%s: %v", m.uid, err)
			}
		})
	}
	coming.Wait()
	return began
}

// catchUp returns when everybody has been told what the log had for them.
func (c *crowd) catchUp() {
	c.Helper()
	for _, m := range c.members {
		if err := await(m.back, "what it missed"); err != nil {
			c.Fatalf("%s: %v; it was told %d of %d", m.uid, err, m.count(), m.want)
		}
	}
}

// connect returns when the client has had its hello.
func (m *member) connect(c *crowd) error {
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
	return await(m.greeted, "a hello")
}

// await waits for what a client is to get.
func await(it <-chan struct{}, what string) error {
	select {
	case <-it:
		return nil
	case <-time.After(4 * patience):
		return errors.New("does not get " + what)
	}
}

// read notes what comes until the connection ends.
func (m *member) read(fresh bool) {
	response, err := http.ReadResponse(bufio.NewReaderSize(m.conn, 512), nil)
	if err != nil {
		return
	}
	back := sync.OnceFunc(func() { close(m.back) })
	for e, err := range m.decoder.Events(response.Body) {
		if err != nil {
			return // it was cut off
		}
		if fresh {
			// An id begins with that of the last row before it, and the first row has 1.
			id, _, _ := strings.Cut(e.LastID, "-")
			m.first, m.failed = strconv.Atoi(id)
			fresh = false
		}
		if m.note(e) >= m.want {
			back()
		}
	}
}

// note returns how many rows have been told.
func (m *member) note(e sse.Event) int {
	m.mu.Lock()
	defer m.mu.Unlock()
	switch e.Name {
	case "rowcast.hello":
		close(m.greeted)
	case "rowcast.beat":
	default:
		n, err := strconv.Atoi(e.Data)
		if err != nil {
			m.failed = fmt.Errorf("was told %s %s", e.Name, e.Data)
		}
		m.told = append(m.told, n)
	}
	return len(m.told)
}

func (m *member) count() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return len(m.told)
}

// cut ends all connections at once, and returns when nobody reads any more.
func (c *crowd) cut() {
	for _, m := range c.members {
		_ = m.conn.Close()
	}
	c.reading.Wait()
}

// wantAll waits until everybody has been told as much as there is in the log, and compares: each row once, in order.
func (c *crowd) wantAll(log *rowLog) {
	c.Helper()
	deadline := time.Now().Add(patience)
	wrong := 0
	for _, m := range c.members {
		want := log.of(m.uid, m.first)
		for m.count() < len(want) && time.Now().Before(deadline) {
			time.Sleep(time.Millisecond)
		}
		m.mu.Lock()
		if m.failed != nil || !slices.Equal(m.told, want) {
			if wrong++; wrong < 5 {
				c.Errorf("%s was told %v (%v), want %v", m.uid, m.told, m.failed, want)
			}
		}
		m.mu.Unlock()
	}
	if wrong > 0 {
		c.Fatalf("%d of %d were not told exactly their rows", wrong, len(c.members))
	}
}

// A rowLog is the rows that have been committed, in the order of their commits. A row's data is its index.
type rowLog struct {
	mu   sync.Mutex
	rows int
	by   map[string][]int // recipient
}

// note notes rows, each for one recipient.
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

// add inserts the next row. Only one may write at a time.
func (l *rowLog) add(ctx context.Context, db *pgx.Conn, recipient string) error {
	_, err := db.Exec(ctx, "INSERT INTO rowcast.notifications (recipient, data) VALUES (nullif($1, ''), to_jsonb($2::int))", recipient, l.rows)
	l.note(recipient)
	return err
}

// write inserts rows at a rate, one in some for everyone and the others for one user each, until what it returns is called.
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
			recipient := ""
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

// of are the rows for a user, from one on.
func (l *rowLog) of(uid string, first int) []int {
	l.mu.Lock()
	defer l.mu.Unlock()
	rows := slices.Sorted(slices.Values(slices.Concat(l.by[uid], l.by[""])))
	from, _ := slices.BinarySearch(rows, first)
	return rows[from:]
}
