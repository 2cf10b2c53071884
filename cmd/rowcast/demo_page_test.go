package main_test

import (
	"context"
	"fmt"
	"reflect"
	"slices"
	"strings"
	"syscall"
	"testing"

	cdppage "github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// testDemoPage tests the page of the demo in a browser. Each subtest has its own database.
func testDemoPage(t *testing.T, chromium browser) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T, *demoUser){
		"every tab shows the rows of its users":        testDemoTabs,
		"bell, list and toasts show new rows":          testDemoBell,
		"the form inserts rows and shows errors":       testDemoForm,
		"the form for NOTIFY sends messages":           testDemoMessage,
		"orders in the watched table are shown":        testDemoOrders,
		"existing rows are shown after a reload":       testDemoReload,
		"rows inserted while the page loads are shown": testDemoGap,
		"the page resumes after a restart of the demo": testDemoRestart,
		"data is never HTML":                           testDemoHTML,
		"the page fits a small screen":                 testDemoSmall,
		"screenshots":                                  testScreenshots,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			dsn := dbtest.Database(t)
			test(t, &demoUser{t: t, dsn: dsn, demo: startDemo(t, dsn), profile: chromium.profile(t)})
		})
	}
}

// A demoUser uses the demo with a browser and with SQL.
type demoUser struct {
	t       *testing.T
	dsn     string
	demo    demo
	profile browser
}

// helpers are functions for the expressions of the tests.
const helpers = `
	window.bell = (user) => document.querySelector("[data-user=" + user + "] rowcast-inbox.bell");
	window.list = (user) => document.querySelector("[data-user=" + user + "] rowcast-inbox.list");
	window.store = (user) => bell(user).store;
	window.texts = (element, selector) => [...element.shadowRoot.querySelectorAll(selector)].map((found) => found.textContent);
	window.titles = (user) => texts(list(user), "li .head");
	window.toasts = (user) => texts(bell(user), ".toast .head");
	window.badge = (user) => texts(bell(user), ".badge:not([hidden])").join();`

// open opens the page and waits until its streams are open. The scripts run before the page's own scripts.
func (u *demoUser) open(scripts ...string) page {
	u.t.Helper()
	p := u.blank()
	for _, script := range scripts {
		p.onNewDocument(script)
	}
	p.do(chromedp.Navigate(u.demo.url))
	p.await(live)
	return p
}

// blank opens an empty tab, in which each page has the helpers.
func (u *demoUser) blank() page {
	u.t.Helper()
	p := u.profile.open(u.t, "about:blank")
	p.onNewDocument(helpers)
	return p
}

// onNewDocument runs a script in each page before the scripts of the page.
func (p page) onNewDocument(script string) {
	p.t.Helper()
	if _, err := chromedp.Call(p.ctx, cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{Source: script}); err != nil {
		p.t.Fatal(err)
	}
}

func (u *demoUser) execute(statements ...string) {
	u.t.Helper()
	runSQL(u.t, u.dsn, statements...)
}

// JavaScript expressions for parts of the page.
const (
	live   = `document.querySelector("#state").dataset.state === "open"`
	result = `document.querySelector("#write .result").textContent`
	blocks = `[...document.querySelectorAll(".stream[data-user=%s] .data")].map((line) => line.textContent)`
)

