package bench

import (
	"context"
	"fmt"
	"math"
)

// These limit the hub's memory for events: the defaults of two flags of rowcast serve, and the size of a page of rows.
const (
	memoryLimit  = 64 << 20 // --memory
	backlogLimit = 1 << 20  // --backlog, for each stream
	pageLimit    = 1 << 20  // server.PageBytes
)

// bulk measures a transaction with a million rows (20,000 in a quick run). When a quarter has arrived, half of the
// clients are disconnected and resume.
func (b *Bench) bulk(ctx context.Context) error {
	const streams = 100
	rows := pick(b, int64(1_000_000), 20_000)
	const insert = `INSERT INTO rowcast.notifications (recipient, event, data)
		SELECT 'user' || i % 100, 'notify', jsonb_build_object('n', i, 'at', (extract(epoch FROM clock_timestamp()) * 1e9)::bigint, 'msg', 'Bob liked your post')
		FROM generate_series($1::bigint, $2::bigint - 1) i`
	b.steps.plan(3)
	return b.runBulk(ctx, bulkLoad{
		design: rowcastDesign, streams: streams, rows: rows, insert: insert, interrupted: true,
		what:  amount(float64(rows)) + " rows in one transaction",
		limit: memoryLimit + pageLimit + streams*backlogLimit,
	})
}

// large measures four rows of 50 MB each (5 MB in a quick run). One statement writes the four rows.
func (b *Bench) large(ctx context.Context) error {
	const streams = 4
	megabytes := pick(b, 50, 5)
	insert := fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, event, data)
		SELECT 'user' || i %% %d, 'notify', jsonb_build_object('n', i, 'at', (extract(epoch FROM clock_timestamp()) * 1e9)::bigint, 'text', repeat('text ', %d))
		FROM generate_series($1::bigint, $2::bigint - 1) i`, streams, megabytes*200_000)
	d := rowcastDesign
	d.args = hubCommand("--max-event=67108864")
	b.steps.plan(3)
	return b.runBulk(ctx, bulkLoad{
		design: d, streams: streams, rows: 4, insert: insert,
		what:  fmt.Sprintf("4 rows of %d MB", megabytes),
		limit: memoryLimit + pageLimit + 2*float64(megabytes)*1e6, // while a row is read, there are two copies of it
	})
}

// A bulkLoad is a load that a single statement writes.
type bulkLoad struct {
	design
	what        string
	streams     int
	rows        int64
	insert      string  // a statement that writes the rows from $1 to $2-1
	interrupted bool    // half of the clients are disconnected after a quarter of the rows
	limit       float64 // the target for the growth of the hub's memory, in bytes
}

func (b *Bench) runBulk(ctx context.Context, h bulkLoad) error {
	s, err := b.newStage(ctx, setup{design: h.design, streams: h.streams})
	if err != nil {
		return err
	}
	defer s.stop()
	b.steps.step()
	first := b.rows(h.rows)
	if _, err := call[nothing](s.clients, "expect", expectation{First: first, Rows: h.rows}); err != nil {
		return err
	}
	growth := memoryGrowth(s.hubs[0])
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
		figure{what: h.what + ": peak growth of the hub's memory", unit: "MiB", ours: growth() / mega, with: "its limits", theirs: h.limit / mega, limit: atMost(1)},
		figure{what: h.what + ": from first to last delivery", unit: "s", ours: float64(arrived.Last-arrived.First) / 1e9},
	)
	return nil
}

// memoryGrowth returns a function that returns how much the memory of a process has grown, in bytes: its peak since the
// call of memoryGrowth, minus its memory at that call. If the memory cannot be measured, the function returns NaN.
func memoryGrowth(p *process) func() float64 {
	before, _, err := processMemory(p.pid())
	if err == nil {
		err = resetPeak(p.pid())
	}
	return func() float64 {
		_, peak, failed := processMemory(p.pid())
		if err != nil || failed != nil {
			return math.NaN()
		}
		return float64(peak - before)
	}
}

func (h bulkLoad) await(s *stage) (arrivals, error) {
	if h.interrupted {
		if _, err := call[nothing](s.clients, "reach", h.rows/4); err != nil {
			return arrivals{}, err
		}
		if _, err := call[nothing](s.clients, "disconnect", 2); err != nil {
			return arrivals{}, err
		}
	}
	return call[arrivals](s.clients, "await", nothing{})
}
