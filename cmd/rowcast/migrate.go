package main

import (
	"context"
	"fmt"

	"rowcast/sql"
)

type migrateCmd struct {
	databaseFlags
	Print bool `help:"Print the SQL that would install the schema, for psql, and change nothing."`
}

// Help is shown by rowcast migrate --help.
func (migrateCmd) Help() string {
	return "Everything is made in the schema rowcast. The role needs the right to create that, and nothing more."
}

// Run installs or upgrades the schema.
func (c *migrateCmd) Run(ctx context.Context, console console) error {
	if c.Print {
		return sql.Print(console.out)
	}
	from, to, err := sql.Migrate(ctx, c.DatabaseURL)
	if err != nil {
		return c.explain(err)
	}
	switch from {
	case to:
		fmt.Fprintf(console.out, "The schema rowcast is up to date: version %d.\n", to)
	case 0:
		fmt.Fprintf(console.out, "The schema rowcast is installed: version %d.\n", to)
	default:
		fmt.Fprintf(console.out, "The schema rowcast is upgraded from version %d to %d.\n", from, to)
	}
	return nil
}
