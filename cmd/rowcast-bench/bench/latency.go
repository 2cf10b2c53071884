package bench

import (
	"context"
	"fmt"
	"slices"
)

// userCount returns the number of users. Row n is for user n%userCount.
func (b *Bench) userCount() int { return pick(b, 1000, 50) }

// latency measures the time from INSERT to client, and the CPU time, with each row for one user.
func (b *Bench) latency(ctx context.Context) error {
	pairs := pick(b, 10, 1) // many short pairs, because the speed of a disk varies
	b.steps.plan(pairs * 2)
	rates := []float64{1000, 3000}
	us, them, err := alternate(b, pairs, rowcastDesign, naiveDesign, func(d design) (at []result, err error) {
		err = b.steady(ctx, d, rates, 4, func(_ int, t result) { at = append(at, t) })
		return at, err
	})
	if err != nil {
		return err
	}
	for i, rate := range rates {
		at := fmt.Sprintf("at %s rows/s: ", amount(rate))
		limits := pick(b, [][3]limit{{atMost(1.5), atMost(1.25), atMost(1.3)}, {atMost(1.5), atMost(1), atMost(1)}}[i], [3]limit{})
		add := func(what, unit string, of func(result) float64, l limit) {
			b.report.add(compared(at+what, unit, us, them, "naive", func(t []result) float64 { return of(t[i]) }, l))
		}
		add("INSERT to client, p50", "ms", p50, limits[0])
		add("p99", "ms", p99, limits[1])
		add("p99 of the INSERT itself", "ms", commitP99, limit{})
		add("CPU of the hub per row", "µs", hubCPU, limit{})
		add("CPU of PostgreSQL's sessions per row", "µs", serverCPU, limit{})
		add("CPU of both per row", "µs", func(t result) float64 { return hubCPU(t) + serverCPU(t) }, limits[2])
	}
	return nil
}

func p50(t result) float64       { return t.P50 }
func p99(t result) float64       { return t.P99 }
func hubCPU(t result) float64    { return t.Hub }
func serverCPU(t result) float64 { return t.Server }
func readCPU(t result) float64   { return t.Reading }
func commitP99(t result) float64 { return t.Commit }
func rowRate(t result) float64   { return t.Rate }

// steadyWriters is the number of writers at a steady rate.
const steadyWriters = 16

// steady writes at each of the rates for a number of seconds. It calls done with the index of the rate and the result.
func (b *Bench) steady(ctx context.Context, d design, rates []float64, seconds float64, done func(i int, t result)) error {
	s, err := b.newStage(ctx, setup{design: d, streams: b.userCount(), writers: steadyWriters})
	if err != nil {
		return err
	}
	defer s.stop()
	if err := s.warmUp(ctx); err != nil {
		return err
	}
	users := int64(s.streams)
	for i, rate := range rates {
		// At least 200 rows (5 in a quick run), because with fewer rows the 99th percentile is only the slowest or second
		// slowest row. At most 12,000, so that a slow design does not take too long.
		rows := min(max(int64(rate*pick(b, seconds, 0.2)), pick(b, int64(200), 5)), 12_000)
		t, err := s.run(ctx, load{Rows: rows, Rate: rate, Users: users})
		if err != nil {
			return err
		}
		done(i, t)
	}
	return nil
}

// A Curve has the results of a design at several rates.
type Curve struct {
	Name   string
	Points []Point
}

// A Point has the results at a rate, in rows per second. Times are in milliseconds, CPU in microseconds per row.
type Point struct {
	Rate, Reached  float64
	P50, P99       float64
	CPU, ServerCPU float64
}

// held reports whether more than 90 % of the rate was reached. If not, the latency grows during the run, and is not
// meaningful.
func (p Point) held() bool { return p.Reached > 0.9*p.Rate }

// curve measures latency and CPU at rates up to 20,000 rows per second. A slow design does not reach the highest rates.
// The designs run in one order, and then in the reverse order. A quick run has fewer rates and only the first order.
func (b *Bench) curve(ctx context.Context) error {
	curves, err := b.measureCurves(ctx, []design{rowcastDesign, notified, polling, naiveDesign},
		pick(b, []float64{10, 30, 100, 300, 1000, 3000, 10_000, 20_000}, []float64{30, 300}))
	b.report.Curve, b.report.last().curves = curves, curves
	return err
}

// measureCurves measures designs at several rates. A design with a program of its own may fail, for example because it
// has lost a row. Then the other designs are still measured.
func (b *Bench) measureCurves(ctx context.Context, order []design, rates []float64) (curves []Curve, err error) {
	passes := pick(b, 2, 1)
	b.steps.plan(passes * len(rates) * len(order))
	results := make(map[string][][]result) // by the name of the design, and then by the index of the rate
	for _, d := range order {
		results[d.name] = make([][]result, len(rates))
	}
	there := slices.Clone(order)
	for range passes {
		for _, d := range there {
			if results[d.name] == nil {
				continue
			}
			err := b.steady(ctx, d, rates, 1.5, func(i int, t result) {
				results[d.name][i] = append(results[d.name][i], t)
				b.steps.step()
			})
			if err != nil && d.program == "" {
				return nil, fmt.Errorf("%s: %w", d.name, err)
			}
			if err != nil {
				b.report.note("%s failed: %v", d.name, err)
				delete(results, d.name)
			}
		}
		slices.Reverse(there)
	}
	order = slices.DeleteFunc(order, func(d design) bool { return results[d.name] == nil })
	for _, d := range order {
		curves = append(curves, newCurve(d.name, rates, results[d.name]))
	}
	return curves, nil
}

func newCurve(name string, rates []float64, results [][]result) Curve {
	c := Curve{Name: name}
	for i, rate := range rates {
		of := func(figure func(result) float64) float64 { return medianOf(results[i], figure) }
		c.Points = append(c.Points, Point{rate, of(rowRate), of(p50), of(p99), of(hubCPU), of(serverCPU)})
	}
	return c
}
