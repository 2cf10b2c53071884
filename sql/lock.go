package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pressly/goose/v3/lock"
)

// A migrationLock lets one session migrate at a time. It is the advisory lock that goose itself would take.
type migrationLock struct {
	waiting func(holder string) // is told once which session holds the lock; nil: not told
}

const (
	lockTry     = 200 * time.Millisecond
	lockPatient = 5 * time.Second // until the holder is named
	lockGiveUp  = 5 * time.Minute
)

// SessionLock waits for the lock.
func (l *migrationLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	ticker := time.NewTicker(lockTry)
	defer ticker.Stop()
	began, named := time.Now(), false
	for {
		var locked bool
		err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", int64(lock.DefaultLockID)).Scan(&locked)
		if err != nil || locked {
			return err
		}
		waited := time.Since(began)
		if waited > lockGiveUp {
			return fmt.Errorf("no lock after %v: %s", lockGiveUp, holderOf(ctx, conn))
		}
		if waited > lockPatient && !named && l.waiting != nil {
			named = true
			l.waiting(holderOf(ctx, conn))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// SessionUnlock gives the lock back.
func (*migrationLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	var unlocked bool
	err := conn.QueryRowContext(ctx, "SELECT pg_advisory_unlock($1)", int64(lock.DefaultLockID)).Scan(&unlocked)
	if err == nil && !unlocked {
		err = errors.New("the lock of migrations was lost")
	}
	return err
}

// holderOf says which session holds the lock, as far as the role may see it.
func holderOf(ctx context.Context, conn *sql.Conn) string {
	const find = `SELECT format('process %s of the role %s, application "%s", connected since %s, holds the lock of migrations; '
			'if it is not migrating: SELECT pg_terminate_backend(%s)', pid, coalesce(usename, '(hidden)'),
			coalesce(application_name, '(hidden)'), coalesce(backend_start::text, '(hidden)'), pid)
		FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE locktype = 'advisory' AND granted AND objsubid = 1
			AND classid::bigint << 32 | objid::bigint = $1
			AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())`
	var holder string
	if err := conn.QueryRowContext(ctx, find, int64(lock.DefaultLockID)).Scan(&holder); err != nil {
		return "another session holds the lock of migrations"
	}
	return holder
}
