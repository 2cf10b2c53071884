package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/jackc/pgx/v5"
)

// A Bench is a run of some or all scenarios. DSN, Program and Progress are required.
type Bench struct {
	DSN      string   // the connection string of any database on the server; the benchmark creates its own databases there
	Program  string   // the path of this program, for the child processes
	Only     []string // the names of the scenarios to run; if empty, all
	Quick    bool     // use small loads, which only show that the benchmark works
	Progress io.Writer
	Designs  string // the directory of the programs that the scenario "designs" runs

	admin  *pgx.Conn // a connection to the database of DSN
	report *Report
	next   int64 // the number of the last row that was reserved; the numbers continue from one scenario to the next

	// The fields below belong to the scenario that is running.
	steps   *progress
	dsn     string    // the connection string of the database of the scenario
	watch   *pgx.Conn // a connection to the database of the scenario
	created []string  // the databases to remove
}

// A scenario makes measurements and adds their figures to the report.
type scenario struct {
	name  string
	title string
	run   func(*Bench, context.Context) error
}

var scenarios = []scenario{
	{"memory", "Memory of an idle stream", (*Bench).memory},
	{"broadcast", "CPU of a broadcast", (*Bench).broadcast},
	{"latency", "Latency and CPU at a steady rate", (*Bench).latency},
	{"curve", "Latency and CPU by rate", (*Bench).curve},
	{"designs", "Latency and CPU of other designs", (*Bench).designs},
	{"flood", "Maximum rate", (*Bench).flood},
	{"writers", "Overhead for writers", (*Bench).insertion},
	{"watch", "Overhead for writers of a watched table", (*Bench).watchedInsertion},
	{"size", "A large table", (*Bench).size},
	{"transaction", "A transaction that stays open", (*Bench).transaction},
	{"hubs", "Several hubs", (*Bench).hubs},
	{"bulk", "Many rows in one transaction", (*Bench).bulk},
	{"large", "Rows of 50 MB", (*Bench).large},
	{"connections", "Many streams", (*Bench).connections},
}

// Names returns the names of the scenarios in their order.
func Names() (names []string) {
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

// ErrInterrupted is the error of a run whose context has ended.
var ErrInterrupted = errors.New("interrupted")

// Run runs the chosen scenarios. If a scenario fails, its error is in the report and in the returned error, and the
// other scenarios are still run. Run returns no report if it could not begin or was interrupted.
func (b *Bench) Run(ctx context.Context) (*Report, error) {
	err := b.connect(ctx)
	if err == nil {
		err = b.runAll(ctx)
	}
	if ctx.Err() != nil { // the interruption is the cause of the other errors
		b.report, err = nil, ErrInterrupted
	}
	return b.report, errors.Join(err, b.disconnect())
}

func (b *Bench) runAll(ctx context.Context) (err error) {
	for _, s := range scenarios {
		if len(b.Only) > 0 && !slices.Contains(b.Only, s.name) {
			continue
		}
		b.report.begin(s.title)
		b.steps = newProgress(b.Progress, s.name)
		failed := b.runOne(ctx, s)
		if ctx.Err() != nil {
			b.steps.clear()
			return failed
		}
		b.steps.end(failed)
		if failed != nil {
			failed = fmt.Errorf("%s: %w", s.name, failed)
			b.report.fail(failed)
			err = errors.Join(err, failed)
		}
	}
	return err
}

// runOne runs a scenario in a new database.
func (b *Bench) runOne(ctx context.Context, s scenario) (err error) {
	defer func() { err = errors.Join(err, b.clear()) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	return s.run(b, ctx)
}

// pick returns full, or quick in a quick run.
func pick[T any](b *Bench, full, quick T) T {
	if b.Quick {
		return quick
	}
	return full
}

// rows reserves the numbers of the next n rows and returns the first one.
func (b *Bench) rows(n int64) (first int64) {
	first = b.next + 1
	b.next += n
	return first
}
