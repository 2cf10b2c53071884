package sql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Roles are the names of the roles to which [Grant] grants rights. Apps get [AppRights], and Senders get
// [SenderRights]. Hubs get [HubRights] and [RetentionRights]. If the inbox is installed, apps and hubs also get
// [InboxRights].
type Roles struct{ Apps, Senders, Hubs []string }

// A Right is a privilege on an object in the schema.
type Right struct {
	Privilege string
	Columns   []string // the columns of a table; nil for the whole object
	Kind      string   // SCHEMA, TABLE, SEQUENCE or FUNCTION
	Name      string   // the name in the schema, without the arguments of a function; "" for the schema itself
}

// AppRights returns the rights of an app: what frameworks need with their default statements. The role can insert rows,
// read all rows, and call rowcast.cursor(). It cannot update or delete rows, and cannot set xid.
func AppRights() []Right {
	return []Right{
		{"USAGE", nil, "SCHEMA", ""},
		{"INSERT", []string{"id", "recipient", "event", "data", "created_at"}, "TABLE", "notifications"},
		{"SELECT", nil, "TABLE", "notifications"},
		{"USAGE", nil, "SEQUENCE", "notifications_id_seq"}, // for lastval and currval
		{"EXECUTE", nil, "FUNCTION", "cursor"},
	}
}

// SenderRights returns the rights of a role that only sends notifications. The role can insert rows with RETURNING id,
// and can call rowcast.cursor(). The only column that it can read is id.
func SenderRights() []Right {
	return []Right{
		{"USAGE", nil, "SCHEMA", ""},
		{"INSERT", []string{"recipient", "event", "data", "created_at"}, "TABLE", "notifications"},
		{"SELECT", []string{"id"}, "TABLE", "notifications"},
		{"EXECUTE", nil, "FUNCTION", "cursor"},
	}
}

// HubRights returns the rights of a hub that does not delete old rows.
func HubRights() []Right {
	rights := []Right{{"USAGE", nil, "SCHEMA", ""}}
	for _, table := range []string{"notifications", "history", "migrations", "epoch"} {
		rights = append(rights, Right{"SELECT", nil, "TABLE", table})
	}
	rights = append(rights, Right{"INSERT", nil, "TABLE", "epoch"})
	for _, function := range []string{"tag", "server", "database_tag", "epoch_tag", "anchor_tag", "cursor"} {
		rights = append(rights, Right{"EXECUTE", nil, "FUNCTION", function})
	}
	return rights
}

// RetentionRights returns the rights that a hub needs to delete old rows, in addition to [HubRights].
func RetentionRights() []Right {
	return []Right{
		{"DELETE", nil, "TABLE", "notifications"},
		{"UPDATE", []string{"horizon"}, "TABLE", "history"},
	}
}

// String returns the right in the syntax of GRANT, without the word GRANT and without the role.
func (r Right) String() string {
	columns := ""
	if r.Columns != nil {
		columns = " (" + strings.Join(r.Columns, ", ") + ")"
	}
	on := r.Kind + " " + schema
	switch r.Kind {
	case "TABLE":
		on = schema + "." + r.Name
	case "FUNCTION", "SEQUENCE":
		on += "." + r.Name
	}
	return r.Privilege + columns + " ON " + on
}

// columns returns the columns of the right, or one empty name if the right is for the whole object.
func (r Right) columns() []string {
	if r.Columns == nil {
		return []string{""}
	}
	return r.Columns
}

// A grant gives a right to a role.
type grant struct {
	Right
	role string
}

func (g grant) String() string {
	return "GRANT " + g.Right.String() + " TO " + pgx.Identifier{g.role}.Sanitize()
}

// grants returns the grants for all roles. They include the rights for the inbox if inbox is true.
func (r Roles) grants(inbox bool) (all []grant) {
	var more []Right
	if inbox {
		more = InboxRights()
	}
	for _, group := range []struct {
		roles  []string
		rights []Right
	}{
		{r.Apps, slices.Concat(AppRights(), more)},
		{r.Senders, SenderRights()},
		{r.Hubs, slices.Concat(HubRights(), RetentionRights(), more)},
	} {
		for _, role := range group.roles {
			for _, right := range group.rights {
				all = append(all, grant{right, role})
			}
		}
	}
	return all
}

