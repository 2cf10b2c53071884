package sql

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"
	"time"
	"unicode"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgconn"
)

// A Watch has the options of a watched table: which statements insert notifications, and SQL expressions for the
// columns of these notifications. Table and Recipient must be set. The other fields may be empty, and then have the
// defaults of the SQL function rowcast.watch(), which the README documents.
type Watch struct {
	Table     string   `json:"-"` // in the syntax of SQL, such as public.orders or "Orders"
	Recipient string   `json:"recipient"`
	Event     string   `json:"event"`
	Data      string   `json:"data"`
	On        []string `json:"on"`
	When      string   `json:"when"`
	OnError   string   `json:"on_error"`
}

// Statement returns a statement that watches the table, without a semicolon. It leaves out defaults.
func (w Watch) Statement() string {
	on := ""
	if len(w.On) > 0 {
		on = "{" + strings.Join(w.On, ",") + "}"
	}
	var out strings.Builder
	fmt.Fprintf(&out, "SELECT rowcast.watch(%s, recipient => %s", literal(w.Table), literal(w.Recipient))
	for _, argument := range []struct{ name, value, standard string }{
		{"event", w.Event, "'message'"},
		{"data", w.Data, "to_jsonb(n.*)"},
		{`"on"`, on, "{insert}"},
		{`"when"`, w.When, "true"},
		{"on_error", w.OnError, "fail"},
	} {
		if argument.value != "" && argument.value != argument.standard {
			fmt.Fprintf(&out, ", %s => %s", argument.name, literal(argument.value))
		}
	}
	return out.String() + ")"
}

// literal returns text as a string constant on one line. The constant means the same with every setting of
// standard_conforming_strings. It has no character that a program must escape before it prints the constant on a
// terminal.
func literal(text string) string {
	if !strings.ContainsFunc(text, func(r rune) bool { return r == '\\' || isInvisible(r) }) {
		return "'" + strings.ReplaceAll(text, "'", "''") + "'"
	}
	var out strings.Builder
	for _, r := range text {
		switch {
		case r == '\\' || r == '\'':
			out.WriteString(string(r) + string(r))
		case r == '\n':
			out.WriteString(`\n`)
		case isInvisible(r):
			fmt.Fprintf(&out, `\u%04x`, r)
		default:
			out.WriteRune(r)
		}
	}
	return "E'" + out.String() + "'"
}

// isInvisible reports whether r is a control character, a line or paragraph separator, or a mark that changes the
// direction of the text after it.
func isInvisible(r rune) bool {
	return unicode.IsControl(r) || unicode.In(r, unicode.Bidi_Control, unicode.Zl, unicode.Zp)
}

// Install watches the table, or replaces the options of a watched table. It returns the name of the table with its
// schema. The role must have the rights of the owner of the schema rowcast, and of the owner of the table.
func (w Watch) Install(ctx context.Context, dsn string) (table string, err error) {
	err = onTable(ctx, dsn, w.Table, func(tx pgx.Tx, name string) error {
		w.Table, table = name, name
		_, err := tx.Exec(ctx, w.Statement())
		return err
	})
	return table, err
}

// Unwatch ends the watching of a table. It returns the name of the table with its schema, and reports whether the table
// was watched.
func Unwatch(ctx context.Context, dsn, name string) (table string, was bool, err error) {
	err = onTable(ctx, dsn, name, func(tx pgx.Tx, name string) error {
		table = name
		return tx.QueryRow(ctx, "SELECT rowcast.unwatch($1::text::regclass)", name).Scan(&was)
	})
	return table, was, err
}

// watchLockTimeout bounds each wait for a lock: for a lock of the table, and for the lock of migrations. While a
// session waits for a lock of the table, later statements of the app can wait behind that session.
const watchLockTimeout = 5 * time.Second

