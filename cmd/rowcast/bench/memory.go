package bench

import (
	"context"
	"fmt"
	"math"
	"time"
)

// memory is what a stream costs on which nothing happens.
func (b *Bench) memory(ctx context.Context) error {
	b.steps.plan(4)
	streams := pick(b, 10_000, 200)
	both, err := b.idle(ctx, streams)
	both.strike()
	return err
}

// pair is rowcast and the naive design under the same load.
type pair struct{ ours, theirs *stage }

func (p pair) strike() {
	for _, s := range []*stage{p.ours, p.theirs} {
		if s != nil {
			s.strike()
		}
	}
}

// idle opens streams at both, in turn, and reports how fast, and what they come to in the end.
func (b *Bench) idle(ctx context.Context, streams int) (both pair, err error) {
	if both.ours, err = b.set(ctx, set{design: ours}); err != nil {
		return both, err
	}
	if both.theirs, err = b.set(ctx, set{design: theNaive}); err != nil {
		return both, err
	}
	b.steps.step()
	var rates [2]float64
	var before [2]int64
	var watched [2]watched
	for i, s := range []*stage{both.ours, both.theirs} {
		if before[i], _, err = processMemory(s.hubs[0].pid()); err != nil {
			before[i] = -1
		}
		seconds, err := s.connect(ctx, streams)
		if err != nil {
			return both, err
		}
		rates[i] = float64(streams) / seconds
		watched[i].connected = time.Now()
		b.steps.step()
	}
	if err := b.watchMemory(ctx, both, &watched); err != nil {
		return both, err
	}
	b.steps.step()
	kilobytes := func(i int) float64 {
		if before[i] < 0 {
			return math.NaN()
		}
		return float64(watched[i].last()-before[i]) / 1024 / float64(streams)
	}
	b.report.add(
		figure{what: fmt.Sprintf("resident memory of each of %s idle streams", amount(float64(streams))), unit: "KB", ours: kilobytes(0), with: "naive", theirs: kilobytes(1), limit: atMostItself(5)},
		figure{what: fmt.Sprintf("%s streams opened", amount(float64(streams))), unit: "a second", ours: rates[0], with: "naive", theirs: rates[1], limit: atLeast(1)},
	)
	b.report.note("Memory is the hub process's, less what it had before the streams; it was watched for %.0f s. Rowcast's settled %s, the naive design's %s.",
		settling(b).Seconds(), watched[0].settled(), watched[1].settled())
	return both, nil
}

// settling is how long memory is watched: the runtime collects garbage two minutes after the last time at the latest.
func settling(b *Bench) time.Duration { return pick(b, 140*time.Second, time.Second) }

// watched is a process's memory over time.
type watched struct {
	connected time.Time
	at        []time.Duration // since then
	bytes     []int64
}

func (b *Bench) watchMemory(ctx context.Context, both pair, w *[2]watched) error {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(settling(b)); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		for i, s := range []*stage{both.ours, both.theirs} {
			if now, _, err := processMemory(s.hubs[0].pid()); err == nil {
				w[i].at, w[i].bytes = append(w[i].at, time.Since(w[i].connected)), append(w[i].bytes, now)
			}
		}
	}
	return nil
}

func (w *watched) last() int64 {
	if len(w.bytes) == 0 {
		return 0
	}
	return w.bytes[len(w.bytes)-1]
}

// settled says from when on it stayed within a fiftieth of what it was in the end.
func (w *watched) settled() string {
	from := len(w.bytes)
	for from > 0 && math.Abs(float64(w.bytes[from-1]-w.last())) <= 0.02*float64(w.last()) {
		from--
	}
	if from == len(w.bytes) {
		return "is not measured"
	}
	return fmt.Sprintf("%.0f s after the last had connected (at first %.0f MB in all, in the end %.0f MB)",
		w.at[from].Seconds(), float64(w.bytes[0])/(1<<20), float64(w.last())/(1<<20))
}
