package bench

import "context"

// flood measures single-row transactions at the maximum rate.
func (b *Bench) flood(ctx context.Context) error {
	pairs := pick(b, 3, 1)
	b.steps.plan(2 * pairs)
	us, them, err := alternate(b, pairs, rowcastDesign, naiveDesign, func(d design) (result, error) { return b.floodOnce(ctx, d) })
	if err != nil {
		return err
	}
	b.report.add(
		compared("rows written and delivered", "per second", us, them, "naive", rowRate, atLeast(3)),
		compared("INSERT to client, p50", "ms", us, them, "naive", p50, limit{}),
		compared("p99", "ms", us, them, "naive", p99, atMost(1)),
		compared("p99 of the INSERT itself", "ms", us, them, "naive", commitP99, limit{}),
		compared("CPU of the hub per row", "µs", us, them, "naive", hubCPU, limit{}),
		compared("CPU of PostgreSQL's sessions per row", "µs", us, them, "naive", serverCPU, limit{}),
	)
	return nil
}

func (b *Bench) floodOnce(ctx context.Context, d design) (result, error) {
	s, err := b.newStage(ctx, setup{design: d, streams: b.userCount(), writers: 32})
	if err != nil {
		return result{}, err
	}
	defer s.stop()
	if err := s.warmUp(ctx); err != nil {
		return result{}, err
	}
	return s.run(ctx, load{Rows: pick(b, int64(20_000), 300), Users: int64(s.streams)})
}
