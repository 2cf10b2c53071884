package bench

import "context"

// flood is single-row transactions as fast as writers can.
func (b *Bench) flood(ctx context.Context) error {
	pairs := pick(b, 3, 1)
	b.steps.plan(2 * pairs)
	us, them, err := inTurns(b, pairs, ours, theNaive, func(d design) (turn, error) { return b.floodOnce(ctx, d) })
	if err != nil {
		return err
	}
	b.report.add(
		compared("rows until the last was delivered", "a second", us, them, "naive", rowRate, atLeast(3)),
		compared("INSERT to client, p50", "ms", us, them, "naive", p50, limit{}),
		compared("p99", "ms", us, them, "naive", p99, atMost(1)),
		compared("p99 of the INSERT itself", "ms", us, them, "naive", commitP99, limit{}),
		compared("CPU of the hub a row", "µs", us, them, "naive", hubCPU, limit{}),
		compared("CPU of PostgreSQL's sessions a row", "µs", us, them, "naive", serverCPU, limit{}),
	)
	return nil
}

func (b *Bench) floodOnce(ctx context.Context, d design) (turn, error) {
	s, err := b.set(ctx, set{design: d, streams: b.crowdSize(), writers: 32})
	if err != nil {
		return turn{}, err
	}
	defer s.strike()
	if err := s.warmUp(ctx); err != nil {
		return turn{}, err
	}
	return s.play(ctx, load{Rows: pick(b, int64(20_000), 300), Users: int64(s.streams)})
}
