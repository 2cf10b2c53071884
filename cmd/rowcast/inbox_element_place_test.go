package main_test

import (
	"testing"

	"github.com/chromedp/chromedp/kb"
)

// The list is beside the bell and within the window, wherever the bell is and whatever unit the width has.
func testElementPlace(_ *testing.T, s *inboxStage) {
	s.insert("one")
	p := s.open()
	value[bool](p, `document.querySelector(".trap").className = "", window.show = (style) => { bell.open = false; bell.style.cssText = style; bell.open = true; return true }, true`)
	for _, style := range []string{
		`position: absolute; right: 20px; top: 20px; --rowcast-width: 30rem`,
		`position: absolute; left: 20px; top: 20px; --rowcast-width: 50%`,
		`position: absolute; right: 20px; bottom: 20px`,
		`position: absolute; right: 20px; top: 20px; zoom: 1.5`,
		`position: fixed; left: 20px; top: -900px`,
		`position: fixed; left: 20px; top: 3000px`,
	} {
		value[bool](p, `show("`+style+`")`)
		p.finishRise()
		p.want(`within(find(".panel")[0]) || JSON.stringify([bell.style.cssText, find(".panel")[0].getBoundingClientRect()])`, true)
		// If the bell is in the window, the list ends where the bell ends or begins at the edge, and is at most 12 pixels above or below the bell.
		p.want(`(() => {
			const [panel, bell] = [find(".panel")[0], find(".bell")[0]].map((element) => element.getBoundingClientRect());
			if (bell.bottom < 0 || bell.top > innerHeight) return true;
			const gap = Math.max(panel.top - bell.bottom, bell.top - panel.bottom);
			return gap >= 0 && gap <= 12.5 && Math.abs(panel.right - Math.max(bell.right, 8 + panel.width)) < 2 || JSON.stringify([panel, bell]); })()`, true)
	}
	// The browser joins the events of a list that is closed and opened again. No timer may be left.
	value[bool](p, `(() => {
		window.ticks = new Set();
		const [set, clear] = [setInterval, clearInterval];
		window.setInterval = (...args) => { const id = set(...args); ticks.add(id); return id; };
		window.clearInterval = (id) => { ticks.delete(id); clear(id); };
		window.toggles = 0;
		bell.open = false;
		bell.addEventListener("toggle", () => window.toggles++);
		return true; })()`)
	p.await(`toggles === 1`)
	value[bool](p, `bell.open = true`)
	p.await(`toggles === 2`)
	value[bool](p, `bell.open = false, bell.open = true`)
	p.await(`toggles === 3`)
	value[bool](p, `bell.open = false, true`)
	p.await(`toggles === 4`)
	p.want(`ticks.size`, 0.0)
}

// The language of the texts follows the language of the page, also inside a shadow tree.
func testElementPageLanguage(_ *testing.T, s *inboxStage) {
	s.insert("one")
	p := s.open()
	p.want(`(() => {
		const host = document.createElement("div");
		window.inner = bell.cloneNode();
		host.attachShadow({ mode: "open" }).append(inner);
		document.querySelector("main").append(host);
		return inner.shadowRoot.querySelector("h2").textContent; })()`, "Notifications")
	value[bool](p, `bell.open = true, document.documentElement.lang = "zh", true`)
	for _, root := range []string{"root()", "inner.shadowRoot"} {
		p.await(root + `.querySelector("h2").textContent === "通知" && ` + root + `.querySelector(".root").lang === "zh"`)
	}
	p.want(`bell.open && find("time")[0].textContent`, "现在")
}

