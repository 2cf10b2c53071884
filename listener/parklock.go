package listener

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strconv"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/listener/failures"
	"rowcast/sql"
)

// A parkLock takes and releases the park lock for one hub. It has a connection of its own, because two of its
// statements can take long and must not keep the listener from fetching. One of them waits in the queue for the lock.
// The other is the NOTIFY after a release, which can wait behind a writer that waits for a synchronous standby.
type parkLock struct {
	background

	pid      uint32 // the process ID of the server process
	timeout  time.Duration
	logger   *slog.Logger
	failures *failures.Record
}

// errParkLock marks the errors of the park lock's session.
var errParkLock = errors.New("park lock")

// queueTimeout bounds a wait in the queue for the lock, because a statement that waits holds back vacuum. It is below
// the default of deadlock_timeout (1 s), because the server may log each wait that is longer than deadlock_timeout.
const queueTimeout = 500 * time.Millisecond

var lockKey = fmt.Sprintf("(%d, %d)", sql.ParkLock1, sql.ParkLock2)

// openParkLock opens the second connection.
func (l *Listener) openParkLock(ctx context.Context) (*parkLock, error) {
	conn, err := l.connect(ctx, "park lock", nil)
	if err != nil {
		return nil, err
	}
	p := &parkLock{
		background: background{conn: conn, wake: l.wake},
		timeout:    l.Timeout, logger: l.Logger, failures: &l.Failures,
	}
	if err := p.begin(ctx); err != nil {
		closeNow(conn)
		return nil, err
	}
	return p, nil
}

// begin sets lock_timeout for the session, and asks the server for the process ID of its process. The process ID that
// was reported when the connection began may be a pooler's own.
func (p *parkLock) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	const query = "SELECT pg_backend_pid() FROM set_config('lock_timeout', $1, false)"
	return p.conn.QueryRow(ctx, query, strconv.FormatInt(queueTimeout.Milliseconds(), 10)).Scan(&p.pid)
}

// isIdle reports whether the connection can be used now. If a job has ended since the last call, isIdle returns the
// job's error.
func (p *parkLock) isIdle() (bool, error) {
	last, idle := p.finish()
	return idle, last.err
}

// ask runs a query that returns one boolean.
func (p *parkLock) ask(ctx context.Context, query string) (answer bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if err := p.conn.QueryRow(ctx, query).Scan(&answer); err != nil {
		return false, fmt.Errorf("%w: %w", errParkLock, err)
	}
	return answer, nil
}

// try takes the lock, unless another session holds it or waits for it, or the connection is busy. It does not wait for
// the lock.
func (p *parkLock) try(ctx context.Context) (bool, error) {
	if idle, err := p.isIdle(); err != nil || !idle {
		return false, err
	}
	taken, err := p.ask(ctx, "SELECT pg_try_advisory_lock"+lockKey)
	if taken {
		p.start(watch)
	}
	return taken, err
}

// lockHolder selects the process that holds the park lock exclusively. It does not select a process that waits for the
// lock, or a writer that holds it shared.
var lockHolder = fmt.Sprintf(`SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock'
	AND classid = %d AND objid = %d AND objsubid = 2
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1`, sql.ParkLock1, sql.ParkLock2)

