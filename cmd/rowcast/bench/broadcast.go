package bench

import (
	"context"
	"fmt"
)

// broadcast is the CPU of telling a row to everyone: the hub's part against a loop of write(2) in the same process, and the whole
// process, from the NOTIFY on, against the naive design's.
func (b *Bench) broadcast(ctx context.Context) error {
	streams, rounds := pick(b, 5000, 100), pick(b, 10, 2)
	b.steps.plan(2*rounds + 2)
	if err := b.againstWrites(ctx, streams, rounds); err != nil {
		return err
	}
	var turns [2]turn
	for i, d := range []design{ours, theNaive} {
		t, err := b.broadcastRows(ctx, d, streams)
		if err != nil {
			return err
		}
		turns[i] = t
		b.steps.step()
	}
	each := func(t turn) float64 { return t.Hub / float64(streams) }
	b.report.add(figure{what: "the hub process, CPU a delivery", unit: "µs", ours: each(turns[0]), with: "naive", theirs: each(turns[1])})
	return nil
}

// broadcastRows writes rows for everyone, at a rate at which all can follow.
func (b *Bench) broadcastRows(ctx context.Context, d design, streams int) (turn, error) {
	s, err := b.set(ctx, set{design: d, streams: streams, writers: 1})
	if err != nil {
		return turn{}, err
	}
	defer s.strike()
	return s.play(ctx, load{Rows: pick(b, int64(30), 5), Rate: 5})
}

// againstWrites lets the hub and the loop take turns.
func (b *Bench) againstWrites(ctx context.Context, streams, rounds int) error {
	f, err := b.child(ctx, "fanout", b.dsn)
	if err != nil {
		return err
	}
	defer f.end()
	address, err := call[string](f, "address", nothing{})
	if err != nil {
		return err
	}
	size, err := call[int](f, "learn", nothing{})
	if err != nil {
		return err
	}
	clients, err := b.child(ctx, "clients", b.dsn)
	if err != nil {
		return err
	}
	defer clients.end()
	if _, err := call[float64](clients, "connect", connectTo{address, streams}); err != nil {
		return err
	}
	const rows = 20
	next := int64(firstNumber + 1)
	round := func(way string) (spent, error) {
		e := expectation{First: next, Rows: rows, Everyone: true}
		next += rows
		return fanoutRound(f, clients, way, e)
	}
	var hub, loop []spent
	for i := range rounds + 1 {
		us, err := round("publish")
		if err != nil {
			return err
		}
		b.steps.step()
		it, err := round("write")
		if err != nil {
			return err
		}
		b.steps.step()
		if i > 0 { // the first is for warming up
			hub, loop = append(hub, us), append(loop, it)
		}
	}
	b.reportFanout(hub, loop, float64(rows*streams), streams, size)
	return nil
}

func fanoutRound(f, clients *process, way string, e expectation) (spent, error) {
	if _, err := call[nothing](clients, "expect", e); err != nil {
		return spent{}, err
	}
	before, err := call[spent](f, "usage", nothing{})
	if err != nil {
		return spent{}, err
	}
	if _, err := call[nothing](f, way, e); err != nil {
		return spent{}, err
	}
	if _, err := call[arrivals](clients, "await", nothing{}); err != nil {
		return spent{}, err
	}
	after, err := call[spent](f, "usage", nothing{})
	return after.since(before), err
}

func (b *Bench) reportFanout(hub, loop []spent, deliveries float64, streams, size int) {
	total := func(s spent) float64 { return s.total() / deliveries }
	// The system tells the two kinds apart by sampling, so only their sums say something.
	parts := func(rounds []spent) (user, system float64) {
		for _, s := range rounds {
			user, system = user+float64(s.User), system+float64(s.System)
		}
		all := deliveries * float64(len(rounds))
		return user / all, system / all
	}
	user, system := parts(hub)
	loopUser, loopSystem := parts(loop)
	b.report.add(
		compared(fmt.Sprintf("CPU a delivery to %s", amount(float64(streams))), "µs", hub, loop, "loop of write(2)", total, atMost(1.25)),
		figure{what: "of it in user mode", unit: "µs", ours: user, with: "loop of write(2)", theirs: loopUser, limit: atMostItself(1)},
		figure{what: "of it in the kernel", unit: "µs", ours: system, with: "loop of write(2)", theirs: loopSystem},
	)
	b.report.note("The hub and the loop write the same %d bytes to the same sockets, in the same process and in turns.", size)
}
