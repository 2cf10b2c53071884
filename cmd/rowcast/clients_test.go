package main_test

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// TestOtherClients shows what clients of other projects receive. A hub is killed, stopped and replaced. Streams are
// ended, and cut at every byte of a row. Connections are reset. At last, all cursors become useless. stream/README.md
// has the results.
func TestOtherClients(t *testing.T) {
	t.Parallel()
	clients := otherClients()
	c := newCourse(t, len(clients))
	var running sync.WaitGroup
	defer running.Wait()
	defer close(c.over)
	// The subtests run at the same time, because a restart of the hub concerns all of them. They do not call
	// t.Parallel, because package testing would then run only a few of them at a time.
	for _, client := range clients {
		running.Go(func() {
			ready := sync.OnceFunc(c.ready.Done)
			defer ready() // the client may have failed, or -run may leave it out
			t.Run(client.name, func(t *testing.T) { client.run(t, c, ready) })
		})
	}
	c.run()
}

// An otherClient is a client of another project.
type otherClient struct {
	name  string
	kinds []kind
	start func(t *testing.T, name string, participants []*participant) // starts one client for each kind
}

// A kind is one way in which a client is tested, for example with a service worker. The streams of a client are cut one
// after another, each after one byte more of a row. For a client that reconnects slowly, these cuts are divided among
// several kinds, which are tested at the same time.
type kind struct {
	name        string
	worker      string // the query in the URL of a page's service worker; empty if the page has no service worker
	outcome     outcome
	part, parts int // the streams are cut after part, part+parts, part+2*parts, … bytes of a row
}

// run starts the client, calls ready, waits until the course is over, and checks what the client has received.
func (o *otherClient) run(t *testing.T, c *course, ready func()) {
	var participants []*participant
	for _, kind := range o.kinds {
		participants = append(participants, c.newParticipant(t, kind))
	}
	o.start(t, o.name, participants)
	for _, p := range participants {
		if err := p.await(2*waitLimit, "rowcast.hello", func() bool { return p.streams > 0 }); err != nil {
			t.Fatalf("%s: %v", p.kind.name, err)
		}
	}
	c.join(participants)
	ready()
	<-c.over
	for _, p := range participants {
		if len(participants) == 1 {
			p.check(t)
		} else {
			t.Run(p.kind.name, p.check)
		}
	}
}

// A participant is a client that takes part in the course.
type participant struct {
	*record
	kind    kind
	user    string
	proxy   *cutter
	url     string // the URL of the stream
	page    string // the URL of a page that opens the stream in a browser
	course  *course
	failure error // why the client did not continue
}

// check checks what the client has received.
func (p *participant) check(t *testing.T) {
	if p.failure != nil {
		t.Error(p.failure)
	}
	p.mu.Lock()
	defer p.mu.Unlock()
	t.Logf("%d events in %d streams, %d resets, cut %d times, closed: %v", len(p.heard), p.streams, p.resets, len(p.proxy.cuts), p.closed)
	if err := p.kind.outcome.check(p); err != nil {
		t.Error(err)
	}
}

// A course has a hub, a database with numbered rows, and clients that receive the rows.
type course struct {
	t     *testing.T
	dsn   string
	hub   *rollingHub
	admin string // the URL of the hub's admin address
	pages *httptest.Server
	ready sync.WaitGroup // waits until each client has started or failed
	over  chan struct{}

	mu           sync.Mutex
	number       int                     // the number of participants so far
	inBrowsers   map[string]*participant // all participants by their users, for the reports of pages
	participants []*participant
	rows         int // the number of inserted rows
	before       int // the last row before the cursors became useless
	after        int // the first row after rowcast.reset
}

// newCourse starts a hub and the server of the pages.
func newCourse(t *testing.T, clients int) *course {
	t.Helper()
	c := &course{t: t, dsn: dbtest.Database(t), over: make(chan struct{}), inBrowsers: map[string]*participant{}}
	c.ready.Add(clients)
	c.startHub()
	c.pages = c.servePages()
	return c
}

// startHub starts a hub at new addresses.
func (c *course) startHub() {
	c.t.Helper()
	admin := freeAddress(c.t)
	c.admin = "http://" + admin
	c.hub = &rollingHub{t: c.t, dsn: c.dsn, address: freeAddress(c.t), args: []string{"--admin-listen", admin}}
	c.hub.start()
}

// newParticipant starts a proxy for a client.
func (c *course) newParticipant(t *testing.T, kind kind) *participant {
	t.Helper()
	c.mu.Lock()
	defer c.mu.Unlock()
	c.number++
	p := &participant{record: newRecord(), kind: kind, course: c, user: fmt.Sprintf("client%d", c.number)}
	pages := strings.TrimPrefix(c.pages.URL, "http://")
	c.inBrowsers[p.user] = p
	p.proxy = startCutter(t, c.hub.address, pages)
	p.url = "http://" + p.proxy.address + "/events?uid=" + p.user
	query := url.Values{"uid": {p.user}, "worker": {kind.worker}, "report": {c.pages.URL + "/heard/" + p.user}}
	p.page = "http://" + p.proxy.address + "/page.html?" + query.Encode()
	return p
}

func (c *course) join(participants []*participant) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.participants = append(c.participants, participants...)
}

