package main_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"
	"github.com/golang-jwt/jwt/v5"

	"rowcast/sql/dbtest"
)

// insertFor inserts a row for a user.
func (s *inboxStage) insertFor(user, text string) {
	s.t.Helper()
	runSQL(s.t, s.dsn, fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('%s', 'notify', '"%s"')`, user, text))
}

// emulate makes Chromium report preferences of the user, such as reduced motion.
func (p page) emulate(features ...*emulation.MediaFeature) {
	p.t.Helper()
	params := emulation.SetEmulatedMediaParams{Features: features}
	if _, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, params); err != nil {
		p.t.Fatal(err)
	}
}

// After another user has signed in, for example in another tab, a change by the page is refused. The rows of the first
// user disappear, and the rows of the other user stay unread. A change is also refused after the user has signed out.
func testElementUsers(_ *testing.T, s *inboxStage) {
	s.insertFor("alice", "for alice")
	s.insertFor("bob", "for bob")
	p := s.visit("/page", "")
	const signedOut = `bell.store.state === "signed-out" && titles().length === 0 && badge() === "" && document.title === "Stage" &&
		find(".state b")[0].textContent === "You are signed out" && find("header .text")[0].ariaDisabled === "true" && !find(".toast").length && !document.querySelector("[slot^=item-]")`
	value[bool](p, `document.cookie = "uid=alice", bell.render = (item) => item.data, bell.setAttribute("events", "/events"), bell.open = true`)
	p.await(`document.querySelector("[slot^=item-]")?.textContent === "for alice" && bell.store.state === "open"`)
	value[bool](p, `document.cookie = "uid=bob", find("header .text")[0].click(), true`)
	p.await(signedOut)
	value[bool](p, `find(".state button")[0].click(), true`)
	p.await(`document.querySelector("[slot^=item-]")?.textContent === "for bob" && bell.store.unreadCount === 1 && bell.store.state === "open"`)
	// After the user has signed out, no cookie is left.
	value[bool](p, `document.cookie = "uid=; max-age=0", bell.store.read(bell.store.items.map(({ id }) => id)), true`)
	p.await(signedOut)
	value[bool](p, `document.cookie = "uid=alice", find(".state button")[0].click(), true`)
	p.await(`document.querySelector("[slot^=item-]")?.textContent === "for alice" && bell.store.unreadCount === 1`)
}

// A page may set properties before the script has loaded, and change them later.
func testElementProperties(_ *testing.T, s *inboxStage) {
	s.insert("one")
	s.insertFor("bob", "for bob")
	p := s.visit("/late", `window.asked = [];`)
	value[bool](p, `bell.render = (item) => "<" + item.data + ">", bell.strings = { title: "Inbox" }, bell.withCredentials = true,
		bell.token = async () => { asked.push("early"); return "x"; }, bell.open = true, import("/rowcast-inbox.js"), true`)
	p.await(`bell.store?.state === "open" && document.querySelector("[slot^=item-]")?.textContent === "<one>"`)
	p.want(`[bell.open, bell.hasAttribute("with-credentials"), asked[0], find("h2")[0].textContent].join()`, "true,true,early,Inbox")
	p.want(`window.kept = bell.store, bell.token = async () => { asked.push("late"); return "x"; }, bell.store !== kept && bell.open`, true)
	p.await(`asked.includes("late") && bell.store.state === "open" && kept.state === "closed"`)
	p.want(`window.kept = bell.store, bell.withCredentials = false, bell.store !== kept && !bell.hasAttribute("with-credentials")`, true)
	value[bool](p, `bell.setAttribute("events", "/events?uid=bob"), true`)
	p.await(`[...document.querySelectorAll("[slot^=item-]")].map((found) => found.textContent).join() === "<for bob>"`)
	// A wrong URL is reported. The element works again after the URL was corrected.
	value[bool](p, `window.addEventListener("error", ({ message }) => { window.reported = message; }), bell.setAttribute("events", "http://["), true`)
	p.await(`window.reported?.includes("the option events must be a URL")`)
	value[bool](p, `bell.setAttribute("events", "/events?uid=alice"), true`)
	p.await(`bell.store?.state === "open"`)
	// If there is no inbox at the path, a warning in the console tells the developer.
	value[bool](p, `window.warned = [], console.warn = (...args) => warned.push(args.join(" ")), bell.setAttribute("inbox", "/nothing"), bell.open = true`)
	p.await(`bell.store.state === "failed" && find(".state b")[0].textContent === "Notifications cannot be loaded"`)
	p.want(`warned.length === 1 && /\/nothing cannot be loaded: 404 ./.test(warned[0]) || warned`, true)
}

// A row that cannot be rendered has the usual content, and the error is reported.
func testElementFaults(_ *testing.T, s *inboxStage) {
	s.insert("one", "two", map[string]string{"msg": "three"}, map[string]string{"msg": "four"})
	runSQL(s.t, s.dsn, `INSERT INTO rowcast.notifications (recipient, event, data, created_at) VALUES ('alice', 'notify', '"five"', '290000-01-01')`)
	p := s.openWith(`window.reported = []; addEventListener("error", (event) => { reported.push(event.message); });`)
	value[bool](p, `bell.render = ({ data }) => { if (data === "two") throw new Error("fault"); if (data.msg === "three") return Promise.resolve(""); if (data === "one") return "rendered"; }, bell.open = true`)
	p.want(`find("li .head").map((head) => head.textContent).join() + [...document.querySelectorAll("[slot^=item-]")].map((found) => found.textContent)`, "five,four,three,tworendered")
	p.await(`reported.length >= 2`)
	p.want(`reported.length === 2 && /fault/.test(reported) && /render must return/.test(reported) || reported`, true)
	// If the data has no URL for a link or an image, the link has no href, and the image has no src. A row without any
	// field of the template has the usual content.
	value[bool](p, `(() => {
		const template = document.createElement("template"); template.slot = "item";
		for (const [name, field] of [["a", "url"], ["img", "image"], ["b", "msg"]]) {
			const element = document.createElement(name); element.dataset.field = field; template.content.append(element);
		}
		bell.append(template); bell.render = undefined; return true; })()`)
	p.want(`titles().join()`, "five,two,one")
	p.want(`[...document.querySelectorAll("[slot^=item-] a, [slot^=item-] img")].filter((element) => element.hasAttribute("href") || element.hasAttribute("src")).length`, 0.0)
	// A function is not a valid text. The element reports an error, and shows its own text instead.
	value[bool](p, `bell.strings = { bell: (n) => n + "!", title: "Inbox" }, true`)
	p.want(`find("h2")[0].textContent + find(".bell")[0].ariaLabel`, "InboxNotifications, 5 new")
	p.await(`/the text bell of strings/.test(reported)`)
	// The element sets the padding of the footer.
	p.want(`(() => { const footer = document.createElement("p"); footer.slot = "footer"; footer.textContent = "Settings"; bell.append(footer); return getComputedStyle(footer).paddingInlineStart })()`, "18px")
	// The element's own custom properties do not hide those of the page. All of them have a prefix.
	p.want(`root().adoptedStyleSheets.flatMap(({ cssRules }) => [...cssRules].flatMap(({ style }) => [...(style ?? [])])).filter((name) => /^--(?!_rowcast-)/.test(name)).join()`, "")
	p.want(`(() => { for (const name of ["--width", "--bottom", "--text"]) document.body.style.setProperty(name, "1px"); return ["--width", "--bottom", "--text"].map((name) => getComputedStyle(bell.querySelector("p")).getPropertyValue(name)).join() })()`, "1px,1px,1px")
}

// The note that a change could not be saved disappears after 8 seconds, or when a later change is saved. A note about
// the connection may be shown at the same time.
func testElementNotes(_ *testing.T, s *inboxStage) {
	s.insert("one", "two", "three")
	p := s.openWith(`{ const start = setTimeout; window.setTimeout = (call, time, ...args) => start(call, time === 8000 && window.hurry ? 100 : time, ...args); }`)
	const notes = `find(".note:not([hidden])").map((note) => note.textContent).join()`
	value[bool](p, `bell.open = true`)
	s.broken.Store(true)
	value[bool](p, `row("one").querySelector("[title='Mark as read']").click(), true`)
	p.await(notes + ` === "The change could not be saved" && unread().length === 3`)
	s.broken.Store(false)
	value[bool](p, `row("two").querySelector("[title='Mark as read']").click(), true`)
	p.await(notes + ` === "" && unread().length === 2`)
	s.broken.Store(true)
	value[bool](p, `window.hurry = true, row("one").querySelector("[title='Mark as read']").click(), true`)
	p.await(notes + ` === "The change could not be saved"`)
	p.await(notes + ` === ""`)
	value[bool](p, `window.hurry = false, Object.defineProperty(bell.store, "state", { value: "delayed" }), bell.store.dispatchEvent(new Event("change")), row("one").querySelector("[title='Mark as read']").click(), true`)
	p.await(notes + `.includes("late")`)
	p.want(notes, "Notifications may arrive late,The change could not be saved")
}

// The times of rows are in the language of the texts. For a language without texts, both are in English.
func testElementLanguages(_ *testing.T, s *inboxStage) {
	s.insert("one")
	runSQL(s.t, s.dsn, `INSERT INTO rowcast.notifications (recipient, event, data, created_at) VALUES ('alice', 'notify', '"two"', now() - interval '2 days')`)
	p := s.open()
	value[bool](p, `bell.open = true`)
	for lang, want := range map[string]string{"fr": "Notifications2 days agoen", "zh-CN": "通知前天zh-CN", "en-GB": "Notifications2 days agoen-GB"} {
		value[bool](p, fmt.Sprintf(`bell.lang = %q, true`, lang))
		p.want(`find("h2")[0].textContent + row("two").querySelector("time").textContent + find(".root")[0].lang`, want)
	}
	p.want(`(() => { customElements.get("rowcast-inbox").strings.fr = { title: "Avis" }; bell.lang = "en"; bell.lang = "fr"; return find("h2")[0].textContent + row("two").querySelector("time").textContent })()`, "Avisavant-hier")
}

// The element works inside a modal dialog. If the element is outside the dialog, its toasts are shown above the dialog.
func testElementDialog(_ *testing.T, s *inboxStage) {
	s.insert("one")
	p := s.openWith(toastsStay)
	value[bool](p, `window.dialog = document.createElement("dialog"), document.body.append(dialog), dialog.append("text"), dialog.showModal(), true`)
	s.insert("beside")
	p.await(`find(".toast").length === 1`)
	p.want(`find(".toasts")[0].matches(":popover-open") && within(find(".toast")[0])`, true)
	value[bool](p, `dialog.close(), dialog.append(bell), dialog.showModal(), true`)
	p.await(`bell.store.state === "open"`)
	value[bool](p, `find(".bell")[0].click(), true`)
	const onTop = `(() => { const { left, top } = find("h2")[0].getBoundingClientRect(); return document.elementFromPoint(left + 2, top + 2) === bell })()`
	p.await(`bell.open && titles().join() === "beside,one" && ` + onTop)
	p.want(`within(find(".panel")[0])`, true)
	value[bool](p, `row("one").querySelector(".link").click(), true`)
	p.await(`bell.store.unreadCount === 1`)
	value[bool](p, `bell.open = false, true`)
	s.insert("inside")
	p.await(`find(".toast").length === 1 && within(find(".toast")[0])`)
	p.want(`(() => { const { left, top } = find(".toast .head")[0].getBoundingClientRect(); return document.elementFromPoint(left + 2, top + 2) === bell })()`, true)
}

// With reduced motion, the panel is not animated. With forced colors, the borders, the marks of unread rows and the
// outline of the focus are visible. At a zoom of 400 %, the panel fits into the window.
func testElementPreferences(_ *testing.T, s *inboxStage) {
	s.insert("one", map[string]string{"title": strings.Repeat("a long title ", 9), "body": strings.Repeat("word", 60), "url": "/page"})
	p := s.open()
	value[bool](p, `document.querySelector(".trap").className = "", true`)
	const animations = `find(".panel")[0].getAnimations().length`
	p.want(`bell.open = true, `+animations, 1.0)
	still := &emulation.MediaFeature{Name: "prefers-reduced-motion", Value: "reduce"}
	p.emulate(still)
	p.want(`bell.open = false, bell.open = true, `+animations, 0.0)
	p.emulate(still, &emulation.MediaFeature{Name: "forced-colors", Value: "active"})
	p.want(`["badge", "panel"].map((name) => getComputedStyle(find("." + name)[0]).borderTopStyle).join()`, "solid,solid")
	p.want(`(() => { const { forcedColorAdjust, backgroundColor } = getComputedStyle(find("li.unread")[0], "::before"); return forcedColorAdjust + " " + (backgroundColor === getComputedStyle(find(".panel")[0]).backgroundColor) })()`, "none false")
	p.want(`getComputedStyle(find(".link")[0]).outlineStyle`, "none")
	p.want(`find(".link")[0].focus({ focusVisible: true }), getComputedStyle(find(".link")[0], "::after").outlineStyle`, "solid")
	// A window of 1280 by 1024 pixels has this size at a zoom of 400 %.
	p.do(chromedp.EmulateViewport(320, 256))
	value[bool](p, `bell.open = false, bell.open = true`)
	p.want(`within(find(".panel")[0]) || JSON.stringify(find(".panel")[0].getBoundingClientRect())`, true)
	p.want(`document.documentElement.scrollWidth`, 320.0)
	p.want(`find(".panel, .scroll, header, ul, li, .link, .head, .body").filter((element) => element.scrollWidth > element.clientWidth).map((element) => element.className)`, []any{})
	p.want(`find("header button, h2").every(within) && find(".scroll")[0].clientHeight >= 100 || find(".scroll")[0].clientHeight`, true)
	p.want(`find("li").at(-1).scrollIntoView(), find("li").at(-1).getBoundingClientRect().bottom < 257`, true) // scroll positions are rounded
}

// The ages of rows are correct even if the clock of the browser is wrong, because they follow the clock of the hub.
func testElementClock(_ *testing.T, s *inboxStage) {
	for _, hours := range []int{-1, 1, 48} {
		// New rows, because the time until the page is read counts. The age of the row "old" is rounded to 5 minutes for
		// almost a minute.
		runSQL(s.t, s.dsn, `DELETE FROM rowcast.notifications`, `INSERT INTO rowcast.notifications (recipient, event, data, created_at) VALUES ('alice', 'notify', '"one"', now()),
			('alice', 'notify', '"old"', now() - interval '4 minutes 32 seconds'), ('alice', 'notify', '"future"', now() + interval '2 hours')`)
		p := s.openWith(fmt.Sprintf(`{ const now = Date.now; Date.now = () => now() + %d * 3_600_000; }`, hours))
		p.want(`bell.open = true, ["one", "old", "future"].map((title) => row(title).querySelector("time").textContent).join()`, "now,5 minutes ago,now")
		value[bool](p, `bell.remove(), true`)
	}
}

// Two elements of a page for the same user share their rows. One of them is inline, and shows no toasts. An element for
// another user has rows and toasts of its own.
func testElementTwo(_ *testing.T, s *inboxStage) {
	s.insert("one")
	p := s.openWith(toastsStay)
	p.want(`[window.copy, window.other] = ["copy", "other"].map((id) => Object.assign(bell.cloneNode(), { id })), copy.toggleAttribute("inline"), other.removeAttribute("title-badge"),
		other.setAttribute("events", "/events?uid=bob"), document.body.append(copy, other), copy.store === bell.store && other.store !== bell.store`, true)
	p.await(`other.store.state === "open"`)
	const shown = `[bell, copy, other].map((element) => [...element.shadowRoot.querySelectorAll(".toast .head")].map((head) => head.textContent).join()).join("|")`
	s.insertFor("bob", "for bob")
	p.await(shown + ` === "||for bob"`)
	// The list of copy is always open, so copy shows no toast, even if bell shows none. Otherwise its toast would be shown
	// before the next toast of bell.
	value[bool](p, `bell.toggleAttribute("toasts")`)
	s.insert("two")
	p.await(`copy.shadowRoot.querySelector("li .head").textContent === "two"`)
	value[bool](p, `bell.toggleAttribute("toasts")`)
	s.insert("three")
	p.await(shown + ` === "three||for bob"`)
	value[bool](p, `copy.shadowRoot.querySelector("li .link").click(), bell.open = true`)
	p.want(`unread().join()`, "two,one")
	value[bool](p, `copy.remove(), other.remove(), true`)
	p.want(`bell.store.state`, "open")
}

// A change can be undone on another device. The undo leaves out rows that were changed again after that change.
func testElementDevices(_ *testing.T, s *inboxStage) {
	s.insert("one", "two", "three")
	phone := *s
	phone.profile = s.browser.profile(s.t)
	p, other := s.open(), phone.open()
	for _, device := range []page{p, other} {
		value[bool](device, `window.changes = [], bell.store.addEventListener("inbox", ({ detail }) => detail.action === "seen" || changes.push(detail)), bell.open = true`)
	}
	both := func(state string) {
		s.t.Helper()
		for _, device := range []page{p, other} {
			device.await(state)
		}
	}
	// One device archives two rows. The other device restores one of them and archives it again, so that the undo must
	// leave it out.
	value[bool](p, `window.id = (title) => bell.store.items.find(({ data }) => data === title).id, bell.store.archive([id("one"), id("two")]), true`)
	both(`titles().join() === "three" && changes.length === 1`)
	value[bool](other, `bell.store.unarchive([changes[0].ids[0]]), true`)
	both(`titles().join() === "three,one" && changes.length === 2`)
	value[bool](other, `bell.store.archive([changes[0].ids[0]]), true`)
	both(`titles().join() === "three" && changes.length === 3`)
	value[bool](other, `bell.store.undo(changes[0].version).then((undone) => { window.undone = undone; }), true`)
	both(`titles().join() === "three,two" && bell.store.unreadCount === 2`)
	other.await(`window.undone === true`)
	// A change cannot be undone twice, on any device.
	value[bool](p, `bell.store.undo().then((undone) => { window.undone = undone; }), true`)
	p.await(`window.undone === false && titles().join() === "three,two"`)
	for _, change := range []string{"readAll", "archiveAll"} {
		value[bool](p, `changes.length = 0, bell.store.`+change+`(), true`)
		both(`changes.some(({ up_to }) => up_to) && bell.store.unreadCount === 0`)
		value[bool](other, `bell.store.undo(changes.find(({ up_to }) => up_to).version), true`)
		both(`unread().join() === "three,two" && bell.store.unreadCount === 2`)
		value[bool](other, `changes.length = 0, true`)
	}
}

// The title of the page shows the number of new rows of all elements with title-badge. Elements that share a store count
// once.
func testElementTitle(_ *testing.T, s *inboxStage) {
	s.insert("one", "two")
	s.insertFor("bob", "for bob")
	p := s.open()
	value[bool](p, `[window.copy, window.other] = ["copy", "other"].map((id) => Object.assign(bell.cloneNode(), { id })), other.setAttribute("events", "/events?uid=bob"), document.body.append(copy, other), true`)
	p.await(`other.store.state === "open" && document.title === "(3) Stage"`)
	value[bool](p, `other.store.readAll(), true`)
	p.await(`document.title === "(2) Stage"`)
	s.insertFor("bob", "later")
	p.await(`document.title === "(3) Stage"`)
	// The page may set another title or an empty one.
	const changed = `, bell.store.dispatchEvent(new Event("change")), document.title`
	p.want(`document.title = ""`+changed, "(3)")
	p.want(`true`+changed, "(3)")
	p.want(`document.title = "(2026) Orders"`+changed, "(3) (2026) Orders")
	p.want(`true`+changed, "(3) (2026) Orders")
	p.want(`other.removeAttribute("title-badge"), document.title`, "(2) (2026) Orders")
	p.want(`other.toggleAttribute("title-badge"), bell.remove(), document.title`, "(3) (2026) Orders")
	p.want(`copy.remove(), document.title`, "(1) (2026) Orders")
	p.want(`other.remove(), document.title`, "(2026) Orders")
}

// From 100 new rows on, the bell shows 99+, and its label says "more than 99" in the language of the element.
func testElementMany(_ *testing.T, s *inboxStage) {
	runSQL(s.t, s.dsn, `INSERT INTO rowcast.notifications (recipient, event, data) SELECT 'alice', 'notify', to_jsonb(n) FROM generate_series(1, 150) AS n`)
	p := s.open()
	const shown = `[badge(), find(".bell")[0].ariaLabel, document.title].join("|")`
	p.want(shown, "99+|Notifications, more than 99 new|(99+) Stage")
	p.want(`bell.lang = "zh", `+shown, "99+|通知，超过 99 条新消息|(99+) Stage")
	// The page has loaded fewer than 100 rows, so the number above is from the hub.
	p.want(`bell.open = true, bell.store.items.length < 100`, true)
	value[bool](p, `bell.lang = "en", bell.store.readAll(), bell.open = false, true`) // the rows of an open list would be seen after a second
	p.await(shown + ` === "|Notifications|Stage"`)
	runSQL(s.t, s.dsn, `INSERT INTO rowcast.notifications (recipient, event, data) SELECT 'alice', 'notify', to_jsonb(n) FROM generate_series(1, 99) AS n`)
	p.await(shown + ` === "99|Notifications, 99 new|(99) Stage"`)
	s.insert("the hundredth")
	p.await(shown + ` === "99+|Notifications, more than 99 new|(99+) Stage"`)
}

// With the attribute with-credentials, the browser sends its cookies to a hub of another origin. Without the attribute,
// the user is not signed in.
func testElementOrigin(t *testing.T, chromium browser) {
	t.Parallel()
	dsn := dbtest.Inbox(t)
	var h *hub
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.SetCookie(w, &http.Cookie{Name: "session", Value: signed(t, jwt.MapClaims{"sub": "alice"}), Path: "/"})
		w.Header().Set("Content-Type", "text/html")
		attribute := strings.TrimPrefix(r.URL.Path, "/")
		_, _ = io.WriteString(w, `<!doctype html><script type="module" src="`+h.url+`/rowcast-inbox.js"></script><rowcast-inbox id="bell" `+attribute+` events="`+h.url+`/events"></rowcast-inbox>`)
	}))
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	h = startHub(t, dsn, "--inbox", "--jwt-secret", secret, "--jwt-cookie", "session", "--cors-origin", server.URL)
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'notify', '"one"')`)
	profile := chromium.profile(t)
	with := profile.open(t, server.URL+"/with-credentials")
	with.await(`window.bell?.store?.state === "open" && bell.store.items.length === 1`)
	value[bool](with, `bell.store.addEventListener("error", ({ error }) => { window.saved = error.message; }), bell.store.readAll().then((saved) => { window.saved ??= saved; }), true`)
	with.await(`"saved" in window`)
	with.want(`window.saved`, true)
	with.await(`window.saved === true`)
	without := profile.open(t, server.URL+"/")
	without.await(`window.bell?.store?.state === "signed-out"`)
}
