package bench

import "context"

// connections is as many streams as a process with 20,000 descriptors can have.
func (b *Bench) connections(ctx context.Context) error {
	rows := pick(b, int64(5), 2)
	b.steps.plan(idleSteps + 2*int(rows))
	ours, naive, err := b.idle(ctx, pick(b, 15_000, 300))
	defer ours.strike()
	defer naive.strike()
	if err != nil {
		return err
	}
	spread := func(s *stage) (turns []turn, err error) {
		if err := s.addWriters(ctx, openWriters{Connections: 1, Schema: s.schema}); err != nil {
			return nil, err
		}
		for range rows {
			t, err := s.play(ctx, load{Rows: 1})
			if err != nil {
				return nil, err
			}
			turns = append(turns, t)
			b.steps.step()
		}
		return turns, nil
	}
	us, err := spread(ours.stage)
	if err != nil {
		return err
	}
	them, err := spread(naive.stage)
	if err != nil {
		return err
	}
	b.report.add(
		compared("a broadcast, from the first client to the last", "ms", us, them, "naive", func(t turn) float64 { return t.Spread }, limit{}),
		compared("from its INSERT to the last client", "ms", us, them, "naive", func(t turn) float64 { return t.Max }, limit{}),
	)
	return nil
}
