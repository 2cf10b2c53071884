package sql

import (
	"context"
	_ "embed"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
)

// inboxMigration installs the inbox. It runs after the migrations of the schema.
var (
	//go:embed inbox/inbox.sql
	inboxList string
	//go:embed inbox/changes.sql
	inboxChanges string

	inboxMigration = migration{1, "inbox", inboxList + inboxChanges}
)

// InboxVersion returns the version of the inbox that this program needs.
func InboxVersion() int64 { return inboxMigration.version }

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

// installInbox installs the inbox if it is wanted and not installed. It returns an error if a newer version is
// installed.
func (m Migrator) installInbox(ctx context.Context, tx pgx.Tx) error {
	version, err := InstalledInbox(ctx, tx)
	switch {
	case err != nil:
		return err
	case version > InboxVersion():
		return fmt.Errorf("the inbox is at version %d, newer than version %d of this program: upgrade rowcast", version, InboxVersion())
	case version == 0 && m.Inbox:
		return inboxMigration.run(ctx, tx)
	}
	return nil
}

// ErrNoInbox reports that the inbox is not installed.
var ErrNoInbox = errors.New("the inbox is not installed")

// CheckInbox returns [ErrNoInbox] if the inbox is not installed. It returns an error of PostgreSQL if the current role
// may not use the inbox. The search_path must be pg_catalog.
func CheckInbox(ctx context.Context, db querier) error {
	switch version, err := InstalledInbox(ctx, db); {
	case err != nil:
		return err
	case version == 0:
		return ErrNoInbox
	}
	var version int64
	if err := db.QueryRow(ctx, "SELECT rowcast.inbox_version()").Scan(&version); err != nil {
		return fmt.Errorf("use the inbox: %w", err)
	}
	return nil
}

// adoptInbox corrects the snapshots of users after a restore. A snapshot from another server could contain rows that
// this server inserts later.
//
// If isRestored is true, the restored rows will get the number 1, and adoptInbox corrects the snapshots of all users.
// Afterwards, rows for the user that were unread are still unread, and rows that the user has archived with "all" are
// no longer archived. Restored rows for groups and everyone are seen and read, unless the user has marked them as
// unread since the last "all". Restored rows for the user are then seen if the user has ever marked all as seen or
// read. No earlier change can be undone.
//
// Otherwise, the restored rows keep their numbers, and they all keep their state. The dump can still contain snapshots
// that are ahead of this server, if the last transactions of the other server inserted no rows. If isMoved is false,
// users can have such snapshots too: a restore of data into an installed schema leaves rowcast.history as it was.
//
// If isMoved is true, adoptInbox also deletes the state of rows that the dump did not contain. This server could assign
// their ids to new rows.
func adoptInbox(ctx context.Context, tx pgx.Tx, isMoved, isRestored bool) error {
	version, err := InstalledInbox(ctx, tx)
	if err != nil || version == 0 {
		return err
	}
	statements := []string{cutChanges, cutSnapshots}
	if isRestored {
		statements = []string{keepUnread, forgetSnapshots, "DELETE FROM rowcast.inbox_changes"}
	}
	if isMoved {
		statements = append(statements, forgetStates)
	}
	for _, statement := range statements {
		if _, err := tx.Exec(ctx, statement); err != nil {
			return fmt.Errorf("correct the inbox: %w", err)
		}
	}
	return nil
}

const (
	// keepUnread stores for each unread row of a user that it is unread. Groups and everyone are left out.
	keepUnread = `INSERT INTO rowcast.inbox_states AS old (recipient, id, read, read_version)
		SELECT u.recipient, n.id, false, u.version + 1 FROM rowcast.inbox_users u JOIN rowcast.notifications n ON n.recipient = u.recipient
			LEFT JOIN rowcast.inbox_states s ON s.recipient = u.recipient AND s.id = n.id
			WHERE NOT rowcast.inbox_is_read(s.read, s.read_version, false, n.xid, u.read, u.read_version, u.visited)
		ON CONFLICT (recipient, id) DO UPDATE SET read = false, read_version = excluded.read_version`

	// forgetSnapshots replaces the snapshots of all users. The snapshot '3:3:' contains rows with the number 1, and no
	// row with a number that a server has assigned, because these numbers begin at 3. The snapshot '1:1:' contains
	// nothing.
	forgetSnapshots = `UPDATE rowcast.inbox_users SET version = version + 1, visited = '3:3:', archived = '1:1:',
		seen = CASE seen::text WHEN '1:1:' THEN seen ELSE '3:3:' END, read = CASE read::text WHEN '1:1:' THEN read ELSE '3:3:' END`

	forgetStates = `DELETE FROM rowcast.inbox_states s WHERE NOT EXISTS (SELECT FROM rowcast.notifications n WHERE n.id = s.id)`
)

// cutSnapshots changes the snapshots of each user who has a snapshot that is ahead of this server. It removes the
// transaction that restored the dump (since) and all later transactions. If that transaction is unknown, because moved
// is false, it removes the transactions that have not begun. cutChanges does the same for the snapshots that undo would
// restore.
var (
	cutSnapshots = "UPDATE rowcast.inbox_users SET visited = " + cut("visited") + ", seen = " + cut("seen") +
		", read = " + cut("read") + ", archived = " + cut("archived") + " WHERE " + isAhead
	cutChanges = "UPDATE rowcast.inbox_changes SET before = " + cut("before") +
		" WHERE before IS NOT NULL AND recipient IN (SELECT recipient FROM rowcast.inbox_users WHERE " + isAhead + ")"
)

// isAhead is a condition in SQL for a row of rowcast.inbox_users.
const isAhead = "greatest(pg_snapshot_xmax(visited), pg_snapshot_xmax(seen), pg_snapshot_xmax(read), pg_snapshot_xmax(archived))" +
	" > pg_snapshot_xmax(pg_current_snapshot())"

// cut returns an expression in SQL for the snapshot in a column, without the transactions that cutSnapshots removes.
func cut(column string) string {
	return fmt.Sprintf(`(SELECT concat_ws(':', coalesce(running[1], top), top, array_to_string(running, ','))::pg_snapshot
		FROM (SELECT least(pg_snapshot_xmax(%[1]s), CASE WHEN %[2]s THEN %[3]s::text::xid8
			ELSE pg_snapshot_xmax(pg_current_snapshot()) END)) AS lower (top),
			LATERAL (SELECT ARRAY(SELECT x FROM pg_snapshot_xip(%[1]s) AS x WHERE x < top ORDER BY x)) AS xip (running))`, column, moved, since)
}