// each calls f for all clients at the same time, except those that have failed or closed. If f returns an error, the
// client has failed.
func (c *course) each(f func(p *participant) error) {
	var running sync.WaitGroup
	for _, p := range c.participants {
		if p.failure == nil && !p.hasClosed() {
			running.Go(func() { p.failure = f(p) })
		}
	}
	running.Wait()
}

// run ends the streams of the clients in several ways, and makes the cursors useless at the end.
func (c *course) run() {
	c.t.Helper()
	dbtest.Wait(c.t, c.ready.Wait, "the clients to start")
	pause := c.write()
	c.continued("at the beginning")
	c.restart(syscall.SIGKILL)
	c.continued("after the hub was killed")
	c.restart(syscall.SIGTERM)
	c.continued("after the hub was stopped")
	c.replace()
	c.continued("after another hub has replaced the hub")
	c.disconnect()
	c.continued("after POST /disconnect")
	c.each(func(p *participant) error { p.proxy.abort(); return nil })
	c.continued("after their connections were reset")
	c.each(func(p *participant) error { return p.proxy.cutAll(3*waitLimit, p.kind.part, p.kind.parts) })
	c.continued("after all cuts")
	pause()
	c.reset()
	pause = c.write()
	c.continued("after the reset")
	pause()
	c.each(func(p *participant) error {
		return p.await(waitLimit, fmt.Sprintf("the last row, %d", c.rows), func() bool { return p.highest == c.rows || p.closed })
	})
}

// continued waits until each client has received a row that was inserted after the call.
func (c *course) continued(when string) {
	c.t.Helper()
	c.mu.Lock()
	rows := c.rows
	c.mu.Unlock()
	began := time.Now()
	c.each(func(p *participant) error {
		return p.await(waitLimit, fmt.Sprintf("a row after row %d %s", rows, when), func() bool { return p.highest > rows || p.closed })
	})
	c.t.Logf("%s: %d rows, %v", when, rows, time.Since(began))
}

// write inserts rows until pause is called.
func (c *course) write() (pause func()) {
	ctx, cancel := context.WithCancel(c.t.Context())
	var writing sync.WaitGroup
	writing.Go(func() {
		conn, err := pgx.Connect(c.t.Context(), c.dsn)
		if err != nil {
			c.t.Error(err)
			return
		}
		defer conn.Close(context.Background())
		for every := time.NewTicker(25 * time.Millisecond); ctx.Err() == nil; <-every.C {
			if err := c.insert(conn); err != nil {
				c.t.Error(err)
				return
			}
		}
	})
	pause = func() {
		cancel()
		writing.Wait()
	}
	c.t.Cleanup(pause)
	return pause
}

// insert inserts the next row.
func (c *course) insert(conn *pgx.Conn) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.rows++
	const statement = `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('*', 'n', jsonb_build_array($1::int))`
	_, err := conn.Exec(c.t.Context(), statement, c.rows)
	return err
}

// restart ends the hub by a signal, calls the functions whileDown, and starts the hub again. New connections are refused
// from before the signal until the hub has started.
func (c *course) restart(signal syscall.Signal, whileDown ...func()) {
	c.t.Helper()
	for _, p := range c.participants {
		p.proxy.refuseNew()
	}
	c.hub.stop(signal)
	for _, p := range c.participants {
		p.proxy.refuse()
	}
	for _, f := range whileDown {
		f()
	}
	c.hub.start()
	for _, p := range c.participants {
		p.proxy.accept()
	}
}

// replace starts another hub, which accepts all new streams, and then stops the old hub.
func (c *course) replace() {
	c.t.Helper()
	old := c.hub
	c.startHub()
	for _, p := range c.participants {
		p.proxy.passTo(c.hub.address)
	}
	old.stop(syscall.SIGTERM)
}

// disconnect ends the stream of each client.
func (c *course) disconnect() {
	c.t.Helper()
	c.each(func(p *participant) error {
		got := send(c.t, http.MethodPost, c.admin+"/disconnect?recipient="+p.user, "")
		if want := fmt.Sprintf(`{"recipient":%q,"disconnected":1}`+"\n", p.user); got.status != http.StatusOK || got.body != want {
			return fmt.Errorf("POST /disconnect: got %d, %s, want 200, %s", got.status, got.body, want)
		}
		return nil
	})
}

// reset makes the cursors of all clients useless. While the hub does not run, reset inserts two rows, and deletes all
// rows but the last, as retention does. It then waits for the rowcast.reset of each client that can be reset.
func (c *course) reset() {
	c.t.Helper()
	c.before = c.rows
	c.each(func(p *participant) error {
		return p.await(waitLimit, fmt.Sprintf("the last row before the reset, %d", c.before), func() bool { return p.highest == c.before || p.closed })
	})
	resets := map[*participant]int{}
	for _, p := range c.participants {
		resets[p] = p.resets
	}
	c.restart(syscall.SIGKILL, func() {
		const insert = `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('*', 'n', '["deleted"]')`
		runSQL(c.t, c.dsn, insert, insert,
			"UPDATE rowcast.history SET horizon = (SELECT max(xid) FROM rowcast.notifications)",
			"DELETE FROM rowcast.notifications WHERE xid < (SELECT horizon FROM rowcast.history)")
	})
	c.each(func(p *participant) error {
		if !p.kind.outcome.resets {
			return nil
		}
		return p.await(waitLimit, "rowcast.reset", func() bool { return p.resets > resets[p] })
	})
	c.after = c.rows + 1
}
