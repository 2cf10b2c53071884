package main_test

import (
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"

	"rowcast/sql/dbtest"
)

// testInboxElement tests <rowcast-inbox> in a browser with a hub. The page of an inboxStage has a strict
// Content-Security-Policy with Trusted Types, and styles that could hide or distort the element.
func testInboxElement(t *testing.T, b browser) {
	t.Parallel()
	tests := map[string]func(*testing.T, *inboxStage){
		"a change is shown in every tab":        testElementTabs,
		"archive and undo":                      testElementArchive,
		"new rows do not move the list":         testElementHold,
		"the page renders the content":          testElementTemplate,
		"the styles of the page change nothing": testElementStyles,
		"it mirrors in right-to-left pages":     testElementDirection,
		"data cannot run a script":              testElementAttacks,
		"a removed element closes its store":    testElementRemoval,
		"texts and times have one language":     testElementLanguages,
		"the title has one number":              testElementTitle,
		"more than 99 rows are new":             testElementMany,
		"the list is beside the bell":           testElementPlace,
		"content of the page":                   testElementContent,
		"it moves to a frame":                   testElementFrame,
	}
	if b.driver == nil {
		maps.Copy(tests, map[string]func(*testing.T, *inboxStage){
			"it fits small screens":              testElementSmall,
			"axe finds nothing":                  testElementAxe,
			"toasts are shown once":              testElementToasts,
			"it works in and beside dialogs":     testElementDialog,
			"two elements share a page":          testElementTwo,
			"another user signs in":              testElementUsers,
			"it follows the user's preferences":  testElementPreferences,
			"links open new tabs":                testElementLinks,
			"undo on another device":             testElementDevices,
			"properties are set before or later": testElementProperties,
			"a row cannot be rendered":           testElementFaults,
			"failures are shown for a while":     testElementNotes,
			"the clock of the client is wrong":   testElementClock,
			"the strict mode of React":           testElementReact,
			"the page has another language":      testElementPageLanguage,
			"rows are seen in the window":        testElementSeen,
			"buttons are described":              testElementDescriptions,
			"rows wait while a user reads":       testElementReading,
			"the page renders again":             testElementRender,
			"a toast has the focus":              testElementToastFocus,
			"a toast is under the pointer":       testElementToastPointer,
			"one element announces a row":        testElementAnnouncement,
			"the page is printed":                testElementPrint,
			"it moves to another window":         testElementWindow,
			"an update is cheap":                 testElementAges,
		})
		t.Run("a touch screen", testElementTouch)
		t.Run("a hub of another origin", func(t *testing.T) { testElementOrigin(t, b) })
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			test(t, newInboxStage(t, b))
		})
	}
}

// testInboxKeys tests <rowcast-inbox> with the keyboard and the mouse. Only one page of a browser has the focus, so the tests run one
// after the other.
func testInboxKeys(t *testing.T, b browser) {
	t.Run("the keyboard is enough", func(t *testing.T) { testElementKeyboard(t, newInboxStage(t, b)) })
	t.Run("Escape closes only the list", func(t *testing.T) { testElementEscape(t, newInboxStage(t, b)) })
	t.Run("controls in a row", func(t *testing.T) { testElementControls(t, newInboxStage(t, b)) })
	if b.driver == nil {
		t.Run("keys in content of the page", func(t *testing.T) { testElementForeignKeys(t, newInboxStage(t, b)) })
	}
}

func testElementTabs(_ *testing.T, s *inboxStage) {
	s.insert("one", "two")
	first, second := s.open(), s.open()
	for _, p := range []page{first, second} { // before a list is open, because after a second its rows would be seen
		p.want(`badge() + root().querySelector(".bell").ariaLabel + document.title`, "2Notifications, 2 new(2) Stage")
	}
	for _, p := range []page{first, second} {
		p.want(`bell.open = true, titles().join()`, "two,one")
	}
	s.insert("three")
	for _, p := range []page{first, second} {
		p.await(`unread().join() === "three,two,one"`)
	}
	value[bool](first, `row("two").querySelector(".link").click(), true`)
	first.want(`unread().join()`, "three,one") // at once, without waiting for the answer of the hub
	second.await(`unread().join() === "three,one"`)
	value[bool](second, `find("header .text")[0].click(), true`)
	for _, p := range []page{first, second} {
		p.await(`unread().length === 0 && badge() === "" && document.title === "Stage"`)
	}
}

