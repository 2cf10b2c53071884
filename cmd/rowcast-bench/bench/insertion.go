package bench

import (
	"context"
	"fmt"
)

// insertion compares the rates of INSERTs into a table with a trigger and into an equal table without a trigger. A hub
// without clients is connected meanwhile.
func (b *Bench) insertion(ctx context.Context) error {
	many, few := pick(b, 64, 6), pick(b, 8, 2)
	mixes := []struct {
		what    string
		writers int
		app     bool
	}{
		{fmt.Sprintf("%d writers, one row per transaction", many), many, false},
		{fmt.Sprintf("%d writers, one row per transaction", few), few, false},
		{fmt.Sprintf("%d writers, three other statements and one row per transaction", many), many, true},
	}
	sides := []struct {
		design
		pairs int
	}{{rowcastDesign, pick(b, 7, 1)}, {naiveDesign, pick(b, 2, 1)}}
	b.steps.plan(2 * len(mixes) * (sides[0].pairs + sides[1].pairs))
	for _, mix := range mixes {
		for _, d := range sides {
			o := openWriters{Connections: mix.writers, App: mix.app}
			with, without, err := b.insertRates(ctx, d.design, o, d.pairs)
			if err != nil {
				return err
			}
			itself := func(rate float64) float64 { return rate }
			f := compared(mix.what, "per second", with, without, "no trigger", itself, limit{})
			if d.schema == rowcastDesign.schema {
				f.limit = atLeast(0.87)
			} else {
				f.what = "the same with the naive design's trigger"
			}
			b.report.add(f)
		}
	}
	return nil
}

// watchedInsertion compares the rates of INSERTs into a watched table and into an equal table without a trigger. Each
// INSERT into the watched table also inserts a notification. For comparison, watchedInsertion measures the table of the
// naive design, which has a trigger with pg_notify.
func (b *Bench) watchedInsertion(ctx context.Context) error {
	const schema = `CREATE SCHEMA watched; CREATE TABLE watched.notifications (LIKE rowcast.notifications INCLUDING ALL);
		SELECT rowcast.watch('watched.notifications', 'recipient', 'event', 'data')`
	if _, err := b.watch.Exec(ctx, schema); err != nil {
		return err
	}
	pairs, writers := pick(b, 5, 1), pick(b, 64, 6)
	b.steps.plan(2 * 2 * pairs)
	itself := func(rate float64) float64 { return rate }
	us, without, err := b.insertRates(ctx, watched, openWriters{Connections: writers}, pairs)
	if err != nil {
		return err
	}
	what := fmt.Sprintf("%d writers, one row per transaction into a watched table", writers)
	b.report.add(compared(what, "per second", us, without, "no trigger", itself, atLeast(0.55)))
	them, without, err := b.insertRates(ctx, naiveDesign, openWriters{Connections: writers}, pairs)
	if err != nil {
		return err
	}
	b.report.add(
		compared("the same with a trigger that sends each row with pg_notify", "per second", them, without, "no trigger", itself, limit{}),
		compared("the watched table against this trigger", "per second", us, them, "pg_notify", itself, atLeast(1.4)),
	)
	return nil
}

// insertRates measures the rates of INSERTs into the design's table and into an equal table without a trigger,
// alternately. The design's hub runs all the time.
func (b *Bench) insertRates(ctx context.Context, d design, o openWriters, pairs int) (with, without []float64, err error) {
	s, err := b.newStage(ctx, setup{design: d})
	if err != nil {
		return nil, nil, err
	}
	defer s.stop()
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
	without, with, err = alternate(b, pairs, "plain", d.schema, rate)
	if err != nil {
		err = fmt.Errorf("compare %s with a table without a trigger: %w", d.name, err)
	}
	return with, without, err
}
