package bench

import (
	"context"
	"fmt"
)

// broadcast is the CPU of telling a row to everyone: the hub's part against a loop of write(2) in the same process, and the whole
// process, from the NOTIFY on, against the naive design's.
func (b *Bench) broadcast(ctx context.Context) error {
	streams, rounds := pick(b, 5000, 100), pick(b, 10, 2)
	b.steps.plan(2*(rounds+1) + 2)
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
	d, err := b.newDuel(ctx, streams)
	defer d.end()
	if err != nil {
		return err
	}
	var hub, loop []spent
	for i := range rounds + 1 {
		us, err := d.round("publish")
		if err != nil {
			return err
		}
		b.steps.step()
		it, err := d.round("write")
		if err != nil {
			return err
		}
		b.steps.step()
		if i > 0 { // the first is for warming up
			hub, loop = append(hub, us), append(loop, it)
		}
	}
	b.reportFanout(hub, loop, float64(duelRows*streams), streams, d.size)
	return nil
}

// A duel is between a hub and a loop of write(2).
type duel struct {
	fanout, clients *process
	size            int   // of an event in bytes
	next            int64 // number of the next row
}

// duelRows are those of a round.
const duelRows = 20

func (b *Bench) newDuel(ctx context.Context, streams int) (d *duel, err error) {
	d = &duel{next: firstNumber + 1}
	if d.fanout, err = b.child(ctx, "fanout", b.dsn); err != nil {
		return d, err
	}
	address, err := call[string](d.fanout, "address", nothing{})
	if err != nil {
		return d, err
	}
	if d.size, err = call[int](d.fanout, "learn", nothing{}); err != nil {
		return d, err
	}
	if d.clients, err = b.child(ctx, "clients", b.dsn); err != nil {
		return d, err
	}
	_, err = call[float64](d.clients, "connect", connectTo{address, streams})
	return d, err
}

func (d *duel) end() {
	d.clients.end()
	d.fanout.end()
}

// round is what it costs to tell everyone some rows.
func (d *duel) round(way string) (spent, error) {
	e := expectation{First: d.next, Rows: duelRows, Everyone: true}
	d.next += duelRows
	if _, err := call[nothing](d.clients, "expect", e); err != nil {
		return spent{}, err
	}
	before, err := call[spent](d.fanout, "usage", nothing{})
	if err != nil {
		return spent{}, err
	}
	if _, err := call[nothing](d.fanout, way, e); err != nil {
		return spent{}, err
	}
	if _, err := call[arrivals](d.clients, "await", nothing{}); err != nil {
		return spent{}, err
	}
	after, err := call[spent](d.fanout, "usage", nothing{})
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
