package sql

import (
	"context"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/jackc/pgx/v5"
)

// A Difference is an object of the schema that is not as [Migrate] installs it.
type Difference struct {
	// Kind is table, column, not null, default, identity, sequence, constraint, index, valid, function, trigger,
	// enabled, rule, owner or grant.
	Kind   string
	Object string // the kind of the object and its name
	What   string // what is wrong, such as "is missing"
	// Mend is SQL that makes the object as Migrate installs it: one statement, or a few that belong together. It never
	// deletes rows. It is empty if no statement can mend the object, because a table or column is missing. It is also
	// empty if the object is a trigger, rule, constraint or index on a table of rowcast that rowcast did not install,
	// because somebody may need it.
	Mend string
	// Minor reports whether delivery works in spite of the difference.
	Minor bool
}

// String returns a sentence.
func (d Difference) String() string { return d.Object + " " + d.What }

// Differences compares each object of the schema with what [Migrate] installs. The schema must have [Version], and the
// search_path must be pg_catalog. The role of db needs no rights on the schema. Objects that rowcast did not install
// are ignored, unless they can change or refuse rows of its tables, or keep retention from deleting rows. But the
// owners of all tables, views, sequences and functions in the schema are checked, and so are row level security, the
// grants to PUBLIC and the children of all its tables.
func Differences(ctx context.Context, db rowsQuerier) ([]Difference, error) {
	var encoding string
	if err := db.QueryRow(ctx, "SELECT current_setting('server_encoding')").Scan(&encoding); err != nil {
		return nil, fmt.Errorf("read the encoding: %w", err)
	}
	actual, err := installed(ctx, db)
	if err != nil {
		return nil, err
	}
	all := compare(expected(encoding, slices.ContainsFunc(actual, isOfInbox)), actual)
	for i, d := range all {
		if d.Mend == createEpoch {
			if all[i].Mend, err = completed(ctx, db, d.Mend); err != nil {
				return nil, err
			}
		}
	}
	for _, query := range []string{strangeOwners, publicGrants, publicFunctions, rowSecurity, references, children} {
		rows, err := db.Query(ctx, query)
		if err != nil {
			return nil, fmt.Errorf("read owners, grants, foreign keys and children: %w", err)
		}
		more, err := pgx.CollectRows(rows, pgx.RowToStructByPos[Difference])
		if err != nil {
			return nil, fmt.Errorf("read owners, grants, foreign keys and children: %w", err)
		}
		all = append(all, more...)
	}
	return all, nil
}

// completed returns create, which creates the table epoch, followed by GRANT statements that let the hubs use the
// table.
func completed(ctx context.Context, db querier, create string) (string, error) {
	var grants string
	if err := db.QueryRow(ctx, hubGrants).Scan(&grants); err != nil {
		return "", fmt.Errorf("read the grants of the hubs: %w", err)
	}
	return create + grants, nil
}

// hubGrants is a query that returns GRANT statements for the table epoch. The hubs are the roles that may read
// rowcast.history.
const hubGrants = `SELECT coalesce(string_agg(format(E'\nGRANT SELECT, INSERT ON rowcast.epoch TO %I;', rolname), '' ORDER BY rolname), '')
	FROM pg_class, aclexplode(relacl) JOIN pg_roles ON pg_roles.oid = grantee
	WHERE relnamespace = to_regnamespace('rowcast') AND relname = 'history' AND privilege_type = 'SELECT' AND grantee <> relowner`

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
		if known[o.String()] || !known[object{kind: "table", name: o.table()}.String()] {
			continue
		}
		if d, harmful := stranger(o, found); harmful {
			all = append(all, d)
		}
	}
	return all
}

// stranger describes an object on a table of rowcast that rowcast did not install. It reports whether the object can
// change or refuse rows.
func stranger(o object, found map[string]string) (d Difference, harmful bool) {
	d = Difference{Kind: o.kind, Object: o.String(), Minor: true, What: "was not installed by rowcast; it can refuse notifications"}
	switch o.kind {
	case "trigger", "rule":
		d.What = "was not installed by rowcast; it can change or drop rows before they are sent"
		return d, true
	case "constraint":
		return d, true
	case "index":
		return d, refusing.MatchString(o.value)
	case "not null":
		_, has := found[object{kind: "default", name: o.name}.String()]
		_, generated := found[object{kind: "identity", name: o.name}.String()]
		d.Minor = false
		d.What = "was not installed by rowcast; the column has no default, so every INSERT without it fails"
		d.Mend = "ALTER TABLE " + schema + "." + o.table() + " ALTER COLUMN " + o.member() + " DROP NOT NULL;"
		return d, !has && !generated
	}
	return d, false
}