func testElementArchive(_ *testing.T, s *inboxStage) {
	s.insert("one", "two")
	p, other := s.open(), s.open()
	value[bool](other, `bell.open = true`)
	value[bool](p, `bell.open = true, find("[title=Archive]")[0].click(), true`)
	p.want(`titles().join()`, "one")
	other.await(`titles().join() === "one"`)
	value[bool](p, `find(".note button")[0].click(), true`)
	p.await(`titles().join() === "two,one"`) // not at once: an undo waits until the hub has saved the change that it undoes, here the archiving
	other.await(`titles().join() === "two,one"`)
}

func testElementHold(_ *testing.T, s *inboxStage) {
	for i := range 30 {
		s.insert(fmt.Sprint("row ", i))
	}
	p := s.open()
	value[bool](p, `bell.open = true, find(".scroll")[0].scrollTop = 300, true`)
	p.await(`bell.store.hold`)
	s.insert("new", "newer")
	p.await(`find(".new:not([hidden])")[0]?.textContent === "2 new notifications"`)
	p.want(`titles()[0] + find(".scroll")[0].scrollTop`, "row 29300")
	value[bool](p, `find(".new")[0].click(), true`)
	p.await(`titles()[0] === "newer" && find(".scroll")[0].scrollTop === 0`)
	value[bool](p, `find(".more")[0].click(), true`)
	p.await(`titles().length === 32`)
	p.await(`find(".more")[0].hidden`)
}

// toastsStay is a script for openWith. Toasts then stay, instead of disappearing after 6 s.
const toastsStay = `{ const start = setTimeout; window.setTimeout = (call, time, ...args) => start(call, time === 6000 ? 600_000 : time, ...args); }`

func testElementToasts(_ *testing.T, s *inboxStage) {
	s.insert("existing")
	first, second := s.openWith(toastsStay), s.openWith(toastsStay)
	s.insert("toast", map[string]string{"msg": "the last"})
	var shown []string
	for _, p := range []page{first, second} {
		p.await(`bell.store.items.length === 3 && root().querySelector("[role=status].sr").textContent === "2 new notifications"`)
		shown = append(shown, value[[]string](p, `find(".toast .head").map((head) => head.textContent)`)...)
	}
	if len(shown) != 2 || shown[0] == shown[1] {
		s.t.Errorf("two tabs show the toasts %q, want each new row once", shown)
	}
	value[bool](first, `bell.open = true`)
	value[bool](second, `bell.open = true`)
	s.insert("while open")
	for _, p := range []page{first, second} {
		p.await(`titles().length === 4`)
		p.want(`find(".toast").length`, 0.0)
	}
}

