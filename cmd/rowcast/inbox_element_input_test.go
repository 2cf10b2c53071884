package main_test

import (
	"fmt"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/chromedp/chromedp/kb"
)

// clickOn clicks with the mouse on the middle of what an expression returns.
func (p page) clickOn(element string, options ...chromedp.MouseOption) {
	p.t.Helper()
	at := value[[]float64](p, fmt.Sprintf(`(() => { const { left, top, width, height } = (%s).getBoundingClientRect(); return [left + width / 2, top + height / 2] })()`, element))
	p.do(chromedp.MouseClickXY(at[0], at[1], options...))
}

// Escape closes the list, and not the dialog around it. Browsers may close both at once if the user has not clicked before, which
// is the case here, unless there is a mouse.
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
	p.await(state + ` === "true,false,bell"`)
	value[bool](p, `bell.open = true`)
	p.await(state + ` === "true,true,panel"`)
	p.want(`field.focus(), `+state, "true,true,field")
	escape()
	if p.tab == nil { // with the mouse
		p.clickOn(`find(".bell")[0]`)
		p.await(state + ` === "true,true,panel"`)
		escape()
		p.await(state + ` === "true,false,bell"`)
		// What was opened from the list is closed before the list.
		value[bool](p, `(() => {
			const [menu, footer] = ["div", "button"].map((name) => document.createElement(name));
			Object.assign(menu, { id: "menu", popover: "auto" }).append("menu");
			Object.assign(footer, { id: "footer", slot: "footer", popoverTargetElement: menu }).append("open");
			bell.append(footer);
			dialog.append(menu);
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
