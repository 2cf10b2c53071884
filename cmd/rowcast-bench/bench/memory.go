package bench

import (
	"context"
	"fmt"
	"math"
	"time"
)

// memory measures the memory of an idle stream.
func (b *Bench) memory(ctx context.Context) error {
	b.steps.plan(idleSteps)
	ours, naive, err := b.idle(ctx, pick(b, 10_000, 200))
	ours.stop()
	naive.stop()
	return err
}

// An idleRun is a hub with idle streams.
type idleRun struct {
	*stage
	before    int64 // the memory in bytes before the streams were opened; negative if it was not measured
	connected time.Time
	at        []time.Duration // the times of the measurements, counted from connected
	bytes     []int64         // the memory at these times
}

const idleSteps = 4

// idle opens streams at a hub of rowcast and at a hub of the naive design. It watches the memory of both hubs until the
// memory should have settled, and reports the growth per stream.
func (b *Bench) idle(ctx context.Context, streams int) (ours, naive *idleRun, err error) {
	ours, naive = new(idleRun), new(idleRun)
	if ours.stage, err = b.newStage(ctx, setup{design: rowcastDesign}); err != nil {
		return ours, naive, err
	}
	if naive.stage, err = b.newStage(ctx, setup{design: naiveDesign}); err != nil {
		return ours, naive, err
	}
	b.steps.step()
	both := []*idleRun{ours, naive}
	for _, i := range both {
		if err := i.connectAll(ctx, streams); err != nil {
			return ours, naive, err
		}
		b.steps.step()
	}
	if err := b.watchMemory(ctx, both); err != nil {
		return ours, naive, err
	}
	b.steps.step()
	b.report.add(figure{
		what: "resident memory of each of " + amount(float64(streams)) + " idle streams", unit: "KiB",
		ours: ours.kibibytes(), with: "naive", theirs: naive.kibibytes(), limit: atMostItself(5),
	})
	b.report.note("Memory is the growth of the hub's resident memory, from before the streams were opened until about %.0f s after all were open. The memory of rowcast %s. The memory of the naive design %s.",
		settling(b).Seconds(), ours.settled(), naive.settled())
	return ours, naive, nil
}

func (i *idleRun) connectAll(ctx context.Context, streams int) (err error) {
	if i.before, _, err = processMemory(i.hubs[0].pid()); err != nil {
		i.before = -1
	}
	_, err = i.connect(ctx, streams)
	i.connected = time.Now()
	return err
}

// settling returns the time for which memory is watched. In a full run, it is more than two minutes, because
// the Go runtime collects garbage at least every two minutes.
func settling(b *Bench) time.Duration { return pick(b, 140*time.Second, 600*time.Millisecond) }

// watchMemory records the memory of the hubs twice per second.
func (b *Bench) watchMemory(ctx context.Context, all []*idleRun) error {
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

// kibibytes returns the growth of memory per stream, from before the streams were opened to the last measurement, in
// KiB. It returns NaN if the memory before was not measured.
func (i *idleRun) kibibytes() float64 {
	if i.before < 0 {
		return math.NaN()
	}
	return float64(i.last()-i.before) / 1024 / float64(i.streams)
}

func (i *idleRun) last() int64 {
	if len(i.bytes) == 0 {
		return 0
	}
	return i.bytes[len(i.bytes)-1]
}

// settled describes from when on the memory stayed within 2 % of the last measurement.
func (i *idleRun) settled() string {
	from := len(i.bytes)
	for from > 0 && math.Abs(float64(i.bytes[from-1]-i.last())) <= 0.02*float64(i.last()) {
		from--
	}
	if from == len(i.bytes) {
		return "was not measured"
	}
	return fmt.Sprintf("settled %.0f s after the last stream was opened (%.0f MiB in all at first, and %.0f MiB at last)",
		i.at[from].Seconds(), float64(i.bytes[0])/(1<<20), float64(i.last())/(1<<20))
}
