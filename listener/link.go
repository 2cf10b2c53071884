package listener

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener/feed"
	"rowcast/sql"
)

// A link is the listener's first connection. It receives notifications and reads rows. Only Run's goroutine uses it,
// except for interrupt.
type link struct {
	*Listener
	conn *pgx.Conn

	listening bool          // listen has succeeded
	waited    time.Duration // how long the last wait took
	notified  bool          // a notification without a payload has come, and no fetch covers it yet (see covered); poll resets it
	announced bool          // a notification without a payload has come since the last fetch began
	released  bool          // a notification says that a hub has released the park lock
	calls     calls         // notifications with a payload that have not been answered
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
	k.listening = true
	return nil
}

// bounded runs read for at most Timeout, or until the session ends. For this, it uses the deadline of the connection,
// as wait does, and passes a context that never ends. A context with a deadline would cost more, and nearly every
// notification is followed by a statement.
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

// longWait is the length of a wait after which rows are expected to be rare. Then the next fetch and the next wait cost
// less CPU in Go's poller than in the kernel (see directConn). With a hundred rows a second, the kernel still costs less.
const longWait = 12 * time.Millisecond

// wait sleeps until the deadline. It returns earlier if it receives a notification that must be answered, if a fetch is
// requested, if wake is called, or if the session ends. Other notifications do not end the wait.
func (k *link) wait(ctx context.Context, deadline time.Time) error {
	if k.isCalled() {
		return ctx.Err()
	}
	conn, began := k.conn.PgConn().Conn(), time.Now()
	_ = conn.SetDeadline(deadline)
	k.beginWait(k.interrupt)
	if k.waited < longWait { // a wait in the kernel would keep the goroutines waiting that the delivery of rows has made ready
		runtime.Gosched()
	}
	var err error
	for err == nil && ctx.Err() == nil && !k.isCalled() {
		err = k.conn.PgConn().WaitForNotification(context.Background())
	}
	k.endWait()
	k.setWaited(time.Since(began))
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// A wait that times out leaves the connection open. Every other error closes it.
	if k.conn.IsClosed() {
		return fmt.Errorf("wait for notification: %w", err)
	}
	return nil
}

// setWaited records how long the last wait took, or 0 when the listener polls. It decides where the connection waits
// next.
func (k *link) setWaited(d time.Duration) {
	k.waited = d
	setIdle(k.conn.PgConn().Conn(), d >= longWait)
}

// isCalled reports whether a notification has been received that has not been answered.
func (k *link) isCalled() bool { return k.notified || k.released || len(k.calls.waiting) > 0 }

// calls are notifications with a payload. While the listener sleeps, they wait until the fetch after them has delivered
// a page, so that rows that were committed before them normally come first. Any role of the database can send such
// notifications, and PostgreSQL may deliver 8 GB of them with the answer to one statement, so their number and size are
// bounded.
type calls struct {
	waiting []call
	bytes   int
}

// A call is a message, or a recipient whose streams are to be closed.
type call struct {
	text       string
	disconnect bool
}

const (
	maxCalls     = 4096
	maxCallBytes = 1 << 20
)

// add keeps a call until take removes it. It reports whether there was capacity for the call.
func (c *calls) add(one call) bool {
	if len(c.waiting) == maxCalls || c.bytes+len(one.text) > maxCallBytes {
		return false
	}
	c.waiting = append(c.waiting, one)
	c.bytes += len(one.text)
	return true
}

// take removes the waiting calls and returns them.
func (c *calls) take() []call {
	waiting := c.waiting
	*c = calls{}
	return waiting
}

// receive sorts notifications. pgx calls it in the middle of statements, for each of perhaps a million notifications a
// second. So receive drops at once the notifications that the listener does not use, and normally only records the
// others.
func (k *link) receive(_ *pgconn.PgConn, n *pgconn.Notification) {
	switch n.Channel {
	case releasedChannel:
		k.released = true
	case sql.Channel:
		if n.Payload == "" {
			k.notified, k.announced = true, true
			k.Stats.Wakeups.Add(1)
		} else {
			k.receiveMessage(n.Payload)
		}
	case disconnectChannel:
		k.receiveDisconnect(n.Channel, n.Payload)
	case disconnectedChannel:
		if by, recipient := parseDisconnected(n.Payload); by != k.name {
			k.receiveDisconnect(n.Channel, strings.Clone(recipient)) // without Clone, recipient would keep the whole payload in memory
		}
	}
}

// covered is called when the answer to a fetch with a new snapshot begins. PostgreSQL sends notifications only between
// transactions, so those that have come until now were sent before the snapshot was taken. Their transactions had ended
// by then, so the fetch reads their rows. If the fetch fails, another fetch follows, or the session ends. Notifications
// for later transactions come at the end of the answer.
func (k *link) covered() { k.notified = false }

func (k *link) receiveMessage(payload string) {
	if k.Message == nil || k.calls.add(call{text: payload}) {
		return
	}
	k.Stats.Dropped.Add(1)
	if logger, ok := k.logs.dropped.Allow(k.Logger); ok {
		logger.Warn("dropped NOTIFY messages: too many came at once", "most", maxCalls, "most_bytes", maxCallBytes)
	}
}

// receiveDisconnect drops only malformed requests, or all requests if Disconnect is nil. If too many calls wait
// already, it calls Disconnect at once, perhaps before rows that were committed earlier have been delivered. A client
// receives these rows if it resumes.
func (k *link) receiveDisconnect(channel, recipient string) {
	switch {
	case k.Disconnect == nil:
	case feed.CheckIdentity(recipient) != nil:
		k.Stats.Malformed.Add(1)
		if logger, ok := k.logs.malformed.Allow(k.Logger); ok {
			logger.Warn("ignored malformed NOTIFY payload", "channel", channel,
				"error", "the payload is not a user or a group: 1 to 256 bytes of UTF-8 without control characters or U+FFFD, not *, and not beginning with rowcast.")
		}
	case !k.calls.add(call{recipient, true}):
		k.Disconnect(recipient)
	}
}

// answerCalls calls Message or Disconnect for each waiting call.
func (k *link) answerCalls() {
	for _, c := range k.calls.take() {
		if c.disconnect {
			k.Disconnect(c.text)
		} else {
			k.send(c.text)
		}
	}
}

// send parses a message and sends it to the hub. It counts and logs a malformed message.
func (k *link) send(payload string) {
	message, err := parseMessage(payload)
	if err != nil {
		k.Stats.Malformed.Add(1)
		if logger, ok := k.logs.malformed.Allow(k.Logger); ok {
			logger.Warn("ignored malformed NOTIFY payload", "channel", sql.Channel, "error", err)
		}
		return
	}
	k.Message(message)
}
