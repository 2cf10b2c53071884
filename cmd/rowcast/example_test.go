package main_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"rowcast/sql/dbtest"
)

// testExample tests the app in stream/web/example.
func testExample(t *testing.T, chromium browser) {
	t.Parallel()
	x := startExample(t)
	for _, test := range []struct {
		name string
		run  func(*testing.T, *example, browser)
	}{
		{"a task appears once, and only for its assignee", testExampleTask},
		{"forms are checked", testExampleForms},
		{"between page and stream, no task is lost", testExampleGap},
		{"reloads and a killed hub lose and repeat nothing", testExampleBurst},
		{"signing out ends the stream", testExampleSignOut},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, x.in(t), chromium) })
	}
}

// addTask gives a task to a user with the form of the page.
func addTask(p page, assignee, title string) {
	p.t.Helper()
	p.fill("[name=title]", title)
	p.do(chromedp.Evaluate[chromedp.Void](fmt.Sprintf("document.querySelector('[name=assignee]').value = %q", assignee)))
	p.click(".new button")
	p.await("window.live?.() && document.querySelector('[name=title]').value === ''")
}

func testExampleTask(t *testing.T, x *example, chromium browser) {
	profile := chromium.profile(t)
	alice, second := x.signIn(profile, "alice"), profile.open(t, "about:blank")
	second.onNewDocument(exampleHelpers)
	second.do(chromedp.Navigate(x.url))
	second.await("window.live?.()")
	bob, carol := x.signIn(chromium.profile(t), "bob"), x.signIn(chromium.profile(t), "carol")
	for _, title := range []string{`<img src=x onerror=alert(1)> & "milk"`, "the last"} {
		addTask(bob, "alice", title)
	}
	addTask(bob, "carol", "for Carol")
	for _, p := range []page{alice, second} {
		p.await(`titles()[0] === "the last" && badge() === "2"`)
		p.want(`titles()`, []any{"the last", `<img src=x onerror=alert(1)> & "milk"`})
	}
	carol.await(`titles()[0] === "for Carol" && badge() === "1"`)
	carol.want(`titles()`, []any{"for Carol"})
	carol.want(`inbox().store.items.length`, 1.0)
	bob.want(`titles("given")`, []any{"for Carol", "the last", `<img src=x onerror=alert(1)> & "milk"`})

	alice.click("#received li:first-child button")
	bob.await(`document.querySelector("#given li:nth-child(2) em").textContent === "done" && badge() === "1"`)
	alice.await(`window.live?.() && titles().length === 1`)
	value[bool](second, `inbox().open = true, inbox().shadowRoot.querySelector("li .link").click(), true`)
	for _, p := range []page{alice, second} {
		p.await(`window.live?.() && inbox().store.unreadCount === 1`)
	}
	second.do(chromedp.Reload())
	second.await(`window.live?.() && inbox().store.unreadCount === 1 && titles().length === 1`)
}

// A form of another site, or with invalid values, changes nothing. If the notification or the commit fails, there is no
// task either.
func testExampleForms(t *testing.T, x *example, _ browser) {
	bob := x.client("bob")
	bob.give("carol", "another for Carol")
	const counts = `SELECT count(*) || ' ' || (SELECT count(*) FROM rowcast.notifications WHERE event = 'task') FROM tasks`
	before := valueOf(t, x.dsn, counts)
	for _, refused := range []struct {
		want   int
		origin string
		fields []string
	}{
		{403, "https://other.example", []string{"title", "x", "assignee", "alice"}},
		{403, "", []string{"title", "x", "assignee", "alice"}},
		{400, x.url, []string{"title", "x", "assignee", "nobody"}},
		{400, x.url, []string{"title", " ", "assignee", "alice"}},
		{400, x.url, nil},
	} {
		if got := bob.post("/tasks", refused.origin, refused.fields...); got != refused.want {
			t.Errorf("origin %q, form %q: got %d, want %d", refused.origin, refused.fields, got, refused.want)
		}
	}
	runSQL(t, x.dsn, `ALTER TABLE rowcast.notifications ADD CONSTRAINT refused CHECK (data->>'title' <> 'not to be sent') NOT VALID`,
		`CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RAISE 'refused' USING ERRCODE = 'check_violation'; END $$`,
		`CREATE CONSTRAINT TRIGGER refused AFTER INSERT ON tasks DEFERRABLE INITIALLY DEFERRED FOR EACH ROW WHEN (NEW.title = 'not to be committed') EXECUTE FUNCTION refuse()`)
	for _, title := range []string{"not to be sent", "not to be committed"} {
		if got := bob.post("/tasks", x.url, "title", title, "assignee", "alice"); got != 400 {
			t.Errorf("the task %q: got %d, want 400", title, got)
		}
	}
	if got := valueOf(t, x.dsn, counts); got != before {
		t.Errorf("tasks and notifications: got %s, want %s as before", got, before)
	}
	bob.post("/tasks/"+valueOf(t, x.dsn, `SELECT min(id)::text FROM tasks WHERE assignee = 'carol'`)+"/done", x.url)
	if got := valueOf(t, x.dsn, `SELECT count(*)::text FROM tasks WHERE assignee = 'carol' AND done`); got != "0" {
		t.Errorf("Bob has done %s tasks of Carol, want 0", got)
	}
}

