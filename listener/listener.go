package listener

import (
	"context"
	crand "crypto/rand"
	"errors"
	"log/slog"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/cursor"
	"rowcast/listener/failures"
	"rowcast/listener/feed"
	"rowcast/listener/loglimit"
)

// A Listener reads rowcast.notifications. Config or Configure, Deliver, and Logger are required; the zero value of every other
// field is its default. The fields must not be changed once Run has begun.
type Listener struct {
	// Config says how to connect. The listener makes its own settings on its connections and inherits none. It keeps Config's
	// DialFunc and sets options on the TCP connections that DialFunc returns.
	Config *pgx.ConnConfig

	// Configure, if not nil, is called before each connection and replaces Config, so that a password or a certificate that has
	// been changed is used: pgx.ParseConfig reads password files, certificates and the environment anew. It may be called by
	// several goroutines at a time.
	Configure func() (*pgx.ConnConfig, error)

	// Deliver is given what was read, batch after batch, also when there was nothing: that PostgreSQL answered is news, too.
	// It is called from Run's goroutine and must not block: nothing is read meanwhile.
	Deliver func(feed.Batch)

	// Message is given what was sent by hand with NOTIFY, under the same rules. Nil: such messages are ignored.
	Message func(feed.Message)

	// Disconnect is given a recipient whose streams are to end, as somebody told every hub with NOTIFY, or another hub the others
	// ([Replayer.Disconnect]), under the same rules; in a flood of them, some calls come before rows that were committed earlier.
	// Nil: nobody is. With PollOnly it is never called, as there is no LISTEN.
	Disconnect func(recipient string)

	Logger *slog.Logger

	// PollOnly polls all the time, every PollInterval, and uses neither LISTEN nor the park lock: for connections through a
	// transaction pooler. The default PollInterval is then 100 ms.
	PollOnly bool

	// PollInterval is the time between two fetches while polling, up to twice that where a fetch takes long, and half of it while there
	// are fewer commits than Busy. Default 2 ms.
	PollInterval time.Duration

	// Look is the longest time without a fetch, for rows that come without the trigger (logical replication, disabled
	// triggers), and to prove the session alive. Default 1 s; negative: never, which only a test should want.
	Look time.Duration

	// Busy is the rate, in commits with rows a second, above which polling is cheaper than being rung; Quiet the one below
	// which it parks again. It also polls for a while where writers wait for each other with their NOTIFYs. Defaults 2,000 and
	// 1,000; with an infinite Busy it never polls.
	Busy, Quiet float64

	// MaxData is the largest data, in bytes, that is read; of a larger row only the size is. Default 16 MiB.
	MaxData int64

	// PageRows and PageBytes bound what is read in one go. A single larger row still goes through. Defaults 512 and 1 MiB.
	PageRows  int
	PageBytes int

	// Warm is about how many bytes of recent rows are read before the listener begins, for those who resume. It takes at most three
	// times Timeout: where that is too short, the listener begins without them. Default none.
	Warm int64

	// Timeout bounds each statement, beyond which the session is given up as dead. Default 10 s.
	Timeout time.Duration

	// QueueLimit is how full the server's NOTIFY queue may be, from 0 to 1, for the hub to sleep: while it sleeps each INSERT sends a
	// NOTIFY, and fails when the queue is full. Above it the hub polls, until the queue is half as full. Default 0.25.
	QueueLimit float64

	// LagLimit is how long a fetch may take before a warning says that later rows wait, see [Stats.Lag]. Default 5 s.
	LagLimit time.Duration

	Stats Stats
	// Failures are those of connect, park_lock, park_queue, unpark, fetch and history.
	Failures failures.Record
	logs     logs

	once   sync.Once
	name   string // by which it knows what comes from its own Replayers; nobody else's
	cursor cursor.Cursor
	begun  bool // the cursor has been read
	told   told
	level  level // of the next page

	historyLost bool // rowcast.history had no row when the last page was read
	isLagging   bool // a warning was logged, and the listener has not read to the end since
	// Until warmUntil, rows from before the listener began are read. Zero: no longer.
	warmUntil time.Time

	unreadableLog loglimit.Limit

	// Of CatchUp: closed by the end of the present fetch, or if that fails by the next session's.
	serving []chan struct{}

	mu        sync.Mutex
	asked     []chan struct{} // closed by the next fetch that begins from now
	woken     bool            // the next wait ends at once
	interrupt func()          // ends the present wait; nil if there is none
}

