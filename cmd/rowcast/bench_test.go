package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql"
	"rowcast/sql/cluster"
)

// benchDatabase is a server of the benchmark's own that, unlike the tests', waits for the disk, with a hub process attached.
// Settings are more of the server's, args more of the hub's.
func benchDatabase(b *testing.B, settings map[string]string, args ...string) (dsn, url string) {
	b.Helper()
	home := newHome(b)
	c := &cluster.Cluster{Dir: filepath.Join(home, "postgres"), Settings: map[string]string{"max_connections": "200", "shared_buffers": "512MB", "max_wal_size": "4GB"}}
	maps.Copy(c.Settings, settings)
	if err := c.Start(b.Context()); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = c.Kill() })
	dsn = c.DSN("postgres")
	if _, _, err := sql.Migrate(b.Context(), dsn); err != nil {
		b.Fatal(err)
	}
	serve := command(b, home, append([]string{"serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", dsn, "--retain", "0"}, args...)...)
	said := newOutput()
	serve.Stderr = said
	if err := serve.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = serve.Process.Kill(); _ = serve.Wait() })
	return dsn, "http://" + said.await(b, `msg=listening addr=([0-9.:]+)`)[1]
}

// BenchmarkLatency is the time from a single INSERT to the line that rowcast tail prints: 1,000 at 100 a second. Beside it stands
// what a bare LISTEN connection takes that gets the same row as the payload of a NOTIFY.
func BenchmarkLatency(b *testing.B) {
	dsn, url := benchDatabase(b, nil)
	tail := command(b, newHome(b), "tail", "--json", "--url", url+"/events", "--uid", "alice")
	lines, err := tail.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	said := newOutput()
	tail.Stderr = said
	if err := tail.Start(); err != nil {
		b.Fatal(err)
	}
	defer func() { _ = tail.Process.Kill(); _ = tail.Wait() }()
	said.await(b, "connected")
	writer, listener := benchConnect(b, dsn), benchConnect(b, dsn)
	if _, err := listener.Exec(b.Context(), "LISTEN naive"); err != nil {
		b.Fatal(err)
	}
	printed := bufio.NewScanner(lines)
	for b.Loop() {
		ours := latencies(b, func(at string) {
			exec1(b, writer, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', jsonb_build_object('at', $1::text))", at)
		}, func() string {
			var event struct {
				Data struct{ At string }
			}
			if !printed.Scan() || json.Unmarshal(printed.Bytes(), &event) != nil {
				b.Fatalf("tail printed %q", printed.Text())
			}
			return event.Data.At
		})
		naive := latencies(b, func(at string) { exec1(b, writer, "SELECT pg_notify('naive', $1)", at) }, func() string {
			n, err := listener.WaitForNotification(b.Context())
			if err != nil {
				b.Fatal(err)
			}
			return n.Payload
		})
		b.ReportMetric(ours[500], "p50-ms")
		b.ReportMetric(ours[990], "p99-ms")
		b.ReportMetric(naive[500], "notify-p50-ms")
		b.ReportMetric(naive[990], "notify-p99-ms")
	}
	b.ReportMetric(0, "ns/op")
}

// latencies are 1,000 times in milliseconds, sorted: from before send until receive returns what was sent.
func latencies(b *testing.B, send func(at string), receive func() string) []float64 {
	const count = 1000
	took := make([]float64, count)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for i := range took {
			at, _ := strconv.ParseInt(receive(), 10, 64)
			took[i] = float64(time.Now().UnixNano()-at) / 1e6
		}
	}()
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for range count {
		<-ticker.C
		send(strconv.FormatInt(time.Now().UnixNano(), 10))
	}
	select {
	case <-done:
	case <-time.After(patience):
		b.Fatal("not all arrived")
	}
	slices.Sort(took)
	return took
}

// BenchmarkInsert is the rate of single-row transactions by 64 writers while a hub is attached, as a ratio to that of the same
// table without the trigger. The two take turns; the ratio is the median of the pairs.
func BenchmarkInsert(b *testing.B) {
	dsn, _ := benchDatabase(b, nil)
	exec1(b, benchConnect(b, dsn), "CREATE SCHEMA plain")
	exec1(b, benchConnect(b, dsn), "CREATE TABLE plain.notifications (LIKE rowcast.notifications INCLUDING ALL)")
	programs, err := cluster.Find(b.Context())
	if err != nil {
		b.Fatal(err)
	}
	pgbench := filepath.Join(programs.Dir, "pgbench")
	for b.Loop() {
		var ratios, plain, trigger []float64
		for range 5 {
			p, r := pgbenchRate(b, pgbench, dsn, "plain"), pgbenchRate(b, pgbench, dsn, "rowcast")
			plain, trigger, ratios = append(plain, p), append(trigger, r), append(ratios, r/p)
		}
		for _, of := range [][]float64{ratios, plain, trigger} {
			slices.Sort(of)
		}
		b.ReportMetric(ratios[2], "ratio")
		b.ReportMetric(plain[2], "plain-rows/s")
		b.ReportMetric(trigger[2], "trigger-rows/s")
	}
	b.ReportMetric(0, "ns/op")
}

func pgbenchRate(b *testing.B, pgbench, dsn, schema string) float64 {
	b.Helper()
	return runPgbench(b, pgbench, dsn, schema, 5)
}

// runPgbench inserts single rows by 64 clients for some seconds and returns the rate.
func runPgbench(b *testing.B, pgbench, dsn, schema string, seconds int, more ...string) float64 {
	b.Helper()
	script := filepath.Join(b.TempDir(), schema+".sql")
	insert := fmt.Sprintf(`INSERT INTO %s.notifications (recipient, event, data) VALUES ('user' || (random() * 1000)::int, 'notify', '{"msg": "Bob liked your post"}');`, schema)
	if err := os.WriteFile(script, []byte(insert), 0o644); err != nil {
		b.Fatal(err)
	}
	args := append([]string{"-n", "-c", "64", "-j", "2", "-T", strconv.Itoa(seconds), "-f", script}, more...)
	out, err := exec.Command(pgbench, append(args, dsn)...).CombinedOutput()
	found := regexp.MustCompile(`tps = ([0-9.]+)`).FindSubmatch(out)
	if err != nil || found == nil {
		b.Fatalf("pgbench: %v\n%s", err, out)
	}
	rate, _ := strconv.ParseFloat(string(found[1]), 64)
	return rate
}

func benchConnect(b testing.TB, dsn string) *pgx.Conn {
	b.Helper()
	conn, err := pgx.Connect(b.Context(), dsn)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { conn.Close(context.Background()) })
	return conn
}

func exec1(b *testing.B, conn *pgx.Conn, statement string, args ...any) {
	b.Helper()
	if _, err := conn.Exec(b.Context(), statement, args...); err != nil {
		b.Fatal(err)
	}
}
