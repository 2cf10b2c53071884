package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/rowcast/bench"
	"rowcast/sql/cluster"
)

type benchCmd struct {
	Only  []string `placeholder:"NAME,…" help:"Run only these: ${scenarios}."`
	Quick bool     `help:"Small loads in a few seconds, to see that it works: the figures say nothing."`
	Table string   `placeholder:"FILE.md" help:"Write the table to a file, too."`
	Plot  string   `placeholder:"FILE.svg" help:"Plot latency and CPU by rate, which needs the scenario curve: as .svg or .png."`
	database.Flags
}

// Help is shown by rowcast bench --help.
func (benchCmd) Help() string {
	return `Compares rowcast with the design that one writes in an afternoon (the row in the payload of a NOTIFY, a goroutine and a channel a stream), ` +
		`on this machine, in turns. Without a database URL it starts a PostgreSQL of its own, which waits for the disk as a real one does. ` +
		`Everything happens in databases that it makes and removes. All of it takes about forty minutes, in which the machine should have nothing else to do, and some gigabytes of disk.`
}

// Validate knows the scenarios.
func (c *benchCmd) Validate() error {
	for _, name := range c.Only {
		if !slices.Contains(bench.Names(), name) {
			return fmt.Errorf("--only: there is no %q, only %s", name, strings.Join(bench.Names(), ", "))
		}
	}
	if ext := filepath.Ext(c.Plot); c.Plot != "" && ext != ".svg" && ext != ".png" {
		return fmt.Errorf("--plot: %q is neither .svg nor .png", c.Plot)
	}
	return nil
}

// Run is the benchmark, to its end or until ctx ends.
func (c *benchCmd) Run(ctx context.Context, console console) (err error) {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bench.Bench{DSN: c.DatabaseURL, Program: program, Only: c.Only, Quick: c.Quick, Progress: console.err}
	if c.DatabaseURL == "" {
		dsn, remove, err := benchServer(ctx, newProgress(console.err))
		if ctx.Err() != nil {
			return bench.ErrInterrupted
		}
		if err != nil {
			return err
		}
		defer func() { err = errors.Join(err, remove()) }()
		b.DSN = dsn
	}
	report, failed := b.Run(ctx)
	if report == nil {
		return c.Explain(failed)
	}
	return errors.Join(failed, c.write(report, console.out))
}

func (c *benchCmd) write(report *bench.Report, out io.Writer) error {
	if err := report.Table(out); err != nil {
		return err
	}
	if c.Table != "" {
		file, err := os.Create(c.Table)
		if err != nil {
			return err
		}
		defer file.Close()
		if err := report.Table(file); err != nil {
			return err
		}
	}
	if c.Plot != "" {
		return report.Plot(c.Plot)
	}
	return nil
}

// benchServer is a server with the room that a real one has, for this run only.
func benchServer(ctx context.Context, progress *progress) (dsn string, remove func() error, err error) {
	server, _, err := privateServer(ctx, "bench", progress, func(c *cluster.Cluster) {
		c.Fresh = true
		c.Settings = map[string]string{"max_connections": "200", "shared_buffers": "512MB", "max_wal_size": "4GB"}
	})
	if errors.Is(err, cluster.ErrInUse) {
		return "", nil, fmt.Errorf("%w: only one benchmark runs at a time", err)
	}
	if err != nil {
		return "", nil, err
	}
	remove = func() error {
		ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
		defer cancel()
		return errors.Join(server.Stop(ctx), os.RemoveAll(server.Dir))
	}
	return server.DSN("postgres"), remove, nil
}

// A benchChildCmd is a process of the benchmark's.
type benchChildCmd struct {
	Role string `arg:""`
}

// Run does what the parent says.
func (c *benchChildCmd) Run(ctx context.Context, console console) error {
	return bench.Child(ctx, c.Role, os.Stdin, console.out)
}

// A benchHubCmd is rowcast serve, except that it ends with the benchmark, and with two thresholds that nobody else needs.
type benchHubCmd struct {
	Busy, Quiet float64
	serveCmd
}

// Run is the hub.
func (c *benchHubCmd) Run(ctx context.Context, console console) error {
	c.busy, c.quiet = c.Busy, c.Quiet
	return c.serveCmd.Run(bench.UntilParentEnds(ctx, os.Stdin), console)
}
