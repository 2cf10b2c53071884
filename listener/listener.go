package listener

import (
	"context"
	crand "crypto/rand"
	"errors"
	"log/slog"
	"math"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/cursor"
	"rowcast/listener/failures"
	"rowcast/listener/feed"
	"rowcast/listener/guard"
	"rowcast/listener/loglimit"
)

// A Listener reads rowcast.notifications. Deliver, Logger, and one of Config and Configure are required. The zero value
// of any other field means the default. Unless the field says otherwise, a negative number means the default, too. The
// fields must not be changed after the first call of a method.
type Listener struct {
	// Config describes how to connect. connstring.Parse returns such a configuration, and accepts the parameters of libpq.
	// On its connections, the listener sets the parameters on which its statements depend. It connects with Config's
	// DialFunc, and sets options on the TCP connections that DialFunc returns. On Linux, it may close a *net.TCPConn or
	// *net.UnixConn that DialFunc returns and continue to use its socket, in blocking mode. It does not replace
	// connections of other types.
	Config *pgx.ConnConfig

	// Configure, if non-nil, replaces Config. It is called whenever the listener connects, so it can return a password
	// or a certificate that has changed, for example with connstring.Parse, which reads password files, certificates and
	// the environment. Several goroutines may call Configure at the same time.
	Configure func() (*pgx.ConnConfig, error)

	// Deliver is called with each batch that has been read. It is also called with an empty batch, to report that
	// PostgreSQL has answered. It is called from Run's goroutine and must not block, because nothing is read meanwhile.
	// The rows of the batch are overwritten after the call. In the program rowcast, it is Hub.Publish of package stream.
	Deliver func(feed.Batch)

	// Message, if non-nil, is called with the messages that are received by NOTIFY, except malformed ones. If too many
	// notifications come at once, some messages are dropped. A message is lost if it is sent while there is no session,
	// or if the session ends before the message has been passed on. Message must not block. It is never called if
	// PollOnly is set.
	Message func(feed.Message)

	// Disconnect, if non-nil, is called when the streams of recipient must be closed, as requested by NOTIFY
	// rowcast.disconnect or by another hub's [Replayer.Disconnect]. It must not block. A call can come before rows that
	// were committed earlier have been delivered, for example if the listener polls, if the request comes during a fetch,
	// or if very many notifications come at once. Requests are not dropped, but like messages they are lost while there
	// is no session. Disconnect is never called if PollOnly is set.
	Disconnect func(recipient string)

	Logger *slog.Logger

	// PollOnly makes the listener poll every PollInterval, and use neither LISTEN nor the park lock. It is for
	// connections through a transaction pooler.
	PollOnly bool

	// PollInterval is the time between two fetches while the listener polls and tries to take the park lock in order to
	// sleep. The default is 2 ms, or 100 ms with PollOnly. In some cases, the listener uses another time:
	//
	//   - While many commits or waiting writers make the listener poll, the time is half as long as a fetch takes, but
	//     from a sixteenth of PollInterval to twice PollInterval. The lower bound is higher at high rates of commits and,
	//     on Linux, while the machine's CPUs are idle for less than 0.3 of the time. Below Busy commits a second, the
	//     upper bound is PollInterval.
	//   - While an open transaction or a NOTIFY queue that fills up keeps the listener from sleeping, the time can be
	//     from 10 to 25 ms.
	//   - With PollOnly, the time is up to twice PollInterval if fetches are slow.
	//
	// On Linux, while the CPUs are hardly idle and there are 300 commits a second or more, a sleeping listener also waits
	// between a notification and its fetch, for at most 1 ms. More than 24 h counts as 24 h.
	PollInterval time.Duration

	// Look is the interval at which a sleeping listener fetches without a notification. Such a fetch is a safety poll: it
	// finds rows that came without a notification (logical replication, a disabled trigger), and proves that the session
	// is alive. The default is 1 s, and more than 24 h counts as 24 h. A negative Look disables safety polls, which only a
	// test should do.
	Look time.Duration

	// Busy is the number of commits a second from which on the listener polls. Quiet is the number below which it
	// sleeps again. Only commits with rows count. The listener also polls for a while if writers wait for each other
	// with their NOTIFYs. The defaults are 2,000 and 1,000. An infinite Busy turns off both: polling because of the
	// rate, and polling because of waiting writers. With a negative Busy, the listener always polls. With a negative
	// Quiet, a listener that has begun to poll never sleeps again. NaN means the default.
	Busy, Quiet float64

	// MaxData is the largest size of a row's data that is read, in bytes of text. Of larger data, only the size is
	// read. The size is 0 if the data is too large to be measured. The default is 16 MiB.
	MaxData int64

	// PageRows approximately bounds the number of rows that are read at once, and PageBytes the size of their data. A
	// single row larger than PageBytes is read nevertheless. The defaults are 512 and 1 MiB.
	PageRows  int
	PageBytes int

	// Warm is the approximate stored size, in bytes, of the recent rows that the listener reads first, so that the hub has
	// them for clients that resume. After three times Timeout, the listener stops reading them at the end of a page, and
	// continues without the rest. The default is 0: no recent rows are read. A negative Warm counts as 0.
	Warm int64

	// Timeout bounds each statement of the listener and its Replayers. If a page takes longer to read, its rows are read
	// one by one. If a row takes longer by itself, the row counts as unreadable. If another statement of the listener
	// takes longer, the session normally ends. The default is 10 s. Less than 10 ms counts as 10 ms, and more than 24 h as
	// 24 h.
	Timeout time.Duration

	// QueueLimit is the used part of the server's NOTIFY queue, from 0 to 1, from which on the listener must not sleep.
	// While it sleeps, each INSERT sends a NOTIFY, and fails when the queue is full. From QueueLimit on the listener
	// polls, until the used part is below half of QueueLimit. The default is 0.25. A number that is not from 0 to 1 means
	// the default, too.
	QueueLimit float64

	// LagLimit is the time after which a fetch that has more pages to read logs a warning: later rows are delayed, see
	// [Stats.Lag]. The default is 5 s.
	LagLimit time.Duration

	Stats Stats
	// Failures has the failures of the operations connect, park_lock, park_queue, unpark, fetch and history.
	Failures failures.Record
	logs     logs

	once sync.Once
	name string // a random name in the disconnect requests of the listener's own Replayers, which the listener ignores

	isConnected atomic.Bool

	// Only Run's goroutine uses these fields. They outlive a session.
	cursor      cursor.Cursor
	begun       bool          // cursor is set: the first session has found where to begin
	delivered   deliveredRows // the last delivered rows, which a crash may lose
	level       level         // bounds the rows of the next page
	historyLost bool          // rowcast.history had no row when the last page was read
	isLagging   bool          // the warning about LagLimit was logged, and the listener has not read to the end since
	warmUntil   time.Time     // when the listener stops reading the recent rows (Warm); zero if it is not reading them
	listenPause time.Duration // for how long the listener does not listen after a notification has ended its session
	listenFrom  time.Time     // when the listener may listen again (see pauseListening)
	foreign     int64         // the result of the last count of inspect, which warns if the next result is higher
	serving     chan struct{} // closed when a fetch succeeds; nil if nobody waits for one

	unreadableLog loglimit.Limit

	requests guard.Value[requests] // from other goroutines
}