// onTable finds a table with the search_path of the connection. It then begins a transaction with a safe search_path,
// and calls change with the name of the table, including its schema.
func onTable(ctx context.Context, dsn, name string, change func(tx pgx.Tx, table string) error) error {
	conn, err := connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	var target *uint32
	if err := conn.QueryRow(ctx, "SELECT pg_catalog.to_regclass($1)::pg_catalog.oid", name).Scan(&target); err != nil {
		return withHint(fmt.Errorf("find the table %s: %w", name, err))
	}
	if target == nil {
		return fmt.Errorf("the table %s was not found in this database: write it with its schema, as in public.orders, and a name with capital letters in double quotes", name)
	}
	err = securedByOwner(ctx, conn, pgx.ReadWrite, func(tx pgx.Tx) error {
		var table string
		const begin = "SELECT $1::oid::regclass::text FROM set_config('lock_timeout', $2, true)"
		if err := tx.QueryRow(ctx, begin, *target, fmt.Sprint(watchLockTimeout.Milliseconds())).Scan(&table); err != nil {
			return err
		}
		return change(tx, table)
	})
	if failed, ok := errors.AsType[*pgconn.PgError](err); ok && failed.Code == "55P03" {
		holder := "another transaction still uses the table"
		if strings.Contains(failed.Where, "pg_advisory_xact_lock") { // the call in rowcast.watch()
			holder = "another session still holds the lock of migrations, probably rowcast migrate or another rowcast watch"
		}
		return fmt.Errorf("%w: after %v, %s: try again when it has ended", err, watchLockTimeout, holder)
	}
	return err
}

// securedByOwner calls f like [secured], if the schema has the functions that watch tables. If the role lacks a right
// and the error has no hint, it names the owner of the schema.
func securedByOwner(ctx context.Context, conn *pgx.Conn, mode pgx.TxAccessMode, f func(tx pgx.Tx) error) error {
	var owner string
	err := secured(ctx, conn, mode, func(tx pgx.Tx) (err error) {
		if owner, err = checkInstalled(ctx, tx); err != nil {
			return err
		}
		return f(tx)
	})
	if failed, ok := errors.AsType[*pgconn.PgError](err); ok && failed.Code == "42501" && failed.Hint == "" {
		return fmt.Errorf("%w; connect as %s, the owner of the schema rowcast", err, owner)
	}
	return withHint(err)
}

// checkInstalled returns [ErrNoSchema] if the schema does not have the functions that watch tables, and otherwise the
// owner of the schema. Unlike [CheckVersion], it needs no rights on the schema.
func checkInstalled(ctx context.Context, db querier) (owner string, err error) {
	const find = `SELECT coalesce(max(quote_ident(pg_get_userbyid(nspowner))), '') FROM pg_namespace AS s
		WHERE nspname = 'rowcast' AND EXISTS (SELECT FROM pg_proc WHERE pronamespace = s.oid AND proname = 'watched')`
	if err := db.QueryRow(ctx, find).Scan(&owner); err != nil {
		return "", fmt.Errorf("find the schema: %w", err)
	}
	if owner == "" {
		return "", fmt.Errorf("%w: run rowcast migrate", ErrNoSchema)
	}
	return owner, nil
}

// withHint adds the hint of PostgreSQL to an error. It removes the prefix of an error that a function of the schema
// raises, because the program prints its own name.
func withHint(err error) error {
	failed, ok := errors.AsType[*pgconn.PgError](err)
	if !ok {
		return err
	}
	text := strings.Replace(err.Error(), failed.Severity+": rowcast: ", "", 1)
	if failed.Hint != "" {
		text += "; " + failed.Hint
	}
	return hinted{text, err}
}

// A hinted error is an error of PostgreSQL with the text that withHint has made.
type hinted struct {
	text  string
	cause error
}

func (e hinted) Error() string { return e.text }
func (e hinted) Unwrap() error { return e.cause }

// A Watched is a watched table, with its options and its problems. Table is empty if the table or all of its triggers
// were dropped.
type Watched struct {
	Watch
	Problems []string // what is wrong, without full stops
	// Failing reports whether statements on the table are known to fail, or to send nothing if OnError is skip.
	Failing bool
	// Virtual reports whether the table has a virtual generated column. Such a table cannot be watched again.
	Virtual bool
	// Mend is SQL that is meant to mend the problems. If Table is empty, or a partition or child of the table is a
	// foreign table, Mend ends the watching. Otherwise, Mend is empty if there are no problems, if Virtual is true, or if
	// an expression names a column that was dropped or renamed.
	Mend string
}

// ListWatched calls [ReadWatched] for the database with the connection string dsn.
func ListWatched(ctx context.Context, dsn string) (all []Watched, err error) {
	conn, err := connect(ctx, dsn)
	if err != nil {
		return nil, err
	}
	defer func() { _ = conn.Close(context.WithoutCancel(ctx)) }()
	err = securedByOwner(ctx, conn, pgx.ReadOnly, func(tx pgx.Tx) (err error) { // a standby lists the tables, too
		all, err = ReadWatched(ctx, tx)
		return err
	})
	return all, err
}

