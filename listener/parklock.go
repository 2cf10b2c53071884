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

// A parkLock is the park lock, as one hub has it, and the connection that holds it. That is one of its own, as waiting for the
// lock must not keep the listener from fetching, and neither must ringing, which can hang behind a writer that waits for a
// synchronous standby. The slow things are done by one goroutine at a time, which wakes the listener when it is done.
type parkLock struct {
	conn     *pgx.Conn
	pid      uint32 // of the server process
	timeout  time.Duration
	logger   *slog.Logger
	failures *failures.Record
	wake     func()

	job    chan error // of the slow thing that is being done; nil if there is none
	cancel context.CancelFunc
	got    bool // the job has got the lock; to be read after its end
}

// errParkLock marks the errors of the park lock's session.
var errParkLock = errors.New("park lock")

// queueTimeout is below the default deadlock_timeout, because a waiting SELECT holds back vacuum, and beyond that each wait
// may be a line in the server's log.
const queueTimeout = 500 * time.Millisecond

var lockKey = fmt.Sprintf("(%d, %d)", sql.ParkLock1, sql.ParkLock2)

func (l *Listener) newParkLock(ctx context.Context) (*parkLock, error) {
	conn, err := l.connect(ctx, "park lock", nil)
	if err != nil {
		return nil, err
	}
	p := &parkLock{conn: conn, timeout: l.Timeout, logger: l.Logger, failures: &l.Failures, wake: l.wake}
	if err := p.begin(ctx); err != nil {
		closeNow(conn)
		return nil, err
	}
	return p, nil
}

// begin makes the session's own setting and asks for its process, which a pooler may hide.
func (p *parkLock) begin(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	const query = "SELECT pg_backend_pid() FROM set_config('lock_timeout', $1, false)"
	return p.conn.QueryRow(ctx, query, strconv.FormatInt(queueTimeout.Milliseconds(), 10)).Scan(&p.pid)
}

// start does a slow thing.
func (p *parkLock) start(work func(ctx context.Context) error) {
	ctx, cancel := context.WithCancel(context.Background())
	job := make(chan error, 1)
	p.job, p.cancel = job, cancel
	go func() {
		job <- work(ctx)
		p.wake()
	}()
}

// finished tells whether nothing slow is being done, and the error of what was.
func (p *parkLock) finished() (bool, error) {
	if p.job == nil {
		return true, nil
	}
	select {
	case err := <-p.job:
		p.job = nil
		p.cancel()
		return true, err
	default:
		return false, nil
	}
}

// isWorking tells whether something slow is being done, as far as finished has told.
func (p *parkLock) isWorking() bool { return p.job != nil }

// stop ends it.
func (p *parkLock) stop() error {
	if p.job == nil {
		return nil
	}
	p.cancel()
	err := <-p.job
	p.job = nil
	return err
}

func (p *parkLock) close() {
	_ = p.stop()
	closeNow(p.conn)
}

// ask runs a query with one boolean for an answer.
func (p *parkLock) ask(ctx context.Context, query string) (answer bool, err error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if err := p.conn.QueryRow(ctx, query).Scan(&answer); err != nil {
		return false, fmt.Errorf("%w: %w", errParkLock, err)
	}
	return answer, nil
}

// try takes the lock if nobody has it, in a round trip of its own.
func (p *parkLock) try(ctx context.Context) (bool, error) {
	if idle, err := p.finished(); err != nil || !idle {
		return false, err
	}
	parked, err := p.ask(ctx, "SELECT pg_try_advisory_lock"+lockKey)
	if parked {
		p.start(p.watch)
	}
	return parked, err
}

// lockHolder selects the process that holds the park lock, not one that only waits for it.
var lockHolder = fmt.Sprintf(`SELECT pid FROM pg_locks WHERE locktype = 'advisory' AND granted AND mode = 'ExclusiveLock'
	AND classid = %d AND objid = %d AND objsubid = 2
	AND database = (SELECT oid FROM pg_database WHERE datname = current_database()) LIMIT 1`, sql.ParkLock1, sql.ParkLock2)

