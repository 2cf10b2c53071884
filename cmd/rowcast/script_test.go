package main_test

import (
	"fmt"
	"maps"
	"strings"
	"testing"
	"time"
)

// testScript tests rowcast.js in a page, with a fake hub. The tests in stream/web/test need no browser.
func testScript(t *testing.T, b browser) {
	t.Parallel()
	tests := map[string]func(*testing.T, *stage){
		"after silence, a stream is opened again and resumes":          testSilence,
		"before a token expires, a stream opens with a new token":      testBye,
		"a listener can close the stream":                              testCloseAtOnce,
		"cookies are sent to another origin only with withCredentials": testCredentials,
	}
	if b.driver == nil { // these tests do not depend on the browser, so one browser is enough
		maps.Copy(tests, map[string]func(*testing.T, *stage){
			"after an error status, a stream is opened again after at least 1 s, and resumes": testRefused,
			"no stream is opened after close":                                                 testClose,
			"a stream with heartbeats stays open":                                             testBeats,
			"a NOTIFY message does not change the cursor":                                     testMessage,
			"a reset is an event":                                                             testReset,
			"a stream resumes from the option lastEventId":                                    testGivenCursor,
			"listeners do not affect each other":                                              testListeners,
		})
	}
	for name, test := range tests {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			s := newStage(t)
			s.page = b.profile(t).open(t, s.URL)
			test(t, s)
		})
	}
}

const long = time.Hour // a heartbeat interval that is longer than any test

func testRefused(t *testing.T, s *stage) {
	s.listen("{}")
	v := s.next()
	v.wantCursor("")
	v.greet("1-c", long)
	v.send("event: notify\ndata: {\"n\": 1}\nid: 2-c\n\n")
	s.await("heard.length === 1")
	v.leave()
	var before time.Time
	for failures, least := range []time.Duration{0, time.Second, time.Second} {
		v = s.next()
		v.wantCursor("2-c")
		if waited := v.arrived.Sub(before); waited < least {
			t.Errorf("the stream was opened again after %v, want at least %v", waited, least)
		}
		before = v.arrived
		if failures < 2 {
			v.refuse(502)
		}
	}
	v.greet("2-c", long)
	v.send("data: {\"n\": 2}\nid: 3-c\n\n")
	s.await("heard.length === 2")
	s.want("heard", []any{[]any{"notify", map[string]any{"n": 1.}}, []any{"message", map[string]any{"n": 2.}}})
	s.want("states", []any{"open", "retrying end", "retrying status", "retrying status", "open"})
	s.want("stream.lastEventId", "3-c")
}

func testSilence(t *testing.T, s *stage) {
	const heartbeat = 3 * time.Second // so that a timer that is late by less than 3 s does not skip the state "delayed"
	s.listen("{}")
	v := s.next()
	v.greet("1-c", heartbeat, "event: notify\ndata: 1\nid: 2-c\n\n")
	first := s.next()
	first.wantCursor("2-c")
	v.gone()
	if waited := first.arrived.Sub(v.arrived); waited < 5*heartbeat/2 {
		t.Errorf("the next stream was opened after %v, want at least %v", waited, 5*heartbeat/2)
	}
	s.want("heard", []any{[]any{"notify", 1.}})
	s.want("states", []any{"open", "delayed silence", "retrying silence"})
}

func testBeats(_ *testing.T, s *stage) {
	const heartbeat = 4 * time.Second // so that a heartbeat may be late by up to 4 s
	s.listen("{}")
	v := s.next()
	v.greet("1-c", heartbeat)
	for i := range 6 {
		v.send(fmt.Sprintf("event: rowcast.beat\ndata: {\"behind\": 0}\nid: %d-c\n\n", i+2))
		s.quiet(heartbeat / 2)
	}
	s.await("stream.lastEventId === '7-c'")
	s.want("states", []any{"open"})
	s.want("heard", []any{})
	v.send("event: rowcast.beat\ndata: {\"behind\": 9}\nid: 8-c\n\n")
	s.await("states.length === 2")
	v.send("event: rowcast.toolarge\ndata: {}\nid: 8-c\n\n" + "event: rowcast.unreadable\ndata: {}\nid: 11-c\n\n")
	s.await("stream.lastEventId === '11-c'")
	s.want("states", []any{"open", "delayed database", "open"})
	s.want("heard", []any{[]any{"rowcast.toolarge", map[string]any{}}, []any{"rowcast.unreadable", map[string]any{}}})
}

func testMessage(_ *testing.T, s *stage) {
	s.listen("{}")
	v := s.next()
	v.greet("1-c", long)
	v.send("data: 1\nid: 2-c\n\n" + "data: \"a message\"\n\n")
	s.await("heard.length === 2")
	s.want("stream.lastEventId", "2-c")
	v.leave()
	v = s.next()
	v.refuse(503)
	s.next().wantCursor("2-c")
}

