package bench

import (
	"context"
	"fmt"
	"math"
)

// What bounds a hub's memory besides its streams: the flags' defaults, and a page of rows.
const (
	rememberBound = 64 << 20 // --memory
	backlogBound  = 1 << 20  // --backlog, of each stream
	pageBound     = 1 << 20
)

// bulk is a million rows in one transaction. In the middle, half of the clients are cut off and resume.
func (b *Bench) bulk(ctx context.Context) error {
	const streams = 100
	rows := pick(b, int64(1_000_000), 20_000)
	const insert = `INSERT INTO rowcast.notifications (recipient, event, data)
		SELECT 'user' || i % 100, 'notify', jsonb_build_object('n', i, 'at', (extract(epoch FROM clock_timestamp()) * 1e9)::bigint, 'msg', 'Bob liked your post')
		FROM generate_series($1::bigint, $2::bigint - 1) i`
	b.steps.plan(3)
	return b.heavy(ctx, heavy{
		design: ours, streams: streams, rows: rows, insert: insert, interrupted: true,
		what:  amount(float64(rows)) + " rows in one transaction",
		bound: rememberBound + pageBound + streams*backlogBound,
	})
}

// large is single rows of 50 MB.
func (b *Bench) large(ctx context.Context) error {
	const streams = 4
	megabytes := pick(b, 50, 5)
	insert := fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, event, data)
		SELECT 'user' || i %% %d, 'notify', jsonb_build_object('n', i, 'at', (extract(epoch FROM clock_timestamp()) * 1e9)::bigint, 'text', repeat('text ', %d))
		FROM generate_series($1::bigint, $2::bigint - 1) i`, streams, megabytes*200_000)
	d := ours
	d.args = hubCommand("--max-event=67108864")
	b.steps.plan(3)
	return b.heavy(ctx, heavy{
		design: d, streams: streams, rows: 4, insert: insert,
		what:  fmt.Sprintf("4 rows of %d MB", megabytes),
		bound: rememberBound + pageBound + 2*float64(megabytes)*1e6, // it is there twice while it is read
	})
}

// A heavy load is one statement.
type heavy struct {
	design
	what        string
	streams     int
	rows        int64
	insert      string // of the rows from $1 to $2
	interrupted bool
	bound       float64 // bytes by which memory may grow
}

func (b *Bench) heavy(ctx context.Context, h heavy) error {
	s, err := b.set(ctx, set{design: h.design, streams: h.streams})
	if err != nil {
		return err
	}
	defer s.strike()
	b.steps.step()
	first := b.rows(h.rows)
	if _, err := call[nothing](s.clients, "expect", expectation{First: first, Rows: h.rows}); err != nil {
		return err
	}
	growth := growthOf(s.hubs[0])
	if _, err := b.watch.Exec(ctx, h.insert, first, first+h.rows); err != nil {
		return err
	}
	b.steps.step()
	arrived, err := h.await(s)
	if err != nil {
		return err
	}
	b.steps.step()
	const mega = 1 << 20
	b.report.add(
		figure{what: h.what + ": the hub's memory grows by at most", unit: "MB", ours: growth() / mega, with: "its bounds", theirs: h.bound / mega, limit: atMost(1)},
		figure{what: h.what + ": from first to last delivery", unit: "s", ours: float64(arrived.Last-arrived.First) / 1e9},
	)
	return nil
}

// growthOf returns how many bytes more a process will have had than now, at its peak.
func growthOf(p *process) func() float64 {
	before, _, err := processMemory(p.pid())
	if err == nil {
		err = forgetPeak(p.pid())
	}
	return func() float64 {
		_, peak, failed := processMemory(p.pid())
		if err != nil || failed != nil {
			return math.NaN()
		}
		return float64(peak - before)
	}
}

func (h heavy) await(s *stage) (arrivals, error) {
	if h.interrupted {
		if _, err := call[nothing](s.clients, "reach", h.rows/4); err != nil {
			return arrivals{}, err
		}
		if _, err := call[nothing](s.clients, "bounce", 2); err != nil {
			return arrivals{}, err
		}
	}
	return call[arrivals](s.clients, "await", nothing{})
}
