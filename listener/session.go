package listener

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener/cursor"
	"rowcast/listener/failures"
	"rowcast/listener/feed"
	"rowcast/sql"
)

// A session is one life of the listener's connections. It ends with its first error.
type session struct {
	*Listener
	feed  *pgx.Conn // listens and fetches
	lock  *parkLock // nil with PollOnly
	epoch cursor.Tag
	pace  pace

	connected bool      // to PostgreSQL, by all its connections
	whole     time.Time // when it had all that it needs; zero if it never had

	inspected time.Time
	state     state     // of the server, a second ago or less
	inquired  time.Time // when that was
	crowded   bool      // the NOTIFY queue is too full to sleep
	holder    uint32    // the process that holds the park lock on which this hub relies

	// What has arrived on feed since it was last looked at.
	bell     bool
	unparked bool // another hub has given up the park lock
	calls    calls
}

// unparkedChannel is where a hub that gives up the park lock says so to those that relied on it.
const unparkedChannel = sql.Channel + ".unparked"

// live is the session, from its connections to its end.
func (s *session) live(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.feed, err = s.connect(ctx, "listener", s.heard); err != nil {
		return err
	}
	defer closeNow(s.feed)
	s.connected = true
	s.Failures.Succeeded(failures.Connect)
	if err := s.begin(ctx); err != nil {
		return err
	}
	defer context.AfterFunc(ctx, s.interrupted)()
	if err := s.fetch(ctx); err != nil {
		return err
	}
	s.Failures.Succeeded(failures.Fetch)
	if s.PollOnly {
		s.isWhole()
		return s.poll(ctx, func() bool { return true })
	}
	s.connected = false
	if s.lock, err = s.newParkLock(ctx); err != nil {
		return fmt.Errorf("second connection, for the %w: %w", errParkLock, err)
	}
	defer s.lock.close()
	s.connected = true
	s.isWhole()
	return s.run(ctx)
}

// isWhole takes note that the session has all that it needs.
func (s *session) isWhole() {
	s.whole = time.Now()
	s.Stats.Sessions.Add(1)
	s.Stats.Connected.Store(true)
	s.Failures.Succeeded(failures.ParkLock)
	if logger, ok := s.logs.connected.Allow(s.Logger); ok {
		logger.Info("connected to PostgreSQL", "database", s.feed.Config().Database, "host", s.feed.PgConn().Conn().RemoteAddr().String())
	}
}

// steady is how long a session must have been whole before the next one is begun without a longer pause.
const steady = time.Second

func (s *session) wasSteady() bool { return !s.whole.IsZero() && time.Since(s.whole) >= steady }

// ended says why the session has ended. An outage is one line about the loss, and then some about the attempts to end it.
func (s *session) ended(err error, retryIn time.Duration) {
	s.Stats.Connected.Store(false)
	s.Failures.Failed(s.failed(err), err)
	retryIn = retryIn.Round(time.Millisecond)
	if !s.whole.IsZero() {
		if logger, ok := s.logs.lost.Allow(s.Logger); ok {
			logger.Warn("lost connection to PostgreSQL", "error", err, "retry_in", retryIn)
		}
		return
	}
	logger, ok := s.logs.failed.Allow(s.Logger)
	switch {
	case ok && s.connected:
		logger.Warn("cannot read from PostgreSQL", "error", err, "retry_in", retryIn)
	case ok:
		logger.Warn("cannot connect to PostgreSQL", "error", err, "retry_in", retryIn)
	}
}

// failed returns what a session's error is a failure of.
func (s *session) failed(err error) failures.Operation {
	switch {
	case s.feed == nil:
		return failures.Connect
	case errors.Is(err, errParkLock):
		return failures.ParkLock
	}
	return failures.Fetch
}

// closeNow closes a connection even if the context has ended, and waits for nobody.
func closeNow(conn *pgx.Conn) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Second)
	defer cancel()
	_ = conn.Close(ctx)
}

// begin listens before anything is read: a row committed in between would otherwise neither be read nor ring.
func (s *session) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	if !s.PollOnly {
		var listen strings.Builder
		for _, channel := range []string{sql.Channel, unparkedChannel, disconnectChannel, disconnectedChannel} {
			fmt.Fprintf(&listen, "LISTEN %s;", pgx.Identifier{channel}.Sanitize())
		}
		if _, err := s.feed.PgConn().Exec(ctx, listen.String()).ReadAll(); err != nil {
			return fmt.Errorf("listen: %w", err)
		}
	}
	return s.with(ctx, s.feed, func(db querier) error { return s.resume(ctx, db) })
}

