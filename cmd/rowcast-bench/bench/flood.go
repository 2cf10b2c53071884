package bench

import (
	"context"
	"fmt"
)

// flood measures single-row transactions at the maximum rate, and at a rate that the naive design still reaches.
func (b *Bench) flood(ctx context.Context) error {
	pairs := pick(b, 3, 1)
	b.steps.plan(6 * pairs)
	once := func(d design) (result, error) { return b.floodOnce(ctx, d) }
	us, plain, err := alternate(b, pairs, rowcastDesign, untriggered, once)
	if err != nil {
		return err
	}
	b.report.add(compared("rows written, and with rowcast also delivered", "per second", us, plain, "no trigger", rowRate, atLeast(0.85)))
	us, them, err := alternate(b, pairs, rowcastDesign, naiveDesign, once)
	if err != nil {
		return err
	}
	b.report.add(
		compared("rows written and delivered", "per second", us, them, "naive", rowRate, limit{}),
		compared("INSERT to client, p50", "ms", us, them, "naive", p50, limit{}),
		compared("p99", "ms", us, them, "naive", p99, limit{}),
		compared("p99 of the INSERT itself", "ms", us, them, "naive", commitP99, limit{}),
		compared("CPU of the hub per row", "µs", us, them, "naive", hubCPU, limit{}),
		compared("CPU of PostgreSQL's sessions per row", "µs", us, them, "naive", serverCPU, limit{}),
	)
	return b.nearlyFlooded(ctx, 0.9*medianOf(them, rowRate), pairs)
}

// nearlyFlooded measures the latency at a rate just below the maximum of the naive design.
func (b *Bench) nearlyFlooded(ctx context.Context, rate float64, pairs int) error {
	us, them, err := alternate(b, pairs, rowcastDesign, naiveDesign, func(d design) (t result, err error) {
		err = b.steady(ctx, d, []float64{rate}, 3, func(_ int, at result) { t = at })
		return t, err
	})
	if err != nil {
		return err
	}
	at := fmt.Sprintf("at %s rows/s, 0.9 of the naive design's maximum: ", amount(rate))
	b.report.add(
		compared(at+"INSERT to client, p50", "ms", us, them, "naive", p50, atMost(1)),
		compared(at+"p99", "ms", us, them, "naive", p99, atMost(1)),
	)
	return nil
}

// floodOnce writes 20,000 rows (300 in a quick run) at the maximum rate. The rows of the design without a trigger are
// not delivered, so its result has only the Rate.
func (b *Bench) floodOnce(ctx context.Context, d design) (result, error) {
	s, err := b.newStage(ctx, setup{design: d, streams: b.userCount(), writers: 32})
	if err != nil {
		return result{}, err
	}
	defer s.stop()
	rows := load{Rows: pick(b, int64(20_000), 300), Users: int64(s.streams)}
	if d.schema == untriggered.schema {
		if _, err := call[written](s.writers, "write", load{Rows: 300, Users: rows.Users}); err != nil { // to warm up
			return result{}, err
		}
		w, err := call[written](s.writers, "write", rows)
		return result{Rate: float64(w.Rows) / w.Seconds}, err
	}
	if err := s.warmUp(ctx); err != nil {
		return result{}, err
	}
	return s.run(ctx, rows)
}
