package doctor

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
)

func (e *Examination) schema(ctx context.Context) (finding, error) {
	var there bool
	if err := e.ask(ctx, "SELECT to_regnamespace('rowcast') IS NOT NULL", &there); err != nil {
		return finding{}, err
	}
	if !there {
		return finding{failure, "there is no schema rowcast in this database", "rowcast migrate"}, nil
	}
	return fine("the schema rowcast is there"), nil
}

func (e *Examination) rights(ctx context.Context) (finding, error) {
	role, mend, err := e.missing(ctx, sql.HubRights())
	if err != nil || mend == "" {
		return fine("the role has all that a hub needs to read"), err
	}
	return finding{failure, fmt.Sprintf("the role %s has not all the rights of a hub", role), mend}, nil
}

// retention needs rights of its own.
func (e *Examination) retention(ctx context.Context) (finding, error) {
	role, mend, err := e.missing(ctx, sql.RetentionRights())
	if err != nil || mend == "" {
		return fine("the role can delete old rows"), err
	}
	return finding{warning, fmt.Sprintf("the role %s cannot delete old rows, which is right only with --retain=0", role), mend}, nil
}

// missing says how to grant what this session's role has not.
func (e *Examination) missing(ctx context.Context, rights []sql.Right) (role, mend string, err error) {
	var name string
	if err := e.ask(ctx, "SELECT current_user, quote_ident(current_user)", &name, &role); err != nil {
		return "", "", err
	}
	missing, err := sql.Missing(ctx, e.tx, name, rights...)
	for _, right := range missing {
		mend += fmt.Sprintf("GRANT %s TO %s;\n", right, role)
	}
	return role, mend, err
}

func (e *Examination) rowSecurity(ctx context.Context) (finding, error) {
	var filtered bool
	const query = `SELECT coalesce(bool_or(row_security_active(oid)), false) FROM pg_class
		WHERE relnamespace = 'rowcast'::regnamespace AND relkind = 'r'`
	if err := e.ask(ctx, query, &filtered); err != nil {
		return finding{}, err
	}
	if filtered {
		return finding{
			failure, "policies hide rows from this role, and the hub refuses to read so",
			"give the role BYPASSRLS, or make it the owner of the tables without FORCE ROW LEVEL SECURITY",
		}, nil
	}
	return fine("no policy hides rows from this role"), nil
}

func (e *Examination) migrations(ctx context.Context) (finding, error) {
	err := sql.Check(ctx, e.tx)
	if errors.Is(err, sql.ErrNoSchema) {
		return finding{failure, err.Error(), "rowcast migrate"}, nil
	}
	if errors.Is(err, sql.ErrRestored) {
		err = nil // the version is right; rows tells of the other thing
	}
	return fine("the schema is as this rowcast needs it: version %d", sql.Version()), err
}

func (e *Examination) trigger(ctx context.Context) (finding, error) {
	const mend = "ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER ring;"
	var enabled string
	err := e.ask(ctx, "SELECT tgenabled::text FROM pg_trigger WHERE tgrelid = 'rowcast.notifications'::regclass AND tgname = 'ring'", &enabled)
	switch {
	case errors.Is(err, pgx.ErrNoRows):
		return finding{failure, "there is no trigger ring on rowcast.notifications: nothing wakes a hub but its look of every second", "drop the schema and run rowcast migrate, or make the trigger as rowcast migrate --print says"}, nil
	case err != nil:
		return finding{}, err
	case enabled == "D":
		return finding{failure, "the trigger is disabled: nothing wakes a hub but its look of every second", mend}, nil
	case enabled != "A":
		return finding{warning, "the trigger does not fire in sessions with session_replication_role = replica", mend}, nil
	}
	return fine("it rings, in every session"), nil
}

// tables are logged, but for the one whose being emptied by a crash is the point of it.
func (e *Examination) tables(ctx context.Context) (finding, error) {
	var epoch, others bool
	const query = `SELECT bool_or(relname = 'epoch' AND relpersistence <> 'u'), bool_or(relname <> 'epoch' AND relpersistence = 'u')
		FROM pg_class WHERE relnamespace = 'rowcast'::regnamespace AND relkind = 'r'`
	if err := e.ask(ctx, query, &epoch, &others); err != nil {
		return finding{}, err
	}
	switch {
	case epoch:
		return finding{failure, "rowcast.epoch is not UNLOGGED, so a crash is not noticed", "ALTER TABLE rowcast.epoch SET UNLOGGED;"}, nil
	case others:
		return finding{failure, "a table besides rowcast.epoch is UNLOGGED: a crash empties it", "ALTER TABLE rowcast.notifications SET LOGGED; ALTER TABLE rowcast.history SET LOGGED;"}, nil
	}
	return fine("rowcast.epoch is unlogged, the others are not"), nil
}

// rows that are visible, and yet of no transaction that this server has ended, were given their numbers by another one, or by
// hand.
func (e *Examination) rows(ctx context.Context) (finding, error) {
	err := sql.Check(ctx, e.tx)
	if errors.Is(err, sql.ErrRestored) {
		return finding{failure, "the table was restored from another server; its rows carry transaction numbers that this one gives, or has given, to others", "rowcast migrate"}, nil
	}
	if err != nil {
		return finding{}, err
	}
	const foreign = "xid >= pg_snapshot_xmin(pg_current_snapshot()) AND NOT pg_visible_in_snapshot(xid, pg_current_snapshot())"
	var forged bool
	if err := e.ask(ctx, "SELECT EXISTS (SELECT FROM rowcast.notifications WHERE "+foreign+")", &forged); err != nil {
		return finding{}, err
	}
	if forged {
		return finding{
			failure, "some rows carry transaction numbers that this server has not given: they are not sent before it does",
			"leave the column xid to its default; UPDATE rowcast.notifications SET xid = '1' WHERE " + foreign + ";",
		}, nil
	}
	return fine("all are of this server's transactions"), nil
}

func (e *Examination) hubs(ctx context.Context) (finding, error) {
	var hubs int
	const query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'rowcast listener'"
	if err := e.ask(ctx, query, &hubs); err != nil {
		return finding{}, err
	}
	if hubs == 0 {
		return finding{warning, "none is connected", "rowcast serve"}, nil
	}
	return fine("connected: %d", hubs), nil
}

// parkLock looks at who has the lock by which hubs and the trigger agree on who rings.
func (e *Examination) parkLock(ctx context.Context) (finding, error) {
	query := fmt.Sprintf(`SELECT
			count(*) FILTER (WHERE mode = 'ShareLock'),
			coalesce(max(pid) FILTER (WHERE mode = 'ExclusiveLock'), 0),
			coalesce(max(application_name) FILTER (WHERE mode = 'ExclusiveLock'), '')
		FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
		WHERE locktype = 'advisory' AND granted AND classid = %d AND objid = %d AND objsubid = 2
			AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())`, sql.ParkLock1, sql.ParkLock2)
	var shared, holder int
	var name string
	if err := e.ask(ctx, query, &shared, &holder, &name); err != nil {
		return finding{}, err
	}
	switch {
	case holder != 0 && name == "rowcast park lock":
		return fine("a hub is parked: INSERTs ring it"), nil
	case holder != 0:
		return finding{
			warning, fmt.Sprintf("a session that is no hub holds it (pid %d, application %q): every INSERT rings, as if all hubs slept", holder, name),
			fmt.Sprintf("SELECT pg_terminate_backend(%d);", holder),
		}, nil
	case shared > 0:
		return fine("no hub is parked; transactions that did not ring and are still open: %d", shared), nil
	}
	return fine("no hub is parked: INSERTs do not ring"), nil
}
