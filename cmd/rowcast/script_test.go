package main_test

import (
	"fmt"
	"strings"
	"testing"
	"time"
)

// testScript tests rowcast.js with a fake hub.
func testScript(t *testing.T, chromium browser) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T, *stage){
		"after an error status, a stream is opened again with growing waits, and resumes": testRefused,
		"after silence, a stream is opened again and resumes":                             testSilence,
		"a stream with heartbeats stays open":                                             testBeats,
		"a NOTIFY message does not change the cursor":                                     testMessage,
		"after onBye has renewed the credentials, a stream is opened again":               testBye,
		"without a renewal, a stream stays open after a bye":                              testByeWithoutRenewal,
		"after an error status, the credentials are renewed first":                        testRenewalOfRefused,
		"onReset is called":                                             testReset,
		"a stream resumes from the option lastEventId":                  testGivenCursor,
		"listeners are added and removed, and do not affect each other": testListeners,
		"no stream is opened after close":                               testClose,
		"onState can close the stream":                                  testCloseAtOnce,
		"cookies are sent to another origin only with withCredentials":  testCredentials,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.page = chromium.profile(t).open(t, s.URL)
			test(t, s)
		})
	}
}

const long = time.Hour // a heartbeat interval that is longer than any test

func testRefused(t *testing.T, s *stage) {
	s.listen("{}")
	v := s.next()
	v.wantCursor("")
	v.greet("c-1", long)
	v.send("event: notify\ndata: {\"n\": 1}\nid: c-2\n\n")
	s.await("heard.length === 1")
	v.leave()
	v = s.next() // the EventSource reconnects by itself
	v.wantCursor("c-2")
	v.refuse()
	before := v.arrived
	for _, least := range []time.Duration{500 * time.Millisecond, time.Second} {
		v = s.next()
		v.wantCursor("c-2")
		if waited := v.arrived.Sub(before); waited < least {
			t.Errorf("the stream was opened again after %v, want at least %v", waited, least)
		}
		before = v.arrived
		if least < time.Second {
			v.refuse()
		}
	}
	v.greet("c-2", long)
	v.send("data: {\"n\": 2}\nid: c-3\n\n")
	s.await("heard.length === 2")
	s.want("heard", []any{[]any{"notify", map[string]any{"n": 1.}}, []any{"message", map[string]any{"n": 2.}}})
	s.want("states", []any{"connecting", "open", "connecting", "open"})
	s.want("stream.lastEventId", "c-3")
}

func testSilence(t *testing.T, s *stage) {
	const heartbeat = 400 * time.Millisecond
	s.listen("{}")
	v := s.next()
	v.greet("c-1", heartbeat, "event: notify\ndata: 1\nid: c-2\n\n")
	first := s.next()
	first.wantCursor("c-2")
	v.gone()
	// After a silence, the client's limit is five heartbeat intervals instead of two and a half, because a large event may
	// be arriving slowly. The limit stays until an event other than rowcast.hello has arrived. On a loaded machine, the
	// first request may arrive late.
	first.greet("c-2", heartbeat)
	second := s.next()
	if waited := second.arrived.Sub(first.arrived); waited < 4*heartbeat {
		t.Errorf("the next stream was opened after %v, want at least %v", waited, 4*heartbeat)
	}
	second.wantCursor("c-2")
	s.want("heard", []any{[]any{"notify", 1.}})
}

func testBeats(_ *testing.T, s *stage) {
	const heartbeat = time.Second
	s.listen("{}")
	v := s.next()
	v.greet("c-1", heartbeat)
	for i := range 6 {
		v.send(fmt.Sprintf("event: rowcast.beat\ndata: {\"behind\": 0}\nid: c-%d\n\n", i+2))
		s.quiet(heartbeat / 2)
	}
	v.send("event: rowcast.toolarge\ndata: {}\nid: c-8\n\n" + "event: rowcast.unreadable\ndata: {}\nid: c-11\n\n")
	s.await("stream.lastEventId === 'c-11'")
	s.want("states", []any{"connecting", "open"})
	s.want("heard", []any{})
}

func testMessage(_ *testing.T, s *stage) {
	s.listen("{}")
	v := s.next()
	v.greet("c-1", long)
	v.send("data: 1\nid: c-2\n\n" + "data: \"a message\"\n\n")
	s.await("heard.length === 2")
	s.want("stream.lastEventId", "c-2")
	v.leave()
	v = s.next()
	v.refuse()
	s.next().wantCursor("c-2")
}

func testReset(_ *testing.T, s *stage) {
	s.listen("{}")
	v := s.next()
	v.greet("c-1", long)
	v.send("event: rowcast.reset\ndata: {\"reason\": \"expired\"}\nid: c-1\n\n")
	s.await("resets.length === 1")
	s.want("resets", []any{"expired"})
	s.want("states", []any{"connecting", "open"})
}

