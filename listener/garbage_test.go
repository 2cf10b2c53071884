package listener_test

import (
	"runtime"
	"testing"

	"rowcast/listener"
	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
)

// A row that is read and delivered needs little memory besides its texts, because all pages and all batches use the
// same arrays. Otherwise the garbage collector would take much of the CPU that the writers need. The test is not
// parallel, because it counts what the whole process allocates.
func TestReadingAllocatesLittle(t *testing.T) {
	const rows, most = 20_000, 150
	dsn := dbtest.Database(t)
	conn := connect(t, dsn)
	delivered := make(chan int, rows)
	listen(t, dsn, func(l *listener.Listener) {
		l.Deliver = func(b feed.Batch) { delivered <- len(b.Rows) }
	})
	allocated := func() uint64 {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		exec(t, conn, `INSERT INTO rowcast.notifications (recipient, data) SELECT 'alice', to_jsonb(i) FROM generate_series(1, 20000) i`)
		for read := 0; read < rows; {
			read += receive(t, "a batch", delivered)
		}
		runtime.ReadMemStats(&after)
		return (after.TotalAlloc - before.TotalAlloc) / rows
	}
	first := allocated() // the arrays grow during this first run
	if got := allocated(); got > most {
		t.Errorf("reading allocated %d bytes a row, and %d at first, want at most %d", got, first, most)
	} else {
		t.Logf("reading allocated %d bytes a row, and %d at first", got, first)
	}
}
