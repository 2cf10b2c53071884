package bench

import (
	"context"
	"time"
)

// connections measures how fast 15,000 streams (300 in a quick run) are opened, their memory, and a broadcast to them.
// A limit of 20,000 open files for each process is enough.
func (b *Bench) connections(ctx context.Context) error {
	streams, pairs, rows := pick(b, 15_000, 300), pick(b, 5, 1), pick(b, 5, 2)
	b.steps.plan(2*pairs + idleSteps + 2*rows)
	if err := b.openings(ctx, streams, pairs); err != nil {
		return err
	}
	ours, naive, err := b.idle(ctx, streams)
	defer ours.stop()
	defer naive.stop()
	if err != nil {
		return err
	}
	spread := func(s *stage) (results []result, err error) {
		if err := s.addWriters(ctx, openWriters{Connections: 1, Schema: s.schema}); err != nil {
			return nil, err
		}
		for range rows {
			t, err := s.run(ctx, load{Rows: 1})
			if err != nil {
				return nil, err
			}
			results = append(results, t)
			b.steps.step()
		}
		return results, nil
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
		compared("broadcast: from the first arrival to the last", "ms", us, them, "naive", func(t result) float64 { return t.Spread }, limit{}),
		compared("broadcast: from the INSERT to the last arrival", "ms", us, them, "naive", func(t result) float64 { return t.Max }, limit{}),
	)
	return nil
}

// An opening is the result of opening streams.
type opening struct {
	rate float64 // streams per second
	cpu  float64 // CPU of the hub in microseconds per stream
}

// openings measures how fast streams are opened, each time at a new hub.
func (b *Bench) openings(ctx context.Context, streams, pairs int) error {
	us, them, err := alternate(b, pairs, rowcastDesign, naiveDesign, func(d design) (opening, error) { return b.openingOnce(ctx, d, streams) })
	if err != nil {
		return err
	}
	b.report.add(
		compared(amount(float64(streams))+" streams opened", "per second", us, them, "naive", func(o opening) float64 { return o.rate }, atLeast(1.2)),
		compared("CPU of the hub per opened stream", "µs", us, them, "naive", func(o opening) float64 { return o.cpu }, limit{}),
	)
	return nil
}

func (b *Bench) openingOnce(ctx context.Context, d design, streams int) (o opening, err error) {
	s, err := b.newStage(ctx, setup{design: d})
	if err != nil {
		return o, err
	}
	defer s.stop()
	before := s.cpu()
	seconds, err := s.connect(ctx, streams)
	o.rate = float64(streams) / seconds
	o.cpu = before.until(s.cpu(), func(spent time.Duration) float64 { return float64(spent.Microseconds()) / float64(streams) })
	return o, err
}
