package main_test

import (
	"bufio"
	"context"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/listener"
	"rowcast/sql/dbtest"
)

// BenchmarkInsertWhileDeleting measures inserts into a table with a million old rows, once while retention deletes old
// rows and once without deletion. It reports the rate and the 99th percentile of the latency, at the maximum rate of 64
// writers and at 2,000 rows per second. The two measurements alternate. Each reported value is the median of three.
func BenchmarkInsertWhileDeleting(b *testing.B) {
	dsn, _ := benchDatabase(b, nil)
	pgbench := dbtest.Client(b, "pgbench")
	for b.Loop() {
		fillOld(b, dsn)
		deletes := retention(b, dsn)
		results := make(map[string][]float64)
		for range 3 {
			for load, args := range map[string][]string{"full": nil, "2000/s": {"--rate", "2000"}} {
				alone, with := whileDeleting(b, pgbench, dsn, noRetention, args), whileDeleting(b, pgbench, dsn, deletes, args)
				if slowest := min(with.rate, 2000) * benchSeconds; with.deleted < slowest {
					b.Errorf("%s: %v rows were deleted meanwhile, want at least %.0f: as many as were inserted, up to 2,000 per second", load, with.deleted, slowest)
				}
				for unit, value := range map[string]float64{
					"ratio": with.rate / alone.rate, "p99-ratio": with.p99 / alone.p99, "alone-rows/s": alone.rate,
					"alone-p99-ms": alone.p99, "p99-ms": with.p99, "deleted-rows/s": with.deleted / benchSeconds,
				} {
					results[load+"-"+unit] = append(results[load+"-"+unit], value)
				}
			}
		}
		for unit, values := range results {
			b.Logf("%s %.2f", unit, values)
			slices.Sort(values)
			b.ReportMetric(values[1], unit)
		}
	}
	b.ReportMetric(0, "ns/op")
}

const (
	oldRows      = 1_000_000
	benchSeconds = 4
)

// An insertResult has the results of one run of pgbench.
type insertResult struct {
	rate, p99 float64 // rows/s, milliseconds
	deleted   float64 // the number of rows that were deleted during the run
}

// whileDeleting runs pgbench with the arguments load and, at the same time, the function deletes, which returns the
// number of deleted rows. The context of the function ends when pgbench has ended.
func whileDeleting(b *testing.B, pgbench, dsn string, deletes func(context.Context) int64, load []string) (i insertResult) {
	b.Helper()
	ctx, cancel := context.WithCancel(b.Context())
	deleted := make(chan int64)
	go func() { deleted <- deletes(ctx) }()
	logs := filepath.Join(b.TempDir(), "log")
	i.rate = runPgbench(b, pgbench, dsn, "rowcast", benchSeconds, append(load, "--log", "--log-prefix", logs)...)
	cancel()
	i.deleted = float64(<-deleted)
	i.p99 = percentile(b, logs, 0.99)
	return i
}

// noRetention deletes nothing. It is used in place of retention to measure without deletion.
func noRetention(context.Context) int64 { return 0 }

// retention returns a function that deletes old rows until its context ends, and returns their number. Unlike a hub,
// the function also deletes rows that were committed less than a minute ago.
func retention(b *testing.B, dsn string) func(context.Context) int64 {
	b.Helper()
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		b.Fatal(err)
	}
	logger := slog.New(slog.NewTextHandler(b.Output(), nil))
	from := &listener.Listener{Config: config, Logger: logger}
	return func(ctx context.Context) int64 {
		r := listener.Retention{Listener: from, Logger: logger, Keep: time.Hour, MinAge: -1}
		if err := r.Run(ctx); err != nil {
			b.Error(err)
		}
		return r.Deleted.Load()
	}
}

// fillOld replaces all rows with a million old rows and one newer row. The old rows have lower transaction numbers than
// the newer row. The hub has read the newer row before the old rows are committed, so it never reads the old rows.
func fillOld(b *testing.B, dsn string) {
	b.Helper()
	conn := benchConnect(b, dsn)
	exec1(b, conn, "TRUNCATE rowcast.notifications")
	exec1(b, conn, "DO $$ BEGIN FOR i IN 1..10001 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
	exec1(b, conn, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('*', '0')")
	exec1(b, conn, "ALTER TABLE rowcast.notifications DISABLE TRIGGER disown")
	exec1(b, conn, `INSERT INTO rowcast.notifications (recipient, data, created_at, xid)
		SELECT 'user' || i % 1000, '{"msg": "Bob liked your post"}', now() - interval '2 hours',
			((SELECT xid::text::bigint FROM rowcast.notifications) - 1 - i / 100)::text::xid8
		FROM generate_series(0, $1::int - 1) i`, oldRows)
	exec1(b, conn, "ALTER TABLE rowcast.notifications ENABLE ALWAYS TRIGGER disown")
	exec1(b, conn, "CHECKPOINT")
}

// percentile returns a percentile of the latencies in pgbench's logs, in milliseconds. For the 99th percentile, part is
// 0.99.
func percentile(b *testing.B, prefix string, part float64) float64 {
	b.Helper()
	files, err := filepath.Glob(prefix + ".*")
	if err != nil || len(files) == 0 {
		b.Fatalf("found no logs of pgbench at %s.* (error: %v)", prefix, err)
	}
	var all []float64
	for _, name := range files {
		file, err := os.Open(name)
		if err != nil {
			b.Fatal(err)
		}
		defer file.Close()
		for lines := bufio.NewScanner(file); lines.Scan(); {
			micros, err := strconv.ParseFloat(strings.Fields(lines.Text())[2], 64)
			if err != nil {
				b.Fatal(fmt.Errorf("%s: %w", name, err))
			}
			all = append(all, micros/1000)
		}
	}
	slices.Sort(all)
	return all[int(part*float64(len(all)))]
}