// Stats has counters of what a Listener has done, and some present values.
type Stats struct {
	// Sessions counts the sessions that became complete: the first fetch had succeeded, and both connections were open.
	// With PollOnly, there is only one connection.
	Sessions   atomic.Int64
	Fetches    atomic.Int64 // pages that were delivered
	Rows       atomic.Int64 // rows that were read
	Wakeups    atomic.Int64 // notifications without a payload, as the trigger sends them
	ParkLocks  atomic.Int64 // how often the listener took the park lock
	Unnotified atomic.Int64 // rows that were found by a safety poll and for which no notification came soon after
	Dropped    atomic.Int64 // messages that were dropped because too many came at once
	Malformed  atomic.Int64 // messages and disconnect requests that were malformed
	Unreadable atomic.Int64 // rows that could not be read; a row counts again whenever it is read again

	Crowded atomic.Bool // the listener polls because the NOTIFY queue fills up, see QueueLimit
	// ForeignXid is the result of the last count of the rows with a transaction number that this server has not
	// assigned. Such rows are never sent. At most 1,000 are counted.
	ForeignXid atomic.Int64

	queue   atomic.Uint64             // the bits of the number that NotifyQueue returns
	current atomic.Pointer[time.Time] // when the last fetch that read to the end began, or when Run began
}

