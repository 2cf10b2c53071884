// Package doctor checks whether a hub can work with a database, or whether a role has the rights of an app. It reports
// how to fix what is wrong.
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
	"rowcast/sql"
)

// An Examination examines a database. It changes nothing there, except that it begins an epoch if no hub has done so.
// Config, Explain and Out must be set.
type Examination struct {
	Config  *pgx.ConnConfig   // the connection, as the role of the hub if Role is empty
	Explain func(error) error // rewrites an error of the database for people
	Out     io.Writer         // for the report
	Role    string            // if not empty, the rights of this role of an app are examined instead

	conn            *pgx.Conn
	tx              pgx.Tx // the transaction of the current check, with a safe search_path
	seesAllSessions bool   // the role of the connection may see what the sessions of other roles do
	quoted          string // Role, quoted for SQL; set by the check "role"

	compared    bool             // the check "migrations" has compared the schema with what rowcast migrate installs
	differences []sql.Difference // what the comparison has found
}

// A check examines one property of the database. Its function run returns an error if the property cannot be examined.
type check struct {
	name string
	run  func(*Examination, context.Context) (finding, error)
	kind checkKind
}

type checkKind int

const (
	// An ordinary check runs in a transaction.
	ordinary checkKind = iota
	// A vital check runs in a transaction, too. If it fails, the examination ends, because later checks need the vital
	// check to pass.
	vital
	// A check of the kind withoutTransaction runs without a transaction, and may open other connections.
	withoutTransaction
)

// A finding is the result of a check. The zero finding is not reported: there was nothing to examine.
type finding struct {
	verdict verdict
	text    string
	fix     string // statements or advice, one per line; may be empty
}

type verdict string

const (
	healthy verdict = "ok"
	warning verdict = "warn"
	failure verdict = "fail"
)

func ok(format string, args ...any) finding {
	return finding{healthy, fmt.Sprintf(format, args...), ""}
}

var checks = []check{
	{"connection", (*Examination).connection, vital},
	{"version", (*Examination).version, vital},
	{"primary", (*Examination).primary, vital},
	{"encoding", (*Examination).encoding, vital},
	{"collation", (*Examination).collation, ordinary},
	{"durability", (*Examination).durability, ordinary},
	{"LISTEN", (*Examination).listen, withoutTransaction},
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
	{"tables", compared("every table is as rowcast migrate creates it", "table"), ordinary},
	{"columns", compared("every column is as rowcast migrate creates it", "column", "not null", "default", "identity", "sequence"), ordinary},
	{"constraints", compared("every constraint is there", "constraint"), ordinary},
	{"indexes", compared("every index is there and valid", "index", "valid"), ordinary},
	{"functions", compared("every function has the source that rowcast migrate installs", "function"), ordinary},
	{"trigger", compared("every trigger is enabled in all sessions", "trigger", "enabled", "rule"), ordinary},
	{"owners", compared("every object belongs to the owner of the schema or a superuser, except functions of watched tables", "owner"), ordinary},
	{"grants", compared("no table, and no function of the inbox or of a watched table, grants rights to PUBLIC", "grant"), ordinary},
	{"senders", (*Examination).senders, ordinary},
	{"read-only", (*Examination).readOnly, ordinary},
	{"rows", (*Examination).rows, ordinary},
	{"ids", (*Examination).ids, ordinary},
	{"watched", (*Examination).watched, ordinary},
	{"hubs", (*Examination).hubs, ordinary},
	{"park lock", (*Examination).parkLock, ordinary},
	{"reading", (*Examination).reading, withoutTransaction},
}

// roleChecks are the checks of the role of an app.
var roleChecks = []check{
	{"connection", (*Examination).connection, vital},
	{"version", (*Examination).version, vital},
	{"schema", (*Examination).schema, vital},
	{"role", (*Examination).role, vital},
	{"rights", (*Examination).appRights, ordinary},
	{"more rights", (*Examination).excess, ordinary},
	{"senders", (*Examination).senders, ordinary},
	{"read-only", (*Examination).readOnly, ordinary},
	{"row security", (*Examination).policies, ordinary},
}

