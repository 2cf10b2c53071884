package listener_test

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/net/nettest"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// pair returns the two ends of a connection over TCP or a Unix socket.
func pair(t testing.TB, network string) (here, there net.Conn) {
	t.Helper()
	address := "127.0.0.1:0"
	if network == "unix" {
		address = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if here, err = net.Dial(network, l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if there, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	return here, there
}

func directly(t testing.TB, conn net.Conn) net.Conn {
	t.Helper()
	c, err := listener.Direct(conn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// The connection on which the listener waits passes the tests that package nettest has for a net.Conn. It passes them if
// it waits in the kernel, in Go's poller, and in both by turns.
func TestDirectConn(t *testing.T) {
	t.Parallel()
	for _, network := range []string{"tcp", "unix"} {
		for name, idle := range map[string]func(reads int32) bool{
			"kernel":  func(int32) bool { return false },
			"poller":  func(int32) bool { return true },
			"by turn": func(reads int32) bool { return reads%2 == 0 },
		} {
			t.Run(network+" "+name, func(t *testing.T) {
				t.Parallel()
				nettest.TestConn(t, func() (c1, c2 net.Conn, stop func(), err error) {
					here, there := pair(t, network)
					c1, c2 = &waiting{Conn: directly(t, here), idle: idle}, &waiting{Conn: directly(t, there), idle: idle}
					return c1, c2, func() { _ = errors.Join(c1.Close(), c2.Close()) }, nil
				})
			})
		}
	}
}

// A waiting is a connection that sets how each Read waits.
type waiting struct {
	net.Conn
	reads atomic.Int32
	idle  func(reads int32) bool
}

func (w *waiting) Read(p []byte) (int, error) {
	listener.SetIdle(w.Conn, w.idle(w.reads.Add(1)))
	return w.Conn.Read(p)
}

// After a long wait for notifications, the listener waits in Go's poller, for the answer to a statement and for the next
// notification. After a short wait, and while it polls, it waits in the kernel.
func TestLongWaitsAreInThePoller(t *testing.T) {
	t.Parallel()
	k, err := listener.OpenLinkToWait(limited(t), newListener(t, dbtest.Database(t)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(k.CloseLink)
	for _, last := range []time.Duration{0, 20 * time.Millisecond} {
		if last > 0 {
			if err := k.Wait(t.Context(), time.Now().Add(last)); err != nil {
				t.Fatal(err)
			}
		}
		want := last > 0
		if _, idle := k.Waiting(); idle != want {
			t.Errorf("after a wait of %v, the answer to a statement would be awaited in Go's poller: %v, want %v", last, idle, want)
		}
		var idle bool
		ended := make(chan error)
		go func() { ended <- k.Wait(t.Context(), time.Now().Add(2*patience)) }()
		for waits, deadline := false, time.Now().Add(patience); !waits; waits, idle = k.Waiting() {
			if time.Now().After(deadline) {
				t.Fatalf("waited %v for the next wait to begin", patience)
			}
			runtime.Gosched()
		}
		if idle != want {
			t.Errorf("after a wait of %v, the next wait is in Go's poller: %v, want %v", last, idle, want)
		}
		k.Interrupt()
		if err := dbtest.Receive(t, ended, "the end of the wait"); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(k.Wait(t.Context(), time.Now().Add(20*time.Millisecond)), k.Poll(t.Context(), 9*time.Millisecond)); err != nil {
		t.Fatal(err)
	}
	if _, idle := k.Waiting(); idle {
		t.Error("after a poll that followed a long wait, the connection waits in Go's poller, want in the kernel")
	}
}

// A connection of another type may encrypt, count or delay the bytes, so it is not replaced.
func TestDirectConnKeepsOtherTypes(t *testing.T) {
	t.Parallel()
	here, there := pair(t, "tcp")
	defer there.Close()
	wrapped := struct{ *net.TCPConn }{here.(*net.TCPConn)}
	if c := directly(t, wrapped); c != net.Conn(wrapped) {
		t.Errorf("got a connection of type %T, want the same connection as before", c)
	}
}

func TestDirectConnErrors(t *testing.T) {
	t.Parallel()
	here, there := pair(t, "tcp")
	c := directly(t, here)
	if err := there.(*net.TCPConn).SetLinger(0); err != nil { // Close then resets the connection
		t.Fatal(err)
	}
	_ = there.Close()
	_, err := c.Read(make([]byte, 1))
	if !errors.Is(err, syscall.ECONNRESET) || !strings.Contains(err.Error(), c.RemoteAddr().String()) {
		t.Errorf("read from a connection that the peer has reset: got error %v, want ECONNRESET with the peer's address", err)
	}
	_ = c.Close()
	for what, err := range map[string]error{"Close": c.Close(), "Read": errorOf(c.Read), "Write": errorOf(c.Write)} {
		if !errors.Is(err, net.ErrClosed) && !errors.Is(err, os.ErrClosed) {
			t.Errorf("%s of a closed connection: got error %v, want one that says that the connection is closed", what, err)
		}
	}
}

// A deadline is kept as a time since the connection was opened. So setting the clock of the machine does not move the
// deadline.
func TestDirectConnDoesNotUseTheClock(t *testing.T) {
	t.Parallel()
	here, there := pair(t, "tcp")
	defer there.Close()
	c := directly(t, here)
	for _, deadline := range []time.Time{time.Now().Add(time.Hour), time.Now().Add(time.Hour).Round(0)} {
		if err := c.SetReadDeadline(deadline); err != nil {
			t.Fatal(err)
		}
		if got := listener.ReadDeadline(c); got < 59*time.Minute || got > 61*time.Minute {
			t.Errorf("a deadline in an hour is kept as %v, want about an hour", got)
		}
	}
	for _, past := range []time.Time{time.Unix(0, 0), time.Unix(1, 0), time.Now().Add(-time.Hour)} {
		_ = c.SetReadDeadline(past)
		if err := errorOf(c.Read); !errors.Is(err, os.ErrDeadlineExceeded) {
			t.Errorf("read with the deadline %v: got error %v, want %v", past, err, os.ErrDeadlineExceeded)
		}
	}
	_ = c.SetReadDeadline(time.Now().Add(1<<63 - 1))
	if got := listener.ReadDeadline(c); got < 1<<60 {
		t.Errorf("a deadline in 292 years is kept as %v, want at least 36 years", got)
	}
}

func errorOf(use func([]byte) (int, error)) error {
	_, err := use(make([]byte, 1))
	return err
}

func TestListenerWaitsDirectly(t *testing.T) {
	t.Parallel()
	conn, err := newListener(t, dbtest.Database(t)).OpenLink(limited(t))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close(context.Background()) })
	if got := fmt.Sprintf("%T", conn.PgConn().Conn()); got != "*listener.directConn" {
		t.Errorf("the connection that reads rows and receives notifications has type %s, want *listener.directConn", got)
	}
}

// After a wait in Go's poller, bytes do not wake the poller, whether the wait has ended with bytes or with its deadline.
func TestOnlyALongWaitWakesThePoller(t *testing.T) {
	t.Parallel()
	here, there := pair(t, "unix")
	defer there.Close()
	c := directly(t, here)
	for _, arrives := range []bool{false, true} {
		wait := 10 * time.Millisecond
		if arrives {
			wait = patience // a read after its deadline returns no bytes, even if some have arrived
			_, _ = there.Write([]byte("1"))
		}
		listener.SetIdle(c, true)
		_ = c.SetReadDeadline(time.Now().Add(wait))
		if n, err := c.Read(make([]byte, 1)); (n == 1) != arrives {
			t.Fatalf("read %d bytes, %v, want a byte only if one has arrived (%v)", n, err, arrives)
		}
		listener.SetIdle(c, false)
		if _, err := there.Write([]byte("2")); err != nil {
			t.Fatal(err)
		}
		if listener.IsWoken(c) {
			t.Errorf("after a wait in which a byte has arrived (%v), the poller is woken for the next byte, want not", arrives)
		}
		_ = c.SetReadDeadline(time.Time{})
		if n, err := c.Read(make([]byte, 1)); n != 1 || err != nil {
			t.Fatalf("read %d bytes, %v, want 1 byte", n, err)
		}
	}
}

// BenchmarkWait compares a connection that waits in Go's poller with a directConn. Each operation is a fetch of one row
// and a nap, as when the listener polls. The benchmark reports the CPU time of this process for an operation, and
// how often a thread of the process stops to wait.
func BenchmarkWait(b *testing.B) {
	dsn := dbtest.Database(b)
	fetch := fetchRow(b, dsn)
	for _, kind := range []string{"poller", "direct"} {
		b.Run(kind, func(b *testing.B) {
			conn := connectBy(b, dsn, kind == "direct")
			reportCPU(b, func() {
				fetch(b, conn)
				listener.Nap(300 * time.Microsecond)
			})
		})
	}
}

// BenchmarkSeldomFetch compares the two ways in which a directConn waits for the answer to a fetch, if there is a fetch
// every 20 ms. It reports the same as BenchmarkWait.
func BenchmarkSeldomFetch(b *testing.B) {
	dsn := dbtest.Database(b)
	fetch := fetchRow(b, dsn)
	for _, kind := range []string{"kernel", "poller"} {
		b.Run(kind, func(b *testing.B) {
			conn := connectBy(b, dsn, true)
			listener.SetIdle(conn.PgConn().Conn(), kind == "poller")
			reportCPU(b, func() {
				time.Sleep(20 * time.Millisecond)
				fetch(b, conn)
			})
		})
	}
}

// fetchRow inserts a row, and returns a function that fetches it.
func fetchRow(b *testing.B, dsn string) (fetch func(*testing.B, *pgx.Conn)) {
	b.Helper()
	writer := connect(b, dsn)
	before := present(b, writer)
	insert(b, writer, "row")
	return func(b *testing.B, conn *pgx.Conn) {
		b.Helper()
		tag, err := conn.Exec(b.Context(), listener.NearQuery, listener.QueryArgs(listener.NearQuery, before, nil, 512)...)
		if err != nil || tag.RowsAffected() != 2 {
			b.Fatalf("got %d rows and the error %v, want the snapshot and a row", tag.RowsAffected(), err)
		}
	}
}

func reportCPU(b *testing.B, operation func()) {
	var began, ended syscall.Rusage
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &began)
	for b.Loop() {
		operation()
	}
	_ = syscall.Getrusage(syscall.RUSAGE_SELF, &ended)
	cpu := ended.Utime.Nano() + ended.Stime.Nano() - began.Utime.Nano() - began.Stime.Nano()
	b.ReportMetric(float64(cpu)/1e3/float64(b.N), "cpu-µs/op")
	b.ReportMetric(float64(ended.Nvcsw-began.Nvcsw)/float64(b.N), "waits/op")
}

// BenchmarkLongWait compares the two ways in which a directConn waits. In each operation, a byte arrives after 20 ms. The
// benchmark reports the CPU time of this process for an operation, which includes the writer.
func BenchmarkLongWait(b *testing.B) {
	for _, idle := range []bool{false, true} {
		b.Run(map[bool]string{false: "kernel", true: "poller"}[idle], func(b *testing.B) {
			here, there := pair(b, "unix")
			b.Cleanup(func() { _ = there.Close() })
			conn := directly(b, here)
			listener.SetIdle(conn, idle)
			reportCPU(b, func() {
				time.AfterFunc(20*time.Millisecond, func() { _, _ = there.Write([]byte{1}) })
				if n, err := conn.Read(make([]byte, 2)); n != 1 || err != nil {
					b.Fatalf("read %d bytes, %v, want 1 byte and no error", n, err)
				}
			})
		})
	}
}

func connectBy(b *testing.B, dsn string, isDirect bool) *pgx.Conn {
	b.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		b.Fatal(err)
	}
	if dial := config.DialFunc; isDirect {
		config.DialFunc = func(ctx context.Context, network, address string) (net.Conn, error) {
			conn, err := dial(ctx, network, address)
			if err != nil {
				return nil, err
			}
			return listener.Direct(conn)
		}
	}
	conn, err := pgx.ConnectConfig(b.Context(), config)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = conn.Close(context.Background()) })
	return conn
}
