package listener_test

import (
	"context"
	"errors"
	"net"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// dialled has a DialFunc and keeps a second descriptor of each socket that it has opened. The listener may close the
// net.Conn and continue to use the socket through a descriptor of its own.
type dialled struct {
	mu      sync.Mutex
	sockets []*os.File
}

func (d *dialled) dial(ctx context.Context, _, address string) (net.Conn, error) {
	conn, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
	if err != nil {
		return nil, err
	}
	socket, err := conn.(*net.TCPConn).File()
	if err != nil {
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.sockets = append(d.sockets, socket)
	return conn, nil
}

// The listener uses the DialFunc of Config for its first connection, for the connection of the park lock, and for the
// connections of replays. On each socket, it sets options with which the kernel notices that the server no longer
// answers.
func TestDialFuncIsKept(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	role := loginRole(t, dsn, "first")
	var d dialled
	r := listen(t, overTCP(t, dsn, role)+" password=first", func(l *listener.Listener) {
		l.Config.DialFunc = d.dial
		l.Timeout = 7 * time.Second
	})
	r.waitForLock(t, 1)
	replayer, err := r.NewReplayer(limited(t), 1)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(replayer.Close)
	begin := r.last.Cursor.String()
	insert(t, conn, "1")
	wantData(t, r.rows(t, 1), `"1"`)
	r.caughtUp(t)
	wantData(t, replay(t, replayer, begin, r.last.Cursor.String(), nil), `"1"`)
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.sockets) != 3 {
		t.Errorf("the DialFunc made %d connections, want 3", len(d.sockets))
	}
	for i, socket := range d.sockets {
		t.Cleanup(func() { _ = socket.Close() })
		timeout, idle := option(t, socket, unix.TCP_USER_TIMEOUT), option(t, socket, unix.TCP_KEEPIDLE)
		if timeout != 7000 || idle != 5 {
			t.Errorf("connection %d: TCP_USER_TIMEOUT %d ms and TCP_KEEPIDLE %d s, want 7000 and 5", i, timeout, idle)
		}
	}
}

func option(t *testing.T, socket *os.File, name int) (value int) {
	t.Helper()
	raw, err := socket.SyscallConn()
	if err == nil {
		err = errors.Join(raw.Control(func(fd uintptr) { value, err = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, name) }), err)
	}
	if err != nil {
		t.Fatalf("cannot read an option of a socket: %v", err)
	}
	return value
}

// If the server no longer reads, the kernel ends the connection long before the deadline of the connection.
func TestDeadServerIsGivenUp(t *testing.T) {
	t.Parallel()
	server, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = server.Close() })
	l := newListener(t, "postgres://nobody@127.0.0.1/nothing?sslmode=disable")
	l.Timeout = time.Second
	dial, err := l.DialFunc()
	if err != nil {
		t.Fatal(err)
	}
	conn, err := dial(limited(t), "tcp", server.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	_ = conn.SetDeadline(time.Now().Add(4 * patience))
	for err == nil {
		_, err = conn.Write(make([]byte, 1<<20)) // the peer does not read
	}
	if !errors.Is(err, syscall.ETIMEDOUT) {
		t.Errorf("write: got error %v, want %v", err, syscall.ETIMEDOUT)
	}
}
