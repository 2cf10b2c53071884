package main_test

import (
	"slices"
	"strings"
	"testing"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"
)

// A framework may set new properties render and strings at each rendering. The list keeps its place, the focus and the
// offer to undo.
func testElementRender(_ *testing.T, s *inboxStage) {
	for i := range 20 {
		s.insert(i)
	}
	p := s.open()
	value[bool](p, `window.rerender = (mark) => { bell.strings = { title: "Inbox", new: { other: "{n}" } }; bell.render = (item) => mark + item.data; },
		window.contents = () => [...document.querySelectorAll("[slot^=item-]")], rerender("a"), bell.open = true`)
	p.await(`root().activeElement === find(".panel")[0] && contents().length === 20`)
	value[bool](p, `bell.store.read([bell.store.items[0].id]), find("[title=Archive]")[1].click(), true`)
	p.await(`contents().length === 19`)
	value[bool](p, `find(".scroll")[0].scrollTop = 300, window.link = find(".link")[9], link.focus({ preventScroll: true }), rerender("b"), true`)
	p.want(`contents().map((content) => content.textContent).slice(0, 2).join()`, "b19,b17")
	p.want(`contents().map((content) => content.hasAttribute("data-unread")).slice(0, 2).join()`, "false,true")
	p.want(`[find(".scroll")[0].scrollTop, root().activeElement === link, find(".note button").length, contents().length, find("h2")[0].textContent].join()`, "300,true,1,19,Inbox")
	p.want(`bell.strings = { title: "Post" }, find("h2")[0].textContent`, "Post")
	// The rows of a closed list get their content when the list is opened.
	p.want(`window.rendered = 0, bell.open = false, bell.render = (item) => { rendered++; return "c" + item.data; }, rendered`, 0.0)
	p.want(`bell.open = true, contents()[0].textContent + rendered`, "c1919")
	// A page may add a dictionary when the element is already built. Strings that are set after that apply it.
	p.want(`bell.lang = "de", find("header .text")[0].textContent`, "Mark all as read")
	p.want(`customElements.get("rowcast-inbox").strings.de = { readAll: "Alle gelesen" }, bell.strings = { title: "Post" }, find("header .text")[0].textContent + find("h2")[0].textContent`, "Alle gelesenPost")
}

// A toast stays while it has the focus, also when the next one arrives.
func testElementToastFocus(_ *testing.T, s *inboxStage) {
	p := s.openWith(`
		window.removals = new Map(); // what the toasts have set timers for. The timers do not end
		const [set, clear] = [setTimeout, clearTimeout];
		window.setTimeout = (action, delay, ...args) => {
			if (delay !== 6000) return set(action, delay, ...args);
			const id = set(() => {}, 1e9);
			removals.set(id, action);
			return id;
		};
		window.clearTimeout = (id) => { removals.delete(id); clear(id); };`)
	s.insert("one")
	p.await(`find(".toast").length === 1 && removals.size === 1`)
	p.want(`window.close = find(".toast .icon")[0], close.focus(), removals.size`, 0.0)
	p.want(`find(".toast .link")[0].focus(), close.focus(), removals.size`, 0.0)
	s.insert("two", "three", "four")
	p.await(`bell.store.items.length === 4 && find(".toast .head").map((head) => head.textContent).join() === "one,three,four"`)
	p.want(`root().activeElement === close`, true)
	p.want(`removals.clear(), find(".toast")[0].dispatchEvent(new PointerEvent("pointerenter")), close.blur(), removals.size`, 0.0)
	p.want(`find(".toast")[0].dispatchEvent(new PointerEvent("pointerleave")), removals.size`, 1.0)
	p.want(`[...removals.values()][0](), find(".toast .head").map((head) => head.textContent).join()`, "three,four")
}

// A toast stays while it is under the pointer, also when a fourth one arrives.
func testElementToastPointer(_ *testing.T, s *inboxStage) {
	p := s.openWith(toastsStay)
	s.insert("one", "two", "three")
	p.await(`find(".toast").length === 3 && find(".toast").every((toast) => !toast.getAnimations().length)`)
	at := value[[]float64](p, `window.oldest = find(".toast")[0], (({ left, top }) => [left + 5, top + 5])(oldest.getBoundingClientRect())`)
	p.do(chromedp.MouseEvent(input.DispatchMouseEventTypeMouseMoved, at[0], at[1]))
	p.await(`oldest.matches(":hover")`)
	s.insert("four")
	p.await(`find(".toast .head").length === 3 && find(".toast .head")[2].textContent === "four"`)
	p.want(`oldest.isConnected`, true)
}

