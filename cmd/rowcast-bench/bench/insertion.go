package bench

import (
	"context"
	"fmt"
)

// insertion is what the trigger and an attached hub leave of the rate of INSERTs into the same table without.
func (b *Bench) insertion(ctx context.Context) error {
	many, few := pick(b, 64, 6), pick(b, 8, 2)
	mixes := []struct {
		what    string
		writers int
		app     bool
	}{
		{fmt.Sprintf("%d writers, one row a transaction", many), many, false},
		{fmt.Sprintf("%d writers, one row a transaction", few), few, false},
		{fmt.Sprintf("%d writers, three other statements and a row a transaction", many), many, true},
	}
	sides := []struct {
		design
		pairs int
	}{{ours, pick(b, 7, 1)}, {theNaive, pick(b, 2, 1)}}
	b.steps.plan(len(mixes) * (sides[0].pairs + sides[1].pairs))
	for _, mix := range mixes {
		for _, d := range sides {
			o := openWriters{Connections: mix.writers, App: mix.app}
			with, without, err := b.insertRates(ctx, d.design, o, d.pairs)
			if err != nil {
				return err
			}
			itself := func(rate float64) float64 { return rate }
			f := compared(mix.what, "a second", with, without, "no trigger", itself, limit{})
			if d.schema == ours.schema {
				f.limit = atLeast(0.85)
			} else {
				f.what = "… the naive design's trigger instead"
			}
			b.report.add(f)
		}
	}
	return nil
}

// insertRates takes turns between the design's table and the same one without a trigger, with the hub attached all the time.
func (b *Bench) insertRates(ctx context.Context, d design, o openWriters, pairs int) (with, without []float64, err error) {
	s, err := b.set(ctx, set{design: d})
	if err != nil {
		return nil, nil, err
	}
	defer s.strike()
	// Without clients, the naive hub has nobody to send to, and neither has ours.
	rate := func(schema string) (float64, error) {
		o.Schema = schema
		if err := s.addWriters(ctx, o); err != nil {
			return 0, err
		}
		defer s.writers.end()
		if _, err := call[written](s.writers, "write", load{Seconds: pick(b, 0.2, 0.05), Users: 1000}); err != nil { // to warm up
			return 0, err
		}
		w, err := call[written](s.writers, "write", load{Seconds: pick(b, 2.5, 0.1), Users: 1000})
		return float64(w.Rows) / w.Seconds, err
	}
	for range pairs {
		bare, err := rate("plain")
		if err != nil {
			return nil, nil, fmt.Errorf("without a trigger: %w", err)
		}
		triggered, err := rate(d.schema)
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %w", d.name, err)
		}
		with, without = append(with, triggered), append(without, bare)
		b.steps.step()
	}
	return with, without, nil
}
