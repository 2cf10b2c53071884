package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"
)

// A growing is what may get worse as something grows: a steady rate, and as fast as it goes.
type growing struct{ steady, flat turn }

// grown compares a thousand rows a second, and as fast as eight writers can, on two kinds of stages that take turns.
func (b *Bench) grown(ctx context.Context, what, with string, base, other set, readers float64) error {
	pairs := pick(b, 5, 1)
	b.steps.plan(2 * pairs)
	before, after, err := inTurns(b, pairs, base, other, func(s set) (growing, error) { return b.growingOnce(ctx, s) })
	if err != nil {
		return err
	}
	steady := func(of func(turn) float64) func(growing) float64 {
		return func(g growing) float64 { return of(g.steady) }
	}
	b.report.add(
		compared(what+": p50 at 1,000 rows/s", "ms", after, before, with, steady(p50), atMost(1.1)),
		compared(what+": p99", "ms", after, before, with, steady(p99), atMost(1.1)),
		compared(what+": CPU of the hub a row", "µs", after, before, with, steady(hubCPU), atMost(1.1)),
		compared(what+": CPU of the hubs' sessions a row", "µs", after, before, with, steady(readCPU), atMost(1.1*readers)),
		compared(what+": rows by 8 writers", "a second", after, before, with, func(g growing) float64 { return g.flat.Rate }, atLeast(0.9)),
	)
	return nil
}

func (b *Bench) growingOnce(ctx context.Context, want set) (g growing, err error) {
	if want.open {
		end, err := b.openTransaction(ctx)
		if err != nil {
			return g, err
		}
		defer end()
	}
	want.design, want.streams, want.writers = ours, b.crowdSize(), 8
	s, err := b.set(ctx, want)
	if err != nil {
		return g, err
	}
	defer s.strike()
	if err := s.warmUp(ctx); err != nil {
		return g, err
	}
	users := int64(s.streams)
	if g.steady, err = s.play(ctx, load{Rows: pick(b, int64(10_000), 100), Rate: 1000, Users: users}); err != nil {
		return g, err
	}
	g.flat, err = s.play(ctx, load{Rows: pick(b, int64(10_000), 200), Users: users})
	return g, err
}

// size compares a table of ten million rows with one of a thousand, in a database of its own.
func (b *Bench) size(ctx context.Context) error {
	rows := pick(b, 10_000_000, 20_000)
	big, err := b.scratch(ctx)
	if err != nil {
		return err
	}
	small, err := b.scratch(ctx)
	if err != nil {
		return err
	}
	if err := errors.Join(fill(ctx, big, rows), fill(ctx, small, 1000)); err != nil {
		return err
	}
	return b.grown(ctx, amount(float64(rows))+" rows in the table", "1,000", set{dsn: small}, set{dsn: big}, 1)
}

// fill puts rows into a table, in transactions of many, two at a time, and lets the server tidy up.
func fill(ctx context.Context, dsn string, rows int) error {
	const insert = `INSERT INTO rowcast.notifications (recipient, event, data)
		SELECT 'user' || i % 1000, 'notify', jsonb_build_object('n', 0, 'at', i, 'msg', 'Bob liked your post') FROM generate_series(1, $1::int) i`
	part := min(rows, 100_000)
	var group errgroup.Group
	group.SetLimit(2)
	for range rows / part {
		group.Go(func() error { return execOnce(ctx, dsn, insert, part) })
	}
	return errors.Join(group.Wait(), execOnce(ctx, dsn, "VACUUM ANALYZE rowcast.notifications"), execOnce(ctx, dsn, "CHECKPOINT"))
}

func execOnce(ctx context.Context, dsn, statement string, args ...any) error {
	conn, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement, args...)
	return err
}

// transaction compares with and without a transaction that has a number and a snapshot and stays open.
func (b *Bench) transaction(ctx context.Context) error {
	return b.grown(ctx, "an open transaction", "without", set{}, set{open: true}, 1)
}

// openTransaction begins one on a connection of its own, which ends it.
func (b *Bench) openTransaction(ctx context.Context) (end func(), err error) {
	conn, err := pgx.Connect(ctx, b.dsn)
	if err != nil {
		return nil, err
	}
	_, err = conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()")
	return func() { _ = conn.Close(context.WithoutCancel(ctx)) }, err
}

// hubs compares two and four hubs with one.
func (b *Bench) hubs(ctx context.Context) error {
	for _, n := range pick(b, []int{2, 4}, []int{2}) {
		if err := b.grown(ctx, fmt.Sprintf("%d hubs", n), "one", set{}, set{hubs: n}, float64(n)); err != nil {
			return err
		}
	}
	b.report.note("Each hub reads all rows, with a session of its own. Where all of them share the processors with the server and the writers, what the others read comes out of their time.")
	return nil
}
