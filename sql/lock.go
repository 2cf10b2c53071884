package sql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"time"

	"github.com/pressly/goose/v3/lock"
)

// A migrationLock makes sessions migrate one at a time. It uses the same advisory lock as the session locker of goose.
type migrationLock struct {
	waiting func(holder string) // see [Migrator.Waiting]
}

const (
	lockInterval = 200 * time.Millisecond // the time between two attempts to get the lock
	lockReport   = 5 * time.Second        // the time after which the holder is reported
	lockTimeout  = 5 * time.Minute        // the time after which the migration fails
)

// SessionLock waits for the lock. After lockTimeout it returns an error.
func (l *migrationLock) SessionLock(ctx context.Context, conn *sql.Conn) error {
	ticker := time.NewTicker(lockInterval)
	defer ticker.Stop()
	began, reported := time.Now(), false
	for {
		var locked bool
		err := conn.QueryRowContext(ctx, "SELECT pg_try_advisory_lock($1)", int64(lock.DefaultLockID)).Scan(&locked)
		if err != nil || locked {
			return err
		}
		waited := time.Since(began)
		if waited > lockTimeout {
			return fmt.Errorf("waited %v for the lock of migrations: %s", lockTimeout, holderOf(ctx, conn))
		}
		if waited > lockReport && !reported && l.waiting != nil {
			reported = true
			l.waiting(holderOf(ctx, conn))
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
	}
}

// SessionUnlock releases the lock.
func (*migrationLock) SessionUnlock(ctx context.Context, conn *sql.Conn) error {
	var unlocked bool
	err := conn.QueryRowContext(ctx, "SELECT pg_advisory_unlock($1)", int64(lock.DefaultLockID)).Scan(&unlocked)
	if err == nil && !unlocked {
		err = errors.New("the lock of migrations was lost while a migration ran")
	}
	return err
}

// holderOf returns a sentence about the session that holds the lock. It contains (hidden) for values that the role may
// not see.
func holderOf(ctx context.Context, conn *sql.Conn) string {
	const find = `SELECT format('process %s of the role %s, application "%s", connected since %s, holds the lock of migrations; '
			'if it is not a migration, run SELECT pg_terminate_backend(%s)', pid, coalesce(usename, '(hidden)'),
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
