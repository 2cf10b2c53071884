package main_test

import (
	"bufio"
	"context"
	"encoding/json"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
)

// BenchmarkStormOfOldCursors is what 5,000 clients cost that come back at once after an hour of 200 rows a second, which memory does not
// hold: how long they take, and how much longer rows take to a client that was there all along, while they come and while they catch up.
func BenchmarkStormOfOldCursors(b *testing.B) {
	for _, replays := range []string{"4", "8"} {
		b.Run("replays="+replays, func(b *testing.B) {
			dsn, url := benchDatabase(b, map[string]string{"shared_preload_libraries": "pg_stat_statements"},
				"--retain", "0", "--memory", "1MiB", "--replays", replays)
			db := benchConnect(b, dsn)
			exec1(b, db, "CREATE EXTENSION pg_stat_statements")
			const clients, rows = 5000, 200 * 3600
			c, log := newCrowd(b, url, clients), &rowLog{}
			old := newCrowd(b, url, 1)
			old.connect(log)
			old.cut()
			for _, m := range c.members {
				m.decoder.LastID = old.members[0].decoder.LastID
			}
			log.fill(b, db, rows, clients)
			taken := observe(b, dsn, url)
			for b.Loop() {
				<-time.After(5 * time.Second)
				before := taken()
				began := c.come(log)
				b.ReportMetric(time.Since(began).Seconds(), "hello-s")
				coming := taken()
				c.catchUp()
				b.ReportMetric(time.Since(began).Seconds(), "all-s")
				replaying := taken()
				c.wantAll(log)
				c.cut()
				report(b, "quiet", before)
				report(b, "coming", coming)
				report(b, "replays", replaying)
				b.ReportMetric(replaying[len(replaying)*99/100]-before[len(before)*99/100], "later-p99-ms")
			}
			b.ReportMetric(0, "ns/op")
			b.ReportMetric(float64(replaySessions(b, db)), "sessions")
			b.ReportMetric(float64(replayQueries(b, db)), "queries")
			var each float64
			const mean = `SELECT sum(total_exec_time) / sum(calls) FROM pg_stat_statements WHERE query LIKE '%rowcast.notifications%LATERAL%'`
			if err := db.QueryRow(b.Context(), mean).Scan(&each); err != nil {
				b.Fatal(err)
			}
			b.ReportMetric(each, "query-ms")
		})
	}
}

func report(b *testing.B, name string, sorted []float64) {
	b.ReportMetric(sorted[len(sorted)/2], name+"-p50-ms")
	b.ReportMetric(sorted[len(sorted)*99/100], name+"-p99-ms")
}

// fill inserts many rows, a thousand in a transaction: one in 10,000 for everyone and the others for the users in turn.
func (l *rowLog) fill(t testing.TB, db *pgx.Conn, rows, users int) {
	t.Helper()
	const insert = `INSERT INTO rowcast.notifications (recipient, data)
		SELECT CASE WHEN n % 10000 > 0 THEN 'user' || n % $3::int END, to_jsonb(n) FROM generate_series($1::int, $2::int - 1) n`
	for from := 0; from < rows; from += 1000 {
		if _, err := db.Exec(t.Context(), insert, from, from+1000, users); err != nil {
			t.Fatal(err)
		}
		for n := from; n < from+1000; n++ {
			if n%10000 == 0 {
				l.note("")
			} else {
				l.note(uid(n % users))
			}
		}
	}
}

// observe inserts a hundred rows a second for a rowcast tail. What it returns gives, sorted, the milliseconds that those took which have
// come since it was called last: from before the INSERT until the line was read.
func observe(b *testing.B, dsn, url string) (taken func() []float64) {
	b.Helper()
	tail := command(b, newHome(b), "tail", "--json", "--url", url+"/events", "--uid", "observer")
	out, err := tail.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	said := newOutput()
	tail.Stderr = said
	if err := tail.Start(); err != nil {
		b.Fatal(err)
	}
	said.await(b, "connected")
	ctx, cancel := context.WithCancel(b.Context())
	var both sync.WaitGroup
	b.Cleanup(func() { cancel(); _ = tail.Process.Kill(); both.Wait(); _ = tail.Wait() })
	both.Go(func() { writeTimes(ctx, b, benchConnect(b, dsn)) })

	var mu sync.Mutex
	var took []float64
	both.Go(func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var event struct{ Data int64 }
			if err := json.Unmarshal(lines.Bytes(), &event); err != nil {
				b.Errorf("%s: %v", lines.Bytes(), err)
			}
			mu.Lock()
			took = append(took, float64(time.Now().UnixNano()-event.Data)/1e6)
			mu.Unlock()
		}
	})
	return func() []float64 {
		mu.Lock()
		defer mu.Unlock()
		sorted := took
		took = nil
		slices.Sort(sorted)
		return sorted
	}
}

// writeTimes inserts rows whose data is when that began.
func writeTimes(ctx context.Context, b *testing.B, db *pgx.Conn) {
	ticker := time.NewTicker(10 * time.Millisecond)
	defer ticker.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-ticker.C:
		}
		now := strconv.FormatInt(time.Now().UnixNano(), 10)
		if _, err := db.Exec(b.Context(), "INSERT INTO rowcast.notifications (recipient, data) VALUES ('observer', $1)", now); err != nil && ctx.Err() == nil {
			b.Errorf("insert: %v", err)
			return
		}
	}
}
