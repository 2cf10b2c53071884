package main_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// A cast has nginx, two hubs behind it, and a database. Its method roll restarts the hubs while rows with the data 1,
// 2, 3 and so on are inserted. A row with the data 0 marks the end.
type cast struct {
	t     *testing.T
	dsn   string
	hubs  [2]*rollingHub
	nginx *nginx
}

// A rollingHub runs one hub process after another at the same address.
type rollingHub struct {
	t       *testing.T
	dsn     string
	address string
	args    []string // more arguments
	process *spawned
}

func (h *rollingHub) start() {
	h.t.Helper()
	var url string
	args := append([]string{"--insecure-uid=anywhere", "--listen", h.address, "--drain", "300ms", "--retry", "200ms"}, h.args...)
	h.process, url = spawnServe(h.t, h.dsn, args...)
	// Do not write the same address again, because a goroutine that serves a page may be reading it.
	if address := strings.TrimPrefix(url, "http://"); address != h.address {
		h.address = address
	}
}

// stop ends the process by a signal. After SIGTERM, the process must exit with code 0.
func (h *rollingHub) stop(signal syscall.Signal) {
	h.t.Helper()
	if err := h.process.cmd.Process.Signal(signal); err != nil {
		h.t.Fatal(err)
	}
	if err := h.process.wait(h.t); signal == syscall.SIGTERM && err != nil {
		h.t.Errorf("after SIGTERM, a hub ended with %v, want exit code 0; stderr: %s", err, h.process.err)
	}
}

func newCast(t *testing.T) *cast {
	t.Helper()
	findNginx(t)
	c := &cast{t: t, dsn: dbtest.Database(t)}
	for i := range c.hubs {
		c.hubs[i] = &rollingHub{t: t, dsn: c.dsn, address: freeAddress(t)}
		c.hubs[i].start()
	}
	c.nginx = startNginx(t, c.hubs[0].address, c.hubs[1].address)
	return c
}

// roll restarts the hubs in several ways while rows are inserted. It returns the number of rows without the last row.
func (c *cast) roll() (rows int) {
	c.t.Helper()
	ctx, stop := context.WithCancel(c.t.Context())
	defer stop()
	var writing sync.WaitGroup
	writing.Go(func() { rows = c.write(ctx) })
	for _, signal := range []syscall.Signal{syscall.SIGTERM, syscall.SIGKILL} {
		for _, hub := range c.hubs {
			hub.stop(signal)
			hub.start()
		}
	}
	for _, hub := range c.hubs {
		hub.stop(syscall.SIGKILL)
	}
	if got := ask(c.t, "GET", c.nginx.url+"/events?uid=nobody"); got.status != 200 || got.body != "retry: 3000\n" {
		c.t.Errorf("while both hubs are down: got %+v, want 200 and only \"retry: 3000\" from nginx", got)
	}
	for _, hub := range c.hubs {
		hub.start()
	}
	c.wantStream()
	c.wantClients() // so that an open stream receives the last row
	stop()
	writing.Wait()
	return rows
}

// wantClients waits until at least one client has reconnected to a hub.
func (c *cast) wantClients() {
	c.t.Helper()
	connections := func(hub *rollingHub) float64 { return metric(c.t, "http://"+hub.address, "rowcast_streams") }
	for deadline := time.Now().Add(waitLimit); connections(c.hubs[0])+connections(c.hubs[1]) < 2; time.Sleep(10 * time.Millisecond) { // one stream may belong to wantStream
		if time.Now().After(deadline) {
			c.t.Fatalf("after %v, the hubs have fewer than 2 streams", waitLimit)
		}
	}
}

// wantStream checks that nginx passes a request to a hub as soon as the hubs have restarted.
func (c *cast) wantStream() {
	c.t.Helper()
	ctx, cancel := context.WithCancel(dbtest.Context(c.t))
	defer cancel()
	var got []sse.Event
	visitor := eventSource{url: c.nginx.url + "/events?uid=nobody", onEvent: func(e sse.Event) {
		got = append(got, e)
		cancel()
	}}
	if err := visitor.stream(ctx); len(got) == 0 || got[0].Name != "rowcast.void" {
		c.t.Errorf("when the hubs are back: got the events %v (error: %v) from nginx, want rowcast.void as the first event", got, err)
	}
}

