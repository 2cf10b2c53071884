// Package doctor examines whether a hub can work with a database, and says how to mend what is wrong.
package doctor

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

// An Examination examines a database. It changes nothing. Config, Explain and Out must be set.
type Examination struct {
	Config  *pgx.ConnConfig   // of the role that the hub has
	Explain func(error) error // makes an error of the database readable for people
	Out     io.Writer

	conn *pgx.Conn
	tx   pgx.Tx // of the present check, with our search_path
	// allSeen tells whether the role sees what other roles' sessions are doing.
	allSeen bool
}

// A check looks at one thing. Its error says that it could not look.
type check struct {
	name string
	look func(*Examination, context.Context) (finding, error)
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
	{"connection", (*Examination).connection, vital},
	{"version", (*Examination).version, vital},
	{"primary", (*Examination).primary, vital},
	{"LISTEN", (*Examination).listen, alone},
	{"connections", (*Examination).connections, ordinary},
	{"timeouts", (*Examination).timeouts, ordinary},
	{"standbys", (*Examination).standbys, ordinary},
	{"NOTIFY queue", (*Examination).queue, ordinary},
	{"transactions", (*Examination).transactions, ordinary},
	{"schema", (*Examination).schema, vital},
	{"rights", (*Examination).rights, vital},
	{"retention", (*Examination).retention, ordinary},
	{"row security", (*Examination).rowSecurity, vital},
	{"migrations", (*Examination).migrations, vital},
	{"trigger", (*Examination).trigger, ordinary},
	{"tables", (*Examination).tables, ordinary},
	{"rows", (*Examination).rows, ordinary},
	{"hubs", (*Examination).hubs, ordinary},
	{"park lock", (*Examination).parkLock, ordinary},
	{"reading", (*Examination).reading, alone},
}

// ErrFailed reports that a check failed. The report says which.
var ErrFailed = errors.New("a check failed")

// Run runs the checks and reports their results.
func (e *Examination) Run(ctx context.Context) error {
	e.Config.RuntimeParams["application_name"] = "rowcast doctor"
	e.Config.DefaultQueryExecMode = pgx.QueryExecModeExec // a pooler may not know prepared statements
	defer e.end()
	failed, warned := 0, 0
	for _, check := range checks {
		f := e.examine(ctx, check)
		report(e.Out, check.name, f)
		switch f.verdict {
		case failure:
			failed++
		case warning:
			warned++
		}
		if f.verdict == failure && check.kind == vital {
			fmt.Fprintln(e.Out, "\nThe remaining checks need this one.")
			return ErrFailed
		}
	}
	return conclude(e.Out, failed, warned)
}

func conclude(w io.Writer, failed, warned int) error {
	switch {
	case failed > 0:
		fmt.Fprintf(w, "\nFailed: %d. Warnings: %d.\n", failed, warned)
		return ErrFailed
	case warned > 0:
		fmt.Fprintf(w, "\nIt works. Warnings: %d.\n", warned)
	default:
		fmt.Fprintln(w, "\nAll is well.")
	}
	return nil
}

// examine never takes long, whatever the server does.
func (e *Examination) examine(ctx context.Context, c check) finding {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	f, err := e.look(ctx, c)
	if err != nil {
		err = e.Explain(err)
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			err = errors.New("no answer within 10 s")
		}
		return finding{failure, terminal.OneLine(err), ""}
	}
	return f
}

// look connects before the first check, and runs every check but those that stand alone in a transaction of its own.
func (e *Examination) look(ctx context.Context, c check) (f finding, err error) {
	if e.conn == nil {
		if e.conn, err = pgx.ConnectConfig(ctx, e.Config); err != nil {
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

func (e *Examination) end() {
	if e.conn != nil {
		_ = e.conn.Close(context.Background())
	}
}

// ask runs a query with one row for an answer.
func (e *Examination) ask(ctx context.Context, query string, into ...any) error {
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
