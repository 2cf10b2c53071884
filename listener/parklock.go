package listener

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/sql"
)

// A parkLock is the park lock, as one hub has it, and the connection that holds it. That is one of its own, as waiting for the
// lock must not keep the listener from fetching, and neither must ringing, which can hang behind a writer that waits for a
// synchronous standby. The slow things are done by one goroutine at a time, which wakes the listener when it is done.
type parkLock struct {
	conn    *pgx.Conn
	timeout time.Duration
	wake    func()

	job    chan error // of the slow thing that is being done; nil if there is none
	cancel context.CancelFunc
}

// queueTimeout is below the default deadlock_timeout, because a waiting SELECT holds back vacuum, and beyond that each wait
// may be a line in the server's log.
const queueTimeout = 500 * time.Millisecond

var lockKey = fmt.Sprintf("(%d, %d)", sql.ParkLock1, sql.ParkLock2)

func (l *Listener) newParkLock(ctx context.Context) (*parkLock, error) {
	conn, err := l.connect(ctx, "park lock", nil)
	if err != nil {
		return nil, err
	}
	set := fmt.Sprintf("SET lock_timeout = %d", queueTimeout.Milliseconds())
	if _, err := conn.Exec(ctx, set); err != nil {
		closeNow(conn)
		return nil, err
	}
	return &parkLock{conn: conn, timeout: l.Timeout, wake: l.wake}, nil
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
		return false, fmt.Errorf("park lock: %w", err)
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

// heldElsewhere tells whether another hub is parked: has it, not only waits for it.
func (p *parkLock) heldElsewhere(ctx context.Context) (bool, error) {
	if idle, err := p.finished(); err != nil || !idle {
		return false, err
	}
	return p.ask(ctx, fmt.Sprintf(`SELECT EXISTS (SELECT FROM pg_locks WHERE locktype = 'advisory' AND granted
		AND mode = 'ExclusiveLock' AND classid = %d AND objid = %d AND objsubid = 2
		AND database = (SELECT oid FROM pg_database WHERE datname = current_database()))`, sql.ParkLock1, sql.ParkLock2))
}

// enqueue begins to wait for the lock; dequeued tells when that is over, and whether it was got.
func (p *parkLock) enqueue() {
	p.start(func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, p.timeout)
		defer cancel()
		_, err := p.conn.Exec(ctx, "SELECT pg_advisory_lock"+lockKey)
		return err
	})
}

func (p *parkLock) dequeued() (parked, done bool, err error) {
	done, err = p.finished()
	if !done {
		return false, false, nil
	}
	var refused *pgconn.PgError
	if errors.As(err, &refused) && refused.Code == "55P03" { // lock_not_available: the time is over
		return false, true, nil
	}
	if err != nil {
		return false, true, fmt.Errorf("wait for park lock: %w", err)
	}
	p.start(p.watch)
	return true, true, nil
}

// watch ends when the session does, and with it the lock.
func (p *parkLock) watch(ctx context.Context) error {
	for {
		err := p.conn.PgConn().WaitForNotification(ctx)
		if p.conn.IsClosed() {
			return fmt.Errorf("park lock: %w", err)
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

// prove makes sure that the session that holds the lock is alive.
func (p *parkLock) prove(ctx context.Context) error {
	if err := p.stop(); err != nil {
		return err
	}
	// Nothing is fetched meanwhile, so a session that hangs is soon given up.
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	if _, err := p.ask(ctx, "SELECT true"); err != nil {
		return err
	}
	p.start(p.watch)
	return nil
}

// release gives the lock up, and THEN tells the hubs that relied on it.
func (p *parkLock) release(ctx context.Context) error {
	if err := p.stop(); err != nil {
		return err
	}
	if _, err := p.ask(ctx, "SELECT pg_advisory_unlock"+lockKey); err != nil {
		return err
	}
	p.start(func(ctx context.Context) error {
		_, err := p.conn.Exec(ctx, "SELECT pg_notify($1, '')", unparkedChannel)
		return err
	})
	return nil
}
