package sql

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A Difference is an object of the schema that is not as [Migrate] installs it.
type Difference struct {
	// Kind is table, column, not null, default, identity, sequence, constraint, index, valid, function, trigger, enabled,
	// rule, owner or grant.
	Kind   string
	Object string // the kind of the object and its name
	What   string // what is wrong, such as "is missing"
	// Mend is SQL that makes the object as Migrate installs it: one statement, or a few that belong together. It never
	// deletes rows. It is empty if no statement can mend the object, because a table or column is missing. It is also empty
	// for a trigger or rule that rowcast did not install, because somebody may need it.
	Mend string
	// Minor reports that delivery works in spite of the difference.
	Minor bool
}

// String returns a sentence.
func (d Difference) String() string { return d.Object + " " + d.What }

// Differences compares each object of the schema with what [Migrate] installs. The schema must have [Version], and the
// search_path must be pg_catalog. The role of db needs no rights on the schema. Objects that rowcast did not install are
// ignored, except triggers and rules on its tables.
func Differences(ctx context.Context, db rowsQuerier) ([]Difference, error) {
	var encoding string
	if err := db.QueryRow(ctx, "SELECT current_setting('server_encoding')").Scan(&encoding); err != nil {
		return nil, fmt.Errorf("read the encoding: %w", err)
	}
	actual, err := installed(ctx, db)
	if err != nil {
		return nil, err
	}
	all := compare(expected(encoding), actual)
	for _, query := range []string{strangeOwners, publicGrants} {
		rows, err := db.Query(ctx, query)
		if err != nil {
			return nil, fmt.Errorf("read owners and grants: %w", err)
		}
		more, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Difference])
		if err != nil {
			return nil, fmt.Errorf("read owners and grants: %w", err)
		}
		all = append(all, more...)
	}
	return all, nil
}

// compare returns the differences between the expected and the actual objects.
func compare(expected, actual []object) (all []Difference) {
	found := make(map[string]string)
	for _, o := range actual {
		found[o.String()] = o.value
	}
	known := make(map[string]bool)
	for _, want := range expected {
		known[want.String()] = true
		got, exists := found[want.String()]
		if exists && got == want.value || !exists && impliedBy(want, found) {
			continue
		}
		all = append(all, difference(want, got, exists))
	}
	for _, o := range actual {
		if !known[o.String()] && slices.Contains([]string{"trigger", "rule"}, o.kind) && known[(object{kind: "table", name: o.table()}).String()] {
			all = append(all, Difference{
				Kind: o.kind, Object: o.String(), Minor: true,
				What: "was not installed by rowcast; it can change or drop rows before they are sent",
			})
		}
	}
	return all
}

// impliedBy reports whether an object is missing only because its table, column, index or trigger is missing, which is
// reported as a difference of its own.
func impliedBy(missing object, found map[string]string) bool {
	has := func(kind, name string) bool {
		_, exists := found[object{kind: kind, name: name}.String()]
		return exists
	}
	switch missing.kind {
	case "table", "function":
		return false
	case "sequence", "valid": // the identity, the index or the constraint is missing too
		return true
	case "not null", "identity", "default":
		return !has("column", missing.name)
	case "enabled":
		return !has("trigger", missing.name)
	}
	return !has("table", missing.table())
}

// difference describes an object that is missing or differs.
func difference(want object, got string, exists bool) Difference {
	d := Difference{Kind: want.kind, Object: want.String(), What: "is missing", Mend: mend(want, exists)}
	switch {
	case (want.kind == "table" || want.kind == "column") && !exists:
		d.What = "is missing; restore it from a backup"
	case want.kind == "function" && exists:
		d.What = "does not have the source that rowcast migrate installs"
	case want.kind == "valid":
		d.What = "is wrong: the index is not valid, so PostgreSQL does not use it"
	case want.kind == "enabled":
		d.Minor = got == "ORIGIN"
		d.What = fmt.Sprintf("is %s instead of %s", got, want.value)
	case exists:
		d.What = fmt.Sprintf("is %s instead of %s", oneLine(got), oneLine(want.value))
	}
	return d
}

// oneLine joins the lines of a definition.
func oneLine(text string) string { return strings.Join(strings.Fields(text), " ") }

