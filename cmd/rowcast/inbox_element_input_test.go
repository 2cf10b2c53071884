package main_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// clickOn clicks with the mouse on the middle of an element. The argument element is a JavaScript expression whose
// value is the element.
func (p page) clickOn(element string, options ...chromedp.MouseOption) {
	p.t.Helper()
	at := value[[]float64](p, fmt.Sprintf(`(() => { const { left, top, width, height } = (%s).getBoundingClientRect(); return [left + width / 2, top + height / 2] })()`, element))
	p.do(chromedp.MouseClickXY(at[0], at[1], options...))
}

// Escape closes the list, and not the dialog around it. The element handles Escape itself, because a browser may close
// both at once if they were opened without a click in between.
func testElementEscape(_ *testing.T, s *inboxStage) {
	s.insert("one")
	p := s.open()
	value[bool](p, `window.dialog = document.createElement("dialog"), document.body.append(dialog), dialog.append(Object.assign(document.createElement("input"), { id: "field" }), bell), dialog.showModal(), true`)
	const state = `[dialog.open, bell.open, root().activeElement?.className ?? document.activeElement.id].join()`
	escape := func() {
		p.press(kb.Escape)
		p.await(`!bell.open`)
		p.want(`dialog.open`, true)
	}
	value[bool](p, `bell.open = true`)
	p.await(state + ` === "true,true,panel"`)
	escape()
	// Some browsers return the focus to the element that had it before the list was opened.
	p.await(`["true,false,bell", "true,false,field"].includes(` + state + `)`)
	value[bool](p, `bell.open = true`)
	p.await(state + ` === "true,true,panel"`)
	p.want(`field.focus(), `+state, "true,true,field")
	escape()
	if p.tab == nil { // clickOn works only in Chromium
		p.clickOn(`find(".bell")[0]`)
		p.await(state + ` === "true,true,panel"`)
		escape()
		p.await(state + ` === "true,false,bell"`)
		// A popover that was opened from the list is closed before the list.
		value[bool](p, `(() => {
			const [menu, footer] = ["div", "button"].map((name) => document.createElement(name));
			Object.assign(menu, { id: "menu", popover: "auto" }).append("menu");
			Object.assign(footer, { id: "footer", slot: "footer", popoverTargetElement: menu }).append("open");
			bell.append(footer);
			const form = document.createElement("form"); // document.host is this form
			form.name = "host";
			dialog.append(menu, form);
			return true; })()`)
		p.clickOn(`find(".bell")[0]`)
		p.await(`bell.open && find(".panel")[0].getAnimations().length === 0`)
		p.clickOn(`footer`)
		p.await(`menu.matches(":popover-open")`)
		p.press(kb.Escape)
		p.await(`!menu.matches(":popover-open")`)
		p.want(`[dialog.open, bell.open].join()`, "true,true")
		escape()
	}
	p.press(kb.Escape)
	p.await(`!dialog.open`)
}

// A click on a link or another control in the content of a row is not a click on the row.
func testElementControls(_ *testing.T, s *inboxStage) {
	s.insert(map[string]string{"url": "/page?row"})
	p := s.open()
	value[bool](p, `window.routed = [], window.pressed = 0, bell.addEventListener("rowcast-click", (event) => { event.preventDefault(); routed.push(new URL(event.detail.url).search); }),
		bell.render = () => {
			const content = document.createElement("p");
			for (const [name, properties] of [["a", { href: "#inner" }], ["button", { type: "button", onclick: () => pressed++ }], ["input", { type: "checkbox" }], ["b"]]) {
				content.append(Object.assign(document.createElement(name), { textContent: name }, properties));
			}
			return content;
		}, bell.open = true`)
	p.await(`find(".panel")[0].getAnimations().length === 0`)
	const state = `[location.search, location.hash, pressed, bell.querySelector("input").checked, bell.store.unreadCount, routed.join()].join()`
	p.clickOn(`bell.querySelector("p a")`)
	p.await(`location.hash`)
	p.want(state, ",#inner,0,false,1,")
	p.clickOn(`bell.querySelector("p button")`)
	p.await(`pressed`)
	p.want(state, ",#inner,1,false,1,")
	p.clickOn(`bell.querySelector("p input")`)
	p.await(`bell.querySelector("input").checked`)
	p.want(state, ",#inner,1,true,1,")
	p.clickOn(`bell.querySelector("p b")`)
	p.await(`routed.length`)
	p.want(state, ",#inner,1,true,0,?row")
	p.want(`find(".link")[0].search`, "?row")
}

// A row with a URL is a link. A click with Ctrl or with the middle button of the mouse opens a new tab and does not
// leave the page. A click without a modifier key is handled by the page, as stream/web/README.md shows. Each of these
// clicks marks the row as read.
func testElementLinks(_ *testing.T, s *inboxStage) {
	titles := []string{"cancelled", "plain", "middle", "ctrl"}
	for _, title := range titles {
		s.insert(map[string]string{"msg": title, "url": "/page?" + title})
	}
	other, p := s.open(), s.open()
	value[bool](p, `window.routed = [], window.clicks = [], bell.addEventListener("rowcast-click", (event) => {
		const { url, event: click } = event.detail;
		clicks.push([new URL(url).search, click.type, click.button, click.ctrlKey, event.cancelable].join());
		if (window.cancel) event.preventDefault();
		if (!url || click.button || click.ctrlKey || click.metaKey || click.shiftKey) return;
		event.preventDefault();
		routed.push(new URL(url).search);
	}), bell.open = true`)
	value[bool](other, `bell.open = true`)
	p.await(`find(".panel")[0].getAnimations().length === 0`)
	const kept = `location.search + bell.open + routed.join()`
	p.clickOn(`row("ctrl")`, chromedp.ButtonModifiers(chromedp.ModifierCtrl))
	p.await(`localStorage["?ctrl"]`)
	p.want(kept, "true")
	other.await(`unread().join() === "middle,plain,cancelled"`)
	p.clickOn(`row("middle")`, chromedp.ButtonMiddle)
	p.await(`localStorage["?middle"]`)
	p.want(kept, "true")
	other.await(`unread().join() === "plain,cancelled"`)
	p.clickOn(`row("plain")`)
	p.await(`routed.join() === "?plain"`)
	other.await(`unread().join() === "cancelled"`)
	// preventDefault() prevents the new tab. By the time the next click has opened its tab, this click would have
	// opened one too.
	value[bool](p, `window.cancel = true`)
	p.clickOn(`row("cancelled")`, chromedp.ButtonModifiers(chromedp.ModifierCtrl))
	p.await(`clicks.length === 4`)
	value[bool](p, `window.cancel = false, localStorage.removeItem("?ctrl"), true`)
	p.clickOn(`row("ctrl")`, chromedp.ButtonModifiers(chromedp.ModifierCtrl))
	p.await(`localStorage["?ctrl"]`)
	p.want(`localStorage["?cancelled"] ?? `+kept, "true?plain")
	p.want(`clicks.join(" ")`, "?ctrl,click,0,true,true ?middle,auxclick,1,false,true ?plain,click,0,false,true ?cancelled,click,0,true,true ?ctrl,click,0,true,true")
	other.await(`unread().length === 0`)
}
