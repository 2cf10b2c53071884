package main

import (
	"context"
	"errors"
	"fmt"
	"regexp"
	"slices"
	"strings"

	"github.com/alecthomas/kong"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/flags"
	"rowcast/cmd/internal/terminal"
	"rowcast/sql"
)

type watchCmd struct {
	database.Flags
	Table     string     `arg:"" optional:"" help:"The table, as in public.orders. A name with capital letters needs double quotes."`
	Recipient expression `placeholder:"EXPR" help:"The recipient of a notification: text, an integer, numeric, a UUID or an enum. For an array, each distinct element gets a notification. NULL sends nothing. Required, except with --list."`
	Event     expression `placeholder:"EXPR" help:"The event: text, an integer, numeric, a UUID or an enum (default 'message')."`
	Data      expression `placeholder:"EXPR" help:"The data (default to_jsonb(n.*), which is the whole row)."`
	On        []string   `placeholder:"OPERATION" enum:"insert,update,delete" default:"insert" help:"Which statements send notifications: insert, update, delete. Separate several with commas (default insert)."`
	When      expression `placeholder:"EXPR" help:"Send notifications only for rows for which this is true (default true)."`
	OnError   string     `name:"on-error" placeholder:"ACTION" enum:"fail,skip" default:"fail" help:"What happens when an expression fails: fail lets the statement of the app fail, skip sends nothing and warns (default fail)."`
	Print     bool       `help:"Print the SQL statement, for a migration of the app. Nothing is changed. Name the table with its schema."`
	List      bool       `help:"For each watched table, print a statement that watches it, and the problems of the table. Nothing is changed."`
}

// Help is shown by rowcast watch --help.
func (watchCmd) Help() string {
	return "Statements on the table then insert notifications, in the same transaction. Watching a table again replaces the options. " +
		"Connect as the owner of the schema rowcast. This role needs the rights of the owner of the table.\n\n" +
		"EXPR is one SQL expression, such as user_id or n.user_id. n is the new row, or for DELETE the deleted row. o is the row before an UPDATE or DELETE. tg_op is INSERT, UPDATE or DELETE. " +
		"A constant text needs single quotes: --event \"'order'\". Tables, functions and types of the app need their schema. " +
		"By default, the data is the whole row, including columns that are added later. List the columns that the recipient may see.\n\n" +
		"Example: rowcast watch public.orders --recipient customer_id --data \"jsonb_build_object('id', id, 'status', status)\" --on insert,update"
}

// Validate refuses a table and other flags with --list, because they would have no effect.
func (c *watchCmd) Validate(ctx *kong.Context) error {
	if !c.List {
		return nil
	}
	if c.Table != "" {
		return errors.New("--list: leave out the table, because this flag prints all watched tables")
	}
	for _, path := range ctx.Path {
		if path.Flag == nil || path.Flag.IsBool() && path.Flag.Target.IsZero() || slices.Contains([]string{"list", "database-url"}, path.Flag.Name) {
			continue
		}
		return fmt.Errorf("%s has no effect with --list, which prints all watched tables: leave it out", flags.Source(path))
	}
	return nil
}

// Run watches a table. With --print it only prints the statement, and with --list the statements for all watched
// tables.
func (c *watchCmd) Run(ctx context.Context, console console) error {
	if err := c.check(); err != nil {
		return usage(err)
	}
	if c.List {
		return c.list(ctx, console)
	}
	watch := sql.Watch{
		Table: c.Table, Recipient: string(c.Recipient), Event: string(c.Event), Data: string(c.Data),
		On: c.On, When: string(c.When), OnError: c.OnError,
	}
	if c.Print {
		_, err := fmt.Fprintf(console.out, "%s;\n", watch.Statement())
		return err
	}
	table, err := watch.Install(ctx, c.DatabaseURL)
	if err != nil {
		return c.Explain(err)
	}
	fmt.Fprintf(console.out, "The table %s is watched.\n", terminal.Printable(table))
	return nil
}

// qualified matches the name of a table with its schema, in the syntax of SQL.
var qualified = regexp.MustCompile(`^(?:[\pL_][\pL\pM\pN_$]*|"(?:[^"]|"")+")\.(?:[\pL_][\pL\pM\pN_$]*|"(?:[^"]|"")+")$`)

// check returns an error if the table or --recipient is missing, or if --print has a table without its schema.
func (c *watchCmd) check() error {
	switch {
	case c.List:
		return nil
	case c.Table == "":
		return errors.New("name the table, as in rowcast watch public.orders --recipient customer_id, or give --list")
	case c.Recipient == "":
		return errors.New("--recipient: name the column or expression of the recipient, as in --recipient customer_id; '*' in single quotes is everyone")
	case c.Print && !qualified.MatchString(c.Table):
		return fmt.Errorf("--print: %s is not a table with its schema, as in public.orders or public.\"Orders\"; without the schema, the statement would depend on the search_path", c.Table)
	}
	return nil
}

// list prints the statements that watch the watched tables, so that psql can run them. It prints problems as SQL
// comments.
func (c *watchCmd) list(ctx context.Context, console console) error {
	all, err := sql.ListWatched(ctx, c.DatabaseURL)
	if err != nil {
		return c.Explain(err)
	}
	if len(all) == 0 {
		fmt.Fprintln(console.out, "-- No table is watched.")
	}
	for _, w := range all {
		if w.Table == "" {
			fmt.Fprintf(console.out, "-- A trigger function without a table: %s\n", terminal.Printable(w.Mend))
		} else {
			fmt.Fprintf(console.out, "%s;\n", terminal.Printable(w.Statement()))
		}
		for _, problem := range w.Problems {
			fmt.Fprintf(console.out, "-- %s\n", terminal.Printable(problem))
		}
	}
	return nil
}

// An expression is an SQL expression.
type expression string

// UnmarshalText refuses an empty expression. PostgreSQL checks all other expressions.
func (e *expression) UnmarshalText(text []byte) error {
	if strings.TrimSpace(string(text)) == "" {
		return errors.New("the value is empty")
	}
	*e = expression(text)
	return nil
}

type unwatchCmd struct {
	database.Flags
	Table string `arg:"" help:"The table, as in public.orders. A name with capital letters needs double quotes."`
}

// Help is shown by rowcast unwatch --help.
func (unwatchCmd) Help() string {
	return "The triggers of rowcast watch are dropped, and the table itself is not changed. The owner of the table keeps the right to insert notifications. " +
		"Connect as the owner of the schema rowcast."
}

// Run ends the watching of a table.
func (c *unwatchCmd) Run(ctx context.Context, console console) error {
	table, was, err := sql.Unwatch(ctx, c.DatabaseURL, c.Table)
	if err != nil {
		return c.Explain(err)
	}
	if !was {
		fmt.Fprintf(console.out, "The table %s was not watched.\n", terminal.Printable(table))
		return nil
	}
	fmt.Fprintf(console.out, "The table %s is no longer watched.\n", terminal.Printable(table))
	return nil
}