func insertFor(recipient, msg string) string {
	return fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, event, data) VALUES (%s, 'notify', jsonb_build_object('msg', '%s'))`, recipient, msg)
}

// awaitTitles waits until the list of a user has at least as many entries as want, and compares their titles with want.
func awaitTitles(p page, user string, want ...string) {
	p.t.Helper()
	p.await(fmt.Sprintf("titles(%q).length >= %d", user, len(want)))
	if got := value[[]string](p, fmt.Sprintf("titles(%q)", user)); !reflect.DeepEqual(got, want) {
		p.t.Errorf("the list of %s shows %q, want %q", user, got, want)
	}
}

func testDemoTabs(_ *testing.T, u *demoUser) {
	first, second := u.open(), u.open()
	u.execute(
		insertFor("'alice'", "for Alice"),
		insertFor("'bob'", "for Bob"),
		insertFor("'*'", "for everyone"),
		`BEGIN; `+insertFor("'*'", "rolled back")+`; ROLLBACK`,
		`NOTIFY rowcast, 'a message'`,
		insertFor("'*'", "the last"),
	)
	for _, p := range []page{first, second} {
		awaitTitles(p, "alice", "the last", "for everyone", "for Alice")
		awaitTitles(p, "bob", "the last", "for everyone", "for Bob")
		for _, user := range []string{"alice", "bob"} { // a message and a row may arrive in either order
			p.await(fmt.Sprintf(blocks, user) + `.includes('data: "a message"')`)
		}
	}
}

func testDemoBell(t *testing.T, u *demoUser) {
	p := u.open(toastsStay)
	p.await(`store("alice").state === "open"`)
	if got := value[string](p, `badge("alice")`); got != "" {
		t.Errorf("before the first row, the bell shows %q, want nothing", got)
	}
	// The inline list is hidden first. Otherwise its rows would count as seen after a second, and the bell would not count
	// them any more.
	value[bool](p, `list("alice").style.display = "none", true`)
	u.execute(insertFor("'alice'", "one"), insertFor("'alice'", "two"))
	p.await(`badge("alice") === "2" && toasts("alice").length === 2`)
	value[bool](p, `list("alice").style.display = "", true`)
	p.await(`badge("alice") === ""`)
	p.await(`store("alice").unreadCount === 2`)
	p.do(chromedp.Evaluate[chromedp.Void](`list("alice").shadowRoot.querySelector("[part~=text]").click()`))
	p.await(`store("alice").unreadCount === 0`)
}

func testDemoForm(_ *testing.T, u *demoUser) {
	p := u.open()
	p.do(chromedp.Click(`[name=recipient][value=bob]`))
	p.fill(`[name=data]`, `It's "done" \o/`)
	statement := value[string](p, `document.querySelector("#write .sql").textContent`)
	p.do(chromedp.Click(`#write [type=submit]`))
	p.await(`/^INSERT 0 1, row [12]$/.test(` + result + `)`) // to watch a table, rowcast tries an INSERT, which takes an id
	awaitTitles(p, "bob", `It's "done" \o/`)
	u.execute(statement) // the displayed statement is valid SQL
	awaitTitles(p, "bob", `It's "done" \o/`, `It's "done" \o/`)
	for event, want := range map[string]string{"rowcast.x": `"event_is_not_reserved"`, "": `"event_is_1_to_128_bytes"`} {
		p.fill(`[name=event]`, event+enter)
		p.await(fmt.Sprintf(`%s.includes('%s') && document.querySelector("#write .result.failed")`, result, want))
	}
	p.fill(`[name=event]`, "x")
	p.fill(`[name=data]`, `{"msg": `+enter)
	p.await(result + `.includes("invalid input syntax for type json")`)
}

// The form for NOTIFY sends a message. The streams show the message, and the list of Alice does not.
func testDemoMessage(_ *testing.T, u *demoUser) {
	p := u.open()
	p.fill(`[name=text]`, `it's a "message"`)
	statement := value[string](p, `document.querySelector("#message .sql").textContent`)
	p.do(chromedp.Click(`#message [type=submit]`))
	const sent = ".filter((line) => line === 'data: ' + JSON.stringify(`it's a \"message\"`)).length === %d"
	p.await(fmt.Sprintf(blocks+sent, "alice", 1))
	u.execute(statement)
	p.await(fmt.Sprintf(blocks+sent, "bob", 2))
	if got := value[int](p, `titles("alice").length`); got != 0 {
		p.t.Errorf("the list of alice has %d entries, want none", got)
	}
}

// testDemoOrders executes the statement that the page shows.
func testDemoOrders(t *testing.T, u *demoUser) {
	p := u.open()
	statement := value[string](p, `[...document.querySelectorAll(".commands pre")].map((pre) => pre.textContent).find((text) => text.includes("orders"))`)
	if printed := strings.Fields(u.demo.printedOrder()); !slices.Equal(strings.Fields(statement), printed) {
		t.Errorf("the page shows %q, want the words of the terminal, %q", statement, printed)
	}
	u.execute(statement, `INSERT INTO rowcast_demo.orders (customer, product) VALUES ('bob', 'a book'), ('bob', 'a lamp')`)
	awaitTitles(p, "alice", "You ordered a bicycle")
	awaitTitles(p, "bob", "You ordered a lamp", "You ordered a book")
	p.fill(`[name=product]`, "a 'bell'"+enter)
	awaitTitles(p, "alice", "You ordered a 'bell'", "You ordered a bicycle")
	p.await(`document.querySelector("#orders td:nth-child(3)")?.textContent === "a 'bell'"`)
}