// refusing matches the definition of an index that can refuse rows: a unique index, or a B-tree with an expression,
// which can fail, or with the column data, which can be too long for the index.
var refusing = regexp.MustCompile(`^CREATE UNIQUE |USING btree (?:\([^)]*\(|.*\bdata\b)`)

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
	case d.Mend == createEpoch:
	case (want.kind == "table" || want.kind == "column") && !exists:
		d.What = "is missing; restore it from a backup"
	case want.kind == "function" && exists:
		d.What = "does not have the definition that rowcast migrate installs"
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

// mend returns the statements that make an object as it should be, or "" if no statement can.
func mend(want object, exists bool) string {
	table := "ALTER TABLE " + schema + "." + want.table() + " "
	column := table + "ALTER COLUMN " + want.member() + " "
	switch want.kind {
	case "table":
		if exists {
			return table + "SET " + want.value + ";"
		}
		if want.name == "epoch" {
			return createEpoch
		}
	case "column":
		if exists {
			return column + "TYPE " + want.value + ";"
		}
	case "not null":
		return fillNull(want) + column + "SET NOT NULL;"
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
		return mendFunction(want, exists)
	case "trigger":
		return mendTrigger(want, exists, table)
	case "enabled":
		return table + "ENABLE " + want.value + " TRIGGER " + want.member() + ";"
	}
	return ""
}

// createEpoch creates the table epoch. Nothing is lost with the table, because a hub inserts a new token.
const createEpoch = "CREATE UNLOGGED TABLE rowcast.epoch (one boolean PRIMARY KEY DEFAULT true CHECK (one), token uuid NOT NULL DEFAULT gen_random_uuid());"

// fills has a value for each column of notifications except id, for existing rows in which the column is NULL. A row
// without a recipient gets the recipient '* (nobody)', because no user should receive it.
var fills = map[string]string{
	"notifications.recipient": "'* (nobody)'", "notifications.event": "'message'", "notifications.data": "'null'",
	"notifications.created_at": "now()", "notifications.xid": "'1'",
}

// fillNull returns a statement that fills a column in the rows in which it is NULL. The statement returns the ids of
// these rows. Without a value in fills, fillNull returns "".
func fillNull(column object) string {
	value, has := fills[column.name]
	if !has {
		return ""
	}
	name := column.member()
	return fmt.Sprintf("UPDATE %s.%s SET %s = %s WHERE %s IS NULL RETURNING id;\n", schema, column.table(), name, value, name)
}

// addIdentity returns a statement that makes a column an identity. Its ids begin after the highest existing id below
// [MaxID].
func addIdentity(want object, column string) string {
	return fmt.Sprintf(`DO $$ BEGIN EXECUTE format('%sADD GENERATED %s AS IDENTITY (START WITH %%s)', (SELECT coalesce(max(%s), 0) + 1 FROM %s.%s WHERE %s < %d)); END $$;`,
		column, want.value, want.member(), schema, want.table(), want.member(), int64(MaxID))
}

// renumber gives a new id to a row if a newer row has the same id, as migration 4 does. It first advances the sequence,
// which must not return an id that a row already has.
const renumber = advance + `;
UPDATE rowcast.notifications older SET id = DEFAULT WHERE EXISTS (SELECT FROM rowcast.notifications newer WHERE newer.id = older.id AND (newer.xid, newer.ctid) > (older.xid, older.ctid));
`

// mendConstraint returns the statement that adds or replaces a constraint. For the primary key of notifications, other
// statements come before it and make the ids unique. A new CHECK is NOT VALID, so existing rows may violate it.
func mendConstraint(want object, exists bool, table string) string {
	drop, valid := "", ""
	if want.name == "notifications.notifications_pkey" {
		table = renumber + table
	}
	if exists {
		drop = "DROP CONSTRAINT " + want.member() + ", "
	}
	if strings.HasPrefix(want.value, "CHECK") {
		valid = " NOT VALID"
	}
	return table + drop + "ADD CONSTRAINT " + want.member() + " " + want.value + valid + ";"
}

