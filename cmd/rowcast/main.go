// Command rowcast sends rows that are inserted into PostgreSQL to browsers.
//
// The command parses flags and environment variables, handles signals and returns exit codes. Each subcommand is a type
// with its flags as fields and a method Run. The exit codes are:
//
//	0  the command did what was asked, or a signal stopped demo, serve or tail
//	1  the command failed and printed the reason
//	2  the command line, a variable or a file that they name is invalid
//
// The documentation of package listener lists most operations of serve that may fail, and what happens after a failure.
// The command adds these:
//
//	operation  what is retried                        when                            log line
//	auth_url   the request to the app's endpoint      when the client reconnects;     authentication endpoint failed
//	                                                  for an open stream after 5 to
//	                                                  15 s, until --auth-grace has
//	                                                  passed
//	jwks       reading a JSON Web Key Set from its    after 30 to 90 s; when a token  cannot read the JSON Web Key
//	           URL                                    names an unknown key, at most   Set: the keys …
//	                                                  every 10 s
//	accept     accepting connections of clients       after 5 ms, doubled up to 1 s   cannot accept connections
//	inbox      a statement that PostgreSQL has ended  after 50 ms, at most twice;     cannot read or change an inbox
//	           because of a deadlock                  after a third deadlock or
//	                                                  another failure, the client
//	                                                  gets 503
//
// The metric rowcast_failures_total counts the failures of each operation, and the body of /readyz lists the operations
// that are failing. The operation jwks is failing if the last read of any URL has failed. The operations
// auth_url, accept and inbox are failing for some time after their last failure, as package failures documents. The
// command tail prints each reconnection to standard error.
package main

import (
	"cmp"
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
	"strings"
	"syscall"

	"github.com/alecthomas/kong"

	"rowcast/cmd/internal/flags"
	"rowcast/cmd/internal/private"
	"rowcast/cmd/internal/server"
	"rowcast/cmd/internal/terminal"
	"rowcast/sql/connstring"
)

func main() {
	log.SetOutput(io.Discard) // discards what net/http logs, such as texts of other servers; rowcast uses slog
	ctx, cancel := context.WithCancel(context.Background())
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, os.Interrupt, syscall.SIGTERM)
	go func() {
		<-signals
		signal.Stop(signals) // before cancel, so that a second signal ends the process at once
		cancel()
	}()
	os.Exit(run(ctx, os.Args[1:], os.Getenv, console{os.Stdout, os.Stderr, true}))
}

// A commandLine has the subcommands and the flag --version as its fields.
type commandLine struct {
	Demo    demoCmd    `cmd:"" help:"Try rowcast on this machine: start a private PostgreSQL, a hub and a page. Nothing needs to be prepared."`
	Migrate migrateCmd `cmd:"" help:"Install or upgrade the schema rowcast in a database."`
	Serve   serveCmd   `cmd:"" help:"Run a hub: read inserted rows and stream them to browsers."`
	Tail    tailCmd    `cmd:"" help:"Print the events of a stream, one per line."`
	Client  clientCmd  `cmd:"" help:"Print the browser client: rowcast.js, or a script of the inbox."`
	Token   tokenCmd   `cmd:"" help:"Issue a token for testing."`
	Watch   watchCmd   `cmd:"" help:"Send notifications for the rows of a table that an app already has."`
	Unwatch unwatchCmd `cmd:"" help:"Stop sending notifications for the rows of a table (see rowcast watch)."`
	Doctor  doctorCmd  `cmd:"" help:"Check whether a hub can work with a database, and print how to fix what is wrong."`

	Version kong.VersionFlag `help:"Print the version."`
}

// Validate refuses flags with an empty value.
func (*commandLine) Validate(ctx *kong.Context) error { return flags.RefuseEmpty(ctx) }

const description = "rowcast sends each row that is inserted into the table rowcast.notifications to the browsers of its recipient, as a server-sent event."

