package bench

import (
	"context"
	"errors"
	"fmt"

	"github.com/jackc/pgx/v5/pgconn"
	"golang.org/x/sync/errgroup"
)

// A growthResult has the results at a steady rate and at the maximum rate.
type growthResult struct{ steady, flood result }

// A growthLimit has the greatest ratios of a setup to the setup with which it is compared.
type growthLimit struct{ p50, p99, sessions limit }

// unchanged is the limit for setups that must hardly differ.
var unchanged = growthLimit{p50: atMost(1.1), p99: atMost(1.1), sessions: atMost(1.1)}

// compareGrowth compares the setup other with the setup base, at a thousand rows per second and at the maximum rate of
// eight writers.
func (b *Bench) compareGrowth(ctx context.Context, what, with string, base, other setup, most growthLimit) error {
	pairs := pick(b, 5, 1)
	b.steps.plan(2 * pairs)
	before, after, err := alternate(b, pairs, base, other, func(s setup) (growthResult, error) { return b.growthOnce(ctx, s) })
	if err != nil {
		return err
	}
	steady := func(of func(result) float64) func(growthResult) float64 {
		return func(g growthResult) float64 { return of(g.steady) }
	}
	b.report.add(
		compared(what+": p50 at 1,000 rows/s", "ms", after, before, with, steady(p50), most.p50),
		compared(what+": p99", "ms", after, before, with, steady(p99), most.p99),
		compared(what+": CPU of the hub per row", "µs", after, before, with, steady(hubCPU), atMost(1.1)),
		compared(what+": CPU of the hubs' sessions per row", "µs", after, before, with, steady(readCPU), most.sessions),
		compared(what+": rows of 8 writers, written and delivered", "per second", after, before, with, func(g growthResult) float64 { return g.flood.Rate }, atLeast(0.9)),
	)
	return nil
}

func (b *Bench) growthOnce(ctx context.Context, want setup) (g growthResult, err error) {
	if want.open {
		end, err := b.openTransaction(ctx)
		if err != nil {
			return g, err
		}
		defer end()
	}
	want.design, want.streams, want.writers = rowcastDesign, b.userCount(), 8
	s, err := b.newStage(ctx, want)
	if err != nil {
		return g, err
	}
	defer s.stop()
	if err := s.warmUp(ctx); err != nil {
		return g, err
	}
	users := int64(s.streams)
	if g.steady, err = s.run(ctx, load{Rows: pick(b, int64(10_000), 100), Rate: 1000, Users: users}); err != nil {
		return g, err
	}
	g.flood, err = s.run(ctx, load{Rows: pick(b, int64(10_000), 200), Users: users})
	return g, err
}

// size compares a table of ten million rows (20,000 in a quick run) with a table of a thousand rows in another
// database.
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
	if err := b.checkpoint(ctx); err != nil {
		return err
	}
	return b.compareGrowth(ctx, amount(float64(rows))+" rows in the table", "1,000", setup{dsn: small}, setup{dsn: big}, unchanged)
}

// fill inserts rows, in transactions of up to 100,000 rows, two at the same time. Then it runs VACUUM.
func fill(ctx context.Context, dsn string, rows int) error {
	const insert = `INSERT INTO rowcast.notifications (recipient, event, data)
		SELECT 'user' || i % 1000, 'notify', jsonb_build_object('n', 0, 'at', i, 'msg', 'Bob liked your post') FROM generate_series(1, $1::int) i`
	part := min(rows, 100_000)
	var group errgroup.Group
	group.SetLimit(2)
	for range rows / part {
		group.Go(func() error { return execOnce(ctx, dsn, insert, part) })
	}
	return errors.Join(group.Wait(), execOnce(ctx, dsn, "VACUUM ANALYZE rowcast.notifications"))
}

// checkpoint runs CHECKPOINT, so that the server does not write the rows of fill to disk during the measurement. The
// role may lack this right, because the benchmark needs only CREATEDB. In this case, the report says so.
func (b *Bench) checkpoint(ctx context.Context) error {
	err := execOnce(ctx, b.dsn, "CHECKPOINT")
	if failed, ok := errors.AsType[*pgconn.PgError](err); ok && failed.Code == "42501" { // insufficient_privilege
		b.report.note("The role may not run CHECKPOINT, so the server may have written the rows of the large table to disk during the measurement. " +
			"A superuser may run it, and from PostgreSQL 15 on a member of `pg_checkpoint`.")
		return nil
	}
	return err
}

func execOnce(ctx context.Context, dsn, statement string, args ...any) error {
	conn, err := open(ctx, dsn)
	if err != nil {
		return err
	}
	defer conn.Close(ctx)
	_, err = conn.Exec(ctx, statement, args...)
	return err
}

// transaction measures the effect of a transaction that stays open. The open transaction has a transaction number and a
// snapshot.
func (b *Bench) transaction(ctx context.Context) error {
	return b.compareGrowth(ctx, "an open transaction", "without", setup{}, setup{open: true}, unchanged)
}

// openTransaction begins a transaction on a new connection. end closes the connection, which ends the transaction.
func (b *Bench) openTransaction(ctx context.Context) (end func(), err error) {
	conn, err := open(ctx, b.dsn)
	if err != nil {
		return nil, err
	}
	end = func() { _ = conn.Close(context.WithoutCancel(ctx)) }
	if _, err := conn.Exec(ctx, "BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT pg_current_xact_id()"); err != nil {
		end()
		return nil, err
	}
	return end, nil
}

// hubs compares two and four hubs (only two in a quick run) with one hub. There is no limit for the 99th percentile,
// because each hub reads all rows, and several hubs can use all of the CPU.
func (b *Bench) hubs(ctx context.Context) error {
	most := growthLimit{p50: atMost(1.5), sessions: atMost(2)}
	for _, n := range pick(b, []int{2, 4}, []int{2}) {
		if err := b.compareGrowth(ctx, fmt.Sprintf("%d hubs", n), "one", setup{}, setup{hubs: n}, most); err != nil {
			return err
		}
	}
	b.report.note("Each hub reads all rows in its own session. If the hubs run on the machine of the server and the writers, each further hub leaves less CPU time to the server and the writers.")
	return nil
}
