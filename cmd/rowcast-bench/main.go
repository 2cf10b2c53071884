// Command rowcast-bench measures the cost of rowcast on this machine. It compares rowcast with a naive design, in which
// a trigger sends each row in the payload of a NOTIFY, and the hub has a goroutine and a channel for each stream. One
// scenario compares rowcast with other designs, such as a relay with Redis.
//
// The exit code is 0 if the measurement is complete, 1 if it failed or was interrupted, and 2 if the command line is
// wrong.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"

	"github.com/alecthomas/kong"

	"rowcast/cmd/internal/database"
	"rowcast/cmd/internal/private"
	"rowcast/cmd/internal/terminal"
	"rowcast/cmd/rowcast-bench/bench"
	"rowcast/sql/cluster"
)

func main() {
	log.SetOutput(io.Discard) // the client of net/http logs unexpected answers of servers
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	context.AfterFunc(ctx, stop) // so that a second signal ends the process at once
	os.Exit(run(ctx, os.Args[1:], os.Stdin, os.Stdout, os.Stderr))
}

// run is the whole program. It returns the exit code.
func run(ctx context.Context, args []string, stdin io.Reader, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == bench.ChildArgument { // this is a child process of the benchmark
		return exitCode(bench.Child(ctx, args[1:], stdin, stdout, stderr), stderr)
	}
	var c command
	done := false
	parser, err := kong.New(&c,
		kong.Name("rowcast-bench"), kong.Description(description), kong.Writers(stdout, stderr), kong.Exit(func(int) { done = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, WrapUpperBound: 110}), kong.Vars{"scenarios": strings.Join(bench.Names(), ", ")})
	if err == nil {
		_, err = parser.Parse(args)
	}
	switch {
	case done:
		return 0
	case err != nil:
		fmt.Fprintf(stderr, "rowcast-bench: %v\n", err)
		return 2
	}
	return exitCode(c.run(ctx, stdout, stderr), stderr)
}

func exitCode(err error, stderr io.Writer) int {
	if err == nil {
		return 0
	}
	fmt.Fprintf(stderr, "rowcast-bench: %s\n", terminal.OneLine(err))
	return 1
}

const description = "Compares rowcast with a naive design on this machine. In the naive design, a trigger sends each row in the payload of a NOTIFY, " +
	"and the hub has a goroutine and a channel for each stream. The benchmark creates its own databases and removes them. Without a database " +
	"URL it starts a private PostgreSQL with fsync on. All scenarios together take about forty minutes and some gigabytes of disk. Run " +
	"nothing else on the machine meanwhile."

// A command is the command line.
type command struct {
	Only  []string `placeholder:"NAME,…" help:"Run only these scenarios: ${scenarios}."`
	Quick bool     `help:"Use small loads, to check that everything works. The figures mean nothing."`
	Table string   `placeholder:"FILE.md" help:"Also write the results, which are printed as Markdown, to this file."`
	Plot  string   `placeholder:"FILE.svg" help:"Plot latency and CPU by rate, as .svg or .png. This needs the scenario curve."`
	// The default is right if the program runs in the root directory of the repository.
	Designs string `placeholder:"DIR" default:"cmd/rowcast-bench/designs" help:"The directory of the programs of the scenario designs, with their modules (see its README). Designs whose programs are missing are left out."`
	database.Flags
}

// Validate checks --only and --plot. kong calls it.
func (c *command) Validate() error {
	for _, name := range c.Only {
		if !slices.Contains(bench.Names(), name) {
			return fmt.Errorf("--only: there is no scenario %q; the scenarios are %s", name, strings.Join(bench.Names(), ", "))
		}
	}
	if ext := filepath.Ext(c.Plot); c.Plot != "" && ext != ".svg" && ext != ".png" {
		return fmt.Errorf("--plot: %q does not end in .svg or .png", c.Plot)
	}
	return nil
}

func (c *command) run(ctx context.Context, stdout, stderr io.Writer) (err error) {
	program, err := os.Executable()
	if err != nil {
		return err
	}
	b := &bench.Bench{DSN: c.DatabaseURL, Program: program, Only: c.Only, Quick: c.Quick, Progress: stderr, Designs: c.Designs}
	if c.DatabaseURL == "" {
		dsn, remove, err := startServer(ctx, private.NewProgress(stderr))
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
	return errors.Join(failed, c.write(report, stdout))
}

func (c *command) write(report *bench.Report, out io.Writer) error {
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

// startServer starts a PostgreSQL server for this run, with the settings of a small production server. remove stops the
// server and deletes its files.
func startServer(ctx context.Context, progress *private.Progress) (dsn string, remove func() error, err error) {
	server, _, err := private.Start(ctx, "bench", progress, func(c *cluster.Cluster) {
		c.Fresh = true
		c.Settings = map[string]string{"max_connections": "200", "shared_buffers": "512MB", "max_wal_size": "4GB"}
	})
	if errors.Is(err, cluster.ErrInUse) {
		return "", nil, fmt.Errorf("%w: another benchmark uses the private PostgreSQL; wait until it has ended, or give this benchmark a database URL", err)
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