func testReset(_ *testing.T, s *stage) {
	s.listen("{}")
	v := s.next()
	value[bool](s.page, "stream.onreset = (event) => heard.push(event.data.reason), true")
	v.greet("1-c", long)
	v.send("event: rowcast.reset\ndata: {\"reason\": \"expired\"}\nid: 1-c\n\n")
	s.await("heard.length === 1")
	s.want("heard", []any{"expired"})
	s.want("states", []any{"open"})
}

func testGivenCursor(_ *testing.T, s *stage) {
	s.listen(`{ lastEventId: "77-1042-1043--aa-bb" }`)
	s.next().wantCursor("77-1042-1043--aa-bb")
}

func testListeners(_ *testing.T, s *stage) {
	s.listen("{}")
	value[bool](s.page, `
		window.onerror = (message) => void heard.push(message),
		stream.addEventListener("extra", () => { throw new Error("on purpose"); }),
		stream.addEventListener("extra", ({ data, type, id }) => heard.push([data, type, id])),
		window.never = () => heard.push("never"),
		stream.addEventListener("extra", never),
		stream.removeEventListener("extra", never), true`)
	v := s.next()
	v.greet("1-c", long)
	v.send("event: extra\ndata: {\"a\": [1]}\nid: 2-c\n\n")
	s.await("heard.length >= 3")
	s.want("heard", []any{[]any{"extra", map[string]any{"a": []any{1.}}}, "Uncaught Error: on purpose", []any{map[string]any{"a": []any{1.}}, "extra", 2.}})
}

func testClose(_ *testing.T, s *stage) {
	const heartbeat = time.Second
	s.listen("{}")
	v := s.next()
	// The page closes the stream itself, because the silence must begin after that.
	value[bool](s.page, "stream.addEventListener('rowcast.state', ({ state }) => { if (state === 'open') stream.close(); }), true")
	v.greet("1-c", heartbeat)
	v.gone()
	s.quiet(3 * heartbeat)
	s.want("states", []any{"open", "closed"})
}

func testCloseAtOnce(_ *testing.T, s *stage) {
	const heartbeat = 50 * time.Millisecond
	s.listen("{}")
	value[bool](s.page, "stream.addEventListener('first', () => stream.close()), true")
	v := s.next()
	v.greet("1-c", heartbeat, "event: first\ndata: 1\nid: 2-c\n\nevent: second\ndata: 1\nid: 3-c\n\n")
	v.gone()
	s.quiet(5 * heartbeat)
	s.want("states", []any{"open", "closed"})
	s.want("heard", []any{[]any{"first", 1.}})
	value[bool](s.page, "stream.open(), true")
	s.next().wantCursor("2-c")
}

func testCredentials(t *testing.T, s *stage) {
	other := newStage(t)
	other.page = s.page
	// The variable other stands for the hub, which listens at another port of the same host. Cookies do not depend on the
	// port, so the browser could send the page's cookie to the hub. It must do so only with withCredentials.
	value[string](s.page, `document.cookie = "session=1"`)
	for options, want := range map[string]string{"{ lastEventId: '1-c' }": "", "{ lastEventId: '1-c', withCredentials: true }": "session=1"} {
		s.await("window.listen")
		value[bool](s.page, fmt.Sprintf("listen('%s/events', %s), true", other.URL, options))
		v := other.next()
		v.wantCursor("1-c")
		if v.request.Method != "GET" {
			t.Errorf("%s: the page sent a preflight request, want none", options)
		}
		got := "" // other cookies may come from tests that use the same profile
		if cookie, err := v.request.Cookie("session"); err == nil {
			got = cookie.String()
		}
		if got != want {
			t.Errorf("%s: the hub received the cookie %q, want %q", options, got, want)
		}
		v.answer.Header().Set("Access-Control-Allow-Origin", strings.TrimSuffix(s.URL, "/"))
		v.answer.Header().Set("Access-Control-Allow-Credentials", "true")
		v.greet("1-c", long)
		s.await("stream.state === 'open'")
		value[bool](s.page, "stream.close(), true")
	}
}

func testBye(t *testing.T, s *stage) {
	s.listen("{ token: (why) => why === 'open' ? 'first' : new Promise((done) => { heard.push(why); window.renewed = done; }) }")
	v := s.next()
	v.greet("1-c", long, "data: 1\nid: 2-c\n\nevent: rowcast.bye\ndata: {\"reason\": \"expired\", \"expires_in\": 30}\n\n")
	s.await("heard.length === 2")
	s.want("heard", []any{[]any{"message", 1.}, "expired"})
	s.quiet(100 * time.Millisecond) // the old stream continues until there is a new token
	v.send("data: 2\nid: 3-c\n\n")
	s.await("heard.length === 3")
	value[bool](s.page, "renewed('second'), true")
	next := s.next()
	next.wantCursor("3-c")
	if got, want := v.request.Header.Get("Authorization")+", "+next.request.Header.Get("Authorization"), "Bearer first, Bearer second"; got != want {
		t.Errorf("the streams were opened with %q, want %q", got, want)
	}
	v.gone()
	next.greet("3-c", long)
	s.want("states", []any{"open"})
}
