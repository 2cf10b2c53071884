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
	DSN      string   // of any database on the server: where it makes its own
	Program  string   // this one
	Only     []string // names of [Names]; empty: all
	Quick    bool     // small figures in a few seconds, to see that it works
	Progress io.Writer

	admin  *pgx.Conn // to the database that DSN names
	report *Report

	// Of a scenario.
	steps *progress
	dsn   string    // of its database
	watch *pgx.Conn // to that
	made  []string  // it, and what it has made besides
	next  int64     // number of the last row
}

// A scenario measures one thing and adds its figures to the report.
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
	{"flood", "As fast as it goes", (*Bench).flood},
	{"writers", "What writers notice", (*Bench).insertion},
	{"size", "A large table", (*Bench).size},
	{"transaction", "A transaction that stays open", (*Bench).transaction},
	{"hubs", "Several hubs", (*Bench).hubs},
	{"bulk", "Many rows in one transaction", (*Bench).bulk},
	{"large", "Rows of 50 MB", (*Bench).large},
	{"connections", "Many streams", (*Bench).connections},
}

// Names are those of the scenarios, in their order.
func Names() (names []string) {
	for _, s := range scenarios {
		names = append(names, s.name)
	}
	return names
}

// ErrInterrupted is that of a run whose context has ended.
var ErrInterrupted = errors.New("interrupted")

// Run runs the scenarios. What one of them fails with is in the report and joined to the error, and the others are run all the
// same. There is no report if it could not begin, or was interrupted.
func (b *Bench) Run(ctx context.Context) (*Report, error) {
	err := b.connect(ctx)
	if err == nil {
		err = b.runAll(ctx)
	}
	if ctx.Err() != nil { // which is why everything else has failed
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

// runOne runs a scenario in a database of its own, which it finds empty.
func (b *Bench) runOne(ctx context.Context, s scenario) (err error) {
	defer func() { err = errors.Join(err, b.clear()) }()
	if err := b.prepare(ctx); err != nil {
		return err
	}
	return s.run(b, ctx)
}

// pick is the first, or for a quick run the second.
func pick[T any](b *Bench, full, quick T) T {
	if b.Quick {
		return quick
	}
	return full
}

// rows takes the numbers of the next rows.
func (b *Bench) rows(n int64) (first int64) {
	first = b.next + 1
	b.next += n
	return first
}
