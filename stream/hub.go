package stream

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"time"

	"rowcast/listener/cursor"
	"rowcast/listener/failures"
	"rowcast/listener/feed"
	"rowcast/listener/loglimit"
	"rowcast/stream/sse"
)

// A Hub sends what it is given to its subscribers. Source and Logger are required; the zero value of every other field is its
// default. The fields must not be changed once the Hub is in use.
type Hub struct {
	Source Source
	Logger *slog.Logger

	// Heartbeat is the time after which a silent stream is sent something. A client whose socket takes no byte for two of them
	// is closed. Default 15 s.
	Heartbeat time.Duration

	// Retry is the mean time that a client is told to wait before it comes back; each is told another. Default 3 s.
	Retry time.Duration

	// Drain is the time over which the streams are ended when the Hub stops. Default 3 s.
	Drain time.Duration

	// Backlog bounds, in bytes, what a subscriber may be owed besides what is being written and one event of any size. Default
	// 1 MiB.
	Backlog int

	// Pending bounds, in bytes, what is held in memory for all streams together because their clients have not taken it yet:
	// backlogs, what is being written, and pages of the Source. Events that many streams wait for count once. Above it, the
	// streams that are owed most are closed, and their clients resume. Streams that resume wait for room before they read a page.
	// Default 256 MiB.
	Pending int

	// Page is how many bytes a page of the Source may have. Default 17 MiB.
	Page int

	// Memory bounds, in bytes, the recent events that are kept so that resuming needs no query. Default 64 MiB.
	Memory int

	// Reads is how many calls of Source.Page and Source.Stands may run at a time: as many as the Source has connections for them. Users
	// take turns, and no more than half of the calls are one user's, but one at least. Default 2.
	Reads int

	// Limits bound the number of streams. Default none.
	Limits Limits

	Stats Stats
	// Failures are those of replay, stands and catch_up.
	Failures failures.Record

	once sync.Once

	unstreamed loglimit.Limit // log lines about responses that cannot be streamed

	mu          sync.Mutex
	begun       bool          // the first batch has come
	stopping    bool          // Run has been told to end
	cursor      cursor.Cursor // what has been published
	horizon     uint64
	heard       time.Time     // when the last batch came
	moved       chan struct{} // closed by the next batch
	memory      memory
	pending     pending
	evictions   loglimit.Limit
	epochs      epochs
	roster      roster
	census      census
	turns       turns
	leases      leases
	disconnects disconnects
	tick        uint64

	watcher  watcher
	renewals sync.WaitGroup
}

// Stats count what a Hub has done.
type Stats struct {
	Streams      atomic.Int64 // open now
	Opened       atomic.Int64
	Refused      Refusals
	Sent         atomic.Int64 // events to live subscribers
	SentBytes    atomic.Int64
	Replayed     atomic.Int64 // events to subscribers that resumed
	Pages        atomic.Int64 // read from the Source to bring subscribers forward
	Overflows    atomic.Int64 // streams closed because their backlog was full
	Evicted      atomic.Int64 // streams closed because too much was held for all streams together
	Resets       atomic.Int64 // cursors that could not be honoured
	Disconnected atomic.Int64 // streams that Disconnect ended
}