func testGivenCursor(_ *testing.T, s *stage) {
	s.listen(`{ lastEventId: "77-1042-1043--aa-bb" }`)
	s.next().wantCursor("77-1042-1043--aa-bb")
}

func testListeners(_ *testing.T, s *stage) {
	s.listen("{ events: [] }")
	value[bool](s.page, `
		stream.on("extra", () => { heard.push("first"); throw new Error("on purpose"); }),
		stream.on("extra", (data, event) => heard.push([data, event.type, event.lastEventId])),
		window.off = stream.on("extra", () => heard.push("never")),
		off(), true`)
	v := s.next()
	v.greet("c-1", long)
	v.send("event: extra\ndata: {\"a\": [1]}\nid: c-2\n\n")
	s.await("heard.length >= 2")
	s.want("heard", []any{"first", []any{map[string]any{"a": []any{1.}}, "extra", "c-2"}})
}

func testClose(_ *testing.T, s *stage) {
	const heartbeat = time.Second
	s.listen("{}")
	v := s.next()
	v.greet("c-1", heartbeat)
	s.await("stream.state === 'open'")
	value[bool](s.page, "stream.close(), true")
	v.gone()
	s.quiet(3 * heartbeat)
	s.want("states", []any{"connecting", "open", "closed"})
}

func testCloseAtOnce(_ *testing.T, s *stage) {
	const heartbeat = 50 * time.Millisecond
	s.listen("{ onState: (state) => { states.push(state); if (state === 'open') stream.close(); } }")
	v := s.next()
	v.greet("c-1", heartbeat)
	v.gone()
	s.quiet(5 * heartbeat)
	s.want("states", []any{"connecting", "open", "closed"})
}

func testCredentials(t *testing.T, s *stage) {
	other := newStage(t)
	other.page = s.page
	// The stage other is the hub, at another port of the same host. Cookies do not depend on the port, so the browser could send it the
	// page's cookie. It must do so only with withCredentials.
	value[string](s.page, `document.cookie = "session=1"`)
	for options, want := range map[string]string{"{}": "", "{ withCredentials: true }": "session=1"} {
		s.await("window.listen")
		value[bool](s.page, fmt.Sprintf("listen('%s/events', %s), true", other.URL, options))
		v := other.next()
		if got := v.request.Header.Get("Cookie"); got != want {
			t.Errorf("%s: the hub received the cookie %q, want %q", options, got, want)
		}
		v.answer.Header().Set("Access-Control-Allow-Origin", strings.TrimSuffix(s.URL, "/"))
		v.answer.Header().Set("Access-Control-Allow-Credentials", "true")
		v.greet("c-1", long)
		s.await("stream.state === 'open'")
		value[bool](s.page, "stream.close(), true")
	}
}

const byeText = "event: rowcast.bye\ndata: {\"reason\": \"expired\", \"expires_in\": 30}\n\n"

func testBye(_ *testing.T, s *stage) {
	s.listen("{ onBye: (...args) => { heard.push(args); return new Promise(done => window.renewed = done); } }")
	v := s.next()
	v.greet("c-1", long, "data: 1\nid: c-2\n\n"+byeText)
	s.await("heard.length === 2")
	s.want("heard", []any{[]any{"message", 1.}, []any{"expired", 30.}})
	s.quiet(100 * time.Millisecond) // the old stream continues until the page has renewed its credentials
	value[bool](s.page, "renewed(), true")
	s.next().wantCursor("c-2")
	v.gone()
}

func testByeWithoutRenewal(_ *testing.T, s *stage) {
	for _, does := range []string{"{}", "{ onBye: () => { heard.push(0); } }", "{ onBye: async () => { heard.push(0); throw new Error('on purpose'); } }"} {
		s.listen(does)
		v := s.next()
		v.greet("c-1", long, byeText+"data: 1\n\n")
		s.await("heard.at(-1)?.[1] === 1 && stream.state === 'open'")
		s.quiet(100 * time.Millisecond)
		value[bool](s.page, "stream.close(), heard.length = 0, true")
	}
}

func testRenewalOfRefused(_ *testing.T, s *stage) {
	s.listen("{ onBye: (...args) => { heard.push(args); return new Promise(done => window.renewed = done); } }")
	s.next().refuse()
	s.await("heard.length === 1")
	s.want("heard", []any{[]any{"closed", 0.}})
	s.quiet(100 * time.Millisecond)
	value[bool](s.page, "renewed(), true")
	v := s.next()
	v.greet("c-1", long)
	s.await("stream.state === 'open'")
}
