package sql

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"slices"

	"github.com/jackc/pgx/v5"
)

// inboxFiles are the numbered migrations of the inbox. They run after those of the schema.
//
//go:embed inbox/*.sql
var inboxFiles embed.FS

// inboxMigrations returns the migrations of the inbox, the oldest first.
func inboxMigrations() []migration { return numbered(inboxFiles, "inbox/*.sql") }

// InboxVersion returns the number of the newest migration of the inbox.
func InboxVersion() int64 {
	all := inboxMigrations()
	return all[len(all)-1].version
}

// inboxFunctions are the SQL functions of the inbox that apps and hubs call.
var inboxFunctions = []string{"inbox", "inbox_mark", "inbox_undo", "inbox_twin", "inbox_version"}

// InboxRights returns the rights that an app or a hub needs for the inbox.
func InboxRights() (rights []Right) {
	for _, function := range inboxFunctions {
		rights = append(rights, Right{"EXECUTE", nil, "FUNCTION", function})
	}
	return rights
}

// installedInbox is an expression in SQL for the version of the inbox, or 0 if the inbox is not installed. The function
// inbox_version may not exist, so the expression does not call it, but reads its source.
const installedInbox = `(SELECT coalesce(max(substring(prosrc FROM '[0-9]+')::bigint), 0) FROM pg_proc
	WHERE pronamespace = to_regnamespace('rowcast') AND proname = 'inbox_version')`

// InstalledInbox returns the version of the inbox in a database, or 0 if the inbox is not installed. The search_path
// must be pg_catalog.
func InstalledInbox(ctx context.Context, db querier) (version int64, err error) {
	if err := db.QueryRow(ctx, "SELECT "+installedInbox).Scan(&version); err != nil {
		return 0, fmt.Errorf("read the version of the inbox: %w", err)
	}
	return version, nil
}

// stepInbox runs the next migration of the inbox if the inbox is installed or wanted. It reports complete if there is
// none.
func (m Migrator) stepInbox(ctx context.Context, tx pgx.Tx) (complete bool, err error) {
	version, err := InstalledInbox(ctx, tx)
	if err != nil || version == 0 && !m.Inbox {
		return true, err
	}
	if version > InboxVersion() {
		return false, fmt.Errorf("the inbox is at version %d, newer than version %d of this program: upgrade rowcast", version, InboxVersion())
	}
	all := inboxMigrations()
	next := slices.IndexFunc(all, func(next migration) bool { return next.version > version })
	if next < 0 {
		return true, nil
	}
	return false, all[next].run(ctx, tx)
}

// ErrNoInbox reports that the inbox is not installed, or has an older version than this program needs.
var ErrNoInbox = errors.New("the inbox is missing or too old")

// CheckInbox returns [ErrNoInbox] if the inbox is not installed or below [InboxVersion]. It returns an error of PostgreSQL
// if the current role may not use the inbox. The search_path must be pg_catalog.
func CheckInbox(ctx context.Context, db querier) error {
	switch version, err := InstalledInbox(ctx, db); {
	case err != nil:
		return err
	case version == 0:
		return fmt.Errorf("%w: it is not installed", ErrNoInbox)
	case version < InboxVersion():
		return fmt.Errorf("%w: it has version %d, and version %d is needed", ErrNoInbox, version, InboxVersion())
	}
	var version int64
	if err := db.QueryRow(ctx, "SELECT rowcast.inbox_version()").Scan(&version); err != nil {
		return fmt.Errorf("use the inbox: %w", err)
	}
	return nil
}