func testElementAttacks(_ *testing.T, s *inboxStage) {
	attacks := []string{
		`<img src=x onerror=pwned=1>`, `<script>pwned=1</script>`, `"><svg onload=pwned=1>`, `{{constructor.constructor('pwned=1')()}}`, "\u202e</b>", `<template shadowrootmode=open><script>pwned=1</script>`,
	}
	links := []string{"javascript:pwned=1", " java\nscript:pwned=1", "data:text/html,<script>pwned=1</script>", "vbscript:pwned=1", "file:///etc/passwd", "blob:https://x/y"}
	for _, text := range attacks {
		s.insert(text, map[string]string{"title": text, "body": text, "url": text})
	}
	for _, link := range links {
		s.insert(map[string]string{"msg": "link", "url": link})
	}
	s.insert(map[string]string{"msg": "good", "url": "/page?next"}, nil, 5, []string{"a"}, map[string]any{"title": map[string]any{}, "url": 1})
	p := s.open()
	p.want(`bell.open = true, titles().length`, 20.0)
	value[bool](p, `bell.store.loadMore(), true`)
	p.await(fmt.Sprintf(`titles().length === %d`, 2*len(attacks)+len(links)+5))
	value[bool](p, `find(".link").forEach((link) => link.href || link.click()), true`)
	p.await(`bell.store.unreadCount <= 7`)
	p.want(`"pwned" in window || find("li img, li script, li svg:not([aria-hidden])").length > 0`, false)
	p.want(`find("a").filter((a) => !/^http:/.test(a.href)).length`, 0.0)
	p.want(`row("good").querySelector("a").pathname`, "/page")
	// The navigation can be cancelled.
	p.want(`new Promise((done) => {
		bell.addEventListener("rowcast-click", (event) => { event.preventDefault(); done(event.detail.item.data.msg); });
		row("good").querySelector("a").click();
	}), location.search`, "")
}

func testElementTemplate(_ *testing.T, s *inboxStage) {
	p := s.open()
	p.want(`(() => {
		const template = document.createElement("template");
		const [strong, a, img] = ["strong", "a", "img"].map((name) => document.createElement(name));
		template.slot = "item"; strong.dataset.field = "user.name"; a.dataset.field = "link"; img.dataset.field = "image"; img.alt = "";
		template.content.append(strong, a, img);
		bell.append(template); bell.open = true;
		return bell.open; })()`, true)
	s.insert(map[string]any{"user": map[string]string{"name": "<b>Bob</b>"}, "link": "javascript:1", "image": "data:image/png,"})
	p.await(`document.querySelector("[slot^=item-] strong")?.textContent === "<b>Bob</b>"`)
	p.want(`document.querySelector("[slot^=item-] a").hasAttribute("href") || document.querySelector("[slot^=item-] img").hasAttribute("src")`, false)
	value[bool](p, `bell.render = (item) => "row " + item.data, true`)
	s.insert(7)
	p.await(`[...document.querySelectorAll("[slot^=item-]")].some((found) => found.textContent === "row 7")`)
	// React and Vue append the nodes to the template itself, and not to its content.
	value[bool](p, `(() => { const template = bell.querySelector("template"); template.append(...template.content.childNodes); bell.render = undefined; return true })()`)
	p.want(`document.querySelectorAll("[slot^=item-] strong").length`, 1.0)
	p.want(`bell.store.archive(bell.store.items.map(({ id }) => id)), bell.store.items.length`, 0.0)
	p.await(`!document.querySelector("[slot^=item-]")`)
}

func testElementKeyboard(_ *testing.T, s *inboxStage) {
	s.insert("one", "two", "three")
	p := s.open()
	const focus = `(root().activeElement?.closest("li")?.querySelector(".head").textContent ?? root().activeElement?.className)`
	p.press(kb.Tab, kb.Enter)
	p.await(`bell.open && root().querySelector(".bell").ariaExpanded === "true" && ` + focus + ` === "panel"`)
	p.press(kb.ArrowDown, kb.ArrowDown)
	p.want(focus, "two")
	p.press(kb.End, kb.ArrowUp, kb.Delete)
	p.await(`titles().join() === "three,one"`)
	p.want(focus, "one") // the next row
	p.press(kb.Enter)
	p.await(`unread().join() === "three"`)
	p.press(kb.Escape)
	p.await(`!bell.open && ` + focus + ` === "bell" && root().querySelector(".bell").ariaExpanded === "false"`)
}

