package main_test

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"rowcast/sql/cluster"
)

// BenchmarkInsertWhileDeleting is BenchmarkInsert's load while a hub deletes a million rows that are too old, as a ratio to the same
// with a hub that keeps them: rate and 99th percentile of the latency. The two take turns; the ratios are medians of the pairs.
func BenchmarkInsertWhileDeleting(b *testing.B) {
	dsn, _ := benchDatabase(b, nil)
	programs, err := cluster.Find(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	pgbench := filepath.Join(programs.Dir, "pgbench")
	for b.Loop() {
		results := make(map[string][]float64)
		for range 3 {
			keeping, deleting := whileRetaining(b, pgbench, dsn, "0"), whileRetaining(b, pgbench, dsn, "1h")
			if keeping.deleted != 0 || deleting.deleted < oldRows/10 {
				b.Fatalf("meanwhile %v and %v rows were deleted", keeping.deleted, deleting.deleted)
			}
			for unit, value := range map[string]float64{
				"ratio": deleting.rate / keeping.rate, "p99-ratio": deleting.p99 / keeping.p99,
				"keeping-rows/s": keeping.rate, "deleting-rows/s": deleting.rate,
				"keeping-p99-ms": keeping.p99, "deleting-p99-ms": deleting.p99,
				"deleted-rows/s": deleting.deleted / benchSeconds, "to-delete-all-s": deleting.took,
			} {
				results[unit] = append(results[unit], value)
			}
		}
		for unit, values := range results {
			slices.Sort(values)
			b.ReportMetric(values[1], unit)
		}
	}
	b.ReportMetric(0, "ns/op")
}

const (
	oldRows      = 1_000_000
	benchSeconds = 10
)

// A retaining is what was measured in one turn.
type retaining struct {
	rate, p99 float64 // of the inserts: rows/s, milliseconds
	deleted   float64 // rows by the end of pgbench
	took      float64 // seconds until all were, if any
}

// whileRetaining fills the table with old rows and runs pgbench beside a hub that has just begun to delete them, or keeps them.
func whileRetaining(b *testing.B, pgbench, dsn, retain string) (r retaining) {
	b.Helper()
	fillOld(b, dsn)
	serve := command(b, newHome(b), "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", dsn, "--retain", retain)
	said := newOutput()
	serve.Stderr = said
	began := time.Now()
	if err := serve.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = serve.Process.Kill(); _ = serve.Wait() }()
	metrics := "http://" + said.await(b, `msg=listening addr=([0-9.:]+)`)[1] + "/metrics"
	logs := filepath.Join(b.TempDir(), "log")
	r.rate = runPgbench(b, pgbench, dsn, "rowcast", benchSeconds, "--log", "--log-prefix", logs)
	r.p99 = percentile(b, logs, 0.99)
	deleted := regexp.MustCompile(`(?m)^rowcast_deleted_rows_total (\S+)$`).FindStringSubmatch(ask(b, "GET", metrics).body)
	r.deleted, _ = strconv.ParseFloat(deleted[1], 64)
	if r.deleted > 0 {
		askUntil(b, metrics, `(?m)^rowcast_deleted_rows_total 1e\+06$`)
		r.took = time.Since(began).Seconds()
	}
	return r
}

// fillOld leaves a million old rows in the table, below a young one up to which the first hub has read: it is not to read them.
func fillOld(b *testing.B, dsn string) {
	b.Helper()
	conn := benchConnect(b, dsn)
	exec1(b, conn, "TRUNCATE rowcast.notifications")
	exec1(b, conn, "DO $$ BEGIN FOR i IN 1..10001 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP; END $$")
	exec1(b, conn, "INSERT INTO rowcast.notifications (data) VALUES ('0')")
	exec1(b, conn, `INSERT INTO rowcast.notifications (recipient, data, created_at, xid)
		SELECT 'user' || i % 1000, '{"msg": "Bob liked your post"}', now() - interval '2 hours',
			((SELECT xid::text::bigint FROM rowcast.notifications) - 1 - i / 100)::text::xid8
		FROM generate_series(0, $1::int - 1) i`, oldRows)
	exec1(b, conn, "CHECKPOINT")
}

// percentile is that of the latencies in pgbench's logs, in milliseconds.
func percentile(b *testing.B, prefix string, part float64) float64 {
	b.Helper()
	files, err := filepath.Glob(prefix + ".*")
	if err != nil || len(files) == 0 {
		b.Fatalf("pgbench has left no logs: %v", err)
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
