package listener

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener/cursor"
	"rowcast/listener/failures"
	"rowcast/listener/feed"
)

// A session has the listener's connections and their state. It begins with the opening of the first connection, and
// ends with the first error or with the end of the context.
type session struct {
	*Listener
	link   *link
	reader *reader
	batch  []feed.Row // an empty slice, whose array the next batch uses
	wakeup *wakeup
	epoch  cursor.Tag

	connected bool      // all connections that were needed so far are open
	whole     time.Time // when the session became complete; zero before that

	span span // decides whether nearQuery is used

	inspected time.Time // when inspect last counted the foreign rows
}

// live runs the session, from the opening of its connections to its end. Its loop is the only caller of fetch.
func (s *session) live(ctx context.Context) (err error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	if s.link, err = s.openLink(ctx); err != nil {
		return err
	}
	defer s.link.close()
	s.connected = true
	s.reader = s.Listener.reader(func(statement func(context.Context, querier) error) error { return s.link.bounded(ctx, statement) })
	s.reader.observed = s.link.covered
	s.Failures.Succeeded(failures.Connect)
	s.wakeup = newWakeup(s.Listener, s.link, s.complete)
	defer s.wakeup.close()
	defer context.AfterFunc(ctx, s.link.interrupt)()
	if err := s.begin(ctx); err != nil {
		return err
	}
	for last := (fetched{}); ; {
		why, err := s.wakeup.next(ctx, last)
		if err != nil {
			return err
		}
		if err := s.listen(ctx); err != nil {
			return err
		}
		if last, err = s.fetch(ctx, why); err != nil {
			return err
		}
	}
}

// begin begins to listen, and then finds the cursor from which to continue. The first fetch comes after both. So it
// also reads the rows after the cursor whose notifications were sent before the session listened.
func (s *session) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, s.Timeout)
	defer cancel()
	if err := s.listen(ctx); err != nil {
		return err
	}
	return s.withSettings(ctx, s.link.conn, func(db querier) error { return s.resume(ctx, db) })
}

// listen begins to listen unless the session listens already, or must not listen now. live calls it before each fetch.
// So the fetch reads the rows whose notifications were sent before the session listened.
func (s *session) listen(ctx context.Context) error {
	if s.PollOnly || s.link.listening || s.isListeningPaused() {
		return nil
	}
	return s.link.bounded(ctx, func(ctx context.Context, _ querier) error { return s.link.listen(ctx) })
}

// pauseListening makes the listener poll without LISTEN for a while if a notification has ended the session. PostgreSQL
// cannot send a notification whose payload has no form in UTF-8. It then ends the session, or the statement that runs,
// or the protocol breaks (08P01). Any role can send such notifications again and again, and they must not stop the
// delivery of rows. PgBouncer has errors with the code 08P01 too, but they name no routine of PostgreSQL.
func (s *session) pauseListening(err error) {
	failed, ok := errors.AsType[*pgconn.PgError](err)
	isBroken := ok && failed.Code == "08P01" && failed.Routine != "" && s.link != nil && s.link.listening
	if !ok || s.PollOnly || reasonOf(failed) != unreadableEncoding && !isBroken {
		return
	}
	s.listenFrom = time.Now().Add(s.listenPause)
	if logger, ok := s.logs.unsendable.Allow(s.Logger); ok {
		logger.Warn("PostgreSQL cannot send a notification, probably because its text has no form in UTF-8: polling without LISTEN; "+
			"meanwhile, NOTIFY messages and requests of other hubs to disconnect users are lost", "for", s.listenPause)
	}
}

func (l *Listener) isListeningPaused() bool { return time.Now().Before(l.listenFrom) }

// complete opens the second connection, after the first fetch has succeeded, and records that the session is complete.
// With PollOnly there is no second connection.
func (s *session) complete(ctx context.Context) (lock *parkLock, err error) {
	s.Failures.Succeeded(failures.Fetch)
	if !s.PollOnly {
		s.connected = false
		if lock, err = s.openParkLock(ctx); err != nil {
			return nil, fmt.Errorf("second connection, for the %w: %w", errParkLock, err)
		}
		s.connected = true
	}
	s.whole = time.Now()
	s.Stats.Sessions.Add(1)
	s.isConnected.Store(true)
	s.Failures.Succeeded(failures.ParkLock)
	if logger, ok := s.logs.connected.Allow(s.Logger); ok {
		config, peer := s.link.conn.Config(), s.link.conn.PgConn().Conn().RemoteAddr()
		logger.Info("connected to PostgreSQL", "database", config.Database, "host", peer.String())
	}
	return lock, nil
}

// steady is the time for which a session must have been complete. After such a session, the pauses begin at minPause
// again.
const steady = time.Second

func (s *session) wasSteady() bool { return !s.whole.IsZero() && time.Since(s.whole) >= steady }

