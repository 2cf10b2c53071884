package main_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// clickOn clicks with the mouse on the middle of an element. The argument element is a JavaScript expression whose
// value is the element. The options work only in Chromium. WebKitGTK has no mouse in a test, so a script clicks there.
func (p page) clickOn(element string, options ...chromedp.MouseOption) {
	p.t.Helper()
	if p.tab != nil && len(options) > 0 {
		p.t.Fatal("a click with options works only in Chromium")
	}
	if p.tab != nil && p.tab.driver.mouseless {
		value[bool](p, element+`.click(), true`)
		return
	}
	at := value[[]float64](p, fmt.Sprintf(`(() => { const { left, top, width, height } = (%s).getBoundingClientRect(); return [left + width / 2, top + height / 2] })()`, element))
	if p.tab == nil {
		p.do(chromedp.MouseClickXY(at[0], at[1], options...))
	} else if err := p.tab.click(p.ctx, at[0], at[1]); err != nil {
		p.t.Fatal(err)
	}
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
	if p.tab == nil {
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

// A click on a link or another control in the content of a row is not a click on the row. The row is a link or a button.
func testElementControls(_ *testing.T, s *inboxStage) {
	s.insert("button", map[string]string{"msg": "link", "url": "/page?row"})
	p := s.open()
	value[bool](p, `window.routed = [], window.pressed = [], bell.addEventListener("rowcast-click", (event) => { event.preventDefault(); routed.push(event.detail.item.data.msg ?? "button"); }),
		bell.render = ({ data }) => {
			const content = document.createElement("p");
			content.id = data.msg ?? data;
			for (const [name, properties] of [["a", { href: "#to-" + content.id }], ["button", { type: "button", onclick: () => pressed.push(content.id) }], ["input", { type: "checkbox" }], ["b"]]) {
				content.append(Object.assign(document.createElement(name), { textContent: name }, properties));
			}
			return content;
		}, bell.open = true`)
	p.finishRise()
	for _, row := range []string{"link", "button"} {
		control := func(name string) string { return fmt.Sprintf(`bell.querySelector("#%s %s")`, row, name) }
		p.clickOn(control("a"))
		p.await(`location.hash === "#to-` + row + `"`)
		p.clickOn(control("button"))
		p.await(`pressed.at(-1) === "` + row + `"`)
		p.clickOn(control("input"))
		p.await(control("input") + `.checked`)
		p.want(`routed.includes("`+row+`")`, false)
		p.clickOn(control("b"))
		p.await(`routed.at(-1) === "` + row + `"`)
	}
	p.want(`[routed, pressed, bell.store.unreadCount, location.search, find("a")[0].search].join()`, "link,button,link,button,0,,?row")
}

// A finger or a pen can tap where the buttons of a row are. If a pointer of the device is coarse or cannot hover, the
// buttons are visible, so no tap archives a row by accident.
func testElementTouch(t *testing.T) {
	t.Parallel()
	for name, device := range map[string]struct{ settings, media string }{
		"a mouse and a finger": {"availablePointerTypes=6,primaryPointerType=4,availableHoverTypes=3,primaryHoverType=2", "false,true"},
		"a pen":                {"availablePointerTypes=4,primaryPointerType=4,availableHoverTypes=1,primaryHoverType=1", "true,false"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newInboxStage(t, startBrowser(t, chromedp.Flag("blink-settings", device.settings)))
			s.insert("one")
			p := s.open()
			p.want(`[matchMedia("(hover: none)").matches, matchMedia("(any-pointer: coarse)").matches].join()`, device.media)
			p.want(`bell.open = true, getComputedStyle(find(".actions")[0]).opacity`, "1")
		})
	}
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
	p.finishRise()
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
