package sql

import (
	"context"
	_ "embed"
	"fmt"
	"strings"

	"github.com/jackc/pgx/v5"
)

// objects lists the objects that [Migrate] installs, in the format of [Listing]. A test compares it with the listing of
// a migrated database, and writes it anew with -update.
//
//go:embed objects.txt
var objects string

// inboxObjects lists the objects that [Migrator.Migrate] installs if Inbox is set.
//
//go:embed inbox/objects.txt
var inboxObjects string

// An object is a property of the schema: a table, a default of a column, or the definition of a function, for example.
type object struct {
	kind  string // one of the kinds in the query listing
	name  string // without the schema, such as notifications.event for a column
	value string
}

// table returns the name of the table to which the object belongs.
func (o object) table() string {
	table, _, _ := strings.Cut(o.name, ".")
	return table
}

// member returns the name of the object in its table.
func (o object) member() string {
	_, member, _ := strings.Cut(o.name, ".")
	return member
}

// String returns the object in words.
func (o object) String() string {
	words := o.kind
	switch o.kind {
	case "not null", "identity", "default", "valid", "enabled":
		words = "property " + o.kind + " of"
	}
	return words + " " + schema + "." + o.name
}

// listing is a query for the objects of the schema. The order of its rows is the order in which differences are mended.
// It needs no rights on the schema. The search_path must be pg_catalog, because the form of the definitions depends on
// it.
const listing = `
WITH tables AS (
	SELECT oid, relname, relpersistence FROM pg_class WHERE relnamespace = to_regnamespace('rowcast') AND relkind = 'r'
), columns AS (
	SELECT a.*, relname || '.' || quote_ident(attname) AS name FROM pg_attribute a JOIN tables ON attrelid = tables.oid
		WHERE attnum > 0 AND NOT attisdropped
), triggers AS (
	SELECT t.*, relname || '.' || quote_ident(tgname) AS name FROM pg_trigger t JOIN tables ON tgrelid = tables.oid WHERE NOT tgisinternal
)
SELECT kind, name, value FROM (
	SELECT 1, 'table', relname::text, CASE relpersistence WHEN 'u' THEN 'UNLOGGED' ELSE 'LOGGED' END FROM tables
	UNION ALL SELECT 2, 'column', name, format_type(atttypid, atttypmod) || CASE WHEN attcollation NOT IN (0, 'pg_catalog."default"'::regcollation)
		THEN (SELECT ' COLLATE ' || CASE WHEN nspname = 'pg_catalog' THEN '' ELSE quote_ident(nspname) || '.' END || quote_ident(collname)
			FROM pg_collation c JOIN pg_namespace n ON n.oid = collnamespace WHERE c.oid = attcollation) ELSE '' END FROM columns
	UNION ALL SELECT 3, 'not null', name, 'NOT NULL' FROM columns WHERE attnotnull
	UNION ALL SELECT 4, 'identity', name, CASE attidentity WHEN 'a' THEN 'ALWAYS' ELSE 'BY DEFAULT' END FROM columns WHERE attidentity <> ''
	UNION ALL SELECT 5, 'default', name, pg_get_expr(adbin, adrelid)
		FROM columns JOIN pg_attrdef ON adrelid = attrelid AND adnum = attnum
	UNION ALL SELECT 6, 'sequence', relname::text, concat_ws(' ', 'AS', format_type(seqtypid, NULL), 'INCREMENT BY', seqincrement,
			'MINVALUE', seqmin, 'MAXVALUE', seqmax, CASE WHEN seqcycle THEN 'CYCLE' ELSE 'NO CYCLE' END)
		FROM pg_sequence JOIN pg_class ON pg_class.oid = seqrelid WHERE relnamespace = to_regnamespace('rowcast')
	UNION ALL SELECT 7, 'constraint', relname || '.' || quote_ident(conname), regexp_replace(pg_get_constraintdef(c.oid), ' NOT VALID$', '')
		FROM pg_constraint c JOIN tables ON conrelid = tables.oid WHERE contype NOT IN ('n', 't')
	UNION ALL SELECT 8, 'index', relname || '.' || (SELECT quote_ident(c.relname) FROM pg_class c WHERE c.oid = indexrelid), pg_get_indexdef(indexrelid)
		FROM pg_index JOIN tables ON indrelid = tables.oid WHERE NOT EXISTS (SELECT FROM pg_constraint WHERE conindid = indexrelid)
	UNION ALL SELECT 9, 'valid', relname || '.' || (SELECT quote_ident(c.relname) FROM pg_class c WHERE c.oid = indexrelid), CASE WHEN indisvalid AND indisready THEN 'yes' ELSE 'no' END
		FROM pg_index JOIN tables ON indrelid = tables.oid
	UNION ALL SELECT 10, 'function', format('%s(%s)', proname, pg_get_function_identity_arguments(oid)), pg_get_functiondef(oid)
		FROM pg_proc WHERE pronamespace = to_regnamespace('rowcast') AND prokind = 'f'
	UNION ALL SELECT 11, 'trigger', name, pg_get_triggerdef(oid) FROM triggers
	UNION ALL SELECT 12, 'enabled', name, CASE tgenabled WHEN 'A' THEN 'ALWAYS' WHEN 'O' THEN 'ORIGIN' WHEN 'R' THEN 'REPLICA' ELSE 'DISABLED' END FROM triggers
	UNION ALL SELECT 13, 'rule', relname || '.' || quote_ident(rulename), 'rule' FROM pg_rewrite JOIN tables ON ev_class = tables.oid
) objects (position, kind, name, value) ORDER BY position, name COLLATE "C"`