// Run runs the checks, prints their results, and reports whether no check failed.
func (e *Examination) Run(ctx context.Context) bool {
	e.Config.RuntimeParams["application_name"] = "rowcast doctor"
	e.Config.DefaultQueryExecMode = pgx.QueryExecModeExec // some poolers do not support prepared statements
	defer e.close()
	failed, warned := 0, 0
	selected := checks
	if e.Role != "" {
		selected = roleChecks
	}
	for _, check := range selected {
		f := e.examine(ctx, check)
		if f == (finding{}) {
			continue
		}
		report(e.Out, check.name, f)
		switch f.verdict {
		case failure:
			failed++
		case warning:
			warned++
		}
		if f.verdict == failure && check.kind == vital {
			fmt.Fprintln(e.Out, "\nThe remaining checks were not run, because they need this one to pass.")
			return false
		}
	}
	summarise(e.Out, failed, warned)
	return failed == 0
}

func summarise(w io.Writer, failed, warned int) {
	switch {
	case failed > 0:
		fmt.Fprintf(w, "\nFailed checks: %d. Warnings: %d.\n", failed, warned)
	case warned > 0:
		fmt.Fprintf(w, "\nNo check failed. Warnings: %d.\n", warned)
	default:
		fmt.Fprintln(w, "\nNo problem found.")
	}
}

// examine runs a check. It takes at most ten seconds, even if the server does not answer.
func (e *Examination) examine(ctx context.Context, c check) finding {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	blocker := e.watch(ctx)
	f, err := e.runCheck(ctx, c)
	timedOut := errors.Is(ctx.Err(), context.DeadlineExceeded)
	cancel()
	if blocked := <-blocker; err != nil {
		err = e.Explain(err)
		if timedOut && blocked.text != "" {
			return blocked
		}
		if timedOut {
			err = errors.New("no answer within 10 s")
		}
		return finding{failure, terminal.OneLine(err), ""}
	}
	return f
}

// runCheck runs a check, in a transaction of its own unless its kind is withoutTransaction. If there is no open
// connection, runCheck connects first.
func (e *Examination) runCheck(ctx context.Context, c check) (f finding, err error) {
	if e.conn == nil || e.conn.IsClosed() {
		if e.conn, err = pgx.ConnectConfig(ctx, e.Config); err != nil {
			return finding{}, err
		}
	}
	if c.kind == withoutTransaction {
		return c.run(e, ctx)
	}
	err = pgx.BeginTxFunc(ctx, e.conn, pgx.TxOptions{AccessMode: pgx.ReadOnly}, func(tx pgx.Tx) error {
		if _, err := tx.Exec(ctx, sql.Secure); err != nil {
			return err
		}
		e.tx = tx
		f, err = c.run(e, ctx)
		return err
	})
	return f, err
}

func (e *Examination) close() {
	if e.conn != nil {
		_ = e.conn.Close(context.Background())
	}
}

// ask runs a query that returns one row, and scans the row.
func (e *Examination) ask(ctx context.Context, query string, into ...any) error {
	return e.tx.QueryRow(ctx, query).Scan(into...)
}

// report prints a finding on one line, and below it each line of its fix. A line of the fix that begins with a space
// continues the statement of the line before.
func report(w io.Writer, name string, f finding) {
	fmt.Fprintf(w, "%-4s  %-12s  %s\n", f.verdict, name, f.text)
	if f.fix == "" {
		return
	}
	for line := range strings.Lines(f.fix) {
		arrow := "→"
		if strings.HasPrefix(line, " ") {
			arrow = " "
		}
		fmt.Fprintf(w, "%20s%s %s\n", "", arrow, strings.TrimSpace(line))
	}
}
