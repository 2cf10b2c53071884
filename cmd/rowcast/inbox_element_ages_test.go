package main_test

import "testing"

// An update of the list makes one formatter for the ages of all rows, and does not touch the ages that stay.
func testElementAges(_ *testing.T, s *inboxStage) {
	s.insert("one", "two", "three")
	p := s.open()
	p.want(`bell.open = true, titles().length`, 3.0)
	p.want(`(() => {
		let made = 0;
		for (const name of ["RelativeTimeFormat", "DateTimeFormat"]) Intl[name] = class extends Intl[name] { constructor(...args) { super(...args); made++; } };
		const texts = find("time").map((time) => time.firstChild);
		bell.store.dispatchEvent(new Event("change"));
		return [made, find("time").every((time, i) => time.firstChild === texts[i])].join(); })()`, "2,true")
}