// The page can give content to the element: links in a template can be clicked, a copy of the element has no rows of
// the original, and an empty URL is no link.
func testElementContent(_ *testing.T, s *inboxStage) {
	s.insert(map[string]string{"msg": "one", "url": "", "image": "", "link": "/page?link"})
	p := s.open()
	p.want(`bell.open = true, find("a").length`, 0.0)
	const hit = `((element, in_) => { const { left, top, width, height } = element.getBoundingClientRect(); return in_.elementFromPoint(left + width / 2, top + height / 2) === element; })`
	p.finishRise()
	p.want(hit+`(find("time")[0], root())`, true) // its title is the exact time
	p.want(`(() => {
		const template = document.createElement("template");
		template.slot = "item";
		for (const [name, field] of [["a", "link"], ["img", "image"]]) {
			const element = document.createElement(name);
			element.dataset.field = field;
			template.content.append(element);
		}
		bell.append(template);
		bell.render = undefined;
		return bell.querySelector("[slot^=item-] img").hasAttribute("src"); })()`, false)
	value[bool](p, `bell.querySelector("[slot^=item-] a").textContent = "link", true`)
	p.finishRise()
	p.want(hit+`(bell.querySelector("[slot^=item-] a"), document)`, true)
	p.want(`bell.render = () => "word".repeat(200), find(".scroll")[0].scrollWidth - find(".scroll")[0].clientWidth`, 0.0)
	// The smallest width of the content is the width of its longest word, as elsewhere in the page.
	p.want(`bell.render = () => {
			window.word = document.createElement("b");
			word.style.cssText = "display: block; width: min-content";
			word.textContent = "word".repeat(5);
			return word;
		}, word.offsetWidth > 60 || word.offsetWidth`, true)
	// A footer has its height, also in a low list.
	value[bool](p, `window.low = Object.assign(bell.cloneNode(), { id: "low" }), low.style.setProperty("--rowcast-height", "150px"), window.footer = document.createElement("p"), footer.slot = "footer",
		footer.style.cssText = "box-sizing: border-box; height: 70px; overflow: hidden", low.append(footer), document.body.append(low), low.toggleAttribute("inline")`)
	p.await(`low.shadowRoot.querySelectorAll("li").length === 1`)
	p.want(`footer.offsetHeight`, 70.0)
	value[bool](p, `low.remove(), bell.render = undefined, true`)
	p.want(`window.copy = bell.cloneNode(true), copy.id = "copy", document.body.append(copy), copy.open = true, copy.querySelectorAll("[slot^=item-]").length`, 1.0)
}

// The keys of the list do not act in a text field of the page. Escape does not close a dialog with a shadow tree that
// contains the element.
func testElementForeignKeys(_ *testing.T, s *inboxStage) {
	s.insert("one")
	p := s.open()
	value[bool](p, `bell.append(Object.assign(document.createElement("input"), { id: "field", slot: "footer", value: "text" })), bell.open = true`)
	p.await(`root().activeElement === find(".panel")[0]`)
	value[bool](p, `field.focus(), true`)
	p.press(kb.Home)
	p.await(`field.selectionStart === 0`)
	p.want(`document.activeElement.id`, "field")
	value[bool](p, `bell.open = false, field.remove(), (() => {
		window.dialog = document.createElement("dialog");
		const host = document.createElement("div");
		window.inner = bell.cloneNode();
		host.attachShadow({ mode: "open" }).append(inner);
		dialog.append(host);
		document.body.append(dialog);
		dialog.showModal();
		inner.open = true;
		return true; })()`)
	p.await(`inner.open && inner.shadowRoot.activeElement?.className === "panel"`)
	p.press(kb.Escape)
	p.await(`!inner.open`)
	p.want(`dialog.open`, true)
}

// New rows wait while a user reads further down in one of two lists, although the other list is closed. When the button
// with the focus disappears, the list has the focus.
func testElementReading(_ *testing.T, s *inboxStage) {
	for i := range 30 {
		s.insert(i)
	}
	p := s.open()
	value[bool](p, `bell.open = true`)
	p.await(`find("li").length === 20 && root().activeElement === find(".panel")[0]`)
	value[bool](p, `find(".more")[0].focus(), find(".more")[0].click(), true`)
	p.await(`find(".more")[0].hidden && root().activeElement === find(".panel")[0]`)
	value[bool](p, `window.toggles = 0, bell.addEventListener("toggle", () => toggles++), bell.open = false, true`)
	p.await(`toggles === 1`)
	value[bool](p, `window.copy = bell.cloneNode(), copy.id = "copy", copy.toggleAttribute("inline"), document.querySelector("main").append(copy), copy.shadowRoot.querySelector(".scroll").scrollTop = 300, true`)
	p.await(`bell.store.hold`)
	value[bool](p, `bell.open = true`)
	p.await(`toggles === 2`)
	value[bool](p, `bell.open = false, true`)
	p.await(`toggles === 3`)
	p.want(`bell.store.hold`, true)
	// After a change of the language, the other list begins at the top, so its rows do not wait.
	value[bool](p, `document.documentElement.lang = "zh", true`)
	p.await(`copy.shadowRoot.querySelector(".root").lang === "zh"`)
	p.want(`bell.store.hold`, false)
	value[bool](p, `copy.shadowRoot.querySelector(".scroll").scrollTop = 300, true`)
	p.await(`bell.store.hold`)
	// If the page then hides the other list, the bell still opens with the rows that wait.
	value[bool](p, `copy.hidden = true`)
	s.insert("new")
	p.await(`bell.store.waiting === 1`)
	value[bool](p, `bell.open = true`)
	p.await(`toggles === 4`)
	p.want(`[bell.store.hold, bell.store.waiting, titles()[0]].join()`, "true,0,new")
	value[bool](p, `copy.remove(), true`)
	p.want(`bell.store.hold`, false)
}