func testElementStyles(_ *testing.T, s *inboxStage) {
	s.insert("one", map[string]string{"title": "two", "body": "text", "url": "/page"})
	p := s.open()
	const measured = `JSON.stringify(find(".root *").map((element) => [element.className, element.offsetWidth, element.offsetHeight, getComputedStyle(element).color, getComputedStyle(element).fontSize]))`
	value[bool](p, `bell.open = true`)
	p.await(`document.getAnimations().every((animation) => animation.playState !== "running")`)
	before := value[string](p, measured)
	p.want(`document.body.style.visibility = "hidden", getComputedStyle(find(".bell")[0]).visibility`, "hidden") // but a hidden part of the page stays hidden
	value[bool](p, `document.body.style.visibility = "", true`)
	value[bool](p, `document.body.className = "hostile", true`)
	p.want(measured+` === `+fmt.Sprintf("%q", before)+` || `+measured, true)
	// The panel is above the content of the page, and its title is not clipped.
	p.want(`(() => { const { left, top } = find("h2")[0].getBoundingClientRect(); return document.elementFromPoint(left + 2, top + 2) === bell })()`, true)
}

func testElementDirection(_ *testing.T, s *inboxStage) {
	s.insert("שלום, world", "hello")
	p := s.open()
	p.want(`document.querySelector("main").dir = "rtl", bell.open = true, within(find(".panel")[0])`, true)
	p.want(`(() => { const [dot, time] = [find("li")[0].getBoundingClientRect(), find("time")[0].getBoundingClientRect()]; return dot.right - time.right > 20 })()`, true)
	p.want(`find(".head").every((head) => head.dir === "auto")`, true)
	p.want(`Math.abs(find(".bell")[0].getBoundingClientRect().left - find(".panel")[0].getBoundingClientRect().left) < 40 || within(find(".panel")[0])`, true)
}

func testElementSmall(_ *testing.T, s *inboxStage) {
	s.insert("one")
	p := s.open()
	for _, size := range [][2]int64{{320, 568}, {479, 300}, {480, 640}, {1280, 256}} {
		p.do(chromedp.EmulateViewport(size[0], size[1]))
		value[bool](p, `bell.open = false, bell.open = true`)
		p.await(`find(".panel")[0].getAnimations().length === 0`)
		p.want(`within(find(".panel")[0]) || JSON.stringify(find(".panel")[0].getBoundingClientRect())`, true)
		p.want(`(innerWidth < 480) === (find(".panel")[0].offsetWidth === innerWidth)`, true)
	}
}

func testElementAxe(t *testing.T, s *inboxStage) {
	script, err := os.ReadFile(filepath.Join(dbtest.NodeModules(t, ".ci/axe", "axe", "axe-core"), "axe-core", "axe.min.js"))
	if err != nil {
		t.Fatal(err)
	}
	s.insert("one", map[string]string{"title": "two", "body": "text", "url": "/page"})
	p := s.open()
	value[bool](p, string(script)+"; true")
	for _, state := range []string{`bell.open = true`, `bell.store.read([bell.store.items[0].id]), true`, `bell.store.archiveAll(), true`, `bell.open = false, true`} {
		value[bool](p, state)
		p.await(`document.getAnimations().every((animation) => animation.playState !== "running")`)
		value[bool](p, `window.found = undefined, axe.run({ resultTypes: ["violations"] }).then(({ violations }) => { window.found = violations.map(({ id, nodes }) => id + " " + nodes.map((node) => node.html).join()) }), true`)
		p.await(`window.found`)
		if found := value[[]string](p, `found`); len(found) > 0 {
			t.Errorf("after %s, axe finds %q, want nothing", state, found)
		}
	}
}

func testElementRemoval(_ *testing.T, s *inboxStage) {
	s.insert("one")
	p := s.open()
	p.want(`(() => { window.kept = bell.store; const copies = [1, 2, 3, 4].map(() => bell.cloneNode()); document.body.append(...copies);
		const shared = copies.every((copy) => copy.store === kept); for (const copy of copies) copy.remove(); return shared })()`, true)
	// An element that is moved keeps its store.
	p.want(`document.body.append(bell), bell.store === kept && kept.state`, "open")
	value[bool](p, `bell.remove(), true`)
	p.await(`kept.state === "closed"`)
	p.want(`document.title`, "Stage")
}
