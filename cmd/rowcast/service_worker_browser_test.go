package main_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"testing"

	"rowcast/sql/dbtest"
)

// workerHTML is a page that opens a stream when the service worker controls the page. It records the data of the rows
// in heard, and counts in opened how often a stream began.
const workerHTML = `<!doctype html><script>
	Object.assign(window, { heard: [], opened: 0 });
	(async () => {
		await navigator.serviceWorker.register("/worker.js");
		while (!navigator.serviceWorker.controller) await new Promise((resolve) => setTimeout(resolve, 10));
		const source = new EventSource("/events?uid=alice");
		source.addEventListener("rowcast.hello", () => opened++);
		source.onmessage = (e) => heard.push(JSON.parse(e.data));
	})();
</script>`

// claim makes a service worker control the page that has registered it.
const claim = `self.addEventListener("activate", (event) => event.waitUntil(self.clients.claim()));`

// testServiceWorker shows that an EventSource resumes without loss under the service worker in
// cmd/rowcast/README.md.
func testServiceWorker(t *testing.T, chromium browser) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn, "--retry", "10s") // time to insert a row before the browser reconnects
	target, err := url.Parse(h.url)
	if err != nil {
		t.Fatal(err)
	}
	worker := printed(t, "cmd/rowcast/README.md", "js", "respondWith") + claim
	mux := http.NewServeMux()
	mux.Handle("/events", httputil.NewSingleHostReverseProxy(target))
	mux.HandleFunc("/worker.js", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/javascript")
		_, _ = io.WriteString(w, worker)
	})
	mux.HandleFunc("/{$}", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/html")
		_, _ = io.WriteString(w, workerHTML)
	})
	site := httptest.NewServer(mux)
	t.Cleanup(site.Close)

	insert := func(data string) {
		runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '`+data+`')`)
	}
	p := chromium.profile(t).open(t, site.URL)
	p.await("opened === 1")
	insert("1")
	p.await("heard.length === 1")
	h.disconnect(t, dsn, "alice")
	askUntil(t, h.url+"/metrics", "(?m)^rowcast_streams 0$")
	insert("2") // before the browser reconnects
	p.await("opened === 2")
	insert("3")
	p.await("heard.at(-1) === 3")
	if got := value[string](p, "heard.join()"); got != "1,2,3" {
		t.Errorf("the page received the rows %s, want 1,2,3", got)
	}
}
