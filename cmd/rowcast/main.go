// Command rowcast tells browsers of the rows that are inserted into PostgreSQL.
//
// It ties the packages together and is the only one that knows flags, environment variables, signals and exit codes. Each
// command is a type of its own, with its flags for fields and Run for the rest. Exit codes: 0 done, or ended as told;
// 1 it did not work, with one line that says why; 2 the command line is wrong.
//
// What serve tries again is listed in the documentation of the package listener. The command adds:
//
//	operation  what is tried again                  when                                          log line
//	auth_url   asking the app who a client is       when the client comes back; for an open       authentication endpoint failed
//	                                                stream after 5 to 15 s
//	jwks       reading the keys at the URL of a     after 30 to 90 s, and after 10 s when a       cannot read the JSON Web Key Set: the keys …
//	           JSON Web Key Set                     token names an unknown key
//	accept     accepting connections of clients     after 5 ms, doubled up to 1 s                 cannot accept connections
//
// Each is counted in rowcast_failures_total and shown in the body of /readyz while it fails: jwks until the keys of each URL have been
// read, auth_url and accept as the package listener says of replay. The command tail writes each attempt to reconnect to its standard error.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"os"
	"os/signal"
	"runtime"
	"runtime/debug"
	"strconv"
	"syscall"

	"github.com/alecthomas/kong"

	"rowcast/cmd/internal/server"
	"rowcast/cmd/internal/terminal"
)

func main() {
	log.SetOutput(io.Discard) // ours is slog's; net/http's client would write what others answered
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // first, so that the next one ends the process at once
		cancel()
	}()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, os.Stdout, os.Stderr))
}

// commandLine is what can be typed.
type commandLine struct {
	Demo    demoCmd    `cmd:"" help:"Try everything on this machine: a private PostgreSQL, the hub and a page. Needs nothing prepared."`
	Migrate migrateCmd `cmd:"" help:"Install or upgrade the schema in a database."`
	Serve   serveCmd   `cmd:"" help:"Run the hub: read what is inserted and stream it to the browsers."`
	Tail    tailCmd    `cmd:"" help:"Print a user's events, one a line, as a browser would receive them."`
	Token   tokenCmd   `cmd:"" help:"Make a token for trying things out."`
	Doctor  doctorCmd  `cmd:"" help:"Say what in this database or around it will not work, and how to mend it."`

	Version kong.VersionFlag `help:"Print the version."`
}

// console is where a command writes: what it was asked for, and what it has to say besides.
type console struct{ out, err io.Writer }

// run is the whole program: it returns the exit code when the command is done or ctx has ended.
func run(ctx context.Context, args []string, getenv func(string) string, stdout, stderr io.Writer) int {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	parsed, err := parse(args, getenv, stdout, stderr)
	switch {
	case err != nil:
		fmt.Fprintf(stderr, "rowcast: %v\n", err)
		return 2
	case parsed == nil: // --help or --version
		return 0
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run(console{stdout, stderr})
	switch {
	case err == nil:
		return 0
	case !errors.Is(err, errSaid):
		fmt.Fprintf(stderr, "rowcast: %s\n", terminal.OneLine(err))
	}
	return 1
}

// errSaid ends a command that has itself said what is wrong.
var errSaid = errors.New("failed")

// parse returns nil if the command line asked for nothing but help or the version, which are then written.
func parse(args []string, getenv func(string) string, stdout, stderr io.Writer) (*kong.Context, error) {
	done := false
	parser, err := kong.New(new(commandLine),
		kong.Name("rowcast"),
		kong.Description("A row goes in; the people it concerns hear of it."),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { done = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 110}),
		kong.Vars{"version": version(), "replays": strconv.Itoa(server.DefaultReplays())},
		kong.ExplicitGroups(flagGroups),
		ranges(),
		environment(getenv),
	)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(joined(args))
	if done {
		return nil, nil
	}
	return parsed, err
}

func version() string {
	number := "(unknown version)"
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		number = info.Main.Version
	}
	return fmt.Sprintf("rowcast %s %s %s/%s", number, runtime.Version(), runtime.GOOS, runtime.GOARCH)
}
