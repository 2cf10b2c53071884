package doctor

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"

	"rowcast/cmd/internal/terminal"
	"rowcast/sql"
)

func (e *Examination) schema(ctx context.Context) (finding, error) {
	var there bool
	if err := e.ask(ctx, "SELECT to_regnamespace('rowcast') IS NOT NULL", &there); err != nil {
		return finding{}, err
	}
	if !there {
		return e.unmigrated(ctx, "there is no schema rowcast in this database")
	}
	return ok("the schema rowcast exists"), nil
}

// unmigrated returns a failure that rowcast migrate mends.
func (e *Examination) unmigrated(ctx context.Context, text string) (finding, error) {
	fix, err := e.migrate(ctx, false)
	return finding{failure, text, fix}, err
}

// migrate returns the command that mends the schema, and says who must run it if the role of the session cannot. If
// e.Role is set, the command also grants this role the rights of an app. Otherwise it grants the role of the session
// the rights of a hub, if grant is set or another role must run the command.
func (e *Examination) migrate(ctx context.Context, grant bool) (string, error) {
	const query = `SELECT pg_get_userbyid(owner.oid), of, current_user, CASE WHEN of = 'schema'
			THEN owner.rolname = current_user OR owner.rolsuper AND (SELECT rolsuper FROM pg_roles WHERE rolname = current_user)
			ELSE has_database_privilege(database.oid, 'CREATE') END
		FROM pg_database database LEFT JOIN pg_namespace ON nspname = 'rowcast',
			LATERAL (SELECT CASE WHEN nspname IS NULL THEN 'database' ELSE 'schema' END) kind (of),
			pg_roles owner
		WHERE datname = current_database() AND owner.oid = coalesce(nspowner, datdba)`
	var owner, of, role string
	var may bool
	if err := e.ask(ctx, query, &owner, &of, &role, &may); err != nil {
		return "", fmt.Errorf("find who can run rowcast migrate: %w", err)
	}
	command := "rowcast migrate"
	switch {
	case e.Role != "":
		command += " --app-role " + terminal.ShellQuote(e.Role)
	case grant || !may:
		command += " --hub-role " + terminal.ShellQuote(role)
	}
	if !may {
		command = fmt.Sprintf("as the owner of the %s (%q): %s", of, owner, command)
	}
	return terminal.Printable(command), nil
}

func (e *Examination) rights(ctx context.Context) (finding, error) {
	role, missing, err := e.missing(ctx, slices.Concat(sql.HubRights(), sql.InboxRights())) // Missing ignores functions that do not exist
	if err != nil || len(missing) == 0 {
		return ok("the role has the rights that a hub needs to read rows"), err
	}
	var sends bool
	if err := e.ask(ctx, insertsQuery, &sends); err != nil {
		return finding{}, fmt.Errorf("check the right to insert: %w", err)
	}
	if sends {
		return finding{
			failure, fmt.Sprintf("the role %s lacks rights that a hub needs; it can insert notifications, so it is probably the role of an app", role),
			"connect as the role of the hub, or check the role of an app with rowcast doctor --role",
		}, nil
	}
	fix, err := e.migrate(ctx, true)
	return finding{failure, fmt.Sprintf("the role %s lacks rights that a hub needs: %s", role, list(missing)), fix}, err
}

// insertsQuery is a query for whether the role of the session may insert notifications. It finds the table even if the
// role has no USAGE on the schema.
const insertsQuery = `SELECT coalesce(bool_or(has_any_column_privilege(oid, 'INSERT')), false) FROM pg_class
	WHERE relnamespace = to_regnamespace('rowcast') AND relname = 'notifications'`

// retention checks whether a hub can delete old rows. A hub with --retain=0 does not need to.
func (e *Examination) retention(ctx context.Context) (finding, error) {
	role, missing, err := e.missing(ctx, sql.RetentionRights())
	if err != nil {
		return finding{}, err
	}
	if len(missing) == 0 {
		return e.deletes(ctx)
	}
	fix, err := e.migrate(ctx, true)
	return finding{warning, fmt.Sprintf("the role %s cannot delete old rows: start the hub with --retain=0, or grant the rights", role), fix}, err
}

