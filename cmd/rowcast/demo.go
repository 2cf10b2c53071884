package main

import (
	"context"
	"errors"
	"fmt"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/demo"
	"rowcast/cmd/internal/server"
)

type demoCmd struct {
	Listen string `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Serve the page at this loopback address (default ${default}). If the port is in use, a free port is used."`
	Fresh  bool   `help:"Delete the private PostgreSQL of earlier demos, with its rows, and create a new one."`
	database.Flags
}

// Help is shown by rowcast demo --help.
func (demoCmd) Help() string {
	return `Without a database URL, the demo starts a private PostgreSQL: the first one on PATH, else the newest that is installed, else one that it downloads. ` +
		`This server listens on a Unix socket only and stops when the demo stops. Its rows are kept for the next demo. ` +
		`With a database URL, the demo installs the schema rowcast in that database, and a watched table in the schema rowcast_demo. The schemas and their rows stay there.`
}

// Validate refuses a malformed address, and --fresh with a database URL. It also refuses an address that is not a
// loopback address, because the demo does not authenticate requests.
func (c *demoCmd) Validate() error {
	if !isAddress(c.Listen) {
		return fmt.Errorf("--listen: %q is not HOST:PORT, such as 127.0.0.1:8080", c.Listen)
	}
	if !server.IsLoopback(c.Listen) {
		return fmt.Errorf("--listen: %q is not a loopback address such as 127.0.0.1:8080; the demo does not authenticate requests, so it must be reachable from this machine only", c.Listen)
	}
	if c.Fresh && c.DatabaseURL != "" {
		return errors.New("--fresh: this deletes only the private PostgreSQL, and a database URL is given: leave out one of them")
	}
	return nil
}

// Run runs the demo until ctx ends or the demo fails.
func (c *demoCmd) Run(ctx context.Context, console console) error {
	d := demo.Demo{Listen: c.Listen, Database: c.Flags, Fresh: c.Fresh, Out: console.out, Err: console.err}
	return d.Run(ctx)
}