// Grant grants the rights to the roles in one transaction. It revokes nothing.
func Grant(ctx context.Context, dsn string, roles Roles) error {
	conn, err := connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	// Without the lock, a session can fail with "tuple concurrently updated" if another one grants rights on the same
	// object at the same time.
	return Migrator{DSN: dsn}.locked(ctx, conn, func(tx pgx.Tx) error { return roles.grant(ctx, tx) })
}

func (r Roles) grant(ctx context.Context, tx pgx.Tx) error {
	for _, role := range slices.Concat(r.Apps, r.Senders, r.Hubs) {
		var exists bool
		// GRANT would accept two kinds of names that are not roles: "public", even in quotes, and names longer than 63
		// bytes, which it truncates.
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1::text)", role).Scan(&exists); err != nil {
			return fmt.Errorf("find the role %q: %w", role, err)
		}
		if !exists {
			return fmt.Errorf("the role %q does not exist: create it with CREATE ROLE %s LOGIN", role, pgx.Identifier{role}.Sanitize())
		}
	}
	inbox, err := InstalledInbox(ctx, tx)
	if err != nil {
		return err
	}
	grants := r.grants(inbox > 0)
	for _, g := range grants {
		if _, err := tx.Exec(ctx, g.String()); err != nil {
			return fmt.Errorf("%s: %w", g, err)
		}
	}
	// If the current role may grant only some of the rights, GRANT succeeds with warnings.
	for _, g := range grants {
		if missing, err := Missing(ctx, tx, g.role, g.Right); err != nil {
			return err
		} else if len(missing) > 0 {
			return fmt.Errorf("%s had no effect: run it as the owner of the schema", g)
		}
	}
	return nil
}

// A querier is a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// has is a query that returns whether a role has a right. It finds the object by its OID, because PostgreSQL resolves
// no names in a schema on which the current role has no USAGE. It also returns true if the object does not exist in the
// schema. Without the schema, it returns no row.
const has = `SELECT coalesce(CASE
		WHEN $3::text = 'SCHEMA' THEN has_schema_privilege($1::name, home, $2::text)
		WHEN $3 = 'SEQUENCE' THEN has_sequence_privilege($1::name, (SELECT oid FROM pg_class WHERE relnamespace = home AND relname = $4::text), $2)
		WHEN $3 = 'FUNCTION' THEN has_function_privilege($1::name, (SELECT oid FROM pg_proc WHERE pronamespace = home AND proname = $4), $2)
		WHEN $5::text = '' THEN has_table_privilege($1::name, (SELECT oid FROM pg_class WHERE relnamespace = home AND relname = $4), $2)
		ELSE has_column_privilege($1::name, (SELECT oid FROM pg_class WHERE relnamespace = home AND relname = $4), $5, $2)
	END, true) FROM (SELECT oid AS home FROM pg_namespace WHERE nspname = 'rowcast') ours`

// Missing returns which of the rights the role does not have. A right on an object that does not exist is not missing.
func Missing(ctx context.Context, db querier, role string, rights ...Right) (missing []Right, err error) {
	for _, right := range rights {
		all := true
		for _, column := range right.columns() {
			var granted bool
			if err := db.QueryRow(ctx, has, role, right.Privilege, right.Kind, right.Name, column).Scan(&granted); err != nil {
				return nil, fmt.Errorf("check the right %s: %w", right, err)
			}
			all = all && granted
		}
		if !all {
			missing = append(missing, right)
		}
	}
	return missing, nil
}

// Excess returns the rights of a role with which it can change or delete notifications, or disturb the hubs. An app
// needs none of them. If the role has a right for a whole table, Excess leaves out the same right for its columns.
func Excess(ctx context.Context, db rowsQuerier, role string) ([]Right, error) {
	rows, err := db.Query(ctx, excess, role)
	if err != nil {
		return nil, fmt.Errorf("read the rights of the role: %w", err)
	}
	rights, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Right])
	if err != nil {
		return nil, fmt.Errorf("read the rights of the role: %w", err)
	}
	return rights, nil
}

