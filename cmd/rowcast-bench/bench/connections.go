package bench

import (
	"context"
	"time"
)

// connections is as many streams as a process with 20,000 descriptors can have.
func (b *Bench) connections(ctx context.Context) error {
	streams, pairs, rows := pick(b, 15_000, 300), pick(b, 5, 1), pick(b, 5, 2)
	b.steps.plan(2*pairs + idleSteps + 2*rows)
	if err := b.openings(ctx, streams, pairs); err != nil {
		return err
	}
	ours, naive, err := b.idle(ctx, streams)
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

// An opening is what it takes to open streams.
type opening struct{ rate, cpu float64 } // a second; microseconds of the hub's a stream

// openings opens so many streams at once, at new hubs in turns.
func (b *Bench) openings(ctx context.Context, streams, pairs int) error {
	us, them, err := inTurns(b, pairs, ours, theNaive, func(d design) (opening, error) { return b.openingOnce(ctx, d, streams) })
	if err != nil {
		return err
	}
	b.report.add(
		compared(amount(float64(streams))+" streams opened", "a second", us, them, "naive", func(o opening) float64 { return o.rate }, atLeast(1)),
		compared("CPU of the hub a stream opened", "µs", us, them, "naive", func(o opening) float64 { return o.cpu }, limit{}),
	)
	return nil
}

func (b *Bench) openingOnce(ctx context.Context, d design, streams int) (o opening, err error) {
	s, err := b.set(ctx, set{design: d})
	if err != nil {
		return o, err
	}
	defer s.strike()
	before := s.cpu()
	seconds, err := s.connect(ctx, streams)
	o.rate = float64(streams) / seconds
	o.cpu = before.until(s.cpu(), func(spent time.Duration) float64 { return float64(spent.Microseconds()) / float64(streams) })
	return o, err
}
