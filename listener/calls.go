package listener

import (
	"strings"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
)

// calls are notifications with a payload that wait until what was committed before them has been delivered. Any role of the
// database can send them, and PostgreSQL delivers up to 8 GB of them while one statement runs, so their number and bytes are
// bounded.
type calls struct {
	waiting []call
	bytes   int
}

// A call is a message by hand, or a recipient to disconnect.
type call struct {
	text       string
	disconnect bool
}

const (
	maxCalls     = 4096
	maxCallBytes = 1 << 20
)

// add keeps a call, and reports whether there was room for it.
func (c *calls) add(one call) bool {
	if len(c.waiting) == maxCalls || c.bytes+len(one.text) > maxCallBytes {
		return false
	}
	c.waiting = append(c.waiting, one)
	c.bytes += len(one.text)
	return true
}

// take returns what waits, and keeps nothing of it.
func (c *calls) take() []call {
	waiting := c.waiting
	*c = calls{}
	return waiting
}

// heard sorts notifications. pgx calls it in the middle of statements, a million times a second if a stranger wants so: it drops
// at once what nobody wants, and otherwise only takes notes.
func (s *session) heard(_ *pgconn.PgConn, n *pgconn.Notification) {
	switch n.Channel {
	case unparkedChannel:
		s.unparked = true
	case sql.Channel:
		if n.Payload == "" {
			s.bell = true
			s.Stats.Bells.Add(1)
		} else {
			s.heardMessage(n.Payload)
		}
	case disconnectChannel:
		s.heardDisconnect(n.Payload)
	case disconnectedChannel:
		if by, recipient, _ := strings.Cut(n.Payload, " "); by != s.name {
			s.heardDisconnect(strings.Clone(recipient)) // without the rest, which can be much longer
		}
	}
}

func (s *session) heardMessage(payload string) {
	if s.Message == nil || s.calls.add(call{text: payload}) {
		return
	}
	s.Stats.LeftOut.Add(1)
	if logger, ok := s.logs.leftOut.Allow(s.Logger); ok {
		logger.Warn("too many messages by hand came at once: some are left out", "most", maxCalls, "most_bytes", maxCallBytes)
	}
}

// heardDisconnect leaves out none: what does not wait is done at once, perhaps before rows that were committed earlier, which
// clients then resume.
func (s *session) heardDisconnect(recipient string) {
	switch {
	case s.Disconnect == nil:
	case checkRecipient(recipient) != nil:
		s.Stats.Malformed.Add(1)
		if logger, ok := s.logs.malformed.Allow(s.Logger); ok {
			logger.Warn("nobody is disconnected", "error", "the payload is not a recipient, 1 to 256 bytes long")
		}
	case !s.calls.add(call{recipient, true}):
		s.Disconnect(recipient)
	}
}

// answerCalls does what was asked for with NOTIFY.
func (s *session) answerCalls() {
	for _, c := range s.calls.take() {
		if c.disconnect {
			s.Disconnect(c.text)
		} else {
			s.tell(c.text)
		}
	}
}

// tell hands on a message by hand.
func (s *session) tell(payload string) {
	message, err := parseMessage(payload)
	if err != nil {
		s.Stats.Malformed.Add(1)
		if logger, ok := s.logs.malformed.Allow(s.Logger); ok {
			logger.Warn("message by hand goes to nobody", "error", err)
		}
		return
	}
	s.Message(message)
}