// Tasks that are committed after the page was rendered and before the stream is open arrive by the stream.
func testExampleGap(t *testing.T, x *example, chromium browser) {
	alice, bob := x.signIn(chromium.profile(t), "alice"), x.client("bob")
	alice.onNewDocument(`
		window.requests = 0;
		const send = fetch, ready = new Promise((done) => window.start = done);
		window.fetch = async (...request) => { requests++; await ready; return send(...request); };`)
	alice.do(chromedp.Reload())
	alice.await("window.requests > 0")
	for i := range 10 {
		bob.give("alice", fmt.Sprint("between ", i))
	}
	value[bool](alice, "start(), true")
	alice.await("window.live?.()")
	bob.give("alice", "after")
	x.wantAll(alice, "after")
}

// wantAll waits until the newest task in the page of Alice has the title, and then compares the page with the table.
func (x *example) wantAll(alice page, newest string) {
	x.t.Helper()
	alice.await(fmt.Sprintf("titles()[0] === %q", newest))
	got := value[[]string](alice, "titles()")
	want := queried[[]string](x.t, x.dsn, `SELECT array_agg(title ORDER BY id DESC) FROM tasks WHERE assignee = 'alice' AND NOT done`)
	want = want[:max(min(len(got), len(want)), min(200, len(want)))] // the app renders at most 200 tasks
	if !slices.Equal(got, want) {
		x.t.Errorf("the page has %d tasks %q, want %d tasks %q", len(got), got, len(want), want)
	}
}

func testExampleBurst(t *testing.T, x *example, chromium browser) {
	alice, bob := x.signIn(chromium.profile(t), "alice"), x.client("bob")
	ctx, stop := context.WithCancel(dbtest.Context(t))
	var giving sync.WaitGroup
	giving.Go(func() {
		for i := 0; ctx.Err() == nil; i++ {
			bob.give("alice", fmt.Sprint("burst ", i))
			time.Sleep(5 * time.Millisecond)
		}
	})
	defer giving.Wait()
	defer stop()
	grows := func() {
		first := value[string](alice, "titles()[0] ?? ''")
		alice.await(fmt.Sprintf("window.live?.() && (titles()[0] ?? '') !== %q", first))
	}
	grows()
	for range 3 {
		alice.do(chromedp.Reload())
		alice.await("window.live?.()")
		grows()
		if got := value[[]int](alice, `titles().filter((title) => title.startsWith("burst")).map((title) => +title.slice(6))`); !consecutive(got) {
			t.Errorf("after a reload, the page has the tasks %v, want consecutive numbers", got)
		}
	}
	x.killHub()
	alice.await(`document.querySelector("#state").textContent === "retrying"`)
	x.startHub()
	alice.await("window.live?.()")
	grows()
	stop()
	giving.Wait()
	bob.give("alice", "end of the burst")
	x.wantAll(alice, "end of the burst")
	alice.await(`badge() === "99+"|| badge() === String(inbox().store.unseenCount)`)
}

// consecutive reports whether there are numbers, and each is 1 less than the number before it.
func consecutive(numbers []int) bool {
	for i := 1; i < len(numbers); i++ {
		if numbers[i] != numbers[i-1]-1 {
			return false
		}
	}
	return len(numbers) > 0
}

// Signing out ends the streams of the user. The hub refuses new streams of this session. Other sessions of the user
// open new streams.
func testExampleSignOut(t *testing.T, x *example, chromium browser) {
	profile, bob := chromium.profile(t), x.signIn(chromium.profile(t), "bob")
	first, second := x.signIn(profile, "alice"), profile.open(t, x.url)
	second.await(`document.body.dataset.state === "open"`)
	client := x.client("alice")
	stream := client.stream()
	client.post("/sign-out", x.url)
	if text, err := io.ReadAll(stream.Body); err != nil || !strings.Contains(string(text), "event: rowcast.bye") {
		t.Errorf("after the client has signed out: got %q and error %v, want rowcast.bye and the end of the stream", text, err)
	}
	if again := client.stream(); again.StatusCode != http.StatusUnauthorized {
		t.Errorf("after the client has signed out: got %d, want 401", again.StatusCode)
	}
	askUntil(t, x.hubURL+"/metrics", `(?m)^rowcast_streams 2$`) // one for each browser, because all tabs and elements of a browser share a stream
	first.click("header form button")
	for _, p := range []page{first, second} {
		p.await(`location.pathname === "/sign-in" && document.querySelector("button[value=alice]")`)
	}
	askUntil(t, x.hubURL+"/metrics", `(?m)^rowcast_streams 1$`)
	bob.want("live()", true)
	second.do(chromedp.Navigate(x.url))
	second.await(`location.pathname === "/sign-in"`)
}
