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
		"every tab shows the rows of its user":         testDemoTabs,
		"toasts, bell and title show new rows":         testDemoBell,
		"toasts leave the form usable":                 testDemoToasts,
		"the form inserts rows and shows errors":       testDemoForm,
		"orders in the watched table are shown":        testDemoOrders,
		"existing rows are shown after a reload":       testDemoReload,
		"rows inserted while the page loads are shown": testDemoGap,
		"the page resumes after a restart of the demo": testDemoRestart,
		"data is never HTML":                           testDemoHTML,
		"rows with any event name are shown":           testDemoNames,
		"the page fits a small screen":                 testDemoSmall,
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

// open opens the page of a user and waits until its stream is open.
func (u *demoUser) open(uid string) page {
	u.t.Helper()
	p := u.profile.open(u.t, u.demo.url+"/?uid="+uid)
	p.await(live)
	return p
}

func (u *demoUser) execute(statements ...string) {
	u.t.Helper()
	runSQL(u.t, u.dsn, statements...)
}

// JavaScript expressions for parts of the page.
const (
	live   = `document.querySelector("#state").dataset.state === "open"`
	titles = `[...document.querySelectorAll("#list .title")].map((title) => title.textContent)`
	toasts = `[...document.querySelectorAll(".toast p")].map((text) => text.textContent)`
	count  = `document.querySelector("#count").hidden ? "" : document.querySelector("#count").textContent`
	result = `document.querySelector("#result").textContent`
)

