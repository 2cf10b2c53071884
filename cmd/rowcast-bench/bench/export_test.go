package bench

import "context"

// These are the unexported names that the tests use.
type (
	Expectation = expectation
	Tally       = tally
	Figure      = figure
	Limit       = limit
)

var (
	NewTally         = newTally
	AwaitDue         = awaitDue
	WithDatabase     = withDatabase
	ChildEnvironment = childEnvironment
	CheckDescriptors = checkDescriptors
	AtMost, AtLeast  = atMost, atLeast
	AtMostItself     = atMostItself
)

// OpenTransaction begins a transaction in a database.
func OpenTransaction(ctx context.Context, dsn string) (end func(), err error) {
	return (&Bench{dsn: dsn}).openTransaction(ctx)
}

// Count counts a row's arrival at a stream.
func (t *Tally) Count(stream int, number, sent int64) { t.count(stream, row{number, sent}) }

// Arrivals returns the 50th and the 99th percentile of the latencies in milliseconds.
func (t *Tally) Arrivals() (p50, p99 float64, err error) {
	a, err := t.arrivals()
	return a.P50, a.P99, err
}

// NewFigure returns a figure.
func NewFigure(what, unit string, ours float64, with string, theirs float64, l Limit) Figure {
	return figure{what: what, unit: unit, ours: ours, with: with, theirs: theirs, limit: l}
}

// Add adds a section with figures.
func (r *Report) Add(title string, f ...Figure) {
	r.begin(title)
	r.add(f...)
}

// Fail adds the error of a scenario.
func (r *Report) Fail(err error) { r.fail(err) }
