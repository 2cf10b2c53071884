package main_test

import "testing"

// A page may move the element to a frame and back. The element keeps its style and its place there, shows each row once, and the page can
// render nodes of the frame.
func testElementFrame(_ *testing.T, s *inboxStage) {
	s.insert("one", "two")
	p := s.open()
	value[bool](p, `window.bell = bell, window.frame = document.createElement("iframe"), [frame.width, frame.height] = [600, 400], document.querySelector("main").append(frame), true`)
	move := func(to string) {
		p.t.Helper()
		value[bool](p, to+`.body.append(bell), true`)
		p.want(`bell.open = true, titles().join()`, "two,one")
		p.want(`root().adoptedStyleSheets.length`, 1.0)
		p.want(`(({ left, top, bottom }) => left >= 0 && top >= 40 && bottom <= `+to+`.defaultView.innerHeight)(find(".panel")[0].getBoundingClientRect())`, true)
	}
	move(`frame.contentDocument`)
	value[bool](p, `window.states = [], bell.addEventListener("toggle", ({ newState }) => states.push(newState)),
		frame.contentDocument.body.dispatchEvent(new frame.contentWindow.KeyboardEvent("keydown", { key: "Escape", bubbles: true, cancelable: true })), true`)
	p.await(`states.join() === "closed"`)
	value[bool](p, `bell.render = ({ data }) => Object.assign(frame.contentDocument.createElement("b"), { textContent: data }), bell.open = true, true`)
	p.await(`[...bell.querySelectorAll("b")].map((b) => b.textContent).join() === "two,one" && states.join() === "closed,open"`)
	value[bool](p, `bell.render = undefined, bell.open = false, true`)
	move(`document`)
}

// Rows are seen in a window that the page has opened, although the page itself may be hidden.
func testElementWindow(_ *testing.T, s *inboxStage) {
	s.insert("one")
	p := s.open()
	value[bool](p, `window.bell = bell, window.other = open("", "", "width=600,height=500"), other.document.body.append(bell), bell.open = true, true`)
	p.await(`bell.store.unseenCount === 0`)
	p.want(`[root().adoptedStyleSheets.length, titles().join()].join()`, "1,one")
	value[bool](p, `document.body.append(bell), other.close(), true`)
}
