package stream

import (
	"context"
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/failures"
	"rowcast/listener/feed"
	"rowcast/listener/guard"
	"rowcast/listener/loglimit"
	"rowcast/stream/fair"
	"rowcast/stream/sse"
	"rowcast/stream/wire"
)

// A Source reads rows that a Hub no longer has in memory, as the Replayer of package listener does. Its errors are
// temporary: the Hub tries again while the client waits.
type Source interface {
	// CatchUp returns once everything that was committed before the call has been published.
	CatchUp(ctx context.Context) error

	// Page reads a page of the rows for the recipients, in the order of delivery. These are the rows that end has seen
	// and that a client at the cursor c has not received. The rows for everyone are read if [feed.Everyone] is among the
	// recipients. next is the client's cursor after these rows. If there are no more rows, next is equal to
	// end. horizon is the transaction number below which retention may have deleted rows.
	Page(ctx context.Context, c, end cursor.Cursor, recipients []string) (rows []feed.Row, next cursor.Cursor, horizon uint64, err error)

	// IsValid reports whether c is valid in the epoch of now. c is a cursor of an earlier epoch, and now is the Hub's
	// cursor. c is valid if its anchor still exists. IsValid checks no other row.
	IsValid(ctx context.Context, c, now cursor.Cursor) (bool, error)
}

// A Hub sends committed rows and NOTIFY messages to the streams of its clients. Source and Logger are required. The
// zero value of every other field means the default, and so does a negative number. The fields must not be changed once
// the Hub is in use.
type Hub struct {
	Source Source
	Logger *slog.Logger

	// Heartbeat is the interval at which an idle stream is sent heartbeats. A stream is closed if its client accepts
	// nothing for two intervals. Default 15 s. More than 24 h counts as 24 h.
	Heartbeat time.Duration

	// Retry is the mean time that a client waits before it reconnects after its stream has ended. Each client is sent a
	// random time from half of the mean to one and a half times the mean. If a stream cannot be opened, the mean is twice
	// Retry, or ten times Retry if a limit is reached. Default 3 s. More than 24 h counts as 24 h.
	Retry time.Duration

	// UnavailableStatus is the HTTP status of "retry later". An EventSource reconnects only after 200. Any other status
	// is for a proxy that then tries another Hub, and that answers 200 itself if no Hub is left. Default 200. A number
	// that is not from 200 to 599 means the default, too.
	UnavailableStatus int

	// Drain is the time over which the streams are ended when the Hub stops. Default 3 s.
	Drain time.Duration

	// Backlog limits the pending bytes of one live stream. Bytes that are being written do not count, and the first
	// pending event may have any size. Default 1 MiB.
	Backlog int

	// Pending limits the bytes of memory that are held for all streams together because their clients have not accepted
	// them yet: backlogs, what is being written, and pages of the Source. Events that many streams wait for count once.
	// Above the limit, the streams with the most pending bytes are closed, and their clients resume. A stream that
	// resumes waits until the limit allows its next page. If no such stream gets memory for a heartbeat interval, streams
	// are closed below the limit, too. Default 256 MiB.
	Pending int

	// Page is the largest size in bytes of a page that the Source returns. Before a stream reads a page, it reserves this
	// much of Pending, but at most half of Pending. Default 17 MiB.
	Page int

	// Memory limits the bytes of memory of the recent events that are kept so that clients can resume without a query.
	// Default 64 MiB.
	Memory int

	// Reads is the number of calls of Source.Page and Source.IsValid that may run at one time. The Source needs a
	// connection for each. One user may have half of the calls, but at least one, and waiting users take turns. If a
	// client has no user, its address is used instead. Default 2.
	Reads int

	// Limits limit the number of streams. Default none.
	Limits Limits

	// Inbox sends rowcast.inbox events to the streams that have a user. The events say what has changed in the inbox of
	// the user, which rows for the user's groups and for everyone were deleted, or that the list must be loaded again.
	// They are rows for the recipients of [feed.InboxOf], so a client that resumes receives the events that it has
	// missed. rowcast.hello does not name these recipients.
	Inbox bool

	// Polling, if not nil, is called when a poll has been counted as a stream. Polling returns a function that is
	// called when the poll is not counted any more, before the end of its answer is sent. A server that limits the
	// number of idle connections can use Polling to leave out the connection of a poll between the two calls.
	Polling func(r *http.Request) (answering func())

	// Stats count what the Hub has done. They are for reading only.
	Stats Stats
	// Failures records which calls of the Source failed.
	Failures failures.Record

	once  sync.Once
	begun chan struct{} // closed when the Hub begins

	state    guard.Value[state]
	pending  pending
	calls    fair.Queue[reader] // the calls of Source.Page and Source.IsValid
	watcher  wire.Watcher[*subscriber]
	renewals sync.WaitGroup

	unstreamed loglimit.Limit // limits log lines about responses that cannot be streamed
	evictions  loglimit.Limit // limits log lines about streams that were closed because of Pending
}

