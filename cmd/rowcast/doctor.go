package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"
)

type doctorCmd struct {
	databaseFlags
}

// Help is shown by rowcast doctor --help.
func (doctorCmd) Help() string {
	return "Connect as the role that the hub has. The doctor changes nothing. It exits with 1 if anything fails; a warning is no failure."
}

// A finding is the result of a check.
type finding struct {
	verdict verdict
	text    string
	mend    string // what to do about it; empty: nothing
}

type verdict string

const (
	healthy verdict = "ok"
	warning verdict = "warn"
	failure verdict = "fail"
)

func fine(format string, args ...any) finding {
	return finding{healthy, fmt.Sprintf(format, args...), ""}
}

// An examination is a patient with what is known of him.
type examination struct {
	flags  databaseFlags
	config *pgx.ConnConfig
	conn   *pgx.Conn
	// allSeen tells whether the role sees what other roles' sessions are doing.
	allSeen bool
}

// A check looks at one thing. Its error says that it could not look.
type check struct {
	name string
	look func(*examination, context.Context) (finding, error)
	// vital checks end the examination if they fail, as what follows would only fail for the same reason.
	vital bool
}

var checks = []check{
	{"connection", (*examination).connection, true},
	{"version", (*examination).version, true},
	{"primary", (*examination).primary, true},
	{"LISTEN", (*examination).listen, false},
	{"connections", (*examination).connections, false},
	{"timeouts", (*examination).timeouts, false},
	{"standbys", (*examination).standbys, false},
	{"NOTIFY queue", (*examination).queue, false},
	{"transactions", (*examination).transactions, false},
	{"schema", (*examination).schema, true},
	{"rights", (*examination).rights, true},
	{"retention", (*examination).retention, false},
	{"row security", (*examination).rowSecurity, true},
	{"migrations", (*examination).migrations, true},
	{"trigger", (*examination).trigger, false},
	{"tables", (*examination).tables, false},
	{"rows", (*examination).rows, false},
	{"hubs", (*examination).hubs, false},
	{"park lock", (*examination).parkLock, false},
}

// Run examines the database.
func (c *doctorCmd) Run(ctx context.Context, console console) error {
	config, err := c.config()
	if err != nil {
		return err
	}
	config.RuntimeParams["application_name"] = "rowcast doctor"
	config.DefaultQueryExecMode = pgx.QueryExecModeExec // a pooler may not know prepared statements
	e := &examination{flags: c.databaseFlags, config: config}
	defer e.end()
	failed, warned := 0, 0
	for _, check := range checks {
		f := e.examine(ctx, check)
		report(console.out, check.name, f)
		switch f.verdict {
		case failure:
			failed++
		case warning:
			warned++
		}
		if f.verdict == failure && check.vital {
			fmt.Fprintln(console.out, "\nThe rest is left out until that is mended.")
			return errSaid
		}
	}
	return conclude(console.out, failed, warned)
}

func conclude(w io.Writer, failed, warned int) error {
	switch {
	case failed > 0:
		fmt.Fprintf(w, "\nFailed: %d. Warnings: %d.\n", failed, warned)
		return errSaid
	case warned > 0:
		fmt.Fprintf(w, "\nIt works. Warnings: %d.\n", warned)
	default:
		fmt.Fprintln(w, "\nAll is well.")
	}
	return nil
}

// examine never takes long, whatever the server does.
func (e *examination) examine(ctx context.Context, c check) finding {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	f, err := c.look(e, ctx)
	if err != nil {
		err = e.flags.explain(err)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = errors.New("no answer within 10 s")
		}
		return finding{failure, oneLine(err), ""}
	}
	return f
}

func (e *examination) end() {
	if e.conn != nil {
		_ = e.conn.Close(context.Background())
	}
}

// ask runs a query with one row for an answer.
func (e *examination) ask(ctx context.Context, query string, into ...any) error {
	return e.conn.QueryRow(ctx, query).Scan(into...)
}

// report writes a finding as a line, and what mends it as another.
func report(w io.Writer, name string, f finding) {
	fmt.Fprintf(w, "%-4s  %-12s  %s\n", f.verdict, name, f.text)
	if f.mend == "" {
		return
	}
	for line := range strings.Lines(f.mend) {
		fmt.Fprintf(w, "%20s→ %s\n", "", strings.TrimSpace(line))
	}
}