// deletes checks whether a publication keeps a hub from deleting old rows. PostgreSQL refuses a DELETE that a
// publication publishes if the table has no replica identity, or if the filter of the publication reads a column that
// the replica identity, by default the primary key, does not have. EXPLAIN fails with the same error.
func (e *Examination) deletes(ctx context.Context) (finding, error) {
	for _, statement := range []string{"DELETE FROM rowcast.notifications", "UPDATE rowcast.history SET horizon = horizon"} {
		err := pgx.BeginFunc(ctx, e.tx, func(savepoint pgx.Tx) error {
			_, err := savepoint.Exec(ctx, "EXPLAIN "+statement)
			return err
		})
		refused, ok := errors.AsType[*pgconn.PgError](err)
		if ok && (refused.Code == "42P10" || refused.Code == "55000") { // invalid_column_reference, object_not_in_prerequisite_state
			text := refused.Message
			if refused.Detail != "" {
				text += ": " + refused.Detail
			}
			return finding{
				warning, "a publication keeps hubs from deleting old rows: " + terminal.Printable(text),
				"ALTER PUBLICATION … SET (publish = 'insert'), drop the publication, or start the hub with --retain=0",
			}, nil
		}
		if err != nil {
			return finding{}, err
		}
	}
	return ok("the role can delete old rows"), nil
}

// missing returns the name of the session's role, quoted for SQL, and the rights that it lacks.
func (e *Examination) missing(ctx context.Context, rights []sql.Right) (role string, missing []sql.Right, err error) {
	var name string
	if err := e.ask(ctx, "SELECT current_user, quote_ident(current_user)", &name, &role); err != nil {
		return "", nil, err
	}
	missing, err = sql.Missing(ctx, e.tx, name, rights...)
	return terminal.Printable(role), missing, err
}

// list returns the rights in the syntax of GRANT.
func list(rights []sql.Right) string {
	var texts []string
	for _, right := range rights {
		texts = append(texts, right.String())
	}
	return strings.Join(texts, ", ")
}

func (e *Examination) rowSecurity(ctx context.Context) (finding, error) {
	var filtered bool
	var statement string
	const query = `SELECT coalesce(bool_or(row_security_active(oid)), false),
		coalesce(string_agg(format('ALTER TABLE rowcast.%I DISABLE ROW LEVEL SECURITY;', relname), E'\n' ORDER BY relname) FILTER (WHERE relrowsecurity), '')
		FROM pg_class WHERE relnamespace = 'rowcast'::regnamespace AND relkind = 'r'`
	if err := e.ask(ctx, query, &filtered, &statement); err != nil {
		return finding{}, err
	}
	if filtered {
		return finding{
			failure, "row security policies apply to this role, so a hub may refuse to start",
			statement,
		}, nil
	}
	return ok("no row security policy applies to this role"), nil
}

// migrations checks the versions of the schema and of the inbox. It compares the objects of the schema for the checks
// that follow, unless this program does not know one of the versions yet.
func (e *Examination) migrations(ctx context.Context) (finding, error) {
	version, err := sql.CheckVersion(ctx, e.tx)
	if errors.Is(err, sql.ErrNoSchema) {
		return e.unmigrated(ctx, err.Error())
	}
	if err != nil {
		return finding{}, err
	}
	inbox, err := sql.InstalledInbox(ctx, e.tx)
	if err != nil {
		return finding{}, err
	}
	switch {
	case version > sql.Version():
		return newer("schema", version, sql.Version()), nil
	case inbox > sql.InboxVersion():
		return newer("inbox", inbox, sql.InboxVersion()), nil
	}
	if e.differences, err = sql.Differences(ctx, e.tx); err != nil {
		return finding{}, err
	}
	e.compared = true
	if inbox == 0 {
		return ok("the schema has the version that this rowcast needs: %d; the inbox is not installed, and rowcast serve --inbox needs it", version), nil
	}
	return ok("the schema has the version that this rowcast needs: %d; the inbox has version %d", version, inbox), nil
}

// newer returns a warning that the schema or the inbox has a version that this program does not know.
func newer(what string, version, known int64) finding {
	return finding{
		warning, fmt.Sprintf("the %s has version %d, and this rowcast knows versions up to %d, so the objects of the schema were not checked", what, version, known),
		"use the rowcast that has migrated the schema",
	}
}

// rows checks whether the table was restored from another server, and looks for rows with a transaction number that
// this server has not assigned. Such a row comes from another server, or a statement has set its xid.
func (e *Examination) rows(ctx context.Context) (finding, error) {
	err := sql.Check(ctx, e.tx)
	if errors.Is(err, sql.ErrRestored) {
		return e.unmigrated(ctx, "the table was restored from a dump of another server, and the transaction numbers of its rows mean other transactions here")
	}
	if errors.Is(err, sql.ErrNoSchema) {
		return e.unmigrated(ctx, err.Error())
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
			failure, "some rows have transaction numbers that this server has not assigned, so they are never sent",
			"remove xid from the statements of the app; UPDATE rowcast.notifications SET xid = '1' WHERE " + foreign + ";",
		}, nil
	}
	return ok("no row has a transaction number that this server will assign later"), nil
}