// flagGroups are the groups of flags in the help, with their headings.
var flagGroups = []kong.Group{
	{Key: "database", Title: "Database:"},
	{Key: "http", Title: "HTTP:"},
	{Key: "auth", Title: "Authentication (give one of: tokens, --auth-url, --insecure-uid; --public may be given in addition, or alone):"},
	{Key: "streams", Title: "Streams:"},
	{Key: "log", Title: "Log:"},
}

// A console has the standard output and the standard error of a command.
type console struct {
	out, err  io.Writer
	isProcess bool // the command is the whole process, so serve may lower the memory limit to what a hub needs
}

// run runs the program and returns the exit code. When ctx ends, the command stops.
func run(ctx context.Context, args []string, getenv func(string) string, c console) int {
	if len(args) == 0 {
		args = []string{"--help"}
	}
	out := &output{Writer: c.out}
	if !private.IsTerminal(c.out) { // a terminal must stay recognizable
		c.out = out
	}
	parsed, err := parse(args, getenv, c.out, c.err)
	switch {
	case out.err != nil: // the help or the version could not be printed
		fmt.Fprintf(c.err, "rowcast: %v\n", out.err)
		return 1
	case err != nil:
		fmt.Fprintf(c.err, "rowcast: %v\n", err)
		return 2
	case parsed == nil: // --help or --version
		return 0
	}
	parsed.BindTo(ctx, (*context.Context)(nil))
	err = parsed.Run(c)
	if err == nil || errors.Is(err, errReported) {
		err = cmp.Or(out.err, err)
	}
	switch {
	case err == nil:
		return 0
	case !errors.Is(err, errReported):
		fmt.Fprintf(c.err, "rowcast: %s\n", terminal.OneLine(err))
	}
	if _, ok := errors.AsType[usageError](err); ok {
		return 2
	}
	if _, ok := errors.AsType[connstring.Error](err); ok {
		return 2
	}
	return 1
}

// An output keeps the first error of a Write, because most commands ignore the errors of the texts that they print.
type output struct {
	io.Writer
	err error
}

func (o *output) Write(p []byte) (int, error) {
	n, err := o.Writer.Write(p)
	o.err = cmp.Or(o.err, err)
	return n, err
}

// errReported is the error of a command that has already reported what failed.
var errReported = errors.New("failed")

// A usageError is an error in the flags or variables that a command finds after the parsing. The exit code is then 2.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

// usage returns err as a usageError, or nil if err is nil.
func usage(err error) error {
	if err == nil {
		return nil
	}
	return usageError{err}
}

// parse parses the command line. If the command line asks for the help or the version, parse prints the help or the
// version, and returns nil and no error.
func parse(args []string, getenv func(string) string, stdout, stderr io.Writer) (*kong.Context, error) {
	done := false
	parser, err := kong.New(new(commandLine),
		kong.Name("rowcast"),
		kong.Description(description),
		kong.Writers(stdout, stderr),
		kong.Exit(func(int) { done = true }),
		kong.ConfigureHelp(kong.HelpOptions{Compact: true, FlagsLast: true, WrapUpperBound: 110}),
		kong.Vars{"version": version(), "replays": strconv.Itoa(server.DefaultReplays())},
		kong.ExplicitGroups(flagGroups),
		flags.Options(getenv),
	)
	if err != nil {
		return nil, err
	}
	parsed, err := parser.Parse(flags.JoinNegative(args))
	if done {
		return nil, nil
	}
	return parsed, flags.Explain(parser, err)
}

func version() string {
	return fmt.Sprintf("rowcast %s %s %s/%s", versionNumber(), runtime.Version(), runtime.GOOS, runtime.GOARCH)
}

// versionNumber returns the version of the module, or a text in parentheses.
func versionNumber() string {
	if info, ok := debug.ReadBuildInfo(); ok && info.Main.Version != "" {
		return info.Main.Version
	}
	return "(unknown version)"
}

// userAgent returns the program and its version for the header User-Agent. A build without a version is "devel".
func userAgent() string {
	if number := versionNumber(); !strings.HasPrefix(number, "(") {
		return "rowcast/" + number
	}
	return "rowcast/devel"
}
