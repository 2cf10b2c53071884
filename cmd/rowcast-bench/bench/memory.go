package bench

import (
	"context"
	"fmt"
	"math"
	"time"
)

// memory is what a stream costs on which nothing happens.
func (b *Bench) memory(ctx context.Context) error {
	b.steps.plan(idleSteps)
	us, it, err := b.idle(ctx, pick(b, 10_000, 200))
	us.strike()
	it.strike()
	return err
}

// idling is a hub with streams on which nothing happens.
type idling struct {
	*stage
	before    int64 // bytes of memory without the streams; negative: not measured
	connected time.Time
	at        []time.Duration // since then
	bytes     []int64         // of memory at these times
}

const idleSteps = 4

// idle opens streams at rowcast and at the naive design and reports what they come to in the end.
func (b *Bench) idle(ctx context.Context, streams int) (us, it *idling, err error) {
	us, it = new(idling), new(idling)
	if us.stage, err = b.set(ctx, set{design: ours}); err != nil {
		return us, it, err
	}
	if it.stage, err = b.set(ctx, set{design: theNaive}); err != nil {
		return us, it, err
	}
	b.steps.step()
	both := []*idling{us, it}
	for _, i := range both {
		if err := i.connectAll(ctx, streams); err != nil {
			return us, it, err
		}
		b.steps.step()
	}
	if err := b.watchMemory(ctx, both); err != nil {
		return us, it, err
	}
	b.steps.step()
	b.report.add(figure{
		what: "resident memory of each of " + amount(float64(streams)) + " idle streams", unit: "KB",
		ours: us.kilobytes(), with: "naive", theirs: it.kilobytes(), limit: atMostItself(5),
	})
	b.report.note("Memory is the hub process's, less what it had before the streams; it was watched for %.0f s. Rowcast's settled %s, the naive design's %s.",
		settling(b).Seconds(), us.settled(), it.settled())
	return us, it, nil
}

func (i *idling) connectAll(ctx context.Context, streams int) (err error) {
	if i.before, _, err = processMemory(i.hubs[0].pid()); err != nil {
		i.before = -1
	}
	_, err = i.connect(ctx, streams)
	i.connected = time.Now()
	return err
}

// settling is how long memory is watched: the runtime collects garbage two minutes after the last time at the latest.
func settling(b *Bench) time.Duration { return pick(b, 140*time.Second, 600*time.Millisecond) }

// watchMemory writes down what they have, twice a second.
func (b *Bench) watchMemory(ctx context.Context, all []*idling) error {
	ticker := time.NewTicker(500 * time.Millisecond)
	defer ticker.Stop()
	for end := time.Now().Add(settling(b)); time.Now().Before(end); {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-ticker.C:
		}
		for _, i := range all {
			if now, _, err := processMemory(i.hubs[0].pid()); err == nil {
				i.at, i.bytes = append(i.at, time.Since(i.connected)), append(i.bytes, now)
			}
		}
	}
	return nil
}

// kilobytes are those of a stream in the end.
func (i *idling) kilobytes() float64 {
	if i.before < 0 {
		return math.NaN()
	}
	return float64(i.last()-i.before) / 1024 / float64(i.streams)
}

func (i *idling) last() int64 {
	if len(i.bytes) == 0 {
		return 0
	}
	return i.bytes[len(i.bytes)-1]
}

// settled says from when on it stayed within a fiftieth of what it was in the end.
func (i *idling) settled() string {
	from := len(i.bytes)
	for from > 0 && math.Abs(float64(i.bytes[from-1]-i.last())) <= 0.02*float64(i.last()) {
		from--
	}
	if from == len(i.bytes) {
		return "is not measured"
	}
	return fmt.Sprintf("%.0f s after the last had connected (at first %.0f MB in all, in the end %.0f MB)",
		i.at[from].Seconds(), float64(i.bytes[0])/(1<<20), float64(i.last())/(1<<20))
}
