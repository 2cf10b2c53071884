package listener

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
)

// A link is the listener's first connection. It receives notifications and reads rows. Only Run's goroutine uses it,
// except for interrupt.
type link struct {
	*Listener
	conn *pgx.Conn

	notified bool  // a notification without a payload has come; reset when a fetch begins, and while polling
	released bool  // a notification says that a hub has released the park lock
	calls    calls // notifications with a payload that have not been answered
}

// releasedChannel is the channel on which a hub that releases the park lock notifies the hubs that relied on it.
const releasedChannel = sql.Channel + ".unparked"

// openLink connects. Notifications are received once listen has been called.
func (l *Listener) openLink(ctx context.Context) (*link, error) {
	k := &link{Listener: l}
	var err error
	k.conn, err = l.connect(ctx, "listener", k.receive)
	if err != nil {
		return nil, err
	}
	return k, nil
}

func (k *link) close() { closeNow(k.conn) }

// closeNow closes a connection, even if the context of its session has ended. It waits for at most a second.
func closeNow(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

func (k *link) listen(ctx context.Context) error {
	var listen strings.Builder
	for _, channel := range []string{sql.Channel, releasedChannel, disconnectChannel, disconnectedChannel} {
		fmt.Fprintf(&listen, "LISTEN %s;", pgx.Identifier{channel}.Sanitize())
	}
	if _, err := k.conn.PgConn().Exec(ctx, listen.String()).ReadAll(); err != nil {
		return fmt.Errorf("listen: %w", err)
	}
	return nil
}

// bounded runs read for at most Timeout, or until the session ends. Like wait, it uses the deadline of the connection.
// For a context that can end, pgx would start a goroutine each time, which costs too much for a call after nearly each
// notification.
func (k *link) bounded(ctx context.Context, read func(context.Context, querier) error) error {
	_ = k.conn.PgConn().Conn().SetDeadline(time.Now().Add(k.Timeout))
	if ctx.Err() != nil { // interrupt may have been called before SetDeadline
		return ctx.Err()
	}
	never := context.Background()
	return k.withSettings(never, k.conn, func(db querier) error { return read(never, db) })
}

// interrupt ends the statement or the wait that uses the connection now. Any goroutine may call it.
func (k *link) interrupt() { _ = k.conn.PgConn().Conn().SetDeadline(time.Unix(1, 0)) }

// wait sleeps until the deadline. It returns earlier if it receives a notification that must be answered, if a fetch is
// requested, or if wake is called. Other notifications do not end the wait.
func (k *link) wait(ctx context.Context, deadline time.Time) error {
	if k.isCalled() {
		return ctx.Err()
	}
	_ = k.conn.PgConn().Conn().SetDeadline(deadline)
	k.beginWait(k.interrupt)
	runtime.Gosched() // lets the goroutines run that the delivery of rows has made ready
	var err error
	for err == nil && ctx.Err() == nil && !k.isCalled() {
		err = k.conn.PgConn().WaitForNotification(context.Background())
	}
	k.endWait()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// A wait that times out leaves the connection open. Every other error closes it.
	if k.conn.IsClosed() {
		return fmt.Errorf("wait for notification: %w", err)
	}
	return nil
}

// isCalled reports whether a notification has been received that has not been answered.
func (k *link) isCalled() bool { return k.notified || k.released || len(k.calls.waiting) > 0 }
