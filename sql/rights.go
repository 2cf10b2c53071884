package sql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// Roles are those that get what they need, and nothing more: the apps', which send, and the hubs', which read and delete what is old.
type Roles struct{ Apps, Hubs []string }

// A Right is what a role may do with something in the schema.
type Right struct {
	Privilege string
	Columns   []string // nil: all, or it is no table
	Kind      string   // SCHEMA, TABLE or FUNCTION
	Name      string   // in the schema; of a function without its arguments
}

// AppRights let a role send, with the id returned as every framework wants it, and render pages from which a stream goes on. It
// can read nothing that was sent.
func AppRights() []Right {
	return []Right{
		{"USAGE", nil, "SCHEMA", ""},
		{"INSERT", []string{"recipient", "event", "data", "created_at"}, "TABLE", "notifications"},
		{"SELECT", []string{"id"}, "TABLE", "notifications"},
		{"EXECUTE", nil, "FUNCTION", "cursor"},
	}
}

// HubRights let a role read what was sent.
func HubRights() []Right {
	rights := []Right{{"USAGE", nil, "SCHEMA", ""}}
	for _, table := range []string{"notifications", "history", "migrations", "epoch"} {
		rights = append(rights, Right{"SELECT", nil, "TABLE", table})
	}
	rights = append(rights, Right{"INSERT", nil, "TABLE", "epoch"})
	for _, function := range []string{"tag", "database_tag", "epoch_tag", "anchor_tag"} {
		rights = append(rights, Right{"EXECUTE", nil, "FUNCTION", function})
	}
	return rights
}

// RetentionRights let a hub delete what is old, besides.
func RetentionRights() []Right {
	return []Right{
		{"DELETE", nil, "TABLE", "notifications"},
		{"UPDATE", []string{"horizon"}, "TABLE", "history"},
	}
}

// String is the right as GRANT takes it.
func (r Right) String() string {
	columns := ""
	if r.Columns != nil {
		columns = " (" + strings.Join(r.Columns, ", ") + ")"
	}
	on := r.Kind + " " + schema
	switch r.Kind {
	case "TABLE":
		on = schema + "." + r.Name
	case "FUNCTION":
		on += "." + r.Name
	}
	return r.Privilege + columns + " ON " + on
}

// columns are those that it is for; an empty one stands for all.
func (r Right) columns() []string {
	if r.Columns == nil {
		return []string{""}
	}
	return r.Columns
}

// A grant is a right for a role.
type grant struct {
	Right
	role string
}

func (g grant) String() string {
	return "GRANT " + g.Right.String() + " TO " + pgx.Identifier{g.role}.Sanitize()
}

// grants are all that the roles need.
func (r Roles) grants() (all []grant) {
	for _, role := range r.Apps {
		for _, right := range AppRights() {
			all = append(all, grant{right, role})
		}
	}
	for _, role := range r.Hubs {
		for _, right := range slices.Concat(HubRights(), RetentionRights()) {
			all = append(all, grant{right, role})
		}
	}
	return all
}

// Grant gives the roles what they need, all or nothing. What they have besides, they keep.
func Grant(ctx context.Context, dsn string, roles Roles) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(ctx) }()
	if err := securePath(ctx, conn); err != nil {
		return err
	}
	return pgx.BeginFunc(ctx, conn, func(tx pgx.Tx) error { return roles.grant(ctx, tx) })
}

func (r Roles) grant(ctx context.Context, tx pgx.Tx) error {
	for _, role := range slices.Concat(r.Apps, r.Hubs) {
		var exists bool
		// PUBLIC is none, though GRANT takes it for one, even quoted; nor is a name that it would cut off.
		if err := tx.QueryRow(ctx, "SELECT EXISTS (SELECT FROM pg_roles WHERE rolname = $1::text)", role).Scan(&exists); err != nil {
			return fmt.Errorf("look for the role %q: %w", role, err)
		}
		if !exists {
			return fmt.Errorf("there is no role %q: CREATE ROLE %s LOGIN", role, pgx.Identifier{role}.Sanitize())
		}
	}
	for _, g := range r.grants() {
		if _, err := tx.Exec(ctx, g.String()); err != nil {
			return fmt.Errorf("%s: %w", g, err)
		}
	}
	// Whoever may pass on only some rights gets warnings from GRANT, and no error.
	for _, g := range r.grants() {
		if missing, err := Missing(ctx, tx, g.role, g.Right); err != nil {
			return err
		} else if len(missing) > 0 {
			return fmt.Errorf("%s had no effect: it takes the owner of the schema", g)
		}
	}
	return nil
}

// A querier is a connection or a transaction.
type querier interface {
	QueryRow(ctx context.Context, sql string, args ...any) pgx.Row
}

// has asks by the catalog's numbers: in a schema that may not be used, names cannot be asked about. What is not there is not missing.
const has = `SELECT coalesce(CASE
		WHEN $3::text = 'SCHEMA' THEN has_schema_privilege($1::name, home, $2::text)
		WHEN $3 = 'FUNCTION' THEN has_function_privilege($1::name, (SELECT oid FROM pg_proc WHERE pronamespace = home AND proname = $4::text), $2)
		WHEN $5::text = '' THEN has_table_privilege($1::name, (SELECT oid FROM pg_class WHERE relnamespace = home AND relname = $4), $2)
		ELSE has_column_privilege($1::name, (SELECT oid FROM pg_class WHERE relnamespace = home AND relname = $4), $5, $2)
	END, true) FROM (SELECT oid AS home FROM pg_namespace WHERE nspname = 'rowcast') ours`

// Missing is which of the rights a role has not.
func Missing(ctx context.Context, db querier, role string, rights ...Right) (missing []Right, err error) {
	for _, right := range rights {
		all := true
		for _, column := range right.columns() {
			var granted bool
			if err := db.QueryRow(ctx, has, role, right.Privilege, right.Kind, right.Name, column).Scan(&granted); err != nil {
				return nil, fmt.Errorf("look for the right %s: %w", right, err)
			}
			all = all && granted
		}
		if !all {
			missing = append(missing, right)
		}
	}
	return missing, nil
}
