package main_test

import (
	"fmt"
	"io"
	"net"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// A leaver is a client that records how its stream ends.
type leaver struct {
	eventSource
	greeted func()
	last    sse.Event
	ended   time.Time
	err     error
}

func (l *leaver) record(e sse.Event) {
	l.last = e
	if e.Name == "rowcast.hello" {
		l.decoder.Retry = 0 // the hub must send a retry time again at the end
		l.greeted()
	}
}

// When a hub stops, 2,000 streams each receive a cursor and a retry time, and end one after another. Streams of clients
// that read nothing do not delay the others.
func TestThousandsOfStreamsEnd(t *testing.T) {
	t.Parallel()
	const group, stuck, drain = 2000, 20, 2 * time.Second
	dsn := dbtest.Database(t)
	p, url := spawnServe(t, dsn, "--drain", drain.String(), "--heartbeat", "1h") // the hub would close a stalled stream after two heartbeat intervals
	stick(t, dsn, url, stuck)

	leavers := make([]*leaver, group)
	var greeted, ended sync.WaitGroup
	ctx := dbtest.Context(t)
	greeted.Add(group)
	for i := range leavers {
		l := &leaver{greeted: sync.OnceFunc(greeted.Done)}
		l.url, l.onEvent = url+"/events?uid=alice", l.record
		leavers[i] = l
		ended.Go(func() {
			defer l.greeted()
			l.err = l.stream(ctx)
			l.ended = time.Now()
		})
	}
	greeted.Wait()
	askUntil(t, url+"/metrics", fmt.Sprintf(`(?m)^rowcast_streams %d$`, group+stuck))
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	askUntil(t, url+"/readyz", `"ready":false`)
	if got := ask(t, "GET", url+"/events?uid=alice"); got.status != 200 || !strings.HasPrefix(got.body, "retry: ") || strings.Contains(got.body, "event") {
		t.Errorf("a new client: got %+v, want 200 and only a retry time", got)
	}
	ended.Wait()
	if err := p.wait(t); err != nil {
		t.Errorf("got %v, want exit code 0", err)
	}
	if took := time.Since(began); took > 10*time.Second {
		t.Errorf("the hub stopped after %v, want at most 10s", took)
	}
	wantLastEvents(t, leavers)
	wantSpread(t, leavers, began, drain)
}

// wantLastEvents checks that each stream ended with a heartbeat, with the same cursor and with a retry time. There must
// be many different retry times, so that the clients do not all reconnect at once.
func wantLastEvents(t *testing.T, leavers []*leaver) {
	t.Helper()
	waits := map[time.Duration]bool{}
	for i, l := range leavers {
		retry := l.decoder.Retry
		waits[retry] = true
		if l.err != nil || l.last.Name != "rowcast.beat" || l.last.LastID != leavers[0].last.LastID || retry < 1500*time.Millisecond || retry > 4500*time.Millisecond {
			t.Fatalf("stream %d ended with the error %v, the event %v and the retry time %v, want no error, rowcast.beat with the cursor %s, and 1.5s to 4.5s", i, l.err, l.last, retry, leavers[0].last.LastID)
		}
	}
	if len(waits) < len(leavers)/4 {
		t.Errorf("%d clients have %d different retry times, want at least %d", len(leavers), len(waits), len(leavers)/4)
	}
}

// wantSpread checks that the streams did not all end at once: the ends of the middle half are spread over at least a
// fifth of the drain time.
func wantSpread(t *testing.T, leavers []*leaver, began time.Time, drain time.Duration) {
	t.Helper()
	var ends []time.Duration
	for _, l := range leavers {
		ends = append(ends, l.ended.Sub(began))
	}
	slices.Sort(ends)
	first, quarter, half, threeQuarters, last := ends[0], ends[len(ends)/4], ends[len(ends)/2], ends[3*len(ends)/4], ends[len(ends)-1]
	t.Logf("the first stream, a quarter, a half, three quarters and all streams had ended after %v, %v, %v, %v, %v", first, quarter, half, threeQuarters, last)
	if threeQuarters-quarter < drain/5 {
		t.Errorf("the middle half of the streams ended within %v, want at least %v", threeQuarters-quarter, drain/5)
	}
}

// stick opens n streams of clients that read nothing, and inserts two rows that are larger than the buffers of the
// connections. The first row is then being written to each stream, and the second is pending. A third row would exceed
// the default of --backlog, and the hub would close the streams.
func stick(t *testing.T, dsn, url string, n int) {
	t.Helper()
	const rows = 2
	for range n {
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { conn.Close() })
		if _, err := io.WriteString(conn, "GET /events?uid=stuck HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	askUntil(t, url+"/metrics", `(?m)^rowcast_streams `+strconv.Itoa(n)+`$`)
	for range rows {
		runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('stuck', to_jsonb(repeat('x', 12000000)))`)
	}
	askUntil(t, url+"/metrics", fmt.Sprintf(`(?m)^rowcast_rows_total %d$`, rows))
}