// ReadWatched returns the watched tables. The search_path must be pg_catalog.
//
// It does not let PostgreSQL parse an expression. Even the analysis of a statement converts constants. This can run
// code of the owner of the table (the CHECK of a domain, for example), with the rights of the role that calls
// ReadWatched.
func ReadWatched(ctx context.Context, db rowsQuerier) ([]Watched, error) {
	rows, err := db.Query(ctx, "SELECT coalesce(target::text, ''), watcher::text, coalesce(options, '{}'), problems, failing, dropped FROM rowcast.watched()")
	if err != nil {
		return nil, fmt.Errorf("list the watched tables: %w", err)
	}
	all, err := pgx.CollectRows(rows, func(row pgx.CollectableRow) (w Watched, err error) {
		var table, watcher string
		var dropped []string
		if err = row.Scan(&table, &watcher, &w.Watch, &w.Problems, &w.Failing, &dropped); err != nil {
			return w, err
		}
		w.Table = table
		w.examine(watcher, dropped)
		return w, nil
	})
	if err != nil {
		return nil, fmt.Errorf("list the watched tables: %w", err)
	}
	return all, nil
}

// examine adds a problem for each expression that names a dropped or renamed column, and sets Failing, Virtual and
// Mend.
func (w *Watched) examine(watcher string, dropped []string) {
	renamed := false
	for _, e := range []struct{ name, text string }{
		{"when", w.When}, {"recipient", w.Recipient}, {"event", w.Event}, {"data", w.Data},
	} {
		names := identifiers(e.text)
		for _, column := range dropped {
			if slices.Contains(names, column) {
				renamed, w.Failing = true, true
				w.Problems = append(w.Problems, fmt.Sprintf("the %s expression %s names the column %q, which was dropped or renamed", e.name, e.text, column))
			}
		}
	}
	w.Virtual = slices.ContainsFunc(w.Problems, func(p string) bool { return strings.HasPrefix(p, virtualColumns) })
	switch {
	case w.Table == "":
		w.Mend = "DROP FUNCTION " + watcher + ";"
	case slices.Contains(w.Problems, foreignChild):
		w.Mend = "SELECT rowcast.unwatch(" + literal(w.Table) + ");"
	case len(w.Problems) > 0 && !renamed && !w.Virtual:
		w.Mend = w.Statement() + ";"
	}
}

// These are problems of tables that cannot be watched. virtualColumns is only the beginning of the problem.
const (
	foreignChild   = "it has a partition or child that is a foreign table"
	virtualColumns = "virtual generated columns, "
)

// token matches a string constant, a comment, a quoted identifier (group 1), or another word (group 2). It does not
// know dollar quotes with a tag, so the words inside them count as identifiers.
var token = regexp.MustCompile(`[eE]'(?:[^'\\]|\\(?s:.)|'')*'|'(?:[^']|'')*'|(?s:\$\$.*?\$\$)|--[^\n]*|(?s:/\*.*?\*/)|"((?:[^"]|"")*)"|([\pL_][\pL\pM\pN_$]*)`)

// identifiers returns the names in an expression that can be names of columns of n or o, spelled as the catalog spells
// them. It leaves out the name of a function, the name of a type after a double colon, and a name that is qualified by
// another name than n or o.
func identifiers(expression string) (names []string) {
	before, end := "", 0 // the last token if it is a name, and where the last token ends
	for _, at := range token.FindAllStringSubmatchIndex(expression, -1) {
		var name string
		switch {
		case at[2] >= 0: // in quotes
			name = strings.ReplaceAll(expression[at[2]:at[3]], `""`, `"`)
		case at[4] >= 0:
			name = strings.ToLower(expression[at[4]:at[5]])
		}
		between := strings.TrimSpace(expression[end:at[0]])
		isQualified := between == "." && before != "" && before != "n" && before != "o"
		isType := strings.HasSuffix(between, "::")
		isFunction := strings.HasPrefix(strings.TrimSpace(expression[at[1]:]), "(")
		if name != "" && !isQualified && !isType && !isFunction {
			names = append(names, name)
		}
		before, end = name, at[1]
	}
	return names
}
