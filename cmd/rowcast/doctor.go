package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/cmd/internal/terminal"
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
	tx     pgx.Tx // of the present check, with our search_path
	// allSeen tells whether the role sees what other roles' sessions are doing.
	allSeen bool
}

// A check looks at one thing. Its error says that it could not look.
type check struct {
	name string
	look func(*examination, context.Context) (finding, error)
	kind checkKind
}

type checkKind int

const (
	ordinary checkKind = iota
	// vital checks end the examination if they fail, as what follows would only fail for the same reason.
	vital
	// alone is a check that must not run in a transaction.
	alone
)

var checks = []check{
	{"connection", (*examination).connection, vital},
	{"version", (*examination).version, vital},
	{"primary", (*examination).primary, vital},
	{"LISTEN", (*examination).listen, alone},
	{"connections", (*examination).connections, ordinary},
	{"timeouts", (*examination).timeouts, ordinary},
	{"standbys", (*examination).standbys, ordinary},
	{"NOTIFY queue", (*examination).queue, ordinary},
	{"transactions", (*examination).transactions, ordinary},
	{"schema", (*examination).schema, vital},
	{"rights", (*examination).rights, vital},
	{"retention", (*examination).retention, ordinary},
	{"row security", (*examination).rowSecurity, vital},
	{"migrations", (*examination).migrations, vital},
	{"trigger", (*examination).trigger, ordinary},
	{"tables", (*examination).tables, ordinary},
	{"rows", (*examination).rows, ordinary},
	{"hubs", (*examination).hubs, ordinary},
	{"park lock", (*examination).parkLock, ordinary},
	{"reading", (*examination).reading, alone},
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
		if f.verdict == failure && check.kind == vital {
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
	f, err := e.look(ctx, c)
	if err != nil {
		err = e.flags.explain(err)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = errors.New("no answer within 10 s")
		}
		return finding{failure, terminal.OneLine(err), ""}
	}
	return f
}

// look connects before the first check, and runs every check but those that stand alone in a transaction of its own.
func (e *examination) look(ctx context.Context, c check) (f finding, err error) {
	if e.conn == nil {
		if e.conn, err = pgx.ConnectConfig(ctx, e.config); err != nil {
			return finding{}, err
		}
	}
	if c.kind == alone {
		return c.look(e, ctx)
	}
	err = pgx.BeginTxFunc(ctx, e.conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, securePath); err != nil {
			return err
		}
		e.tx = tx
		f, err = c.look(e, ctx)
		return err
	})
	return f, err
}

// securePath keeps a transaction from using a stranger's functions, operators and tables. It is the transaction's first statement,
// and needs nothing from the search_path itself. A transaction pooler gives the next transaction another session, so the setting is
// for this one alone.
const securePath = "SELECT pg_catalog.set_config('search_path', 'pg_catalog, pg_temp', true)"

func (e *examination) end() {
	if e.conn != nil {
		_ = e.conn.Close(context.Background())
	}
}

// ask runs a query with one row for an answer.
func (e *examination) ask(ctx context.Context, query string, into ...any) error {
	return e.tx.QueryRow(ctx, query).Scan(into...)
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
