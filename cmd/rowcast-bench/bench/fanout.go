package bench

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"sync"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/feed"
	hub "rowcast/stream"
)

// fanout is a process with a hub that is fed by hand, and that can write the same bytes to the same sockets by itself: with a
// plain loop of non-blocking write(2), which is what telling so many clients must cost.
type fanout struct {
	hub   *hub.Hub
	now   cursor.Cursor
	last  cursor.Row
	frame []byte // an event's bytes as the hub wrote them

	socket net.Listener
	mu     sync.Mutex
	conns  []*net.TCPConn
}

func newFanout(context.Context) (deeds, error) {
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	f := &fanout{
		hub: &hub.Hub{Source: noSource{}, Logger: slog.New(slog.NewTextHandler(os.Stderr, nil)), Heartbeat: time.Hour},
		now: cursor.Cursor{Xmax: 1000}, last: cursor.Row{Xid: 999}, socket: socket,
	}
	f.hub.Publish(feed.Batch{Cursor: f.now})
	mux := http.NewServeMux()
	mux.HandleFunc("/events", func(w http.ResponseWriter, r *http.Request) {
		f.hub.Serve(w, r, hub.Grant{User: r.URL.Query().Get("uid")})
	})
	go func() { _ = http.Serve(keeper{socket, f}, mux) }()
	return deeds{
		"address": deed(func(context.Context, nothing) (string, error) { return socket.Addr().String(), nil }),
		"learn":   deed(f.learn),
		"usage":   deed(usage),
		"publish": deed(f.publish),
		"write":   deed(f.write),
	}, nil
}

// keeper remembers the connections that it accepts.
type keeper struct {
	net.Listener
	f *fanout
}

func (k keeper) Accept() (net.Conn, error) {
	conn, err := k.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		k.f.mu.Lock()
		k.f.conns = append(k.f.conns, tcp)
		k.f.mu.Unlock()
	}
	return conn, err
}

// firstNumber makes all rows' numbers as long as one another, so that a frame can be used again with another.
const firstNumber = 1_000_000

// learn tells a client of its own an event to see its bytes. The connection is closed, and not written to again.
func (f *fanout) learn(ctx context.Context, _ nothing) (size int, err error) {
	conn, err := net.Dial("tcp", f.socket.Addr().String())
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(time.Minute))
	if _, err := conn.Write([]byte("GET /events?uid=nobody HTTP/1.1\r\nHost: here\r\n\r\n")); err != nil {
		return 0, err
	}
	if _, err := readUntil(conn, []byte("}\n\n")); err != nil { // the hello's end
		return 0, err
	}
	if _, err := f.publish(ctx, expectation{First: firstNumber, Rows: 1}); err != nil {
		return 0, err
	}
	f.frame, err = readUntil(conn, []byte("}\n\n"))
	f.mu.Lock()
	f.conns = nil
	f.mu.Unlock()
	return len(f.frame), err
}

func readUntil(conn net.Conn, end []byte) (read []byte, err error) {
	part := make([]byte, 4096)
	for !bytes.HasSuffix(read, end) {
		n, err := conn.Read(part)
		if err != nil {
			return nil, err
		}
		read = append(read, part[:n]...)
	}
	return read, nil
}

// publish tells all clients rows through the hub.
func (f *fanout) publish(_ context.Context, e expectation) (nothing, error) {
	for number := e.First; number < e.First+e.Rows; number++ {
		f.last = cursor.Row{Xid: f.now.Xmax, ID: number}
		event := feed.Row{Row: f.last, Event: "notify", Data: fmt.Appendf(nil, dataFormat, number, time.Now().UnixNano())}
		event.Cursor = f.now.After(f.last, cursor.Cursor{Xmax: f.last.Xid + 1})
		f.now = event.Cursor.Reached(cursor.Cursor{Xmax: f.last.Xid + 1})
		f.hub.Publish(feed.Batch{Rows: []feed.Row{event}, Cursor: f.now})
	}
	return nothing{}, nil
}

var errFull = errors.New("a socket does not take an event's bytes at once")

// write tells all clients rows without the hub: one system call each, and nothing else.
func (f *fanout) write(_ context.Context, e expectation) (nothing, error) {
	descriptors, err := f.descriptors()
	if err != nil {
		return nothing{}, err
	}
	for number := e.First; number < e.First+e.Rows; number++ {
		frame := bytes.Replace(f.frame, fmt.Appendf(nil, `{"n": %d`, firstNumber), fmt.Appendf(nil, `{"n": %d`, number), 1)
		for _, fd := range descriptors {
			if n, err := writeSocket(fd, frame); err != nil || n < len(frame) {
				return nothing{}, errors.Join(errFull, err)
			}
		}
	}
	return nothing{}, nil
}

// descriptors are those of the connections, which stay open as long as the clients do.
func (f *fanout) descriptors() (all []uintptr, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, conn := range f.conns {
		raw, err := conn.SyscallConn()
		if err == nil {
			err = raw.Control(func(fd uintptr) { all = append(all, fd) })
		}
		if err != nil {
			return nil, err
		}
	}
	return all, nil
}

// spent is CPU time in microseconds.
type spent struct{ User, System int64 }

func (s spent) since(before spent) spent {
	return spent{s.User - before.User, s.System - before.System}
}
func (s spent) total() float64 { return float64(s.User + s.System) }

// usage is what this process has used.
func usage(context.Context, nothing) (spent, error) {
	user, system, err := usedCPU()
	return spent{user.Microseconds(), system.Microseconds()}, err
}

// noSource holds nothing: the clients come without a cursor.
type noSource struct{}

func (noSource) CatchUp(context.Context) error { return nil }

func (noSource) Page(_ context.Context, _, to cursor.Cursor, _ []string) ([]feed.Row, cursor.Cursor, uint64, error) {
	return nil, to, 0, nil
}

func (noSource) IsValid(context.Context, cursor.Cursor, cursor.Cursor) (bool, error) {
	return true, nil
}
