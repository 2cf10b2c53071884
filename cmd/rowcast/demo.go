package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"syscall"
	"time"

	"github.com/jackc/pgx/v5"
	"github.com/jackc/pgx/v5/pgxpool"
	"golang.org/x/sync/errgroup"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/private"
	"rowcast/cmd/internal/server"
	"rowcast/sql"
)

type demoCmd struct {
	Listen string `default:"127.0.0.1:8080" placeholder:"HOST:PORT" help:"Where the page is, on this machine only (default ${default}). If the port is taken, any free one."`
	Fresh  bool   `help:"Throw away the private PostgreSQL of earlier runs, and begin with a new one."`
	database.Flags
}

// Help is shown by rowcast demo --help.
func (demoCmd) Help() string {
	return `Without a database URL it starts a PostgreSQL of its own: the newest that is installed, or one that it downloads. ` +
		`It listens on a Unix socket only, ends with the demo, and keeps its rows for the next one. ` +
		`With a database URL it installs the schema there and uses that database, in which everything then stays.`
}

// Validate keeps to this machine what asks nobody who he is.
func (c *demoCmd) Validate() error {
	if !server.IsLoopback(c.Listen) {
		return fmt.Errorf("--listen: the demo asks nobody who he is, so it is for this machine only: %q is not an address such as 127.0.0.1:8080", c.Listen)
	}
	if c.Fresh && c.DatabaseURL != "" {
		return errors.New("--fresh is for the private PostgreSQL; a database URL is given")
	}
	return nil
}

// Run is the demo, until ctx ends.
func (c *demoCmd) Run(ctx context.Context, console console) error {
	err := c.run(ctx, console)
	if c.DatabaseURL != "" {
		err = c.Explain(err)
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return nil // told to end before it had begun
	}
	return err
}

func (c *demoCmd) run(ctx context.Context, console console) (err error) {
	progress := private.NewProgress(console.err)
	address, err := c.freeAddress(ctx, progress)
	if err != nil {
		return err
	}
	database, err := c.open(ctx, progress)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, database.close()) }()

	config, err := pgx.ParseConfig(database.dsn)
	if err != nil {
		return err
	}
	pool, err := newDemoPool(ctx, database.dsn)
	if err != nil {
		return err
	}
	defer pool.Close()
	page, err := newDemoPage(pool, database)
	if err != nil {
		return err
	}
	// Those who try it want to see its page, and of its log only what is wrong.
	s := server.New(config, slog.New(slog.NewTextHandler(console.err, &slog.HandlerOptions{Level: slog.LevelWarn})))
	s.Listen, s.Guard, s.Routes = address, onlyHere, page.routes
	s.Hub.Drain, s.Hub.Retry = 300*time.Millisecond, time.Second
	s.Listening = func(addr net.Addr) { printDemo(console.out, "http://"+addr.String(), database) }

	group, running := errgroup.WithContext(ctx)
	group.Go(func() error { return s.Run(running) })
	group.Go(func() error { return database.awaitEnd(running) })
	return group.Wait()
}

// freeAddress is that of --listen, or one with another port if that is taken: by another demo, or by what else likes port 8080.
func (c *demoCmd) freeAddress(ctx context.Context, progress *private.Progress) (string, error) {
	var config net.ListenConfig
	socket, err := config.Listen(ctx, "tcp", c.Listen)
	if err == nil {
		return c.Listen, socket.Close()
	}
	if !errors.Is(err, syscall.EADDRINUSE) {
		return "", fmt.Errorf("cannot listen: %w", err)
	}
	progress.Step(fmt.Sprintf("%s is taken, so the page gets another port", c.Listen))
	host, _, err := net.SplitHostPort(c.Listen)
	return net.JoinHostPort(host, "0"), err
}

// open opens the database and brings its schema up to date.
func (c *demoCmd) open(ctx context.Context, progress *private.Progress) (*demoDatabase, error) {
	if c.DatabaseURL == "" {
		database, err := privateDatabase(ctx, c.Fresh, progress)
		if err != nil {
			return nil, err
		}
		if _, _, err := sql.Migrate(ctx, database.dsn); err != nil {
			return nil, errors.Join(err, database.close())
		}
		return database, nil
	}
	config, err := c.Config()
	if err != nil {
		return nil, err
	}
	progress.Step(fmt.Sprintf("using the database %q at %s, which the database URL names", config.Database, database.Addresses(&config.Config)))
	from, to, err := sql.Migrate(ctx, c.DatabaseURL)
	if err != nil {
		return nil, err
	}
	if from != to {
		progress.Step(fmt.Sprintf("installed the schema rowcast in it (version %d)", to))
	}
	return theirDatabase(c.DatabaseURL, config), nil
}

// newDemoPool is for the page: what it inserts, and what it finds when it is opened.
func newDemoPool(ctx context.Context, dsn string) (*pgxpool.Pool, error) {
	config, err := pgxpool.ParseConfig(dsn)
	if err != nil {
		return nil, err
	}
	config.MaxConns = 4
	config.ConnConfig.RuntimeParams["application_name"] = "rowcast demo"
	config.ConnConfig.RuntimeParams["search_path"] = "pg_catalog, pg_temp" // a stranger may have put functions elsewhere
	return pgxpool.NewWithConfig(ctx, config)
}