// mend returns the statements that make an object as it should be.
func mend(want object, exists bool) string {
	table := "ALTER TABLE " + schema + "." + want.table() + " "
	column := table + "ALTER COLUMN " + want.member() + " "
	switch want.kind {
	case "table":
		if exists {
			return table + "SET " + want.value + ";"
		}
	case "column":
		if exists {
			return column + "TYPE " + want.value + ";"
		}
	case "not null":
		return column + "SET NOT NULL;"
	case "default":
		return column + "SET DEFAULT " + want.value + ";"
	case "identity":
		if exists {
			return column + "SET GENERATED " + want.value + ";"
		}
		return addIdentity(want, column)
	case "sequence":
		return "ALTER SEQUENCE " + schema + "." + want.name + " " + want.value + ";"
	case "constraint":
		return mendConstraint(want, exists, table)
	case "index":
		return mendIndex(want, exists)
	case "valid":
		return "REINDEX INDEX CONCURRENTLY " + schema + "." + want.member() + ";"
	case "function":
		return want.value + ";"
	case "trigger":
		return mendTrigger(want, exists, table)
	case "enabled":
		return table + "ENABLE " + want.value + " TRIGGER " + want.member() + ";"
	}
	return ""
}

// addIdentity returns a statement that begins the ids after the highest existing one.
func addIdentity(want object, column string) string {
	return fmt.Sprintf(`DO $$ BEGIN EXECUTE format('%sADD GENERATED %s AS IDENTITY (START WITH %%s)', (SELECT coalesce(max(%s), 0) + 1 FROM %s.%s)); END $$;`,
		column, want.value, want.member(), schema, want.table())
}

// mendConstraint returns one statement. A new CHECK is NOT VALID, because existing rows that violate it must not prevent
// it.
func mendConstraint(want object, exists bool, table string) string {
	drop, valid := "", ""
	if exists {
		drop = "DROP CONSTRAINT " + want.member() + ", "
	}
	if strings.HasPrefix(want.value, "CHECK") {
		valid = " NOT VALID"
	}
	return table + drop + "ADD CONSTRAINT " + want.member() + " " + want.value + valid + ";"
}

// mendIndex returns statements that do not block INSERTs while the index is built.
func mendIndex(want object, exists bool) string {
	create := strings.Replace(want.value, " INDEX ", " INDEX CONCURRENTLY ", 1) + ";"
	if exists {
		return "DROP INDEX " + schema + "." + want.member() + ";\n" + create
	}
	return create
}

// mendTrigger returns the statements that create a trigger and enable it in all sessions.
func mendTrigger(want object, exists bool, table string) string {
	create := want.value + ";\n" + table + "ENABLE ALWAYS TRIGGER " + want.member() + ";"
	if exists {
		return "DROP TRIGGER " + want.member() + " ON " + schema + "." + want.table() + ";\n" + create
	}
	return create
}

// strangeOwners is a query for objects whose owner is not the owner of the schema and not a superuser. It leaves out the
// trigger functions of watched tables, because each belongs to the owner of its table.
const strangeOwners = `SELECT 'owner', object, format('belongs to the role %I, and the schema to %I', pg_get_userbyid(owner), pg_get_userbyid(nspowner)),
		format('ALTER %s OWNER TO %I;', object, pg_get_userbyid(nspowner)), false
	FROM pg_namespace home, LATERAL (
		SELECT relowner, format('%s rowcast.%I', CASE relkind WHEN 'r' THEN 'TABLE' WHEN 'S' THEN 'SEQUENCE' ELSE 'VIEW' END, relname)
			FROM pg_class c WHERE relnamespace = home.oid AND (relkind IN ('r', 'v') OR relkind = 'S'
				AND NOT EXISTS (SELECT FROM pg_depend WHERE classid = 'pg_class'::regclass AND objid = c.oid AND deptype IN ('a', 'i')))
		UNION ALL SELECT proowner, format('FUNCTION rowcast.%I(%s)', proname, pg_get_function_identity_arguments(oid))
			FROM pg_proc WHERE pronamespace = home.oid AND prokind = 'f' AND NOT (` + ofWatchedTable + `)
	) objects (owner, object)
	WHERE nspname = 'rowcast' AND owner <> nspowner AND NOT (SELECT rolsuper FROM pg_roles WHERE oid = owner) ORDER BY object`

// publicGrants is a query for tables on which PUBLIC, that is every role, has rights.
const publicGrants = `SELECT 'grant', format('TABLE rowcast.%I', relname),
		format('grants %s to PUBLIC, that is to every role', string_agg(privilege_type, ', ' ORDER BY privilege_type)),
		format('REVOKE ALL ON rowcast.%I FROM PUBLIC;', relname), true
	FROM pg_class, aclexplode(relacl) WHERE relnamespace = to_regnamespace('rowcast') AND relkind = 'r' AND grantee = 0
	GROUP BY relname ORDER BY relname`