// Stats are counters and one gauge. The Hub does not read them.
type Stats struct {
	Streams      atomic.Int64 // streams that are open now, and polls that are being answered
	Opened       atomic.Int64 // streams that were opened, without polls
	Polls        atomic.Int64 // polls that began
	Refused      Refusals     // requests that Serve answered with "retry later"
	Sent         atomic.Int64 // events that Publish and Send have given to live streams, once for each stream
	SentBytes    atomic.Int64 // bytes of the events that Sent counts
	Replayed     atomic.Int64 // missed events given to streams that resumed
	Pages        atomic.Int64 // attempts to read a page of the Source for a stream that resumes, failed attempts included
	Overflows    atomic.Int64 // streams that were closed because of Backlog
	Evicted      atomic.Int64 // streams that were closed because of Pending
	Resets       atomic.Int64 // client cursors from which the stream could not continue
	Disconnected atomic.Int64 // streams that Disconnect ended
}

// A state is the data that the lock of a Hub guards. Only code that holds the lock uses it.
type state struct {
	hub *Hub

	begun    bool          // a batch that is not Warming has been published
	stopping bool          // Run is ending the streams or has ended them
	cursor   cursor.Cursor // describes the rows that have been published
	horizon  uint64        // the transaction number below which retention may have deleted rows
	received time.Time     // when the last batch was published
	next     chan struct{} // closed when the next batch is published
	tick     uint64        // the number of calls of beat

	memory      memory
	epochs      epochs
	roster      roster
	counts      counts
	leases      leases
	disconnects disconnects
}

func (h *Hub) init() {
	h.once.Do(func() {
		setDefault(&h.Heartbeat, 15*time.Second)
		setDefault(&h.Retry, 3*time.Second)
		h.Heartbeat, h.Retry = min(h.Heartbeat, maxInterval), min(h.Retry, maxInterval)
		if h.UnavailableStatus < 200 || h.UnavailableStatus > 599 {
			h.UnavailableStatus = http.StatusOK
		}
		setDefault(&h.Drain, 3*time.Second)
		setDefault(&h.Backlog, 1<<20)
		setDefault(&h.Memory, 64<<20)
		setDefault(&h.Pending, 256<<20)
		setDefault(&h.Page, 17<<20)
		setDefault(&h.Reads, 2)
		h.pending.limit = int64(h.Pending)
		h.calls.Calls = h.Reads
		h.watcher.Gone = h.gone
		h.begun = make(chan struct{})
		st := h.state.Lock()
		defer h.state.Unlock()
		st.hub, st.next, st.memory.limit = h, make(chan struct{}), h.Memory
		st.roster.init()
	})
}