func insertFor(recipient, msg string) string {
	return fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, event, data) VALUES (%s, 'notify', jsonb_build_object('msg', '%s'))`, recipient, msg)
}

// awaitTitles waits until the list has at least as many entries as want, and compares their titles with want.
func awaitTitles(p page, want ...string) {
	p.t.Helper()
	p.await(fmt.Sprintf("(%s).length >= %d", titles, len(want)))
	if got := value[[]string](p, titles); !reflect.DeepEqual(got, want) {
		p.t.Errorf("the list shows %q, want %q", got, want)
	}
}

func testDemoTabs(_ *testing.T, u *demoUser) {
	alice, again, bob := u.open("alice"), u.open("alice"), u.open("bob")
	u.execute(
		insertFor("'alice'", "for Alice"),
		insertFor("'bob'", "for Bob"),
		insertFor("'*'", "for everyone"),
		`BEGIN; `+insertFor("'*'", "rolled back")+`; ROLLBACK`,
	)
	awaitTitles(alice, "for everyone", "for Alice")
	u.execute(`NOTIFY rowcast, 'a message'`) // a message and a row may arrive in either order, so the test waits for the message before it inserts the next row
	awaitTitles(alice, "a message", "for everyone", "for Alice")
	u.execute(insertFor("'*'", "the last"))
	awaitTitles(alice, "the last", "a message", "for everyone", "for Alice")
	awaitTitles(again, "the last", "a message", "for everyone", "for Alice")
	awaitTitles(bob, "the last", "a message", "for everyone", "for Bob")
	const ids = `[...document.querySelectorAll("#list .id")].map((id) => id.textContent.slice(0, 3))`
	if got, want := value[[]string](alice, ids), []string{"row", "not", "row", "row"}; !reflect.DeepEqual(got, want) {
		u.t.Errorf("the ids in the list of alice begin with %q, want %q", got, want)
	}
}

func testDemoBell(t *testing.T, u *demoUser) {
	p := u.open("alice")
	if got := value[string](p, count); got != "" {
		t.Errorf("before the first row, the bell shows %q, want nothing", got)
	}
	u.execute(insertFor("'alice'", "one"), insertFor("'alice'", "two"))
	awaitTitles(p, "two", "one")
	if got, want := value[[]string](p, toasts), []string{"one", "two"}; !reflect.DeepEqual(got, want) {
		t.Errorf("the page shows the toasts %q, want %q", got, want)
	}
	if got, want := value[string](p, count), "2"; got != want {
		t.Errorf("the bell shows %q, want %q", got, want)
	}
	if got := value[string](p, "document.title"); !strings.HasPrefix(got, "(2) Alice") {
		t.Errorf("the title of the page is %q, want (2) Alice at its beginning", got)
	}
	p.do(chromedp.Click("#bell"))
	if got := value[string](p, count); got != "" {
		t.Errorf("after a click, the bell shows %q, want nothing", got)
	}
}

// testDemoToasts checks that no toast covers a button or an input of the form. It compares rectangles, because a click
// on a toast reaches the form below it. On a small screen, a toast may cover an input.
func testDemoToasts(t *testing.T, u *demoUser) {
	p := u.open("alice")
	const covered = `((controls) => {
		document.querySelector("#write [type=submit]").scrollIntoView({ block: "nearest" });
		const toasts = [...document.querySelectorAll(".toast")].map((toast) => toast.getBoundingClientRect());
		return [...document.querySelectorAll(controls)].filter((control) => {
			const box = control.getBoundingClientRect();
			return toasts.some((toast) => toast.left < box.right && box.left < toast.right && toast.top < box.bottom && box.top < toast.bottom);
		}).map((control) => control.outerHTML);
	})(%q)`
	for _, size := range []struct {
		width, height int64
		controls      string
	}{{1600, 1000, "#write button, #write input"}, {1280, 640, "#write button, #write input"}, {900, 600, "#write button, #write input"}, {360, 740, "#write button"}} {
		p.do(chromedp.EmulateViewport(size.width, size.height))
		p.do(chromedp.Reload())
		p.await(live)
		u.execute(insertFor("'alice'", "one"), insertFor("'alice'", "two"), insertFor("'alice'", "three"))
		p.await(`document.querySelectorAll(".toast").length === 3`)
		if got := value[[]string](p, fmt.Sprintf(covered, size.controls)); len(got) > 0 {
			t.Errorf("at %d × %d pixels, toasts cover %q", size.width, size.height, got)
		}
	}
}

func testDemoForm(_ *testing.T, u *demoUser) {
	bob := u.open("bob")
	alice := u.open("alice")
	alice.do(chromedp.Click(`[name=recipient][value=bob]`))
	alice.fill(`[name=data]`, `It's "done" \o/`)
	statement := value[string](alice, `document.querySelector("#sql").textContent`)
	alice.do(chromedp.Click(`#write [type=submit]`))
	alice.await(`/^INSERT 0 1, row [12]$/.test(` + result + `)`) // to watch a table, rowcast tries an INSERT, which takes an id
	awaitTitles(bob, `It's "done" \o/`)
	u.execute(statement) // the displayed statement is valid SQL
	awaitTitles(bob, `It's "done" \o/`, `It's "done" \o/`)
	for event, want := range map[string]string{"rowcast.x": `"event_is_not_reserved"`, "": `"event_is_1_to_128_bytes"`} {
		alice.fill(`[name=event]`, event+enter)
		alice.await(fmt.Sprintf(`%s.includes('%s') && document.querySelector("#result.failed")`, result, want))
	}
	alice.fill(`[name=event]`, "x")
	alice.fill(`[name=data]`, `{"msg": `+enter)
	alice.await(result + `.includes("invalid input syntax for type json")`)
}

// testDemoOrders executes the statement that the page shows.
func testDemoOrders(t *testing.T, u *demoUser) {
	alice, bob := u.open("alice"), u.open("bob")
	statement := value[string](alice, `[...document.querySelectorAll("pre")].map((pre) => pre.textContent).find((text) => text.includes("orders"))`)
	if printed := strings.Fields(u.demo.printedOrder()); !slices.Equal(strings.Fields(statement), printed) {
		t.Errorf("the page shows %q, want the words of the terminal, %q", statement, printed)
	}
	u.execute(statement, `INSERT INTO rowcast_demo.orders (customer, product) VALUES ('bob', 'a book'), ('bob', 'a lamp')`)
	awaitTitles(alice, "You ordered a bicycle")
	awaitTitles(bob, "You ordered a lamp", "You ordered a book")
}

func testDemoReload(_ *testing.T, u *demoUser) {
	u.execute(insertFor("'alice'", "one"), insertFor("'bob'", "another"), insertFor("'*'", "two"))
	p := u.open("alice")
	awaitTitles(p, "two", "one")
	u.execute(insertFor("'alice'", "three"))
	awaitTitles(p, "three", "two", "one")
	p.do(chromedp.Reload())
	p.await(live)
	u.execute(insertFor("'alice'", "four"))
	awaitTitles(p, "four", "three", "two", "one")
}