func (h *Hub) init() {
	h.once.Do(func() {
		setDefault(&h.Heartbeat, 15*time.Second)
		setDefault(&h.Retry, 3*time.Second)
		setDefault(&h.Drain, 3*time.Second)
		setDefault(&h.Backlog, 1<<20)
		setDefault(&h.Memory, 64<<20)
		setDefault(&h.Pending, 256<<20)
		setDefault(&h.Page, 17<<20)
		h.memory.limit = h.Memory
		h.pending.limit = int64(h.Pending)
		setDefault(&h.Reads, 2)
		h.turns.init(h.Reads)
		h.moved = make(chan struct{})
		h.roster.init()
		h.watcher.gone = h.gone
	})
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// Publish sends a batch to the subscribers concerned. Batches come one after another; the first says where the Hub begins.
func (h *Hub) Publish(b feed.Batch) {
	h.init()
	frames := make([]*frame, len(b.Rows))
	for i := range b.Rows {
		frames[i] = encode(&b.Rows[i]).fit()
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	h.continueFrom(b)
	for part := range runs(frames) {
		h.sendTo(part[0].recipient, part...)
	}
	h.memory.remember(frames...)
	h.cursor, h.heard = b.Cursor, time.Now()
	h.begun = h.begun || !b.Warming
	if b.Horizon != 0 {
		h.horizon = b.Horizon
	}
	if b.Clamp != nil { // so that nobody resumes from what is gone
		h.sendTo("", h.heartbeat())
	}
	close(h.moved)
	h.moved = make(chan struct{})
	h.relieve()
}

// continueFrom prepares for a batch that may not simply continue the one before.
func (h *Hub) continueFrom(b feed.Batch) {
	before := h.cursor
	switch {
	case h.memory.of == nil:
		h.memory.begin(b.Cursor)
	case b.Reset != "":
		h.memory.begin(b.Cursor)
		h.epochs = nil
		h.sendTo("", resetNote(b.Reset, b.Cursor))
	case b.Cursor.Epoch != before.Epoch:
		// Even where nothing that a cursor claims will be drawn again, rows may be gone that are remembered.
		h.epochs.end(ending{before, b.Clamp, b.Cursor.Epoch})
		if b.Clamp != nil {
			before = b.Cursor
		}
		h.memory.begin(before)
	}
}

// Send sends a message to those who are there.
func (h *Hub) Send(m feed.Message) {
	h.init()
	name, _ := sse.NewName(m.Event)
	f := note(name, nil, m.Data)
	h.mu.Lock()
	defer h.mu.Unlock()
	h.sendTo(m.Recipient, f)
	h.relieve()
}

// sendTo gives frames to the live subscribers of a recipient. No subscriber can make it wait, and all have been given them when it
// returns: so what is told next comes after them.
func (h *Hub) sendTo(recipient string, frames ...*frame) {
	parts, n := h.roster.audience(recipient)
	if n == 0 { // nothing is laid together for nobody
		return
	}
	r := runOf(frames...)
	h.fanOut(r, parts, n)
	h.Stats.Sent.Add(int64(n * len(frames)))
	h.Stats.SentBytes.Add(int64(n * (len(r.bytes) + len(r.rest))))
}

// fanOutFrom is the number of subscribers for whom it pays to have a processor of their own.
const fanOutFrom = 512

// fanOut gives a run to all, by as many goroutines as there are processors where they are many.
func (h *Hub) fanOut(r *run, parts [][]*subscriber, total int) {
	if total < 2*fanOutFrom { // mostly: what is said of one user
		for _, part := range parts {
			h.sendEach(r, part)
		}
		return
	}
	var next atomic.Int32
	work := func() {
		for i := int(next.Add(1)) - 1; i < len(parts); i = int(next.Add(1)) - 1 {
			h.sendEach(r, parts[i])
		}
	}
	var helpers sync.WaitGroup
	for range min(runtime.GOMAXPROCS(0), total/fanOutFrom) - 1 {
		helpers.Go(work)
	}
	work()
	helpers.Wait()
}

func (h *Hub) sendEach(r *run, to []*subscriber) {
	for _, s := range to {
		s.active = h.tick
		s.send(r)
	}
}

func resetNote(reason string, now cursor.Cursor) *frame {
	return note(reset, &now, fmt.Appendf(nil, `{"reason": %q}`, reason))
}

// Held returns how many bytes are held for all streams together because their clients have not taken them yet.
func (h *Hub) Held() int64 { return h.pending.used.Load() }

// Ready tells whether the Hub has begun and is not stopping. It stays ready while the database is away: then its streams are
// what it is for.
func (h *Hub) Ready() bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.begun && !h.stopping
}

// Behind is the time since the last batch came, empty ones included.
func (h *Hub) Behind() time.Duration {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.behind()
}

func (h *Hub) behind() time.Duration {
	if !h.begun {
		return 0
	}
	return time.Since(h.heard)
}

// hello is what a stream begins with once its cursor is known. Before a reset there is none: a client that was cut off between
// the two would take it for its own, and never hear that it has missed something.
func (h *Hub) hello(c *cursor.Cursor, recipients []string) []byte {
	data, err := json.Marshal(struct {
		Recipients []string `json:"recipients"`
		Heartbeat  float64  `json:"heartbeat"`
	}{recipients, h.Heartbeat.Seconds()})
	if err != nil {
		panic(err) // strings and a number
	}
	// A block without data tells no event. It ends what WebKit keeps of an event that was cut off in the stream before.
	b := note(void, c, nil).live
	b = sse.AppendRetry(b, h.jitter(h.Retry))
	return append(b, note(hello, c, data).live...)
}

// jitter is a time around d, another for each client, so that those who lost their hub together do not come back together.
func (h *Hub) jitter(d time.Duration) time.Duration {
	return d/2 + rand.N(d)
}