// heldElsewhere returns the process of another hub that holds the lock, or 0.
func (p *parkLock) heldElsewhere(ctx context.Context) (holder uint32, err error) {
	if idle, err := p.finished(); err != nil || !idle {
		return 0, err
	}
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if err := p.conn.QueryRow(ctx, "SELECT coalesce(("+lockHolder+"), 0) AS relied_on").Scan(&holder); err != nil {
		return 0, fmt.Errorf("%w: %w", errParkLock, err)
	}
	return holder, nil
}

// waitForLock waits for the lock as long as lock_timeout, and then ends without an error: an error would be a line in the server's log
// each time. A session's lock outlives the subtransaction in which it was taken.
var waitForLock = "DO $$ BEGIN PERFORM pg_advisory_lock" + lockKey + "; EXCEPTION WHEN lock_not_available THEN NULL; END $$"

// enqueue begins to wait for the lock. dequeued reports whether that is over, and whether the lock is held.
func (p *parkLock) enqueue() {
	p.got = false
	p.start(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, p.timeout)
		defer cancel()
		if _, err := p.conn.Exec(ctx, waitForLock); err != nil {
			return err
		}
		// The statement before cannot say whether it has the lock. If it has, the lock is now held twice, and release gives up both.
		return p.conn.QueryRow(ctx, "SELECT pg_try_advisory_lock"+lockKey).Scan(&p.got)
	})
}

func (p *parkLock) dequeued() (parked, done bool, err error) {
	done, err = p.finished()
	if !done {
		return false, false, nil
	}
	if p.isRefused(err) { // without the right to use plpgsql: then the hub polls until the lock is free
		p.failures.Warn(p.logger, failures.ParkQueue, err, "cannot queue for the park lock: polling while a transaction that has inserted stays open")
		return false, true, nil
	}
	if err != nil {
		return false, true, fmt.Errorf("wait for %w: %w", errParkLock, err)
	}
	p.failures.Succeeded(failures.ParkQueue)
	if p.got {
		p.start(p.watch)
	}
	return p.got, true, nil
}

// isRefused reports whether the server has refused a statement and the session goes on.
func (p *parkLock) isRefused(err error) bool {
	_, refused := errors.AsType[*pgconn.PgError](err)
	return refused && !p.conn.IsClosed()
}

// watch ends when the session does, and with it the lock.
func (p *parkLock) watch(ctx context.Context) error {
	for {
		err := p.conn.PgConn().WaitForNotification(ctx)
		if p.conn.IsClosed() {
			return fmt.Errorf("%w: %w", errParkLock, err)
		}
		if ctx.Err() != nil {
			return nil //nolint:nilerr // the end that was asked for
		}
	}
}

// lost is the error by which the session that holds the lock has ended.
func (p *parkLock) lost() error {
	_, err := p.finished()
	return err
}

// prove makes sure that the session that holds the lock is alive. It runs no query: a Sync message is answered like one.
func (p *parkLock) prove(ctx context.Context) error {
	if err := p.stop(); err != nil {
		return err
	}
	// Nothing is fetched meanwhile, so a session that hangs is soon given up.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	pipeline := p.conn.PgConn().StartPipeline(ctx)
	err := pipeline.Sync()
	if err := errors.Join(err, pipeline.Close()); err != nil { // Close waits for the answer
		return fmt.Errorf("%w: its session does not answer: %w", errParkLock, err)
	}
	p.start(p.watch)
	return nil
}

// release gives the lock up, and THEN tells the hubs that relied on it.
func (p *parkLock) release(ctx context.Context) error {
	if err := p.stop(); err != nil {
		return err
	}
	if _, err := p.ask(ctx, "SELECT true FROM pg_advisory_unlock_all()"); err != nil {
		return err
	}
	p.start(func(ctx context.Context) error {
		_, err := p.conn.Exec(ctx, "SELECT pg_notify($1, '')", unparkedChannel)
		if p.isRefused(err) { // the NOTIFY queue may be full; the others find out within a second
			p.failures.Warn(p.logger, failures.Unpark, err, "cannot notify the other hubs")
			return nil
		}
		if err == nil {
			p.failures.Succeeded(failures.Unpark)
		}
		return err
	})
	return nil
}
