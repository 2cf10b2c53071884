package doctor

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"

	"rowcast/cmd/internal/terminal"
	"rowcast/sql"
)

// role checks that the role of an app exists, and that it is not the role of a hub or a superuser.
func (e *Examination) role(ctx context.Context) (finding, error) {
	var role string
	var exists, super, owns bool
	// owns is true for a role with the rights of the owner of the table epoch. Such a role has all rights of a hub, but
	// it may be the role of an app. owns is also true if the table is missing. sql.Missing then ignores the rights on
	// the table, so a role that may only read could look like the role of a hub.
	const query = `SELECT quote_ident($1::text), EXISTS (SELECT FROM pg_roles WHERE rolname = $1::text),
		EXISTS (SELECT FROM pg_roles WHERE rolname = $1::text AND rolsuper),
		NOT EXISTS (SELECT FROM pg_class WHERE relnamespace = to_regnamespace('rowcast') AND relname = 'epoch'
			AND NOT pg_has_role((SELECT oid FROM pg_roles WHERE rolname = $1::text), relowner, 'USAGE'))`
	if err := e.tx.QueryRow(ctx, query, e.Role).Scan(&role, &exists, &super, &owns); err != nil {
		return finding{}, err
	}
	e.quoted = terminal.Printable(role)
	switch {
	case !exists:
		return finding{failure, fmt.Sprintf("the role %s does not exist", e.quoted), fmt.Sprintf("CREATE ROLE %s LOGIN;", e.quoted)}, nil
	case super:
		return finding{warning, fmt.Sprintf("the role %s is a superuser, and an app should not be", e.quoted), "let the app connect as another role"}, nil
	case !owns:
		missing, err := sql.Missing(ctx, e.tx, e.Role, sql.HubRights()...)
		if err != nil || len(missing) == 0 {
			return finding{failure, "this looks like the role of a hub, which needs more rights than an app", "run rowcast doctor as that role, without --role"}, err
		}
	}
	return ok("the role %s exists", e.quoted), nil
}

// appRights checks that the role has the rights of an app, or the rights of a sender.
func (e *Examination) appRights(ctx context.Context) (finding, error) {
	app, err := sql.Missing(ctx, e.tx, e.Role, sql.AppRights()...)
	if err != nil {
		return finding{}, err
	}
	if len(app) == 0 {
		return e.inboxRights(ctx)
	}
	sender, err := sql.Missing(ctx, e.tx, e.Role, sql.SenderRights()...)
	if err != nil {
		return finding{}, err
	}
	if len(sender) == 0 {
		return ok("the role has the rights of a sender (--sender-role), which do not include reading notifications"), nil
	}
	fix, err := e.migrate(ctx, true)
	return finding{failure, fmt.Sprintf("the role lacks rights that an app needs: %s; for an app that only sends, --sender-role grants fewer rights", list(app)), fix}, err
}

// inboxRights checks that a role with the other rights of an app may call the functions of the inbox, if the inbox is
// installed. A role lacks these rights if it was granted the other rights before the inbox was installed.
func (e *Examination) inboxRights(ctx context.Context) (finding, error) {
	missing, err := sql.Missing(ctx, e.tx, e.Role, sql.InboxRights()...) // Missing ignores functions that do not exist
	if err != nil || len(missing) == 0 {
		return ok("the role has the rights of an app (--app-role)"), err
	}
	fix, err := e.migrate(ctx, true)
	return finding{warning, "the role has the rights of an app, but may not call the functions of the inbox", fix}, err
}

