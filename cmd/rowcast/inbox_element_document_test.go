package main_test

import "testing"

// A page may move the element to a frame and back. The element keeps its style and its place there, shows each row once, and the page can
// render nodes of the frame.
func testElementFrame(_ *testing.T, s *inboxStage) {
	s.insert("one", "two")
	p := s.open()
	value[bool](p, `window.bell = bell, window.frame = document.createElement("iframe"), [frame.width, frame.height] = [600, 400], frame.onload = () => window.loaded = true,
		document.querySelector("main").append(frame), true`)
	p.await(`window.loaded`) // Firefox replaces the first document of a frame
	value[bool](p, `frame.contentDocument.body.style.paddingTop = "350px", true`)
	move := func(to, place string) {
		p.t.Helper()
		value[bool](p, to+`.body.append(bell), true`)
		p.want(`bell.open = true, titles().join()`, "two,one")
		p.want(`root().adoptedStyleSheets.length`, 1.0)
		p.want(`((panel, bell) => panel.left >= 0 && panel.top >= 0 && panel.bottom <= `+to+`.defaultView.innerHeight && `+place+`)(find(".panel")[0].getBoundingClientRect(), bell.getBoundingClientRect())`, true)
	}
	move(`frame.contentDocument`, `panel.bottom <= bell.top`) // there is little space below the bell
	value[bool](p, `window.states = [], bell.addEventListener("toggle", ({ newState }) => states.push(newState)),
		frame.contentDocument.body.dispatchEvent(new frame.contentWindow.KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true })), true`)
	p.await(`states.join() === "closed"`)
	value[bool](p, `bell.render = ({ data }) => Object.assign(frame.contentDocument.createElement("b"), { textContent: data }), bell.open = true, true`)
	p.await(`[...bell.querySelectorAll("b")].map((b) => b.textContent).join() === "two,one" && states.join() === "closed,open"`)
	value[bool](p, `bell.render = undefined, bell.open = false, true`)
	move(`document`, `panel.top >= 40`)
	value[bool](p, `bell.open = false, frame.contentDocument.body.append(bell), frame.remove(), true`)
	p.await(`bell.store === undefined`)
	value[bool](p, `document.body.append(bell), bell.open = true`)
	p.await(`titles().join() === "two,one"`)
}

// Rows are seen in a window that the page has opened, although the page itself is hidden.
func testElementWindow(_ *testing.T, s *inboxStage) {
	s.insert("one")
	p := s.open()
	value[bool](p, `Object.defineProperty(document, "hidden", { get: () => true }), window.bell = bell, window.other = open("", "", "width=600,height=500"), other.document.body.append(bell), bell.open = true, true`)
	p.await(`bell.store.unseenCount === 0`)
	p.want(`[root().adoptedStyleSheets.length, titles().join()].join()`, "1,one")
	value[bool](p, `document.body.append(bell), other.close(), true`)
}