// write inserts rows until ctx ends, and then the last row. It returns the number of rows without the last row.
func (c *cast) write(ctx context.Context) (rows int) {
	conn, err := pgx.Connect(c.t.Context(), c.dsn)
	if err != nil {
		c.t.Error(err)
		return 0
	}
	defer conn.Close(context.Background())
	for last := false; !last; {
		number := rows + 1
		select {
		case <-ctx.Done():
			last, number = true, 0
		case <-time.After(10 * time.Millisecond):
			rows++
		}
		if _, err := conn.Exec(c.t.Context(), `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', to_jsonb($1::int))`, number); err != nil {
			c.t.Error(err)
			return rows
		}
	}
	return rows
}

// check checks that a client has received every row once and in order.
func (c *cast) check(client string, heard []int, rows int) {
	c.t.Helper()
	for i, number := range heard {
		if number != (i+1)%(rows+1) {
			c.t.Errorf("%s received row %d after the rows %v, want row %d", client, number, heard[max(0, i-3):i], (i+1)%(rows+1))
			return
		}
	}
	if len(heard) != rows+1 {
		c.t.Errorf("%s received %d rows, want %d", client, len(heard), rows+1)
	}
}

// checkLog stops nginx. It checks that nginx answered every request for a stream with 200, and passed at least one
// request on to the other hub after the first hub had failed.
func (c *cast) checkLog() {
	c.t.Helper()
	c.nginx.stop()
	log, err := os.ReadFile(c.nginx.log)
	if err != nil {
		c.t.Fatal(err)
	}
	var streams, second int
	for _, line := range lines(string(log)) {
		status, rest, _ := strings.Cut(line, " ")
		if !strings.HasPrefix(rest, "/events") {
			continue
		}
		streams++
		if strings.Contains(rest, ", ") {
			second++
		}
		if status != "200" {
			c.t.Errorf("nginx answered %s, want status 200", line)
		}
	}
	c.t.Logf("%d requests for a stream, %d of them were passed on to the other hub", streams, second)
	if second == 0 {
		c.t.Error("nginx passed no request on to the other hub, want at least 1")
	}
}

// Behind nginx, no row is lost or repeated, and no EventSource stops for good, when hubs are restarted one after
// another, when hubs are killed, and while no hub runs.
func TestRollingRestart(t *testing.T) {
	t.Parallel()
	const clients = 60
	c := newCast(t)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var all [clients]*roller
	var greeted, heard, running sync.WaitGroup
	greeted.Add(clients)
	heard.Add(clients)
	for i := range all {
		r := &roller{t: t, greeted: sync.OnceFunc(greeted.Done), done: sync.OnceFunc(heard.Done)}
		r.url, r.onEvent = c.nginx.url+"/events?uid=alice", r.record
		all[i] = r
		running.Go(func() {
			defer r.done()
			defer r.greeted()
			if err := r.run(ctx); err != nil {
				t.Error(err)
			}
		})
	}
	late := time.AfterFunc(2*waitLimit, cancel) // ends the clients if one of them is not greeted
	defer late.Stop()
	greeted.Wait()
	late.Stop()
	rows := c.roll()
	late.Reset(waitLimit) // ends the clients if one of them misses the last row
	heard.Wait()
	cancel()
	running.Wait()
	streams := 0
	for i, r := range all {
		c.check(fmt.Sprintf("client %d", i), r.heard, rows)
		streams += r.streams
	}
	t.Logf("%d rows, to each of %d clients in %d streams", rows, clients, streams)
	c.checkLog()
}

// A roller is a client that records the data of the rows that it receives.
type roller struct {
	eventSource
	t       *testing.T
	greeted func()
	heard   []int
	done    func()
}

func (r *roller) record(e sse.Event) {
	switch e.Name {
	case "rowcast.hello":
		r.greeted()
	case "rowcast.reset":
		r.t.Errorf("a client was reset with %s, want no reset", e.Data)
	case "message":
		number, err := strconv.Atoi(e.Data)
		if err != nil {
			r.t.Error(err)
		}
		r.heard = append(r.heard, number)
		if number == 0 {
			r.done()
		}
	}
}
