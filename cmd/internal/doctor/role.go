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
	// The owner of the schema has the rights of a hub, too. Without the table, no right on it is missing.
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
		return ok("the role has the rights of an app (--app-role)"), nil
	}
	sender, err := sql.Missing(ctx, e.tx, e.Role, sql.SenderRights()...)
	if err != nil {
		return finding{}, err
	}
	if len(sender) == 0 {
		return ok("the role has the rights of a sender (--sender-role): it can insert notifications and cannot read them"), nil
	}
	fix, err := e.migrate(ctx, true)
	return finding{failure, fmt.Sprintf("the role lacks rights that an app needs: %s; for an app that only sends, --sender-role grants fewer rights", list(app)), fix}, err
}

// excessive are the rights that an app does not need: with them it can change or delete notifications, or disturb the
// hubs. A right for a whole table comes before the same right for its columns.
var excessive = []sql.Right{
	{Privilege: "INSERT", Columns: []string{"xid"}, Kind: "TABLE", Name: "notifications"},
	{Privilege: "UPDATE", Kind: "TABLE", Name: "notifications"},
	{Privilege: "UPDATE", Columns: []string{"id"}, Kind: "TABLE", Name: "notifications"},
	{Privilege: "UPDATE", Columns: []string{"recipient"}, Kind: "TABLE", Name: "notifications"},
	{Privilege: "UPDATE", Columns: []string{"event"}, Kind: "TABLE", Name: "notifications"},
	{Privilege: "UPDATE", Columns: []string{"data"}, Kind: "TABLE", Name: "notifications"},
	{Privilege: "UPDATE", Columns: []string{"created_at"}, Kind: "TABLE", Name: "notifications"},
	{Privilege: "UPDATE", Columns: []string{"xid"}, Kind: "TABLE", Name: "notifications"},
	{Privilege: "DELETE", Kind: "TABLE", Name: "notifications"},
	{Privilege: "TRUNCATE", Kind: "TABLE", Name: "notifications"},
	{Privilege: "TRIGGER", Kind: "TABLE", Name: "notifications"},
	{Privilege: "UPDATE", Kind: "SEQUENCE", Name: "notifications_id_seq"},
	{Privilege: "INSERT", Kind: "TABLE", Name: "epoch"},
	{Privilege: "DELETE", Kind: "TABLE", Name: "epoch"},
	{Privilege: "UPDATE", Kind: "TABLE", Name: "history"},
	{Privilege: "UPDATE", Columns: []string{"horizon"}, Kind: "TABLE", Name: "history"},
	{Privilege: "DELETE", Kind: "TABLE", Name: "history"},
	{Privilege: "INSERT", Kind: "TABLE", Name: "migrations"},
	{Privilege: "CREATE", Kind: "SCHEMA"},
}

// excess looks for rights that an app does not need. REVOKE takes away only rights that were granted to the role itself.
func (e *Examination) excess(ctx context.Context) (finding, error) {
	missing, err := sql.Missing(ctx, e.tx, e.Role, excessive...)
	if err != nil {
		return finding{}, err
	}
	var rights, fixes []string
	has := make(map[string]bool)
	for _, right := range excessive {
		whole := right
		whole.Columns = nil
		if has[whole.String()] || slices.ContainsFunc(missing, func(m sql.Right) bool { return m.String() == right.String() }) {
			continue
		}
		has[right.String()] = true
		rights = append(rights, right.String())
		fixes = append(fixes, fmt.Sprintf("REVOKE %s FROM %s;", right, e.quoted))
	}
	if len(rights) == 0 {
		return ok("the role cannot change or delete notifications"), nil
	}
	fixes = append(fixes, "if every role has the right: revoke it FROM PUBLIC; if the role has it as a member of another role, or as the owner: let the app connect as another role")
	return finding{warning, "the role has rights that an app does not need: " + strings.Join(rights, ", "), strings.Join(fixes, "\n")}, nil
}

// senders looks for roles that may insert notifications, but may not call the functions of PostgreSQL that an INSERT
// calls with the rights of its role. By default, every role may call them, and a superuser can change this.
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

// uncallable is a query for the missing grants of one role, or of all roles with a grant to insert notifications.
// It finds the table without USAGE on the schema.
const uncallable = `WITH home AS (SELECT oid, relacl FROM pg_class WHERE relnamespace = to_regnamespace('rowcast') AND relname = 'notifications')
	SELECT format('GRANT EXECUTE ON FUNCTION pg_catalog.%s TO %I;', call, rolname) FROM pg_roles,
		unnest('{"pg_notify(text, text)","pg_try_advisory_xact_lock_shared(integer, integer)","pg_current_xact_id()"}'::text[]) call
	WHERE NOT has_function_privilege(pg_roles.oid, 'pg_catalog.' || call, 'EXECUTE') AND CASE WHEN $1::text <> '' THEN rolname = $1
		ELSE pg_roles.oid IN (
			SELECT grantee FROM home, aclexplode(relacl) WHERE privilege_type = 'INSERT'
			UNION SELECT grantee FROM home JOIN pg_attribute ON attrelid = home.oid, aclexplode(attacl) WHERE privilege_type = 'INSERT') END
	ORDER BY rolname, call`
