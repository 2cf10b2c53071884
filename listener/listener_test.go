package listener_test

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

func TestMain(m *testing.M) { dbtest.Main(m) }

// patience is how long a test waits for a row, a batch or a message. A row that has not come by then counts as lost.
const patience = 30 * time.Second

// limit bounds a step of a test that usually takes little time, such as a statement or the end of Run.
const limit = 3 * time.Minute

// limited returns a context that ends after limit, or earlier with the test.
func limited(t testing.TB) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeoutCause(t.Context(), limit, errors.New("the test has waited for too long"))
	t.Cleanup(cancel)
	return ctx
}

// receive waits for a value and returns it. The parameter what describes the value.
func receive[T any](t testing.TB, what string, from <-chan T) T {
	t.Helper()
	select {
	case value := <-from:
		return value
	case <-time.After(limit):
		t.Fatalf("waited %v for %s", limit, what)
		panic("unreachable")
	}
}

// await waits for the goroutines of a group. The parameter what describes the group.
func await(t testing.TB, what string, all *sync.WaitGroup) {
	t.Helper()
	done := make(chan struct{})
	go func() {
		defer close(done)
		all.Wait()
	}()
	receive(t, what, done)
}

// A reader is a running listener, with the batches and messages that it has delivered.
type reader struct {
	*listener.Listener
	batches  chan feed.Batch
	messages chan feed.Message
	stop     func()

	// read has the rows of all batches that the test has received so far, and last is the last of these batches.
	read []feed.Row
	last feed.Batch
}

// newListener returns a listener that drops its batches. It makes no safety polls, so while it sleeps, it does not find
// a row that comes without a notification.
func newListener(t testing.TB, dsn string) *listener.Listener {
	t.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	return &listener.Listener{
		Config:  config,
		Look:    -1,
		Deliver: func(feed.Batch) {},
		Logger:  slog.New(slog.NewTextHandler(t.Output(), nil)),
	}
}

// listen starts a listener on a database and returns its reader (see run). The listener runs until the test ends, or
// until stop is called.
func listen(t *testing.T, dsn string, configure ...func(*listener.Listener)) *reader {
	t.Helper()
	r := &reader{
		Listener: newListener(t, dsn),
		batches:  make(chan feed.Batch, 1<<16),
		messages: make(chan feed.Message, 1<<10),
	}
	r.Deliver = func(b feed.Batch) { r.batches <- kept(b) }
	r.Message = func(m feed.Message) { r.messages <- m }
	for _, c := range configure {
		c(r.Listener)
	}
	r.stop = run(t, r.Listener)
	return r
}

// kept returns a batch with a copy of the rows, which the listener overwrites after Deliver.
func kept(b feed.Batch) feed.Batch {
	b.Rows = slices.Clone(b.Rows)
	return b
}

// run starts a listener and waits until it has begun, so that it delivers rows that are committed later. The listener
// runs until the test ends or stop is called.
func run(t *testing.T, l *listener.Listener) (stop func()) {
	t.Helper()
	begun := make(chan struct{})
	begin := sync.OnceFunc(func() { close(begun) })
	deliver := l.Deliver
	l.Deliver = func(b feed.Batch) {
		deliver(b)
		begin()
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		if err := l.Run(ctx); err != nil {
			t.Errorf("Run: %v", err)
		}
	}()
	stop = func() {
		cancel()
		receive(t, "Run to return", done)
	}
	t.Cleanup(stop)
	select {
	case <-begun:
	case <-time.After(patience):
		t.Fatalf("waited %v for the listener to begin", patience)
	}
	return stop
}

func (r *reader) take(b feed.Batch) {
	r.read, r.last = append(r.read, b.Rows...), b
}

// next waits for a batch.
func (r *reader) next(t *testing.T) feed.Batch {
	t.Helper()
	select {
	case b := <-r.batches:
		r.take(b)
		return b
	case <-time.After(patience):
		t.Fatalf("waited %v for a batch", patience)
		panic("unreachable")
	}
}

// rows waits for n more rows. It returns these rows, and the rows after them in the same batch.
func (r *reader) rows(t *testing.T, n int) []feed.Row {
	t.Helper()
	before := len(r.read)
	deadline := time.After(patience)
	for len(r.read) < before+n {
		select {
		case b := <-r.batches:
			r.take(b)
		case <-deadline:
			t.Fatalf("waited %v for %d rows, got %d", patience, n, len(r.read)-before)
		}
	}
	return r.read[before:]
}

// until receives batches until holds returns true.
func (r *reader) until(t *testing.T, holds func() bool) {
	t.Helper()
	deadline := time.After(patience)
	for !holds() {
		select {
		case b := <-r.batches:
			r.take(b)
		case <-deadline:
			t.Fatalf("waited %v for a condition, and received %d rows in total", patience, len(r.read))
		}
	}
}

// waitForLock waits until the listener has taken the park lock at least n times.
func (r *reader) waitForLock(t *testing.T, n int64) {
	t.Helper()
	// After the listener has taken the lock, it fetches and delivers a batch. After each batch, r.until checks the count.
	r.until(t, func() bool { return r.Stats.ParkLocks.Load() >= n })
}

// caughtUp waits for CatchUp, and returns the rows that the test had not received before.
func (r *reader) caughtUp(t *testing.T) []feed.Row {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	if err := r.CatchUp(ctx); err != nil {
		t.Fatalf("CatchUp: %v", err)
	}
	before := len(r.read)
	for {
		select {
		case b := <-r.batches:
			r.take(b)
		default:
			return r.read[before:]
		}
	}
}

// wantData checks the data of rows, in their order.
func wantData(t *testing.T, rows []feed.Row, want ...string) {
	t.Helper()
	var got []string
	for _, row := range rows {
		got = append(got, string(row.Data))
	}
	if !slices.Equal(got, want) {
		t.Errorf("got rows %s, want %s", strings.Join(got, " "), strings.Join(want, " "))
	}
}

func connect(t testing.TB, dsn string) *pgx.Conn {
	t.Helper()
	conn, err := pgx.Connect(limited(t), dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}

func exec(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	if _, err := conn.Exec(ctx, sql, args...); err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
}

// insert inserts a row for everyone. Its data is a JSON string.
func insert(t testing.TB, conn *pgx.Conn, data string) {
	t.Helper()
	exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', to_jsonb($1::text))`, data)
}

// query returns the result of a query that selects one column.
func query[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) []T {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), limit)
	defer cancel()
	rows, err := conn.Query(ctx, sql, args...)
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	found, err := pgx.CollectRows(rows, pgx.RowTo[T])
	if err != nil {
		t.Fatalf("%s: %v", sql, err)
	}
	return found
}

// one returns the only value in the result of a query.
func one[T any](t testing.TB, conn *pgx.Conn, sql string, args ...any) T {
	t.Helper()
	found := query[T](t, conn, sql, args...)
	if len(found) != 1 {
		t.Fatalf("%s: got %d rows, want 1", sql, len(found))
	}
	return found[0]
}

// eventually waits until a query returns true.
func eventually(t testing.TB, conn *pgx.Conn, sql string, args ...any) {
	t.Helper()
	for deadline := time.Now().Add(limit); !one[bool](t, conn, sql, args...); {
		if time.Now().After(deadline) {
			t.Fatalf("waited %v for a query to return true: %s", limit, sql)
		}
	}
}
