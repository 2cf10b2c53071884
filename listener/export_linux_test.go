package listener

import (
	"context"
	"net"
	"time"

	"golang.org/x/sys/unix"
)

// Nap sleeps as the listener does between two polls.
var Nap = nap

// Direct replaces a connection as the listener does for the connection on which it reads rows.
var Direct = direct

// ReadDeadline returns the read deadline that a connection returned by Direct keeps.
func ReadDeadline(conn net.Conn) time.Duration {
	return time.Duration(conn.(*directConn).in.deadline.Load())
}

// SetIdle says how the next Reads of a connection wait.
var SetIdle = setIdle

// A Link is the listener's first connection.
type Link struct{ *link }

// OpenLinkToWait opens a Link.
func OpenLinkToWait(ctx context.Context, l *Listener) (Link, error) {
	defaults(l)
	k, err := l.openLink(ctx)
	return Link{k}, err
}

// Wait waits for notifications until the deadline, or until Interrupt is called.
func (k Link) Wait(ctx context.Context, deadline time.Time) error { return k.wait(ctx, deadline) }

// Poll waits for an interval as between two polls.
func (k Link) Poll(ctx context.Context, interval time.Duration) error {
	_, _, err := newWakeup(k.Listener, k.link, nil).poll(ctx, interval)
	return err
}

// Interrupt ends Wait.
func (k Link) Interrupt() { k.interrupt() }

// CloseLink closes the connection.
func (k Link) CloseLink() { k.close() }

// Waiting reports whether a Read waits, and whether Reads wait in Go's poller.
func (k Link) Waiting() (waits, idle bool) {
	in := &k.conn.PgConn().Conn().(*directConn).in
	return in.waiting.Load(), in.idle.Load()
}

// IsWoken reports whether Go's poller would be woken for a connection that does not wait.
func IsWoken(conn net.Conn) (woken bool) {
	_ = conn.(*directConn).in.epoll.raw.Control(func(fd uintptr) {
		n, _ := unix.EpollWait(int(fd), make([]unix.EpollEvent, 1), 0)
		woken = n > 0
	})
	return woken
}
