package main_test

import (
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

// snippetsHTML is a page that receives events in the two ways that stream/web/README.md shows. HUB stands for the URL
// of the hub.
const snippetsHTML = `<!doctype html><script type="module">
	window.received = [];
	window.source = new EventSource("HUB/events?uid=alice");
	source.addEventListener("notify", e => received.push("EventSource: " + JSON.parse(e.data).msg));
	window.opened = false;
	source.onopen = () => window.opened = true;

	import("HUB/rowcast.js").then(({ RowcastSource }) => {
		window.stream = new RowcastSource("HUB/events?uid=alice");
		stream.addEventListener("notify", event => received.push("rowcast.js: " + event.data.msg));
	});
</script>`

// testOtherOrigins shows, in a real browser, that pages of other ports of this machine receive events from a hub with
// --insecure-uid, and that pages of other hosts do not. All of these pages can load the script rowcast.js.
func testOtherOrigins(t *testing.T, chromium browser) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn)
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, strings.ReplaceAll(snippetsHTML, "HUB", h.url))
	}))
	t.Cleanup(server.Close)
	profile := chromium.profile(t)
	for _, host := range []string{"127.0.0.1", "localhost"} {
		p := profile.open(t, strings.Replace(server.URL, "127.0.0.1", host, 1))
		p.await("window.opened && window.stream?.state === 'open'")
		runSQL(t, dsn, fmt.Sprintf(`INSERT INTO rowcast.notifications (recipient, event, data) VALUES ('alice', 'notify', '{"msg": %q}')`, host))
		p.await("received.length >= 2")
		if got, want := value[string](p, "received.sort().join()"), "EventSource: "+host+",rowcast.js: "+host; got != want {
			t.Errorf("a page of %s received %q, want %q", host, got, want)
		}
		value[bool](p, "source.close(), stream.close(), true")
	}
	p := profile.open(t, strings.Replace(server.URL, "127.0.0.1", foreignHost, 1))
	p.await("source.readyState === EventSource.CLOSED && window.stream")
	if value[bool](p, "window.opened || stream.state === 'open'") {
		t.Error("a page of another host has opened a stream, want none")
	}
	if got, want := h.err.String(), `may not use this hub (the hub's option --cors-origin`; !strings.Contains(got, want) {
		t.Errorf("the hub logged\n%s\nwant %s in it", got, want)
	}
	value[bool](p, "stream.close(), true")
}
