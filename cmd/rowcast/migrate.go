package main

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/terminal"
	"rowcast/sql"
)

type migrateCmd struct {
	database.Flags
	AppRole []roleName `name:"app-role" placeholder:"ROLE" help:"Grant this role what an application needs to send, and nothing more. Once for each."`
	HubRole []roleName `name:"hub-role" placeholder:"ROLE" help:"Grant this role what rowcast serve needs, and nothing more. Once for each."`
	Print   bool       `help:"Print the SQL that would install the schema and grant the rights, for psql, and change nothing."`
}

// Help is shown by rowcast migrate --help.
func (migrateCmd) Help() string {
	return "Everything is made in the schema rowcast. The role needs the right to create that, and nothing more. " +
		"Rights can be granted at any time, as often as you like; what a role has besides, it keeps."
}

// Run installs or upgrades the schema.
func (c *migrateCmd) Run(ctx context.Context, console console) error {
	c.warn(console)
	if c.Print {
		return sql.Print(console.out, c.roles())
	}
	m := sql.Migrator{DSN: c.DatabaseURL, Waiting: func(holder string) { fmt.Fprintf(console.err, "rowcast: %s\n", terminal.Printable(holder)) }}
	from, to, err := m.Migrate(ctx)
	if err != nil {
		return c.Explain(err)
	}
	switch from {
	case to:
		fmt.Fprintf(console.out, "The schema rowcast is up to date: version %d.\n", to)
	case 0:
		fmt.Fprintf(console.out, "The schema rowcast is installed: version %d.\n", to)
	default:
		fmt.Fprintf(console.out, "The schema rowcast is upgraded from version %d to %d.\n", from, to)
	}
	return c.grant(ctx, console)
}

func (c *migrateCmd) roles() (roles sql.Roles) {
	for _, name := range c.AppRole {
		roles.Apps = append(roles.Apps, string(name))
	}
	for _, name := range c.HubRole {
		roles.Hubs = append(roles.Hubs, string(name))
	}
	return roles
}

// warn says what makes it useless to keep the two kinds of roles apart.
func (c *migrateCmd) warn(console console) {
	for _, name := range c.AppRole {
		if slices.Contains(c.HubRole, name) {
			fmt.Fprintf(console.err, "rowcast: the role %q is an app's and a hub's: whoever sends by it can also read and delete all that was sent\n", string(name))
		}
	}
}

func (c *migrateCmd) grant(ctx context.Context, console console) error {
	roles := c.roles()
	if len(roles.Apps)+len(roles.Hubs) == 0 {
		return nil
	}
	if err := sql.Grant(ctx, c.DatabaseURL, roles); err != nil {
		return c.Explain(err)
	}
	for _, name := range roles.Apps {
		fmt.Fprintf(console.out, "The role %q has what an application needs.\n", name)
	}
	for _, name := range roles.Hubs {
		fmt.Fprintf(console.out, "The role %q has what a hub needs.\n", name)
	}
	return nil
}

// roleName is a role's name as it stands in the catalog, without quotes.
type roleName string

// UnmarshalText refuses what GRANT would take for something else.
func (r *roleName) UnmarshalText(text []byte) error {
	const longest = 63 // NAMEDATALEN: the rest would be cut off
	switch name := string(text); {
	case name == "" || len(name) > longest || !utf8.ValidString(name) || strings.Contains(name, "\x00"):
		return fmt.Errorf("%q is not the name of a role", name)
	case slices.Contains([]string{"public", "none", "current_user", "current_role", "session_user"}, strings.ToLower(name)):
		return fmt.Errorf("%q is no role, but what SQL calls all of them, or nobody, or whoever is connected: give a role's own name", name)
	}
	*r = roleName(text)
	return nil
}
