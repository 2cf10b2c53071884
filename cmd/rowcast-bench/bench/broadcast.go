package bench

import (
	"context"
	"fmt"
)

// broadcast measures the CPU of sending a row to everyone. First it compares the hub with a loop of write(2) in the
// same process. Then it compares a complete hub with the naive design. A complete hub also receives the notification
// and reads the row.
func (b *Bench) broadcast(ctx context.Context) error {
	streams, rounds := pick(b, 5000, 100), pick(b, 10, 2)
	b.steps.plan(2*(rounds+1) + 2)
	if err := b.againstWrites(ctx, streams, rounds); err != nil {
		return err
	}
	var results [2]result
	for i, d := range []design{rowcastDesign, naiveDesign} {
		t, err := b.broadcastRows(ctx, d, streams)
		if err != nil {
			return err
		}
		results[i] = t
		b.steps.step()
	}
	each := func(t result) float64 { return t.Hub / float64(streams) }
	b.report.add(figure{what: "CPU of the hub process per delivery", unit: "µs", ours: each(results[0]), with: "naive", theirs: each(results[1])})
	return nil
}

// broadcastRows writes rows for everyone, at a rate that is low enough for both designs.
func (b *Bench) broadcastRows(ctx context.Context, d design, streams int) (result, error) {
	s, err := b.newStage(ctx, setup{design: d, streams: streams, writers: 1})
	if err != nil {
		return result{}, err
	}
	defer s.stop()
	return s.run(ctx, load{Rows: pick(b, int64(30), 5), Rate: 5})
}

// againstWrites compares the hub with a loop of write(2).
func (b *Bench) againstWrites(ctx context.Context, streams, rounds int) error {
	d, err := b.newComparison(ctx, streams)
	defer d.end()
	if err != nil {
		return err
	}
	var hub, loop []cpuTime
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
		if i > 0 { // the first round is a warm-up
			hub, loop = append(hub, us), append(loop, it)
		}
	}
	b.reportFanout(hub, loop, float64(roundRows*streams), streams, d.size)
	return nil
}

// A comparison has the child processes for the comparison of a hub with a loop of write(2).
type comparison struct {
	fanout, clients *process
	size            int   // the size of an event in bytes
	next            int64 // the number of the next row
}

// roundRows is the number of rows of a round.
const roundRows = 20

func (b *Bench) newComparison(ctx context.Context, streams int) (d *comparison, err error) {
	d = &comparison{next: firstNumber + 1}
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

func (d *comparison) end() {
	d.clients.end()
	d.fanout.end()
}

// round returns the CPU time that the process of the hub uses while it sends roundRows rows to everyone. send is the
// command that sends them: "publish" (by the hub) or "write" (by the loop).
func (d *comparison) round(send string) (cpuTime, error) {
	e := expectation{First: d.next, Rows: roundRows, Everyone: true}
	d.next += roundRows
	if _, err := call[nothing](d.clients, "expect", e); err != nil {
		return cpuTime{}, err
	}
	before, err := call[cpuTime](d.fanout, "usage", nothing{})
	if err != nil {
		return cpuTime{}, err
	}
	if _, err := call[nothing](d.fanout, send, e); err != nil {
		return cpuTime{}, err
	}
	if _, err := call[arrivals](d.clients, "await", nothing{}); err != nil {
		return cpuTime{}, err
	}
	after, err := call[cpuTime](d.fanout, "usage", nothing{})
	return after.since(before), err
}

func (b *Bench) reportFanout(hub, loop []cpuTime, deliveries float64, streams, size int) {
	total := func(s cpuTime) float64 { return s.total() / deliveries }
	// The kernel may divide CPU time into user and system time by sampling. Then only the sums of all rounds are
	// meaningful.
	parts := func(rounds []cpuTime) (user, system float64) {
		for _, s := range rounds {
			user, system = user+float64(s.User), system+float64(s.System)
		}
		all := deliveries * float64(len(rounds))
		return user / all, system / all
	}
	user, system := parts(hub)
	loopUser, loopSystem := parts(loop)
	b.report.add(
		compared(fmt.Sprintf("CPU per delivery to %s streams", amount(float64(streams))), "µs", hub, loop, "loop of write(2)", total, atMost(1.25)),
		figure{what: "CPU per delivery in user mode", unit: "µs", ours: user, with: "loop of write(2)", theirs: loopUser, limit: atMostItself(1)},
		figure{what: "CPU per delivery in the kernel", unit: "µs", ours: system, with: "loop of write(2)", theirs: loopSystem},
	)
	b.report.note("The hub and the loop write events of %d bytes to the same sockets, alternately and in the same process.", size)
}
