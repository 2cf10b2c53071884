package listener

import (
	"context"

	"github.com/jackc/pgx/v5"
)

// A background is a connection on which one job at a time may run in a goroutine of its own. Only Run's goroutine uses
// a background. A job gets the connection and returns a result. It must not use anything that belongs to Run's
// goroutine.
type background struct {
	conn   *pgx.Conn
	wake   func()      // called at the end of each job
	job    chan result // receives the result of the job that runs; nil if no job runs
	cancel context.CancelFunc
}

// A result is the result of a job.
type result struct {
	ok  bool
	err error
}

// A job is a statement that can take long.
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

// isRunning reports whether a job was started whose result was not returned yet by finish or stop.
func (b *background) isRunning() bool { return b.job != nil }

// finish returns the result of the job if the job has ended. idle reports whether no job runs any more.
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