// fetch reads and delivers all that is visible now and has not been, page after page, and then answers the calls that came by NOTIFY.
func (s *session) fetch(ctx context.Context) error {
	s.mu.Lock()
	s.serving = append(s.serving, s.asked...)
	s.asked = nil
	s.mu.Unlock()
	s.bell = false
	began := time.Now()

	var snapshot *cursor.Cursor
	for more := true; more; {
		p, err := s.page(ctx, snapshot)
		if err != nil {
			return err
		}
		if void, err := s.heed(ctx, p.state); err != nil {
			return err
		} else if void {
			snapshot = nil
			continue
		}
		s.deliver(p)
		s.answerCalls()
		snapshot, more = &p.to, p.more
		if more && s.isWarming() && time.Now().After(s.warmUntil) {
			if err := s.endWarming(ctx); err != nil {
				return err
			}
			snapshot = nil
		}
		s.heedLag(began, more)
	}
	if err := s.inspect(ctx); err != nil {
		return err
	}
	for _, done := range s.serving {
		close(done)
	}
	s.serving = nil
	s.answerCalls()
	return nil
}

// inspect counts, once a minute, the rows that are kept out because this server has not given their transaction's number:
// restored, replicated or forged ones.
func (s *session) inspect(ctx context.Context) error {
	if time.Since(s.inspected) < time.Minute {
		return nil
	}
	s.inspected = time.Now()
	const most = 1000
	const query = `SELECT count(*) FROM (SELECT FROM rowcast.notifications
		WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()) ORDER BY xid LIMIT $1) foreign_rows`
	var found int64
	if err := s.bounded(ctx, func(ctx context.Context, db querier) error { return db.QueryRow(ctx, query, most).Scan(&found) }); err != nil {
		return fmt.Errorf("count foreign rows: %w", err)
	}
	if was := s.Stats.ForeignXid.Swap(found); found > was {
		s.Logger.Warn("rows carry transaction numbers that this server has not given; they are never sent", "rows", found, "at_most", most)
	}
	return nil
}

func (s *session) page(ctx context.Context, snapshot *cursor.Cursor) (p page, err error) {
	r := s.reader(func(statement func(context.Context, querier) error) error { return s.bounded(ctx, statement) })
	if p, err = r.fetch(s.queryNow(), s.cursor, s.epoch, snapshot, s.level); err == nil {
		s.heedHistory(&p)
		s.level = s.level.after(&p, s.PageRows)
	}
	return p, err
}

// bounded runs read on the feed for as long as the listener's Timeout, or until the session ends. Like wait it does so by the
// connection's own deadline: for a context that can end, pgx would start a goroutine each time, and this is done for every bell.
func (s *session) bounded(ctx context.Context, read func(context.Context, querier) error) error {
	_ = s.feed.PgConn().Conn().SetDeadline(time.Now().Add(s.Timeout))
	if ctx.Err() != nil { // when it ended, interrupted may have come before
		return ctx.Err()
	}
	never := context.Background()
	return s.with(never, s.feed, func(db querier) error { return read(never, db) })
}

// interrupted ends what is being done on the feed.
func (s *session) interrupted() { _ = s.feed.PgConn().Conn().SetDeadline(time.Unix(1, 0)) }

// deliver hands a page on and moves the cursor behind it.
func (s *session) deliver(p page) {
	if len(p.rows) > 0 {
		s.cursor = p.rows[len(p.rows)-1].Cursor
	}
	if !p.more {
		s.cursor = s.cursor.Reached(p.to)
	}
	s.told.add(p.rows)
	if !p.more {
		s.warmUntil = time.Time{}
	}
	s.Stats.Fetches.Add(1)
	s.Stats.Rows.Add(int64(len(p.rows)))
	s.pace.add(time.Now(), commits(p.rows))
	s.Deliver(feed.Batch{Rows: p.deliverable(), Cursor: s.cursor, Horizon: p.horizon, Warming: s.isWarming()})
}

// commits counts the transactions of rows in telling order.
func commits(rows []row) (n int) {
	var last uint64
	for _, row := range rows {
		if row.Xid != last {
			n, last = n+1, row.Xid
		}
	}
	return n
}

// wait sleeps until something is heard, somebody asks for a fetch, or the time has come. What nobody wants to hear wakes nobody:
// otherwise it could put off the next safety poll for ever.
func (s *session) wait(ctx context.Context, until time.Time) error {
	if s.isCalled() {
		return ctx.Err()
	}
	_ = s.feed.PgConn().Conn().SetDeadline(until)
	s.interruptible(s.interrupted)
	var err error
	for err == nil && ctx.Err() == nil && !s.isCalled() {
		err = s.feed.PgConn().WaitForNotification(context.Background())
	}
	s.uninterruptible()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	// A wait that times out leaves the connection as it was; every other error has closed it.
	if s.feed.IsClosed() {
		return fmt.Errorf("wait for notification: %w", err)
	}
	return nil
}

// isCalled reports whether something was heard that has not been answered.
func (s *session) isCalled() bool { return s.bell || s.unparked || len(s.calls.waiting) > 0 }
