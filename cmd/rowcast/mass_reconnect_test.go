package main_test

import (
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// When all clients lose their connections at once and reconnect while rows are inserted, they receive exactly the
// missed and the new rows. The hub reads the missed rows from memory, without a query.
func TestMassReconnectFromMemory(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn, "--retain", "0")
	const users, rate, everyone = 300, 200, 5
	var log rowLog
	stop := log.write(t, benchConnect(t, dsn), users, rate, everyone)
	defer stop()
	c := newClientGroup(t, h.url, users)
	t.Logf("the first connect took %v", c.connect(&log))
	for range 3 {
		log.await(t, 2*everyone) // these rows are sent
		c.disconnect()
		log.await(t, 2*everyone) // these rows are missed
		t.Logf("the reconnect took %v", c.connect(&log))
	}
	stop()
	c.wantAll(&log)
	c.disconnect()
	missed, pages := metric(t, h.url, "rowcast_replayed_events_total"), metric(t, h.url, "rowcast_replay_pages_total")
	if missed < users || pages != 0 {
		t.Errorf("%v missed rows were sent, and %v pages were read from the table, want at least %d rows and 0 pages", missed, pages, users)
	}
	if got := replaySessions(t, benchConnect(t, dsn)); got != 0 {
		t.Errorf("%d connections for replays are open, want 0", got)
	}
}

// replaySessions counts the connections for replays. They stay open for at least a minute after a replay.
func replaySessions(t testing.TB, db *pgx.Conn) (sessions int) {
	t.Helper()
	const count = `SELECT count(*) FROM pg_stat_activity WHERE application_name = 'rowcast replay' AND datname = current_database()`
	if err := db.QueryRow(t.Context(), count).Scan(&sessions); err != nil {
		t.Fatal(err)
	}
	return sessions
}

// metric returns the value of a metric of a hub. The name is a regular expression.
func metric(t testing.TB, url, name string) float64 {
	t.Helper()
	body := ask(t, http.MethodGet, url+"/metrics").body
	found := regexp.MustCompile(`(?m)^` + name + ` (\S+)$`).FindStringSubmatch(body)
	if found == nil {
		t.Fatalf("the metric %s is not in %s", name, body)
	}
	value, _ := strconv.ParseFloat(found[1], 64)
	return value
}

// BenchmarkMassReconnect measures how long 5,000 clients take to reconnect at once and catch up, after they have missed
// half a second of 200 rows per second. This is compared with how long 5,000 new clients take to connect. The two
// measurements alternate, and each reported value is the median of five. The hub sends no query for the missed rows,
// because all of them are in memory.
func BenchmarkMassReconnect(b *testing.B) {
	dsn, url := benchDatabase(b, map[string]string{"shared_preload_libraries": "pg_stat_statements"})
	db := benchConnect(b, dsn)
	exec1(b, db, "CREATE EXTENSION pg_stat_statements")
	const clients, rate, everyone = 5000, 200, 20
	var log rowLog
	for b.Loop() {
		var ratios, fresh, back []float64
		for range 5 {
			stop := log.write(b, db, clients, rate, everyone)
			c := newClientGroup(b, url, clients)
			first := c.connect(&log).Seconds()
			<-time.After(time.Second)
			c.disconnect()
			<-time.After(500 * time.Millisecond)
			again := c.connect(&log).Seconds()
			<-time.After(time.Second)
			stop()
			c.wantAll(&log)
			c.disconnect()
			fresh, back, ratios = append(fresh, first), append(back, again), append(ratios, again/first)
		}
		b.Logf("seconds until new clients were connected: %.2f; until clients had reconnected: %.2f; ratios: %.2f", fresh, back, ratios)
		for _, of := range [][]float64{ratios, fresh, back} {
			slices.Sort(of)
		}
		b.ReportMetric(ratios[2], "ratio")
		b.ReportMetric(fresh[2], "fresh-s")
		b.ReportMetric(back[2], "back-s")
	}
	b.ReportMetric(0, "ns/op")
	pages, replayed, queries := metric(b, url, "rowcast_replay_pages_total"), metric(b, url, "rowcast_replayed_events_total"), replayQueries(b, db)
	b.Logf("%v missed rows sent, %v pages read from the table, %d queries of replays, %d connections for replays", replayed, pages, queries, replaySessions(b, db))
	if pages != 0 || queries != 0 || replayed < clients {
		b.Errorf("%v missed rows were sent, and %v pages were read from the table with %d queries, want at least %d rows, 0 pages and 0 queries", replayed, pages, queries, clients)
	}
}

// replayQueries counts the queries of replays. Only they name the table before a LATERAL.
func replayQueries(t testing.TB, db *pgx.Conn) (calls int) {
	t.Helper()
	const count = `SELECT coalesce(sum(calls), 0) FROM pg_stat_statements WHERE query LIKE '%rowcast.notifications%LATERAL%' AND query NOT LIKE '%pg_stat_statements%'`
	if err := db.QueryRow(t.Context(), count).Scan(&calls); err != nil {
		t.Fatal(err)
	}
	return calls
}
