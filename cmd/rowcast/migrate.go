package main

import (
	"context"
	"errors"
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
	AppRole    []roleName `name:"app-role" placeholder:"ROLE" help:"Grant this role the rights that an app needs to send and read notifications. Repeat the flag for more roles."`
	SenderRole []roleName `name:"sender-role" placeholder:"ROLE" help:"Grant this role the rights that an app needs to send notifications. It cannot read them. Repeat the flag for more roles."`
	HubRole    []roleName `name:"hub-role" placeholder:"ROLE" help:"Grant this role the rights that rowcast serve needs. Repeat the flag for more roles."`
	Inbox      bool       `help:"Install the inbox: the list of notifications with what each user has seen, read and archived."`
	Print      bool       `help:"Print the SQL that installs or upgrades the schema and grants the rights, for use with psql or in a migration of a framework. Nothing is changed."`

	NoTransaction bool `help:"Print the SQL as a single statement, without BEGIN and COMMIT, for a migration of a framework."`
}

// Help is shown by rowcast migrate --help.
func (migrateCmd) Help() string {
	return "For example: rowcast migrate --database-url postgresql://owner@localhost/app --app-role app --hub-role hub. " +
		"All objects are created in the schema rowcast. To install it, the connecting role needs the right CREATE on the database. " +
		"Granting rights again has no effect, and roles that are not named keep their rights."
}

// Run installs or upgrades the schema and grants the rights. With --print, it only prints the SQL that does this.
func (c *migrateCmd) Run(ctx context.Context, console console) error {
	c.warn(console)
	if c.Print {
		return sql.Script{Roles: c.roles(), NoTransaction: c.NoTransaction, Inbox: c.Inbox}.Print(console.out)
	}
	if c.NoTransaction {
		return usage(errors.New("--no-transaction: add --print, because without it nothing is printed"))
	}
	m := sql.Migrator{DSN: c.DatabaseURL, Inbox: c.Inbox, Waiting: func(holder string) {
		fmt.Fprintf(console.err, "rowcast: %s\n", terminal.Printable(holder))
	}}
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
	if c.Inbox {
		fmt.Fprintf(console.out, "The inbox is installed: version %d.\n", sql.InboxVersion())
	}
	return c.grant(ctx, console)
}

func (c *migrateCmd) roles() sql.Roles {
	return sql.Roles{Apps: texts(c.AppRole), Senders: texts(c.SenderRole), Hubs: texts(c.HubRole)}
}

func texts(names []roleName) (all []string) {
	for _, name := range names {
		all = append(all, string(name))
	}
	return all
}

// warn warns of a role that is given both as the role of a hub and as the role of an app or a sender.
func (c *migrateCmd) warn(console console) {
	for _, name := range slices.Concat(c.AppRole, c.SenderRole) {
		if slices.Contains(c.HubRole, name) {
			fmt.Fprintf(console.err, "rowcast: the role %q gets the rights of a hub besides those of an app or a sender, so the app can read and delete the notifications of all users\n", string(name))
		}
	}
}

func (c *migrateCmd) grant(ctx context.Context, console console) error {
	roles := c.roles()
	if len(roles.Apps)+len(roles.Senders)+len(roles.Hubs) == 0 {
		return nil
	}
	if err := sql.Grant(ctx, c.DatabaseURL, roles); err != nil {
		return c.Explain(err)
	}
	for _, name := range roles.Apps {
		fmt.Fprintf(console.out, "The role %q has the rights of an app.\n", name)
	}
	for _, name := range roles.Senders {
		fmt.Fprintf(console.out, "The role %q has the rights of a sender.\n", name)
	}
	for _, name := range roles.Hubs {
		fmt.Fprintf(console.out, "The role %q has the rights of a hub.\n", name)
	}
	return nil
}

// A roleName is the name of a role as the catalog contains it, without quotes.
type roleName string

// UnmarshalText refuses text that cannot be the name of a role, and keywords such as public.
func (r *roleName) UnmarshalText(text []byte) error {
	const longest = 63 // PostgreSQL truncates a longer name (NAMEDATALEN)
	switch name := string(text); {
	case name == "" || len(name) > longest || !utf8.ValidString(name) || strings.Contains(name, "\x00"):
		return fmt.Errorf("%q cannot be the name of a role, which has 1 to 63 bytes of UTF-8", name)
	case slices.Contains([]string{"public", "none", "current_user", "current_role", "session_user"}, strings.ToLower(name)):
		return fmt.Errorf("%q is a keyword of SQL and not the name of a role", name)
	}
	*r = roleName(text)
	return nil
}