// isOfInbox reports whether an object shows that the inbox is installed.
func isOfInbox(o object) bool {
	return o.kind == "table" && o.name == "inbox_users" || o.kind == "function" && o.name == "inbox_version()"
}

// mendFunction returns the statements that create or replace a function. PostgreSQL lets every role call a new
// function. For a new function of the inbox, a second statement revokes this right.
func mendFunction(want object, exists bool) string {
	if exists || !slices.Contains(parse(inboxObjects), want) {
		return want.value + ";"
	}
	return want.value + ";\nREVOKE ALL ON FUNCTION " + schema + "." + want.name + " FROM PUBLIC;"
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

// strangeOwners is a query for objects whose owner is not the owner of the schema and not a superuser. It leaves out
// the trigger functions of watched tables, because each belongs to the owner of its table.
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

// publicFunctions is a query for functions that every role may call, although rowcast has revoked this right: functions
// of the inbox, with which a role could read the rows of all users, and trigger functions of watched tables, which run
// with the rights of the owner of the table.
const publicFunctions = `SELECT 'grant', format('FUNCTION rowcast.%I(%s)', proname, pg_get_function_identity_arguments(oid)),
		'can be called by PUBLIC, that is by every role',
		format('REVOKE ALL ON FUNCTION rowcast.%I(%s) FROM PUBLIC;', proname, pg_get_function_identity_arguments(oid)), true
	FROM pg_proc WHERE pronamespace = to_regnamespace('rowcast') AND (proname ~ '^inbox' OR proname = 'cursor_snapshot' OR ` + ofWatchedTable + `)
		AND EXISTS (SELECT FROM aclexplode(coalesce(proacl, acldefault('f', proowner))) WHERE grantee = 0)
	ORDER BY 2`

// rowSecurity is a query for tables with row level security. Without a policy for INSERT, only roles that bypass the
// policies can insert rows.
const rowSecurity = `SELECT 'table', format('TABLE rowcast.%I', relname),
		'has row level security' || CASE WHEN relforcerowsecurity THEN ', also for its owner' ELSE '' END || ', which can keep hubs from reading rows and refuse notifications',
		format('ALTER TABLE rowcast.%I %sDISABLE ROW LEVEL SECURITY;', relname, CASE WHEN relforcerowsecurity THEN 'NO FORCE ROW LEVEL SECURITY, ' ELSE '' END), false
	FROM pg_class WHERE relnamespace = to_regnamespace('rowcast') AND relkind = 'r' AND relrowsecurity ORDER BY relname`

// references is a query for foreign keys of other tables that keep retention from deleting rows.
const references = `SELECT 'constraint', format('constraint %I of %s', conname, home),
		'is a foreign key to rowcast.notifications without ON DELETE CASCADE or SET NULL, so retention cannot delete the rows that it refers to, nor any row after them',
		format('ALTER TABLE %s DROP CONSTRAINT %I;', home, conname), true
	FROM pg_constraint JOIN pg_class c ON c.oid = conrelid JOIN pg_namespace n ON n.oid = relnamespace, LATERAL format('%I.%I', nspname, relname) home
	WHERE contype = 'f' AND confdeltype IN ('a', 'r') AND conparentid = 0 AND confrelid = (SELECT oid FROM pg_class
		WHERE relnamespace = to_regnamespace('rowcast') AND relname = 'notifications') ORDER BY home, conname`

// children is a query for tables that inherit from a table of rowcast, such as an archive. A statement on the parent
// also reads and deletes their rows, but they have no index and no trigger of the parent.
const children = `SELECT 'table', format('table %s', home), format('inherits from rowcast.%I', p.relname) ||
		', so each query of a hub reads all its rows, and retention deletes its old rows',
		format('ALTER TABLE %s NO INHERIT rowcast.%I;', home, p.relname), true
	FROM pg_inherits JOIN pg_class p ON p.oid = inhparent JOIN pg_class c ON c.oid = inhrelid JOIN pg_namespace n ON n.oid = c.relnamespace,
		LATERAL format('%I.%I', nspname, c.relname) home
	WHERE p.relnamespace = to_regnamespace('rowcast') AND p.relkind = 'r' ORDER BY home`
