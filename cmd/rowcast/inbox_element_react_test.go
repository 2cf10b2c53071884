package main_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"rowcast/sql/dbtest"
)

const reactHTML = `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Stage</title><script src="/helpers.js"></script><script src="/react.js"></script>
<script type="module" src="/app.js"></script></head><body><main></main></body></html>`

// reactApp renders <rowcast-inbox>, and a component that uses a RowcastInbox without the element. Both are mounted in
// React's strict mode.
const reactApp = `
	import { RowcastInbox } from "/rowcast-inbox.js";
	const { StrictMode, createElement, useEffect, useState } = React;
	window.stores = [];
	window.clicked = [];
	function Count() {
		const [count, setCount] = useState(0);
		useEffect(() => {
			const inbox = new RowcastInbox({ events: "/events?uid=bob" });
			stores.push(inbox);
			inbox.addEventListener("change", () => setCount(inbox.unreadCount));
			return () => inbox.close();
		}, []);
		return createElement("output", {}, count);
	}
	const bell = { id: "bell", events: "/events?uid=alice", "title-badge": "", open: true, strings: { title: "Inbox" },
		render: (item) => "<" + item.data + ">", "onrowcast-click": ({ detail }) => clicked.push(detail.item.data) };
	const root = ReactDOM.createRoot(document.querySelector("main"));
	window.mount = (key) => root.render(createElement(StrictMode, { key }, createElement("rowcast-inbox", bell), createElement(Count)));
	window.unmount = () => root.unmount();
	mount(1);`

// reactScript returns a script that sets window.React and window.ReactDOM. It loads the CommonJS modules of React,
// which a browser cannot import.
func reactScript(t *testing.T) string {
	t.Helper()
	modules := dbtest.NodeModules(t, ".ci/react", "react", "react-dom")
	script := "{ const process = { env: {} }, modules = {}, loaded = {}, require = (name) => { if (!loaded[name]) modules[name]((loaded[name] = { exports: {} }), loaded[name].exports); return loaded[name].exports; };\n"
	for name, file := range map[string]string{
		"react": "react/cjs/react", "react-dom": "react-dom/cjs/react-dom", "react-dom/client": "react-dom/cjs/react-dom-client", "scheduler": "scheduler/cjs/scheduler",
	} {
		text, err := os.ReadFile(filepath.Join(modules, filepath.FromSlash(file+".development.js")))
		if err != nil {
			t.Fatal(err)
		}
		script += fmt.Sprintf("modules[%q] = (module, exports) => {\n%s\n};\n", name, text)
	}
	return script + `window.React = require("react"); window.ReactDOM = require("react-dom/client"); }`
}

// React's strict mode runs each effect twice. Even so, each inbox has one stream, and no stream is left after the
// components were removed.
func testElementReact(t *testing.T, s *inboxStage) {
	for path, file := range map[string][2]string{"/react": {"text/html", reactHTML}, "/react.js": {"text/javascript", reactScript(t)}, "/app.js": {"text/javascript", reactApp}} {
		s.serve(path, file[0], file[1])
	}
	s.insert("one")
	s.insertFor("bob", "for bob")
	streams := func(n int64) {
		t.Helper()
		waitWithin(t, browserLimit, fmt.Sprintf("%d open streams", n), func() bool { return s.streams.Load() == n })
	}
	p := s.visit("/react", "")
	const open = `window.bell?.store?.state === "open" && stores.at(-1).state === "open" && document.querySelector("output").textContent === "1" &&
		document.querySelector("[slot^=item-]")?.textContent === "<one>"`
	p.await(open)
	p.want(`stores.map(({ state }) => state).join()`, "closed,open") // the strict mode has run the effect twice
	streams(2)
	p.want(`[bell.open, find("h2")[0].textContent, document.title].join()`, "true,Inbox,(1) Stage")
	value[bool](p, `find(".link")[0].click(), true`)
	p.await(`clicked.join() === "one" && bell.store.unreadCount === 0`)
	// Another key removes all components and mounts new ones. The new element uses the stream of the old element.
	value[bool](p, `window.kept = [bell, bell.store], mount(2), true`)
	p.await(`window.bell !== kept[0] && ` + open)
	p.want(`bell.store === kept[1] && stores.map(({ state }) => state).join()`, "closed,closed,closed,open")
	streams(2)
	value[bool](p, `unmount(), true`)
	p.await(`kept[1].state === "closed" && stores.every(({ state }) => state === "closed") && document.title === "Stage"`)
	streams(0)
	p.want(`failures.join()`, "")
}
