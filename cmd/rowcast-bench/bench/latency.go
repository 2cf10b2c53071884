package bench

import (
	"context"
	"fmt"
	"slices"
)

// crowdSize is to how many users the rows of the scenarios go in turn.
func (b *Bench) crowdSize() int { return pick(b, 1000, 50) }

// latency is that from INSERT to client, and what it costs, with each row for one user.
func (b *Bench) latency(ctx context.Context) error {
	pairs := pick(b, 10, 1) // short and many, as a disk has its moods
	b.steps.plan(pairs * 2)
	rates := []float64{1000, 3000}
	us, them, err := inTurns(b, pairs, ours, theNaive, func(d design) (at []turn, err error) {
		err = b.steady(ctx, d, rates, 4, func(_ int, t turn) { at = append(at, t) })
		return at, err
	})
	if err != nil {
		return err
	}
	for i, rate := range rates {
		at := fmt.Sprintf("at %s rows/s: ", amount(rate))
		limits := pick(b, [][3]limit{{atMost(1.5), atMost(1), atMost(1.5)}, {{}, {}, atMost(1)}}[i], [3]limit{})
		add := func(what, unit string, of func(turn) float64, l limit) {
			b.report.add(compared(at+what, unit, us, them, "naive", func(t []turn) float64 { return of(t[i]) }, l))
		}
		add("INSERT to client, p50", "ms", p50, limits[0])
		add("p99", "ms", p99, limits[1])
		add("p99 of the INSERT itself", "ms", commitP99, limit{})
		add("CPU of the hub a row", "µs", hubCPU, limits[2])
		add("CPU of PostgreSQL's sessions a row", "µs", serverCPU, limit{})
	}
	return nil
}

func p50(t turn) float64       { return t.P50 }
func p99(t turn) float64       { return t.P99 }
func hubCPU(t turn) float64    { return t.Hub }
func serverCPU(t turn) float64 { return t.Server }
func readCPU(t turn) float64   { return t.Reading }
func commitP99(t turn) float64 { return t.Commit }
func rowRate(t turn) float64   { return t.Rate }

// steadyWriters are enough to keep any rate that the server can.
const steadyWriters = 16

// steady writes at each of some rates for so long.
func (b *Bench) steady(ctx context.Context, d design, rates []float64, seconds float64, done func(i int, t turn)) error {
	s, err := b.set(ctx, set{design: d, streams: b.crowdSize(), writers: steadyWriters})
	if err != nil {
		return err
	}
	defer s.strike()
	if err := s.warmUp(ctx); err != nil {
		return err
	}
	users := int64(s.streams)
	for i, rate := range rates {
		// Enough to say something, and no more than the slowest can do in a while.
		rows := min(max(int64(rate*pick(b, seconds, 0.2)), pick(b, int64(40), 5)), 12_000)
		t, err := s.play(ctx, load{Rows: rows, Rate: rate, Users: users})
		if err != nil {
			return err
		}
		done(i, t)
	}
	return nil
}

// A Curve is what a design does at the rates.
type Curve struct {
	Name   string
	Points []Point
}

// A Point is one rate, in rows a second. Times are in milliseconds, CPU in microseconds a row.
type Point struct {
	Rate, Reached  float64
	P50, P99       float64
	CPU, ServerCPU float64
}

// held tells whether the rate was reached; if not, rows waited longer and longer, and how long says nothing.
func (p Point) held() bool { return p.Reached > 0.9*p.Rate }

// curve is latency and CPU from few rows to more than any can do. The designs take turns, there and back.
func (b *Bench) curve(ctx context.Context) error {
	rates := pick(b, []float64{10, 30, 100, 300, 1000, 3000, 10_000, 20_000}, []float64{30, 300})
	order := []design{ours, parked, polling, theNaive}
	passes := pick(b, 2, 1)
	b.steps.plan(passes * len(rates) * len(order))
	turns := make(map[string][][]turn) // by the design's name, of each rate
	for _, d := range order {
		turns[d.name] = make([][]turn, len(rates))
	}
	there := slices.Clone(order)
	for range passes {
		for _, d := range there {
			if err := b.steady(ctx, d, rates, 1.5, func(i int, t turn) {
				turns[d.name][i] = append(turns[d.name][i], t)
				b.steps.step()
			}); err != nil {
				return fmt.Errorf("%s: %w", d.name, err)
			}
		}
		slices.Reverse(there)
	}
	for _, d := range order {
		b.report.Curve = append(b.report.Curve, newCurve(d.name, rates, turns[d.name]))
	}
	b.report.last().curves = b.report.Curve
	return nil
}

func newCurve(name string, rates []float64, turns [][]turn) Curve {
	c := Curve{Name: name}
	for i, rate := range rates {
		of := func(figure func(turn) float64) float64 { return medianOf(turns[i], figure) }
		c.Points = append(c.Points, Point{rate, of(rowRate), of(p50), of(p99), of(hubCPU), of(serverCPU)})
	}
	return c
}
