package main_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"
	"golang.org/x/sync/errgroup"

	"rowcast/listener/feed"
	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// BenchmarkMassReconnectOfOldCursors measures a mass reconnect of 5,000 clients that have missed an hour of 200 rows
// per second. The hub must read these rows from the table, because only the newest ones are in memory. The benchmark
// reports the time until all clients have caught up, and the additional latency of new rows for another client that
// stays connected. The latency while the clients connect is compared with the latency while 5,000 new clients connect.
// The latency while they catch up is compared with the latency while no client connects.
func BenchmarkMassReconnectOfOldCursors(b *testing.B) {
	for _, replays := range []string{"2", "4", "8"} {
		b.Run("replays="+replays, func(b *testing.B) {
			dsn, url := benchDatabase(b, map[string]string{"shared_preload_libraries": "pg_stat_statements"},
				"--retain", "0", "--memory", "1MiB", "--replays", replays)
			db := benchConnect(b, dsn)
			exec1(b, db, "CREATE EXTENSION pg_stat_statements")
			const clients, rows = 5000, 200 * 3600
			log, old := &rowLog{}, newClientGroup(b, url, 1)
			old.connect(log)
			old.disconnect()
			log.fill(b, db, rows, clients)
			exec1(b, db, "VACUUM ANALYZE rowcast.notifications") // autovacuum would otherwise do this during the measurement
			exec1(b, db, "CHECKPOINT")
			taken := observe(b, dsn, url)
			for b.Loop() {
				var s reconnectTimes
				for range 3 {
					s.measureFresh(newClientGroup(b, url, clients), log, taken)
					c := newClientGroup(b, url, clients)
					for _, m := range c.members {
						m.decoder.LastID = old.members[0].decoder.LastID
					}
					s.measureOld(c, log, taken)
				}
				s.report(b)
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

// reconnectTimes has the latencies that the observer measured, in milliseconds, and the times until all clients had
// caught up.
type reconnectTimes struct {
	quiet, fresh    []float64 // quiet: without reconnects; fresh: while clients without missed rows connected
	coming, replays []float64 // coming: while clients with missed rows connected; replays: while they caught up
	all             []float64 // the seconds until all clients with missed rows had caught up
}

// measureFresh measures the latency for 2 s without reconnects, and then while clients without missed rows connect.
func (s *reconnectTimes) measureFresh(c *clientGroup, log *rowLog, taken func() []float64) {
	taken()
	<-time.After(2 * time.Second)
	s.quiet = append(s.quiet, taken()...)
	c.connectAll(log)
	s.fresh = append(s.fresh, taken()...)
	c.disconnect()
	<-time.After(time.Second)
	taken()
}

// measureOld measures the latency while clients with many missed rows connect and then while they catch up, and the
// time until all of them have caught up.
func (s *reconnectTimes) measureOld(c *clientGroup, log *rowLog, taken func() []float64) {
	began := c.connectAll(log)
	s.coming = append(s.coming, taken()...)
	c.catchUp()
	s.replays, s.all = append(s.replays, taken()...), append(s.all, time.Since(began).Seconds())
	c.wantAll(log)
	c.disconnect()
	<-time.After(time.Second)
}

func (s *reconnectTimes) report(b *testing.B) {
	p99 := make(map[string]float64)
	for name, times := range map[string][]float64{"quiet": s.quiet, "fresh": s.fresh, "coming": s.coming, "replays": s.replays} {
		if len(times) == 0 {
			b.Fatalf("the observer has measured no latency for %s, want at least one", name)
		}
		slices.Sort(times)
		p99[name] = times[len(times)*99/100]
		b.ReportMetric(times[len(times)/2], name+"-p50-ms")
		b.ReportMetric(p99[name], name+"-p99-ms")
	}
	b.ReportMetric(p99["coming"]-p99["fresh"], "coming-later-p99-ms")
	b.ReportMetric(p99["replays"]-p99["quiet"], "replays-later-p99-ms")
	slices.Sort(s.all)
	b.ReportMetric(s.all[len(s.all)/2], "all-s")
}

// fill inserts and records rows, a thousand in a transaction. One row in 10,000 is for everyone. Of the others, row n
// is for user n%users.
func (l *rowLog) fill(t testing.TB, db *pgx.Conn, rows, users int) {
	t.Helper()
	const insert = `INSERT INTO rowcast.notifications (recipient, data)
		SELECT CASE WHEN n % 10000 > 0 THEN 'user' || n % $3::int ELSE '*' END, to_jsonb(n) FROM generate_series($1::int, $2::int - 1) n`
	for from := 0; from < rows; from += 1000 {
		if _, err := db.Exec(t.Context(), insert, from, from+1000, users); err != nil {
			t.Fatal(err)
		}
		for n := from; n < from+1000; n++ {
			if n%10000 == 0 {
				l.note(feed.Everyone)
			} else {
				l.note(uid(n % users))
			}
		}
	}
}

// observe starts an observer (see observerVariable) and waits for its first latency. The returned function returns the
// latencies, in milliseconds, since its last call.
func observe(b *testing.B, dsn, url string) (taken func() []float64) {
	b.Helper()
	observer := command(b, dbtest.Home(b))
	observer.Env = []string{observerVariable + "=" + dsn + " " + url + "/events?uid=observer"}
	said := newOutput()
	observer.Stderr = said
	out, err := observer.StdoutPipe()
	if err == nil {
		err = observer.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	var reading sync.WaitGroup
	b.Cleanup(func() { _ = observer.Process.Kill(); reading.Wait(); _ = observer.Wait() })
	lines := bufio.NewScanner(out)
	if !lines.Scan() {
		_ = observer.Wait() // until stderr is complete
		b.Fatalf("the observer has printed nothing; stderr: %s", said)
	}

	var mu sync.Mutex
	var took []float64
	reading.Go(func() {
		for lines.Scan() {
			one, err := strconv.ParseFloat(lines.Text(), 64)
			if err != nil {
				b.Error(err)
			}
			mu.Lock()
			took = append(took, one)
			mu.Unlock()
		}
		_ = observer.Wait() // until stderr is complete
		if b.Context().Err() == nil {
			b.Errorf("the observer has ended before the benchmark; stderr: %s", said)
		}
	})
	return func() []float64 {
		mu.Lock()
		defer mu.Unlock()
		since := took
		took = nil
		return since
	}
}

// observerVariable is an environment variable. Its value is the URL of a database and the URL of a stream. If the
// variable is set, this test binary is an observer: it runs watch with these URLs. The observer is a separate process,
// so that its measurements do not include delays in the process of the clients.
const observerVariable = "TEST_ROWCAST_OBSERVER"

func init() {
	if where := os.Getenv(observerVariable); where != "" {
		dsn, url, _ := strings.Cut(where, " ")
		fmt.Fprintln(os.Stderr, watch(context.Background(), dsn, url))
		os.Exit(1)
	}
}

// watch inserts at most a hundred rows per second for the recipient observer. It prints the latency of each row in
// milliseconds, from before the INSERT until the stream at the URL has received the row. watch returns when the stream
// has ended or an INSERT has failed.
func watch(ctx context.Context, dsn, url string) error {
	group, ctx := errgroup.WithContext(ctx)
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	response, err := http.DefaultClient.Do(request)
	if err != nil {
		return err
	}
	defer response.Body.Close()
	db, err := pgx.Connect(ctx, dsn)
	if err != nil {
		return err
	}
	defer db.Close(context.WithoutCancel(ctx))
	group.Go(func() error { return writeTimes(ctx, db) })
	group.Go(func() error { return printTimes(response.Body) })
	return group.Wait()
}

// printTimes prints the latency of each row until the stream ends.
func printTimes(stream io.Reader) error {
	for e, err := range sse.Events(stream) {
		if err != nil {
			return err
		}
		if sent, err := strconv.ParseInt(e.Data, 10, 64); err == nil { // the data of the hub's own events is not a number
			fmt.Println(float64(time.Now().UnixNano()-sent) / 1e6)
		}
	}
	return errors.New("the stream has ended")
}

// writeTimes inserts rows until an INSERT fails. The data of a row is the time before its INSERT, in nanoseconds since
// 1970.
func writeTimes(ctx context.Context, db *pgx.Conn) error {
	for range time.Tick(10 * time.Millisecond) {
		now := strconv.FormatInt(time.Now().UnixNano(), 10)
		if _, err := db.Exec(ctx, "INSERT INTO rowcast.notifications (recipient, data) VALUES ('observer', $1)", now); err != nil {
			return err
		}
	}
	return nil
}

// watch returns an error when its stream ends, and when an INSERT fails while the stream stays open.
func TestObserverReportsItsEnd(t *testing.T) {
	t.Parallel()
	for want, lasts := range map[string]bool{"the stream has ended": false, `relation "rowcast.notifications" does not exist`: true} {
		dsn := dbtest.Database(t)
		hub := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Type", "text/event-stream")
			w.(http.Flusher).Flush()
			if lasts {
				<-r.Context().Done()
			}
		}))
		t.Cleanup(hub.Close)
		if lasts {
			runSQL(t, dsn, "DROP TABLE rowcast.notifications CASCADE")
		}
		ended := make(chan error, 1)
		go func() { ended <- watch(t.Context(), dsn, hub.URL) }()
		if err, _ := receive(t, ended, "the end of watch"); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}