// Lag returns how far the listener is behind. All rows that were committed after Run began, and longer ago than Lag,
// have been delivered. Lag is up to about Look (1 s) while the listener sleeps. It grows while new rows are being read,
// and while PostgreSQL is unreachable. It is 0 before Run has begun.
func (s *Stats) Lag() time.Duration {
	current := s.current.Load()
	if current == nil {
		return 0
	}
	return time.Since(*current)
}

// setCurrent makes Lag count from the time at.
func (s *Stats) setCurrent(at time.Time) { s.current.Store(&at) }

// logs has the limits of log lines that could otherwise be written very often.
type logs struct {
	connected, lost    loglimit.Limit
	failed             loglimit.Limit // attempts to begin a session
	malformed, dropped loglimit.Limit // notifications
	unsendable         loglimit.Limit // a notification has ended the session
	queue              loglimit.Limit // the NOTIFY queue is filling up
	lag                loglimit.Limit // a fetch takes long
	unnotified         loglimit.Limit // rows arrived without a notification
}

// Run reads until the context ends, and then returns nil. While there is no session with PostgreSQL, it tries to
// begin one. The pauses between the attempts grow from about 0.1 s to about 5 s. After a session that was complete for
// a second or longer, they begin at 0.1 s again.
func (l *Listener) Run(ctx context.Context) error {
	defaults(l)
	l.Stats.setCurrent(time.Now())
	for pause := minPause; ; pause = min(2*pause, maxPause) {
		s := &session{Listener: l}
		err := s.live(ctx)
		if ctx.Err() != nil {
			l.isConnected.Store(false)
			return nil //nolint:nilerr // the error is an effect of the end of the context
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

// minPause and maxPause bound the pauses between two attempts to begin a session. Jitter then makes each pause from
// half to one and a half times as long.
const (
	minPause = 100 * time.Millisecond
	maxPause = 5 * time.Second
)

// Connected reports whether the listener has a session with PostgreSQL that has read all rows at least once. Unless
// PollOnly is set, the session must also have the connection for the park lock.
func (l *Listener) Connected() bool { return l.isConnected.Load() }

func defaults(l *Listener) { l.once.Do(l.setDefaults) }

func (l *Listener) setDefaults() {
	setDefault(&l.name, crand.Text())
	setDefault(&l.Look, time.Second)
	l.setRates()
	setPositive(&l.MaxData, 16<<20)
	setPositive(&l.PageRows, 512)
	setPositive(&l.PageBytes, 1<<20)
	setPositive(&l.Timeout, 10*time.Second)
	l.Timeout = min(max(l.Timeout, minTimeout), maxTime)
	setPositive(&l.LagLimit, 5*time.Second)
	l.logs.queue.Every, l.logs.queue.Burst = time.Minute, 1
	l.logs.lag.Every, l.logs.lag.Burst = time.Minute, 1
	setDefault(&l.level, firstLevel)
	setDefault(&l.listenPause, time.Minute)
	if l.PollOnly {
		setPositive(&l.PollInterval, 100*time.Millisecond)
	}
	setPositive(&l.PollInterval, 2*time.Millisecond)
	l.PollInterval = min(l.PollInterval, maxTime)
	if l.Look = min(l.Look, maxTime); l.Look < 0 {
		l.Look = 1000 * time.Hour
	}
}

// setRates sets Busy, Quiet and QueueLimit, which can be NaN.
func (l *Listener) setRates() {
	if l.Busy == 0 || math.IsNaN(l.Busy) {
		l.Busy = 2000
	}
	if l.Quiet == 0 || math.IsNaN(l.Quiet) {
		l.Quiet = 1000
	}
	if !(l.QueueLimit > 0 && l.QueueLimit <= 1) {
		l.QueueLimit = 0.25
	}
}

// minTimeout and maxTime bound Timeout, because PostgreSQL measures a statement_timeout in milliseconds, 0 would mean no
// time limit, and more than 24 days is an error. maxTime also bounds PollInterval and Look.
const (
	minTimeout = 10 * time.Millisecond
	maxTime    = 24 * time.Hour
)

// setPositive sets a field that is zero or negative to its default.
func setPositive[T int | int64 | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

func setDefault[T comparable](field *T, value T) {
	var zero T
	if *field == zero {
		*field = value
	}
}

// ErrPooled reports that the connection goes through a transaction pooler. Through such a pooler, LISTEN receives
// nothing, and the park lock would stay with a session of the server that also serves other clients.
var ErrPooled = errors.New("the database connection goes through a transaction pooler (PgBouncer): connect directly, or poll (--poll)")

// ErrStatementPooled reports that PgBouncer has the pool mode statement, in which it allows no transactions.
var ErrStatementPooled = errors.New("PgBouncer has pool_mode = statement, but a hub needs transactions: " +
	"set pool_mode = transaction for this database or user in PgBouncer, or connect directly")

// ErrStandby reports that the server is a standby. There, pg_current_snapshot() does not list the transactions that run on
// the primary, so a cursor would claim their rows, and these rows would be missed.
var ErrStandby = errors.New("the database is a standby: connect to the primary (target_session_attrs=read-write)")

// requests are requests of other goroutines to Run's goroutine.
type requests struct {
	fetch     chan struct{} // closed at the end of a fetch that begins after the requests; nil if there is no request
	woken     bool          // the next wait must end at once
	interrupt func()        // ends the present wait; nil if there is none
}

// CatchUp returns nil once everything that was committed before the call has been delivered. It returns the error of
// the context if the context ends first.
func (l *Listener) CatchUp(ctx context.Context) error {
	var done chan struct{}
	l.requests.Do(func(r *requests) {
		if r.fetch == nil {
			r.fetch = make(chan struct{})
		}
		done = r.fetch // all callers share it, so callers that give up while there is no session leave nothing behind
	})
	l.wake()
	select {
	case <-done:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// wake ends the present wait of Run's goroutine. It also ends the next one, which may be about to begin.
func (l *Listener) wake() {
	l.requests.Do(func(r *requests) {
		r.woken = true
		if r.interrupt != nil {
			r.interrupt()
		}
	})
}

// beginWait makes wake and CatchUp call interrupt, until endWait is called. It calls interrupt at once if wake was
// called since the last beginWait, or if a caller of CatchUp waits for a fetch to begin.
func (l *Listener) beginWait(interrupt func()) {
	l.requests.Do(func(r *requests) {
		r.interrupt = interrupt
		if r.woken || r.fetch != nil {
			r.woken = false
			interrupt()
		}
	})
}

// endWait makes wake and CatchUp no longer call interrupt.
func (l *Listener) endWait() {
	l.requests.Do(func(r *requests) { r.interrupt = nil })
}

// isFetchRequested reports whether a caller of CatchUp waits for a fetch to begin.
func (l *Listener) isFetchRequested() (requested bool) {
	l.requests.Do(func(r *requests) { requested = r.fetch != nil })
	return requested
}

// beginServing is called when a fetch begins, which answers the requests. If the fetch before it has failed, the fetch
// answers only the requests that the failed one should have answered. Another fetch then follows at once.
func (l *Listener) beginServing() {
	if l.serving == nil {
		l.requests.Do(func(r *requests) { l.serving, r.fetch = r.fetch, nil })
	}
}

// endServing is called when a fetch has succeeded.
func (l *Listener) endServing() {
	if l.serving != nil {
		close(l.serving)
		l.serving = nil
	}
}