// excess looks for rights that an app does not need. REVOKE takes away only rights that were granted to the role
// itself. For a role with the rights of the owner of the schema, excess prints no REVOKE: rowcast migrate needs these
// rights, and so does a hub that connects as the same role.
func (e *Examination) excess(ctx context.Context) (finding, error) {
	var owns bool
	const query = "SELECT pg_has_role($1::name, nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'rowcast'"
	if err := e.tx.QueryRow(ctx, query, e.Role).Scan(&owns); err != nil {
		return finding{}, err
	}
	if owns {
		return finding{warning, "the role has the rights of the owner of the schema, which an app does not need", "let the app connect as another role, and grant it the rights of an app with rowcast migrate --app-role"}, nil
	}
	rights, err := sql.Excess(ctx, e.tx, e.Role)
	if err != nil {
		return finding{}, err
	}
	if len(rights) == 0 {
		return ok("the role cannot change or delete notifications"), nil
	}
	var fixes []string
	for _, right := range rights {
		fixes = append(fixes, terminal.Printable(fmt.Sprintf("REVOKE %s FROM %s;", right, e.quoted)))
		if right.Privilege == "INSERT" && right.Name == "notifications" && right.Columns == nil { // REVOKE takes away the right for columns, too
			fixes = append(fixes, fmt.Sprintf("GRANT %s TO %s;", insertRight(), e.quoted))
		}
	}
	fixes = append(fixes, "if every role has the right: revoke it FROM PUBLIC; if the role has it as a member of another role: let the app connect as another role")
	return finding{warning, "the role has rights that an app does not need: " + terminal.Printable(list(rights)), strings.Join(fixes, "\n")}, nil
}

// insertRight returns the right of an app to insert notifications.
func insertRight() sql.Right {
	rights := sql.AppRights()
	return rights[slices.IndexFunc(rights, func(r sql.Right) bool { return r.Privilege == "INSERT" })]
}

// senders looks for roles that may insert notifications, but may not call the functions of PostgreSQL that an INSERT
// calls with the rights of its role. By default every role may call these functions. A superuser can revoke the right.
func (e *Examination) senders(ctx context.Context) (finding, error) {
	rows, err := e.tx.Query(ctx, uncallable, e.Role)
	if err != nil {
		return finding{}, err
	}
	grants, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return finding{}, err
	}
	if len(grants) == 0 {
		return ok("the roles that may insert notifications may call what an INSERT calls"), nil
	}
	for i := range grants {
		grants[i] = terminal.Printable(grants[i])
	}
	return finding{failure, "INSERTs of some roles fail, because the roles may not call functions of PostgreSQL that an INSERT calls; a superuser can grant this", strings.Join(grants, "\n")}, nil
}

// uncallable is a query for the missing grants of one role, or of all roles with a grant to insert notifications. It
// finds the table even if the role of the session has no USAGE on the schema.
//
// PostgreSQL checks the right to call a function that a constraint, a default, an index or the condition of a trigger
// calls. It also checks the right to call the function of an operator. The stored expressions of these objects contain
// the OIDs of the functions. The catalog does not record which functions the body of ring() calls, so the query names
// those functions itself.
const uncallable = `WITH home AS (SELECT oid, relacl FROM pg_class WHERE relnamespace = to_regnamespace('rowcast') AND relname = 'notifications'),
	expressions (expression) AS (
		SELECT conbin::text FROM pg_constraint JOIN home ON conrelid = home.oid
		UNION ALL SELECT adbin::text FROM pg_attrdef JOIN home ON adrelid = home.oid
		UNION ALL SELECT tgqual::text FROM pg_trigger JOIN home ON tgrelid = home.oid
		UNION ALL SELECT concat_ws(' ', indexprs::text, indpred::text) FROM pg_index JOIN home ON indrelid = home.oid),
	calls AS (
		SELECT found[1]::oid AS call FROM expressions, regexp_matches(expression, ':(?:op)?funcid (\d+)', 'g') found
		UNION SELECT unnest('{pg_catalog.pg_notify(text\, text),pg_catalog.current_setting(text\, boolean)}'::regprocedure[])),
	roles AS (SELECT oid, rolname FROM pg_roles WHERE CASE WHEN $1::text <> '' THEN rolname = $1 ELSE oid IN (
		SELECT grantee FROM home, aclexplode(relacl) WHERE privilege_type = 'INSERT'
		UNION SELECT grantee FROM home JOIN pg_attribute ON attrelid = home.oid, aclexplode(attacl) WHERE privilege_type = 'INSERT') END)
	SELECT format('GRANT EXECUTE ON FUNCTION %I.%I(%s) TO %I;', nspname, proname, oidvectortypes(proargtypes), rolname)
	FROM roles, calls JOIN pg_proc p ON p.oid = call JOIN pg_namespace n ON n.oid = pronamespace
	WHERE NOT has_function_privilege(roles.oid, p.oid, 'EXECUTE') ORDER BY rolname, nspname, proname, p.oid`

