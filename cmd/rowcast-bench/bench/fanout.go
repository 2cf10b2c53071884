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

// fanout is the child process with the role fanout: a hub without a database. It publishes rows through the hub, or
// writes events of the same size to the same sockets in a loop of non-blocking write(2). The loop shows what these
// system calls cost alone.
type fanout struct {
	hub   *hub.Hub
	now   cursor.Cursor
	last  cursor.Row
	frame []byte // an event as the hub writes it

	socket net.Listener
	mu     sync.Mutex
	conns  []*net.TCPConn
}

func newFanout(context.Context) (actions, error) {
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
	go func() { _ = http.Serve(recordingListener{socket, f}, mux) }()
	return actions{
		"address": action(func(context.Context, nothing) (string, error) { return socket.Addr().String(), nil }),
		"learn":   action(f.learn),
		"usage":   action(usage),
		"publish": action(f.publish),
		"write":   action(f.write),
	}, nil
}

// A recordingListener records the connections that it accepts.
type recordingListener struct {
	net.Listener
	f *fanout
}

func (k recordingListener) Accept() (net.Conn, error) {
	conn, err := k.Listener.Accept()
	if tcp, ok := conn.(*net.TCPConn); ok {
		k.f.mu.Lock()
		k.f.conns = append(k.f.conns, tcp)
		k.f.mu.Unlock()
	}
	return conn, err
}

// firstNumber is the number of the first row. The numbers of all rows have seven digits, so the loop can replace the
// number in the frame of a row without changing the frame's size.
const firstNumber = 1_000_000

// learn connects to the hub as a client and publishes a row. It stores the bytes of the received event in f.frame,
// removes its connection from f.conns, and returns the number of bytes.
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
	if _, err := readBlock(conn, "rowcast.hello"); err != nil {
		return 0, err
	}
	if _, err := f.publish(ctx, expectation{First: firstNumber, Rows: 1}); err != nil {
		return 0, err
	}
	f.frame, err = readBlock(conn, "notify")
	f.mu.Lock()
	f.conns = nil
	f.mu.Unlock()
	return len(f.frame), err
}

// readBlock reads to the end of the block of an event, which must be the last block that the hub has sent.
func readBlock(conn net.Conn, event string) (read []byte, err error) {
	part := make([]byte, 4096)
	for !bytes.Contains(read, []byte("event: "+event+"\n")) || !bytes.HasSuffix(read, []byte("\n\n")) {
		n, err := conn.Read(part)
		if err != nil {
			return nil, err
		}
		read = append(read, part[:n]...)
	}
	return read, nil
}

// publish sends the rows of e to all clients through the hub.
func (f *fanout) publish(_ context.Context, e expectation) (nothing, error) {
	for number := e.First; number < e.First+e.Rows; number++ {
		f.last = cursor.Row{Xid: f.now.Xmax, ID: number}
		now := time.Now()
		event := feed.Row{Row: f.last, Recipient: feed.Everyone, Event: "notify", Data: fmt.Appendf(nil, dataFormat, number, now.UnixNano()), CreatedAt: now}
		event.Cursor = f.now.After(f.last, cursor.Cursor{Xmax: f.last.Xid + 1})
		f.now = event.Cursor.Reached(cursor.Cursor{Xmax: f.last.Xid + 1})
		f.hub.Publish(feed.Batch{Rows: []feed.Row{event}, Cursor: f.now})
	}
	return nothing{}, nil
}

var errFull = errors.New("the buffer of a socket is full")

// write sends the rows of e to all clients without the hub, with one system call for each client and row.
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

// descriptors returns the file descriptors of the connections. They stay open until the clients end.
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

// A cpuTime is CPU time in microseconds.
type cpuTime struct{ User, System int64 }

func (s cpuTime) since(before cpuTime) cpuTime {
	return cpuTime{s.User - before.User, s.System - before.System}
}
func (s cpuTime) total() float64 { return float64(s.User + s.System) }

// usage returns the CPU time that this process has used.
func usage(context.Context, nothing) (cpuTime, error) {
	user, system, err := usedCPU()
	return cpuTime{user.Microseconds(), system.Microseconds()}, err
}

// noSource is a stream.Source without rows. The clients send no cursor, so the hub needs no rows from it.
type noSource struct{}

func (noSource) CatchUp(context.Context) error { return nil }

func (noSource) Page(_ context.Context, _, end cursor.Cursor, _ []string) ([]feed.Row, cursor.Cursor, uint64, error) {
	return nil, end, 0, nil
}

func (noSource) IsValid(context.Context, cursor.Cursor, cursor.Cursor) (bool, error) {
	return true, nil
}