// installed returns the objects of the schema in a database.
func installed(ctx context.Context, db rowsQuerier) ([]object, error) {
	rows, err := db.Query(ctx, listing)
	if err != nil {
		return nil, fmt.Errorf("list the objects of the schema: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (o object, err error) {
		err = row.Scan(&o.kind, &o.name, &o.value)
		o.value = trimLines(o.value)
		return o, err
	})
	if err != nil {
		return nil, fmt.Errorf("list the objects of the schema: %w", err)
	}
	return all, nil
}

// A rowsQuerier is a connection or a transaction.
type rowsQuerier interface {
	querier
	Query(ctx context.Context, sql string, args ...any) (pgx.Rows, error)
}

// trimLines removes empty lines and the white space around each line, because an editor or a tool may have indented a
// definition.
func trimLines(text string) string {
	var lines []string
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" {
			lines = append(lines, line)
		}
	}
	return strings.Join(lines, "\n")
}

// Listing returns the objects of the schema in the format of objects.txt: a line with the kind and the name of each
// object, and then its value, indented by a tab.
func Listing(ctx context.Context, db rowsQuerier) (string, error) {
	all, err := installed(ctx, db)
	var out strings.Builder
	for _, o := range all {
		fmt.Fprintf(&out, "%s: %s\n\t%s\n", o.kind, o.name, strings.ReplaceAll(o.value, "\n", "\n\t"))
	}
	return out.String(), err
}

// parse parses a text in the format of [Listing].
func parse(text string) (all []object) {
	for line := range strings.Lines(text) {
		line = strings.TrimSuffix(line, "\n")
		if value, isValue := strings.CutPrefix(line, "\t"); isValue {
			last := &all[len(all)-1]
			last.value = strings.TrimPrefix(last.value+"\n"+value, "\n")
			continue
		}
		kind, name, _ := strings.Cut(line, ": ")
		all = append(all, object{kind: kind, name: name})
	}
	return all
}

// otherEncodings are the objects that [Migrate] installs only in a database whose encoding is not UTF8. Each
// replaces the object of the same kind and name in objects.txt, or is added if there is none.
const otherEncodings = `constraint: notifications.has_utf8_form
	CHECK (((convert_to(COALESCE(recipient, ''::text), 'UTF8'::name) IS NOT NULL) AND (convert_to(event, 'UTF8'::name) IS NOT NULL) AND (convert_to((data)::text, 'UTF8'::name) IS NOT NULL)))
constraint: notifications.recipient_has_no_control_characters
	CHECK ((recipient !~ ('[\u0001-\u001f\u007f]'::text COLLATE "C")))
`

// expected returns the objects that [Migrate] installs in a database with the encoding. They include the objects of the
// inbox if inbox is true.
func expected(encoding string, inbox bool) (all []object) {
	all = parse(objects)
	if inbox {
		all = append(all, parse(inboxObjects)...)
	}
	if encoding == "UTF8" {
		return all
	}
	others := make(map[string]object)
	for _, o := range parse(otherEncodings) {
		others[o.String()] = o
	}
	for i, o := range all {
		if other, differs := others[o.String()]; differs {
			all[i] = other
			delete(others, o.String())
		}
	}
	for _, o := range others {
		all = append(all, o)
	}
	return all
}