// policies checks whether row level security restricts the role.
func (e *Examination) policies(ctx context.Context) (finding, error) {
	var restricted bool
	const query = `SELECT EXISTS (SELECT FROM pg_class, pg_roles r WHERE relnamespace = to_regnamespace('rowcast') AND relname = 'notifications' AND relrowsecurity
		AND rolname = $1::text AND NOT rolsuper AND NOT rolbypassrls AND (relforcerowsecurity OR NOT pg_has_role(r.oid, relowner, 'USAGE')))`
	if err := e.tx.QueryRow(ctx, query, e.Role).Scan(&restricted); err != nil {
		return finding{}, err
	}
	if restricted {
		return finding{failure, "the table rowcast.notifications has row level security, which can refuse the notifications of this role", "ALTER TABLE rowcast.notifications DISABLE ROW LEVEL SECURITY;"}, nil
	}
	return ok("no row security policy restricts the role"), nil
}

// readOnly looks for settings that make the transactions of roles that may insert notifications read-only.
func (e *Examination) readOnly(ctx context.Context) (finding, error) {
	rows, err := e.tx.Query(ctx, readOnlySettings, e.Role)
	if err != nil {
		return finding{}, err
	}
	resets, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return finding{}, err
	}
	if len(resets) == 0 {
		return ok("no setting makes the transactions of an app read-only"), nil
	}
	for i := range resets {
		resets[i] = terminal.Printable(resets[i])
	}
	return finding{failure, "default_transaction_read_only is on for roles that may insert notifications, so their INSERTs fail", "SET default_transaction_read_only = off; -- in the session that runs the next statements\n" + strings.Join(resets, "\n")}, nil
}

// readOnlySettings is a query for the statements that reset default_transaction_read_only. If there are several
// settings, the first in this order has effect: for the role in this database, for the role, for this database, for all
// roles, for the server. A superuser may insert, too, but the query ignores a superuser's own setting unless that role
// is examined.
const readOnlySettings = `WITH home AS (SELECT oid, relnamespace FROM pg_class WHERE relnamespace = to_regnamespace('rowcast') AND relname = 'notifications'),
	here AS (SELECT oid, datname FROM pg_database WHERE datname = current_database()),
	roles AS (SELECT r.oid, rolname, rolsuper FROM pg_roles r, home
		WHERE CASE WHEN $1::text <> '' THEN rolname = $1 ELSE rolcanlogin AND has_any_column_privilege(r.oid, home.oid, 'INSERT') END),
	settings AS (SELECT setdatabase, setrole, split_part(setting, '=', 2)::boolean AS is_on FROM pg_db_role_setting, unnest(setconfig) setting
		WHERE setting LIKE 'default\_transaction\_read\_only=%' AND setdatabase IN (0, (SELECT oid FROM here))),
	effective AS (SELECT DISTINCT ON (roles.oid) rolname, rolsuper, setdatabase, setrole, is_on FROM roles LEFT JOIN settings ON setrole IN (0, roles.oid)
		ORDER BY roles.oid, setrole <> 0 DESC NULLS LAST, setdatabase <> 0 DESC)
	SELECT DISTINCT CASE WHEN setrole IS NULL THEN E'ALTER SYSTEM RESET default_transaction_read_only;\nSELECT pg_reload_conf();'
			WHEN setrole = 0 AND setdatabase = 0 THEN 'ALTER ROLE ALL RESET default_transaction_read_only;'
			WHEN setrole = 0 THEN format('ALTER DATABASE %I RESET default_transaction_read_only;', datname)
			ELSE format('ALTER ROLE %I %sRESET default_transaction_read_only;', rolname, CASE WHEN setdatabase <> 0 THEN format('IN DATABASE %I ', datname) ELSE '' END)
		END FROM effective, here
	WHERE CASE WHEN setrole IS NULL THEN EXISTS (SELECT FROM pg_settings WHERE name = 'default_transaction_read_only' AND setting = 'on' AND source IN ('configuration file', 'command line'))
		ELSE is_on AND NOT (rolsuper AND setrole <> 0 AND $1 = '') END ORDER BY 1`