// ids compares the sequence of the ids with the existing ids. An INSERT fails if it gets an id that a row has. Every
// INSERT fails after the last number of the sequence.
func (e *Examination) ids(ctx context.Context) (finding, error) {
	const scarce = 1_000_000_000 // the check fails if fewer ids than this are left
	var sequence string
	var last, end, highest int64
	const find = `SELECT coalesce(max(oid::regclass::text) FILTER (WHERE has_sequence_privilege(oid, 'SELECT')), '') FROM pg_class
		WHERE oid = to_regclass(pg_get_serial_sequence('rowcast.notifications', 'id'))`
	if err := e.ask(ctx, find, &sequence); err != nil {
		return finding{}, err
	}
	if sequence == "" {
		return ok("only a role with SELECT on the sequence of the ids can see whether it is behind the ids of the rows"), nil
	}
	query := fmt.Sprintf(`SELECT last_value - (NOT is_called)::int, (SELECT seqmax FROM pg_sequence WHERE seqrelid = ids.tableoid),
		(SELECT coalesce(max(id), 0) FROM rowcast.notifications WHERE id < %d) FROM %s AS ids`, int64(sql.MaxID), sequence)
	if err := e.ask(ctx, query, &last, &end, &highest); err != nil {
		return finding{}, err
	}
	fix := fmt.Sprintf("SELECT setval(pg_get_serial_sequence('rowcast.notifications', 'id'), (SELECT coalesce(max(id), 1) FROM rowcast.notifications WHERE id < %d));", int64(sql.MaxID))
	switch {
	case last < highest:
		return finding{failure, fmt.Sprintf("the sequence of the ids is at %d, and the highest id is %d, so INSERTs get ids that rows have, and fail", last, highest), fix}, nil
	case end-last < scarce:
		return finding{failure, fmt.Sprintf("the sequence of the ids is at %d, so only %d ids are left, and INSERTs fail after that", last, end-last), fix}, nil
	}
	return ok("the sequence of the ids is not behind the ids of the rows"), nil
}

func (e *Examination) hubs(ctx context.Context) (finding, error) {
	var hubs int
	const query = "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND application_name = 'rowcast listener'"
	if err := e.ask(ctx, query, &hubs); err != nil {
		return finding{}, err
	}
	if hubs == 0 {
		return finding{warning, "no hub is connected", "rowcast serve"}, nil
	}
	return ok("hubs connected: %d", hubs), nil
}

// parkLock reports which session or prepared transaction holds the park lock exclusively. While one holds it exclusively,
// INSERTs send notifications. Otherwise the hubs poll. A prepared transaction has no process.
func (e *Examination) parkLock(ctx context.Context) (finding, error) {
	query := fmt.Sprintf(`SELECT
			count(*) FILTER (WHERE mode = 'ShareLock'),
			coalesce(max(pid) FILTER (WHERE mode = 'ExclusiveLock'), 0),
			coalesce(max(application_name) FILTER (WHERE mode = 'ExclusiveLock'), ''),
			count(*) FILTER (WHERE mode = 'ExclusiveLock' AND pid IS NULL)
		FROM pg_locks LEFT JOIN pg_stat_activity USING (pid)
		WHERE locktype = 'advisory' AND granted AND classid = %d AND objid = %d AND objsubid = 2
			AND pg_locks.database = (SELECT oid FROM pg_database WHERE datname = current_database())`, sql.ParkLock1, sql.ParkLock2)
	var shared, holder, prepared int
	var name string
	if err := e.ask(ctx, query, &shared, &holder, &name, &prepared); err != nil {
		return finding{}, err
	}
	switch {
	case holder != 0 && name == "rowcast park lock":
		return ok("a hub is idle in LISTEN, and INSERTs notify it"), nil
	case holder != 0:
		return finding{
			warning, fmt.Sprintf("a session that is not a hub holds the park lock (pid %d, application %q), so every INSERT sends a NOTIFY", holder, name),
			fmt.Sprintf("SELECT pg_terminate_backend(%d);", holder),
		}, nil
	case prepared > 0:
		return finding{
			warning, "a prepared transaction holds the park lock, so every INSERT sends a NOTIFY, and the hubs poll", sql.EndPrepared,
		}, nil
	case shared > 0:
		return ok("no hub is idle in LISTEN; open transactions that inserted without a notification: %d", shared), nil
	}
	return ok("no hub is idle in LISTEN, so INSERTs send no notification"), nil
}
