package listener

import (
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener/feed"
	"rowcast/sql"
)

// calls are notifications with a payload. While the listener sleeps, they wait until the fetch after them has delivered
// a page, so that rows that were committed before them normally come first. Any role of the database can send such
// notifications, and PostgreSQL may deliver 8 GB of them while one statement runs, so their number and size are
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

// add keeps a call until take removes it. It reports false if there is no capacity for the call.
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
			k.notified = true
			k.Stats.Wakeups.Add(1)
		} else {
			k.receiveMessage(n.Payload)
		}
	case disconnectChannel:
		k.receiveDisconnect(n.Payload)
	case disconnectedChannel:
		if by, recipient, _ := strings.Cut(n.Payload, " "); by != k.name {
			k.receiveDisconnect(strings.Clone(recipient)) // without Clone, recipient would keep the whole payload in memory
		}
	}
}

func (k *link) receiveMessage(payload string) {
	if k.Message == nil || k.calls.add(call{text: payload}) {
		return
	}
	k.Stats.Dropped.Add(1)
	if logger, ok := k.logs.dropped.Allow(k.Logger); ok {
		logger.Warn("dropped NOTIFY messages: too many came at once", "most", maxCalls, "most_bytes", maxCallBytes)
	}
}

// receiveDisconnect drops no request. If too many calls wait already, it closes the streams at once, perhaps
// before rows that were committed earlier have been delivered. A client receives these rows if it resumes.
func (k *link) receiveDisconnect(recipient string) {
	switch {
	case k.Disconnect == nil:
	case feed.CheckIdentity(recipient) != nil:
		k.Stats.Malformed.Add(1)
		if logger, ok := k.logs.malformed.Allow(k.Logger); ok {
			logger.Warn("ignored malformed NOTIFY payload", "channel", disconnectChannel,
				"error", "the payload is not a user or a group: 1 to 256 bytes of UTF-8 without control characters, and neither * nor a name that begins with rowcast.")
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