func testDemoReload(_ *testing.T, u *demoUser) {
	u.execute(insertFor("'alice'", "one"), insertFor("'bob'", "another"), insertFor("'*'", "two"))
	p := u.open()
	awaitTitles(p, "alice", "two", "one")
	u.execute(insertFor("'alice'", "three"))
	awaitTitles(p, "alice", "three", "two", "one")
	p.do(chromedp.Reload())
	p.await(live)
	u.execute(insertFor("'alice'", "four"))
	awaitTitles(p, "alice", "four", "three", "two", "one")
}

// testDemoGap inserts rows after the page has read the list of Alice and before it opens her stream.
func testDemoGap(_ *testing.T, u *demoUser) {
	u.execute(insertFor("'alice'", "before"))
	p := u.blank()
	p.onNewDocument(`const real = fetch;
		window.fetch = async (...request) => {
			const answer = await real(...request);
			if (String(request[0]).includes("/inbox?uid=alice") && !("release" in window)) await new Promise((release) => (window.release = release));
			return answer;
		}`)
	p.do(chromedp.Navigate(u.demo.url))
	p.await(`"release" in window`)
	u.execute(insertFor("'alice'", "between"), insertFor("'bob'", "for Bob"))
	value[bool](p, "release(), true")
	p.await(live)
	u.execute(insertFor("'alice'", "after"))
	awaitTitles(p, "alice", "after", "between", "before")
}

func testDemoRestart(t *testing.T, u *demoUser) {
	address := fmt.Sprintf("127.0.0.1:%d", dbtest.Port(t))
	begin := func() *demoProcess {
		return spawn(t, command(t, t.TempDir(), "demo", "--listen", address, "--database-url", u.dsn))
	}
	first := begin()
	u.demo = first.demo
	p := u.open()
	u.execute(insertFor("'alice'", "before"))
	awaitTitles(p, "alice", "before")
	first.stop(syscall.SIGTERM)
	p.await("!(" + live + ")")
	u.execute(insertFor("'alice'", "missed by Alice"), insertFor("'*'", "missed by all"))
	second := begin()
	p.await(live)
	awaitTitles(p, "alice", "missed by all", "missed by Alice", "before")
	second.kill()
	u.execute(insertFor("'alice'", "missed after a crash"))
	begin()
	awaitTitles(p, "alice", "missed after a crash", "missed by all", "missed by Alice", "before")
	u.execute(insertFor("'alice'", "after"))
	awaitTitles(p, "alice", "after", "missed after a crash", "missed by all", "missed by Alice", "before")
}

func testDemoHTML(t *testing.T, u *demoUser) {
	const attack = `<img src=x onerror="pwned=1"><script>pwned=1</script><b>bold</b>`
	p := u.open()
	insert := func(event string, data map[string]any) {
		conn, err := pgx.Connect(t.Context(), u.dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(t.Context(), `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', $1, $2)`, event, data); err != nil {
			t.Fatal(err)
		}
	}
	insert("notify", map[string]any{"msg": attack})
	insert("notify", map[string]any{"msg": []string{attack}, attack: attack})
	insert(attack, map[string]any{"msg": attack, "__proto__": map[string]any{"msg": attack}})
	insert("notify", map[string]any{"msg": attack, "url": "javascript:pwned=1"})
	for _, when := range []string{"new rows", "existing rows"} {
		p.await(live)
		awaitTitles(p, "alice", attack, attack, "notify", attack)
		if value[bool](p, `"pwned" in window || document.querySelector("main img, .stream script, .stream b b") !== null ||
			[list("alice").shadowRoot, bell("alice").shadowRoot].some((root) => root.querySelector("img, li b, script, li a, .toast b, .toast a"))`) {
			t.Errorf("%s: the page interprets data as HTML or as a link, want text", when)
		}
		p.do(chromedp.Reload())
	}
	// If a bug assigned data to innerHTML, the Content-Security-Policy of the page would refuse this.
	p.await(live)
	const refused = `(() => { try { document.body.innerHTML = "<b>"; return false } catch (error) { return error instanceof TypeError } })()`
	if !value[bool](p, refused) {
		t.Error("the Content-Security-Policy of the page allows innerHTML")
	}
}

func testDemoSmall(t *testing.T, u *demoUser) {
	u.execute(insertFor("'alice'", strings.Repeat("long", 50)))
	p := u.open()
	p.do(chromedp.EmulateViewport(360, 740))
	if got := value[int](p, "document.documentElement.scrollWidth"); got > 360 {
		t.Errorf("the page is %d pixels wide, want at most 360", got)
	}
}