// Stats count what a Listener has done.
type Stats struct {
	Connected atomic.Bool  // a session is up
	Sessions  atomic.Int64 // that had all that they need, the park lock's connection included
	Fetches   atomic.Int64
	Rows      atomic.Int64
	Bells     atomic.Int64 // NOTIFYs from the trigger
	Parks     atomic.Int64 // times the park lock was taken
	Unrung    atomic.Int64 // rows that came without a bell while parked, found by looking
	LeftOut   atomic.Int64 // messages by hand that were dropped because too many came at once
	Malformed atomic.Int64 // messages by hand and disconnects that could not be understood

	Unreadable atomic.Int64 // rows that could not be read; each time that they were to be read

	Crowded    atomic.Bool  // the hub polls because the NOTIFY queue is fuller than QueueLimit
	ForeignXid atomic.Int64 // rows at present whose transaction this server has not given: they are never sent

	queue   atomic.Uint64             // the bits of NotifyQueue
	current atomic.Pointer[time.Time] // the beginning of the last fetch that read to its end
}

// logs bounds the log lines that somebody else can cause, each kind by itself.
type logs struct {
	connected, lost    loglimit.Limit
	failed             loglimit.Limit // attempts to begin a session
	malformed, leftOut loglimit.Limit // notifications
	queue              loglimit.Limit // the NOTIFY queue is filling up
	lag                loglimit.Limit // a fetch takes long
}

// Run reads until the context ends, and then returns nil. While there is no session with PostgreSQL it tries to begin one, with
// pauses that get longer until a session is whole.
func (l *Listener) Run(ctx context.Context) error {
	defaults(l)
	l.Stats.isCurrent(time.Now())
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		s := &session{Listener: l}
		err := s.live(ctx)
		if ctx.Err() != nil {
			l.Stats.Connected.Store(false)
			return nil //nolint:nilerr // the end that was asked for
		}
		if s.wasSteady() {
			pause = minPause
		}
		wait := pause/2 + rand.N(pause)
		s.ended(err, wait)
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(wait):
		}
	}
}

// The pauses between two attempts to connect.
const (
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
)

func defaults(l *Listener) { l.once.Do(l.setDefaults) }

func (l *Listener) setDefaults() {
	setDefault(&l.name, crand.Text())
	setDefault(&l.Look, time.Second)
	setDefault(&l.Busy, 2000)
	setDefault(&l.Quiet, 1000)
	setDefault(&l.MaxData, 16<<20)
	setDefault(&l.PageRows, 512)
	setDefault(&l.PageBytes, 1<<20)
	setDefault(&l.Timeout, 10*time.Second)
	setDefault(&l.QueueLimit, 0.25)
	setDefault(&l.LagLimit, 5*time.Second)
	l.logs.queue.Every, l.logs.queue.Burst = time.Minute, 1
	l.logs.lag.Every, l.logs.lag.Burst = time.Minute, 1
	setDefault(&l.level, firstLevel)
	if l.PollOnly {
		setDefault(&l.PollInterval, 100*time.Millisecond)
	}
	setDefault(&l.PollInterval, 2*time.Millisecond)
	if l.Look < 0 {
		l.Look = 1000 * time.Hour
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// CatchUp returns once everything that was committed before the call has been delivered.
func (l *Listener) CatchUp(ctx context.Context) error {
	done := make(chan struct{})
	l.mu.Lock()
	l.asked = append(l.asked, done)
	l.mu.Unlock()
	l.wake()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// interruptible begins a wait that interrupt ends when somebody asks for a fetch, or at once if somebody has.
func (l *Listener) interruptible(interrupt func()) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interrupt = interrupt
	if l.woken || len(l.asked) > 0 {
		l.woken = false
		interrupt()
	}
}

// uninterruptible ends the wait: an interruption that comes later is for the next.
func (l *Listener) uninterruptible() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.interrupt = nil
}

// isAsked tells whether somebody waits for a fetch.
func (l *Listener) isAsked() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.asked) > 0
}

// wake ends the present wait, or the next.
func (l *Listener) wake() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.woken = true
	if l.interrupt != nil {
		l.interrupt()
	}
}

// ErrPooled says that the connection leads through a transaction pooler, where LISTEN hears nothing and a session's lock
// would stick to somebody else's connection.
var ErrPooled = errors.New("the database connection goes through a transaction pooler (PgBouncer): connect directly, or poll (--poll)")

// ErrStandby says that the server is a standby, whose snapshots leave out the transactions that are running.
var ErrStandby = errors.New("the database is a standby: connect to the primary (target_session_attrs=read-write)")