// setDefault sets a field that is zero or negative to its default.
func setDefault[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// maxInterval is the upper limit of Heartbeat and Retry. A client waits up to fifteen times Retry. The timers of browsers
// expire at once if they are set to more than 24 days.
const maxInterval = 24 * time.Hour

// Publish sends the rows of a batch to the live streams of their recipients. The batches must be published in order.
// The first one sets the cursor after which the Hub keeps recent events. The Hub accepts clients once a batch that is
// not [feed.Batch.Warming] has been published.
func (h *Hub) Publish(b feed.Batch) {
	h.init()
	frames := make([]*frame, len(b.Rows))
	for i := range b.Rows {
		frames[i] = encode(&b.Rows[i]).trim()
	}
	st := h.state.Lock()
	defer h.state.Unlock()
	st.prepare(b)
	for part := range runs(frames) {
		st.send(part[0].recipient, part...)
	}
	st.memory.add(frames...)
	st.cursor, st.received = b.Cursor, time.Now()
	if !b.Warming && !st.begun {
		st.begun = true
		close(h.begun)
	}
	if b.Horizon != 0 {
		st.horizon = b.Horizon
	}
	if b.Clamp != nil { // moves the cursors of live clients, so that no client resumes from a lost row
		st.send(feed.Everyone, st.heartbeat())
	}
	close(st.next)
	st.next = make(chan struct{})
	st.limitPending()
}

// Begun returns a channel that is closed when the Hub has received the first batch that is not [feed.Batch.Warming].
// Until then, clients are answered with "retry later".
func (h *Hub) Begun() <-chan struct{} {
	h.init()
	return h.begun
}

// prepare empties the memory if the batch is the first one, has a Reset, or begins an epoch. If the batch has a Reset,
// prepare also removes the recoveries and sends rowcast.reset to all live streams. If a batch without a Reset begins an
// epoch, prepare also adds a recovery.
func (st *state) prepare(b feed.Batch) {
	before := st.cursor
	switch {
	case st.memory.of == nil:
		st.memory.begin(b.Cursor)
	case b.Reset != "":
		st.memory.begin(b.Cursor)
		st.epochs = nil
		st.send(feed.Everyone, resetFrame(b.Reset, b.Cursor))
	case b.Cursor.Epoch != before.Epoch:
		// A new epoch empties the memory, even if Clamp is nil (rule 23 of package cursor).
		st.epochs.add(recovery{before, b.Clamp, b.Cursor.Epoch})
		if b.Clamp != nil {
			before = b.Cursor
		}
		st.memory.begin(before)
	}
}

// Send sends a NOTIFY message to the live streams of its recipient.
func (h *Hub) Send(m feed.Message) {
	h.init()
	name, _ := sse.NewName(m.Event)
	f := note(name, nil, m.Data)
	st := h.state.Lock()
	defer h.state.Unlock()
	st.send(m.Recipient, f)
	st.limitPending()
}

// send sends frames to the live streams of a recipient, or to all live streams if the recipient is [feed.Everyone]. It
// does not wait for any client. When it returns, all these streams have been given the frames. So the events of a later
// call come after the frames.
func (st *state) send(recipient string, frames ...*frame) {
	parts, n := st.roster.audience(recipient)
	if n == 0 {
		return
	}
	r := newRun(frames...)
	st.fanOut(r, parts, n)
	stats := &st.hub.Stats
	stats.Sent.Add(int64(n * len(frames)))
	stats.SentBytes.Add(int64(n * r.length()))
}

// fanOutSize is the number of streams for which one more goroutine is worth its cost.
const fanOutSize = 512

// fanOut sends a run to all streams of the parts. If there are many streams, several goroutines send the run, at most
// one for each processor.
func (st *state) fanOut(r *run, parts [][]*subscriber, total int) {
	if total < 2*fanOutSize { // the usual case: an event for one user
		for _, part := range parts {
			st.sendEach(r, part)
		}
		return
	}
	var next atomic.Int32
	work := func() {
		for i := int(next.Add(1)) - 1; i < len(parts); i = int(next.Add(1)) - 1 {
			st.sendEach(r, parts[i])
		}
	}
	var helpers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), total/fanOutSize) - 1 {
		helpers.Go(work)
	}
	work()
	helpers.Wait()
}

func (st *state) sendEach(r *run, to []*subscriber) {
	for _, s := range to {
		s.seat.active = st.tick
		s.send(r)
	}
}

func resetFrame(reason string, now cursor.Cursor) *frame {
	return note(eventReset, &now, fmt.Appendf(nil, `{"reason": %q}`, reason))
}

// Held returns the number of bytes that are held for all streams because their clients have not accepted them yet. It
// includes the memory that is reserved for pages of the Source.
func (h *Hub) Held() int64 { return h.pending.used.Load() }

// Ready reports whether the Hub has begun and is not stopping. It stays ready while the database is unreachable,
// because its streams stay open.
func (h *Hub) Ready() bool {
	st := h.state.Lock()
	defer h.state.Unlock()
	return st.begun && !st.stopping
}

// Behind returns the time since the last batch, which may have been empty. Before the Hub has begun, it returns 0.
func (h *Hub) Behind() time.Duration {
	st := h.state.Lock()
	defer h.state.Unlock()
	return st.behind()
}

func (st *state) behind() time.Duration {
	if !st.begun {
		return 0
	}
	return time.Since(st.received)
}

// hello returns what follows the opening line of a stream: rowcast.void, a retry field and rowcast.hello. The answer to
// a poll has no retry field. c is the cursor at which the stream begins. It is nil if rowcast.reset follows. A client
// that loses its connection before rowcast.reset must not resume from the new cursor, because it would never receive
// the reset. rowcast.hello names all recipients of s except [feed.Everyone] and the recipients of [feed.InboxOf].
func (h *Hub) hello(c *cursor.Cursor, s *subscriber) []byte {
	own := slices.DeleteFunc(slices.Clone(s.recipients), func(r string) bool { return r == feed.Everyone || feed.IsInbox(r) })
	data, err := json.Marshal(struct {
		Recipients []string `json:"recipients"`
		Heartbeat  float64  `json:"heartbeat"`
	}{own, h.Heartbeat.Seconds()})
	if err != nil {
		panic(err) // strings and a number can be encoded
	}
	// WebKit keeps the beginning of an event that was cut off, and adds it to the first block of the next stream.
	// rowcast.void serves as this block. Its data is JSON, because some clients parse the data of every event.
	b := note(eventVoid, c, []byte("{}")).live
	if s.arrived() == nil { // a client that polls continues at once
		b = sse.AppendRetry(b, jitter(h.Retry))
	}
	return append(b, note(eventHello, c, data).live...)
}

// jitter returns a random time from d/2 to 3d/2, so that clients that lost their connections together do not reconnect
// together.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d) }