// excess is a query for the rights of a role. It leaves out rights to read and to execute, USAGE, and the right to set
// single columns other than xid in an INSERT of a notification. It needs no rights on the schema.
const excess = `WITH home AS (SELECT oid FROM pg_namespace WHERE nspname = 'rowcast'),
	ours AS (SELECT c.oid, relname, relkind FROM pg_class c JOIN home ON relnamespace = home.oid WHERE relkind IN ('r', 'S'))
	SELECT privilege, columns, kind, name FROM (
		SELECT p, NULL::text[], 'TABLE', relname::text FROM ours, unnest('{INSERT,UPDATE,DELETE,TRUNCATE,REFERENCES,TRIGGER}'::text[]
			|| CASE WHEN current_setting('server_version_num')::int >= 170000 THEN '{MAINTAIN}'::text[] ELSE '{}' END) p
			WHERE relkind = 'r' AND has_table_privilege($1::name, oid, p)
		UNION ALL SELECT p, array_agg(quote_ident(attname) ORDER BY attnum), 'TABLE', relname::text
			FROM ours JOIN pg_attribute ON attrelid = oid, unnest('{INSERT,UPDATE,REFERENCES}'::text[]) p
			WHERE relkind = 'r' AND attnum > 0 AND NOT attisdropped AND NOT has_table_privilege($1::name, oid, p)
				AND has_column_privilege($1::name, oid, attnum, p) AND NOT (relname = 'notifications' AND p = 'INSERT' AND attname <> 'xid')
			GROUP BY relname, p
		UNION ALL SELECT 'UPDATE', NULL, 'SEQUENCE', relname::text FROM ours WHERE CASE relkind WHEN 'S' THEN has_sequence_privilege($1::name, oid, 'UPDATE') END
		UNION ALL SELECT 'CREATE', NULL, 'SCHEMA', '' FROM home WHERE has_schema_privilege($1::name, oid, 'CREATE')
	) rights (privilege, columns, kind, name) ORDER BY kind DESC, name, privilege, columns`

// WatcherGrants returns the GRANT statements for rights that the owners of watched tables lack. Without these rights,
// statements on a watched table fail, or send nothing if OnError is skip.
func WatcherGrants(ctx context.Context, db rowsQuerier) ([]string, error) {
	rows, err := db.Query(ctx, watcherGrants)
	if err != nil {
		return nil, fmt.Errorf("read the rights of the owners of watched tables: %w", err)
	}
	grants, err := pgx.CollectRows(rows, pgx.RowTo[string])
	if err != nil {
		return nil, fmt.Errorf("read the rights of the owners of watched tables: %w", err)
	}
	return grants, nil
}

// watcherGrants is a query for GRANT statements. It checks the rights that the SQL function rowcast.watch_function()
// grants. It leaves out the rights on watch_type(), which only rowcast.watch() needs, and on watch_refusal(), which is
// called only after rowcast.notifications has refused a row.
const watcherGrants = `WITH owners AS (SELECT DISTINCT pronamespace AS home, proowner AS owner FROM pg_proc
		WHERE pronamespace = to_regnamespace('rowcast') AND ` + ofWatchedTable + `)
	SELECT format('GRANT %s TO %I;', what, pg_get_userbyid(owner)) FROM owners, LATERAL (
		SELECT 'USAGE ON SCHEMA rowcast' WHERE NOT has_schema_privilege(owner, home, 'USAGE')
		UNION ALL SELECT format('INSERT (%s) ON rowcast.notifications', string_agg(column_name, ', '))
			FROM pg_class c, unnest('{recipient,event,data}'::text[]) column_name
			WHERE relnamespace = home AND relname = 'notifications' AND NOT has_column_privilege(owner, c.oid, column_name, 'INSERT') HAVING count(*) > 0
		UNION ALL SELECT format('EXECUTE ON FUNCTION rowcast.%I(%s)', proname, oidvectortypes(proargtypes)) FROM pg_proc
			WHERE pronamespace = home AND proname IN ('recipients', 'watch_query') AND NOT has_function_privilege(owner, oid, 'EXECUTE')
	) missing (what) ORDER BY 1`