// testDemoGap inserts rows after the page has read the existing rows and before it opens its stream.
func testDemoGap(t *testing.T, u *demoUser) {
	u.execute(insertFor("'alice'", "before"))
	p := u.profile.open(t, "about:blank")
	const hold = `const real = fetch;
		window.fetch = async (...request) => {
			window.fetch = real; // for the stream
			const answer = await real(...request);
			await new Promise((release) => (window.release = release));
			return answer;
		}`
	if _, err := chromedp.Call(p.ctx, cdppage.AddScriptToEvaluateOnNewDocument, cdppage.AddScriptToEvaluateOnNewDocumentParams{Source: hold}); err != nil {
		t.Fatal(err)
	}
	p.do(chromedp.Navigate(u.demo.url + "/?uid=alice"))
	p.await(`"release" in window`)
	u.execute(insertFor("'alice'", "between"), insertFor("'bob'", "for Bob"))
	value[bool](p, "release(), true")
	p.await(live)
	u.execute(insertFor("'alice'", "after"))
	awaitTitles(p, "after", "between", "before")
}

func testDemoRestart(t *testing.T, u *demoUser) {
	address := fmt.Sprintf("127.0.0.1:%d", dbtest.Port(t))
	begin := func() *demoProcess {
		return spawn(t, command(t, t.TempDir(), "demo", "--listen", address, "--database-url", u.dsn))
	}
	first := begin()
	u.demo = first.demo
	p := u.open("alice")
	u.execute(insertFor("'alice'", "before"))
	awaitTitles(p, "before")
	first.stop(syscall.SIGTERM)
	p.await("!(" + live + ")")
	u.execute(insertFor("'alice'", "missed by Alice"), insertFor("'*'", "missed by all"))
	second := begin()
	p.await(live)
	awaitTitles(p, "missed by all", "missed by Alice", "before")
	second.kill()
	u.execute(insertFor("'alice'", "missed after a crash"))
	begin()
	awaitTitles(p, "missed after a crash", "missed by all", "missed by Alice", "before")
	u.execute(insertFor("'alice'", "after"))
	awaitTitles(p, "after", "missed after a crash", "missed by all", "missed by Alice", "before")
}

func testDemoHTML(t *testing.T, u *demoUser) {
	const attack = `<img src=x onerror="pwned=1"><script>pwned=1</script><b>bold</b>`
	p := u.open("alice")
	insert := func(event string, data map[string]any) {
		conn, err := pgx.Connect(t.Context(), u.dsn)
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close(context.Background())
		if _, err := conn.Exec(t.Context(), `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('*', $1, $2)`, event, data); err != nil {
			t.Fatal(err)
		}
	}
	insert("notify", map[string]any{"msg": attack})
	insert("notify", map[string]any{"msg": []string{attack}, attack: attack})
	insert(attack, map[string]any{"msg": attack, "__proto__": map[string]any{"msg": attack}})
	for _, when := range []string{"new rows", "existing rows"} {
		p.await(live + " && (" + titles + ").length >= 3")
		if got := value[[]string](p, titles); len(got) != 3 || got[0] != attack || got[2] != attack {
			t.Errorf("%s: the list shows %q, want 3 titles, of which the first and the last are %q", when, got, attack)
		}
		if value[bool](p, `"pwned" in window || document.querySelector("#list img, #list b, #list script, #toasts img, #toasts b") !== null`) {
			t.Errorf("%s: the page interprets data as HTML", when)
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

func testDemoNames(_ *testing.T, u *demoUser) {
	alice, bob := u.open("alice"), u.open("bob")
	u.execute(`INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('*', 'order.shipped', '{"msg": "on its way"}')`)
	awaitTitles(alice, "on its way")
	awaitTitles(bob, "on its way")
}

func testDemoSmall(t *testing.T, u *demoUser) {
	u.execute(insertFor("'alice'", strings.Repeat("long", 50)))
	p := u.open("alice")
	p.do(chromedp.EmulateViewport(360, 740))
	if got := value[int](p, "document.documentElement.scrollWidth"); got > 360 {
		t.Errorf("the page is %d pixels wide, want at most 360", got)
	}
}