// heldElsewhere returns the process of another session, normally of a hub, that holds the lock exclusively. It returns
// 0 if there is none, or if the connection is busy.
func (p *parkLock) heldElsewhere(ctx context.Context) (holder uint32, err error) {
	if idle, err := p.isIdle(); err != nil || !idle {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if err := p.conn.QueryRow(ctx, "SELECT coalesce(("+lockHolder+"), 0) AS relied_on").Scan(&holder); err != nil {
		return 0, fmt.Errorf("%w: %w", errParkLock, err)
	}
	return holder, nil
}

// waitForLock waits for the lock for at most lock_timeout. After that it ends without an error, because the server
// would log each error. A lock of a session outlives the subtransaction in which it was taken.
var waitForLock = "DO $$ BEGIN PERFORM pg_advisory_lock" + lockKey + "; EXCEPTION WHEN lock_not_available THEN NULL; END $$"

// enqueue begins to wait in the queue for the lock.
func (p *parkLock) enqueue() {
	timeout := p.timeout
	p.start(func(ctx context.Context, conn *pgx.Conn) (taken bool, err error) {
		ctx, cancel := context.WithTimeout(ctx, timeout)
		defer cancel()
		if _, err := conn.Exec(ctx, waitForLock); err != nil {
			return false, err
		}
		// The statement before cannot say whether it has taken the lock. If it has, the lock is now held twice, and release
		// releases both.
		err = conn.QueryRow(ctx, "SELECT pg_try_advisory_lock"+lockKey).Scan(&taken)
		return taken, err
	})
}

// dequeued reports whether the wait in the queue is done, and whether the lock was taken.
func (p *parkLock) dequeued() (taken, done bool, err error) {
	last, done := p.finish()
	if !done {
		return false, false, nil
	}
	if p.isRefused(last.err) { // for example, if the role may not use plpgsql; the hub then polls
		p.failures.Warn(p.logger, failures.ParkQueue, last.err,
			"cannot queue for the park lock; the hub polls while a transaction that has inserted notifications is open")
		return false, true, nil
	}
	if last.err != nil {
		return false, true, fmt.Errorf("wait for the %w: %w", errParkLock, last.err)
	}
	p.failures.Succeeded(failures.ParkQueue)
	if last.ok {
		p.start(watch)
	}
	return last.ok, true, nil
}

// isRefused reports whether err is the error of a statement that has failed without ending the session.
func (p *parkLock) isRefused(err error) bool {
	_, refused := errors.AsType[*pgconn.PgError](err)
	return refused && !p.conn.IsClosed()
}

// watch is a job that ends with an error when the session ends. The server releases the lock then.
func watch(ctx context.Context, conn *pgx.Conn) (bool, error) {
	for {
		err := conn.PgConn().WaitForNotification(ctx)
		if conn.IsClosed() {
			return false, fmt.Errorf("%w: %w", errParkLock, err)
		}
		if ctx.Err() != nil {
			return false, nil //nolint:nilerr // the job was stopped
		}
	}
}

// lost returns the error with which the session that holds the lock has ended, or nil if it has not ended.
func (p *parkLock) lost() error {
	_, err := p.isIdle()
	return err
}

// prove checks that the session that holds the lock is alive. It sends a Sync message, which the server answers without
// running a query.
func (p *parkLock) prove(ctx context.Context) error {
	if err := p.stop(); err != nil {
		return err
	}
	// Nothing is fetched meanwhile, so the timeout is short.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	pipeline := p.conn.PgConn().StartPipeline(ctx)
	err := pipeline.Sync()
	if err := errors.Join(err, pipeline.Close()); err != nil { // Close waits for the answer
		return fmt.Errorf("%w: its session does not answer: %w", errParkLock, err)
	}
	p.start(watch)
	return nil
}

// release releases the lock, and then notifies the hubs that relied on it. A hub that was notified before the release
// would find the lock still held.
func (p *parkLock) release(ctx context.Context) error {
	if err := p.stop(); err != nil {
		return err
	}
	if _, err := p.ask(ctx, "SELECT true FROM pg_advisory_unlock_all()"); err != nil {
		return err
	}
	p.start(p.notifyReleased)
	return nil
}

// notifyReleased is a job that notifies the other hubs of a release. The notification fails, for example, if the NOTIFY
// queue is full, or if the job waits for another writer for longer than queueTimeout. The other hubs then notice the
// release at their next safety poll, within about Look (1 s).
func (p *parkLock) notifyReleased(ctx context.Context, conn *pgx.Conn) (bool, error) {
	_, err := conn.Exec(ctx, "SELECT pg_notify($1, '')", releasedChannel)
	switch {
	case p.isRefused(err):
		p.failures.Warn(p.logger, failures.Unpark, err, "cannot notify the other hubs of the released park lock")
	case err != nil:
		return false, fmt.Errorf("%w: %w", errParkLock, err)
	default:
		p.failures.Succeeded(failures.Unpark)
	}
	return false, nil
}

// A background is a connection on which one job at a time may run in a goroutine of its own. Only Run's goroutine uses
// a background. A job gets the connection and returns a result. A job must not use anything that belongs to
// Run's goroutine.
type background struct {
	conn   *pgx.Conn
	wake   func()      // called at the end of each job
	job    chan result // receives the result of the job that runs; nil if no job runs
	cancel context.CancelFunc
}

type result struct {
	ok  bool
	err error
}

// A job is work that can take long, such as a statement that waits for a lock.
type job func(context.Context, *pgx.Conn) (ok bool, err error)

// start starts a job. No other job may be running.
func (b *background) start(work job) {
	ctx, cancel := context.WithCancel(context.Background())
	done, conn, wake := make(chan result, 1), b.conn, b.wake
	b.job, b.cancel = done, cancel
	go func() {
		ok, err := work(ctx, conn)
		done <- result{ok, err}
		wake()
	}()
}

// isRunning reports whether there is a job whose result has not been returned by finish or stop.
func (b *background) isRunning() bool { return b.job != nil }

// finish returns the result of the job if the job has ended. idle reports whether the connection is free for a new job.
func (b *background) finish() (last result, idle bool) {
	if b.job == nil {
		return result{}, true
	}
	select {
	case last = <-b.job:
		b.job = nil
		b.cancel()
		return last, true
	default:
		return result{}, false
	}
}

// stop ends the job, if one runs, and returns its error.
func (b *background) stop() error {
	if b.job == nil {
		return nil
	}
	b.cancel()
	last := <-b.job
	b.job = nil
	return last.err
}

// close ends the job, if one runs, and closes the connection.
func (b *background) close() {
	_ = b.stop()
	closeNow(b.conn)
}