// ended records and logs why the session has ended. For an outage, the log has one line about the loss, and some lines
// about the attempts to connect again.
func (s *session) ended(err error, retryIn time.Duration) {
	s.isConnected.Store(false)
	s.Failures.Failed(s.failed(err), err)
	s.pauseListening(err)
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

// failed returns the operation that failed when the session ended with err.
func (s *session) failed(err error) failures.Operation {
	switch {
	case s.link == nil:
		return failures.Connect
	case errors.Is(err, errParkLock):
		return failures.ParkLock
	}
	return failures.Fetch
}

// fetch reads and delivers all rows that are visible now and have not been read, page after page. After each page, it
// answers the notifications that have a payload. In the end, it answers the callers of CatchUp.
func (s *session) fetch(ctx context.Context, why reason) (fetched, error) {
	s.beginServing()
	s.link.announced = false
	done, began := fetched{reason: why}, time.Now()
	if err := s.readAll(ctx, &done, began); err != nil {
		return done, err
	}
	if err := s.inspect(ctx); err != nil {
		return done, err
	}
	s.endServing()
	s.link.answerCalls()
	done.took = time.Since(began)
	s.span.add(done)
	return done, nil
}

// readAll reads and delivers pages until there are no more.
func (s *session) readAll(ctx context.Context, done *fetched, began time.Time) error {
	var snapshot *cursor.Cursor
	for more := true; more; {
		p, err := s.page(done.reason, snapshot)
		if err != nil {
			return err
		}
		if void, err := s.observe(ctx, p.state); err != nil {
			return err
		} else if void {
			snapshot = nil
			continue
		}
		if outrun, err := s.checkHorizon(ctx, &p); err != nil {
			return err
		} else if outrun {
			snapshot = nil
			continue
		}
		if p.state.known {
			done.state = p.state
		}
		done.rows, done.end = done.rows+len(p.rows), p.end.Xmax
		s.deliver(p)
		s.reader.reuse(p)
		s.link.answerCalls()
		snapshot, more = &p.end, p.more
		if more && s.isWarming() && time.Now().After(s.warmUntil) {
			if err := s.endWarming(ctx); err != nil {
				return err
			}
			snapshot = nil
		}
		s.observeLag(began, more)
	}
	return nil
}

// page reads the next page. If nearQuery has left out a transaction that has ended, page drops the result and reads the
// page again with fetchQuery. It does the same if nearQuery fails with errNoHistory.
func (s *session) page(why reason, snapshot *cursor.Cursor) (p page, err error) {
	query, skipped := s.queryNow(why, snapshot)
	r := request{query: query, skipped: skipped, from: s.cursor, epoch: s.epoch, snapshot: snapshot, level: s.level}
	p, err = s.reader.fetch(r)
	if p.wasted {
		s.span.wasted()
	}
	if p.wasted || query.near && errors.Is(err, errNoHistory) {
		r.query, r.skipped = fetchQuery, 0
		p, err = s.reader.fetch(r)
	}
	if err == nil {
		s.observeHistory(&p)
		s.level = s.level.after(&p, s.PageRows)
	}
	return p, err
}

// deliver delivers a page and moves the cursor to its end.
func (s *session) deliver(p page) {
	if len(p.rows) > 0 {
		s.cursor = p.rows[len(p.rows)-1].Cursor
	}
	if !p.more {
		s.cursor = s.cursor.Reached(p.end)
		s.warmUntil = time.Time{}
	}
	s.delivered.add(p.rows)
	s.Stats.Fetches.Add(1)
	s.Stats.Rows.Add(int64(len(p.rows)))
	s.wakeup.pace.add(time.Now(), commits(p.rows))
	rows := p.deliverable(s.batch)
	s.Deliver(feed.Batch{Rows: rows, Cursor: s.cursor, Horizon: p.horizon, Warming: s.isWarming()})
	s.batch = emptied(rows)
}

// commits returns the number of transactions of rows, which are in the order of delivery.
func commits(rows []row) (n int) {
	var last uint64
	for i := range rows {
		if xid := rows[i].Xid; xid != last {
			n, last = n+1, xid
		}
	}
	return n
}

// observeLag is called after each page. If the fetch has no more pages, it records that the listener is up to date. If
// the fetch has more pages and has taken longer than LagLimit, it warns: rows that are large, or slow to read, delay
// all later rows. It does not warn while recent rows are being read (Warm).
func (s *session) observeLag(began time.Time, more bool) {
	if !more {
		s.Stats.setCurrent(began)
		if s.isLagging {
			s.isLagging = false
			s.Logger.Info("all new rows have been read")
		}
		return
	}
	if time.Since(began) < s.LagLimit || s.isWarming() {
		return
	}
	if logger, ok := s.logs.lag.Allow(s.Logger); ok {
		s.isLagging = true
		logger.Warn("reading new rows takes long: later rows are delayed", "lag", s.Stats.Lag().Round(time.Millisecond), "last_id", s.cursor.ID)
	}
}

// inspect counts the rows whose transaction number this server has not assigned: rows that were restored, replicated or
// forged. These rows are never sent. A session counts at most once a minute, and at most 1,000 rows.
func (s *session) inspect(ctx context.Context) error {
	if time.Since(s.inspected) < time.Minute {
		return nil
	}
	s.inspected = time.Now()
	const most = 1000
	const query = `SELECT count(*) FROM (SELECT FROM rowcast.notifications
		WHERE xid >= pg_snapshot_xmax(pg_current_snapshot()) ORDER BY xid LIMIT $1) foreign_rows`
	var found int64
	count := func(ctx context.Context, db querier) error { return db.QueryRow(ctx, query, most).Scan(&found) }
	if err := s.link.bounded(ctx, count); err != nil {
		return fmt.Errorf("count foreign rows: %w", err)
	}
	if found > s.foreign {
		s.Logger.Warn("rows carry transaction numbers that this server has not assigned; they are never sent", "rows", found, "at_most", most)
	}
	s.foreign = found
	s.Stats.ForeignXid.Store(found)
	return nil
}