// Of several elements that share a store, the first one that is visible announces new rows.
func testElementAnnouncement(_ *testing.T, s *inboxStage) {
	p := s.openWith(toastsStay)
	value[bool](p, `[window.unseen, window.copy] = ["unseen", "copy"].map((id) => Object.assign(bell.cloneNode(), { id })), unseen.hidden = true, document.querySelector(".trap").prepend(unseen), document.body.append(copy), copy.style.display = "contents", true`)
	const announced = `[unseen, bell, copy].map((element) => element.shadowRoot.querySelector("[role=status].sr").textContent).join("|")`
	s.insert("one")
	p.await(announced + ` === "|1 new notification|"`)
	// A toast of an element that is hidden could not be seen, so another element shows it.
	value[bool](p, `bell.hidden = true`)
	s.insert("two", "three")
	p.await(`copy.shadowRoot.querySelectorAll(".toast").length === 2`)
	p.await(announced + `.endsWith("|2 new notifications")`)
	p.want(announced, "|1 new notification|2 new notifications")
}

// An open list and toasts would cover text on each printed page, so they are not printed. All rows of an inline list are
// printed.
func testElementPrint(_ *testing.T, s *inboxStage) {
	p := s.openWith(toastsStay)
	for i := range 20 {
		s.insert(i)
	}
	p.await(`find(".toasts:popover-open").length === 1 && bell.store.items.length === 20`)
	value[bool](p, `window.copy = Object.assign(bell.cloneNode(), { id: "copy" }), copy.toggleAttribute("inline"), document.body.append(copy), true`)
	const printed = `[bell, copy].map((element) => [".bell", ".panel", ".toasts"].filter((part) => element.shadowRoot.querySelector(part).checkVisibility()).join()).join("|")`
	p.want(printed, ".bell,.toasts|.panel")
	if _, err := chromedp.Call(p.ctx, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{Media: "print"}); err != nil {
		p.t.Fatal(err)
	}
	p.want(printed, ".bell|.panel")
	p.want(`bell.open = true, `+printed, ".bell|.panel")
	p.want(`(([panel, scroll, list]) => list.height > 1000 && scroll.height >= list.height && panel.bottom >= scroll.bottom)([".panel", ".scroll", ".list"].map((part) => copy.shadowRoot.querySelector(part).getBoundingClientRect()))`, true)
}

// A row counts as seen when it was visible in the window. An inline list can be outside of the window, or in a part of the page with
// visibility: hidden.
func testElementSeen(_ *testing.T, s *inboxStage) {
	s.insert("one", "two")
	s.insertFor("bob", "for bob")
	s.insertFor("carol", "for carol")
	p := s.open()
	value[bool](p, `window.hidden = Object.assign(bell.cloneNode(), { id: "hidden" }), hidden.setAttribute("events", "/events?uid=carol"), hidden.style.cssText = "visibility: hidden; --rowcast-height: 150px",
		document.body.prepend(hidden), hidden.toggleAttribute("inline")`)
	p.await(`hidden.shadowRoot.querySelectorAll("li").length === 1`)
	value[bool](p, `[window.far, window.near] = ["far", "near"].map((id) => Object.assign(bell.cloneNode(), { id })), document.querySelector("h1").style.marginTop = "5000px",
		near.setAttribute("events", "/events?uid=bob"), near.style.setProperty("--rowcast-height", "150px"), document.body.append(far), document.body.prepend(near), [far, near].every((element) => element.toggleAttribute("inline"))`)
	p.await(`near.store.items.length === 1 && near.store.unseenCount === 0`)
	p.want(`far.store.unseenCount`, 2.0)
	p.want(`hidden.store.unseenCount`, 1.0)
	value[bool](p, `hidden.style.visibility = "", true`)
	p.await(`hidden.store.unseenCount === 0`)
	value[bool](p, `far.scrollIntoView(), true`)
	p.await(`far.store.unseenCount === 0`)
}

// The description of the buttons of a row has the text of the row, whether the element or the page renders it.
func testElementDescriptions(_ *testing.T, s *inboxStage) {
	s.insert("one", "two")
	p := s.open()
	value[bool](p, `bell.render = ({ data }) => (data === "two" ? "rendered" : undefined), bell.open = true`)
	tree, err := chromedp.Call(p.ctx, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	if err != nil {
		p.t.Fatal(err)
	}
	var got []string
	for _, node := range tree.Nodes {
		if node.Name == nil || node.Description == nil {
			continue
		}
		if name := string(node.Name.Value); name == `"Archive"` || name == `"Mark as read"` {
			text, _, _ := strings.Cut(string(node.Description.Value), " ") // without the age of the row
			got = append(got, name+text)
		}
	}
	slices.Sort(got)
	if want := []string{`"Archive""one`, `"Archive""rendered`, `"Mark as read""one`, `"Mark as read""rendered`}; !slices.Equal(got, want) {
		p.t.Errorf("got the buttons %q, want %q", got, want)
	}
}
