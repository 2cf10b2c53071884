package main_test

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"
	"github.com/jackc/pgx/v5"

	"rowcast/stream"
)

// A journey is a page with rowcast.js that receives rows from a hub, while something happens to the page, to the hub or
// to the network between them.
type journey struct {
	*cast // inserts the rows; only newJourneyBehindNginx sets its hubs and its nginx
	page  page

	// newJourneyBehindNginx sets none of the following fields.

	source string
	hub    *rollingHub // if the hub requires tokens, only the field address is set
	cutter *cutter     // between the page and the hub, if the source uses it

	site *httptest.Server // serves the page, and passes /events on to the hub
	// cookie is the name of the cookie with the token. The journeys in one browser must not share a cookie, and cookies
	// do not depend on the port, so each journey has a name of its own.
	cookie string
	// If signedOut is true, the site answers requests for a token with 401. Otherwise, it sends a token that expires
	// after 9 to 10 s. The page renews it after half of this time.
	signedOut atomic.Bool
}

const journeyHTML = `<!doctype html><script type="module" src="/page.js"></script>`

// journeyScripts are the scripts of the page. They work with a strict Content-Security-Policy. SOURCE stands for the
// JavaScript expression of the page's source.
var journeyScripts = map[string]string{
	"/page.js": `import { RowcastSource } from "/rowcast.js";
		Object.assign(window, { heard: JSON.parse(sessionStorage.heard ?? "[]"), states: [], resets: [], whys: [], shown: [], untimed: 0 });
		addEventListener("pagehide", () => sessionStorage.heard = JSON.stringify(heard));
		addEventListener("pageshow", ({ persisted }) => shown.push(persisted));
		const token = async (why) => {
			whys.push(why);
			const answer = await fetch("/token");
			return answer.ok ? answer.text() : "";
		};
		async function underServiceWorker() {
			const controlled = new Promise((done) => navigator.serviceWorker.oncontrollerchange = done);
			await navigator.serviceWorker.register("/service-worker.js");
			await controlled;
			return new RowcastSource("/events?uid=alice");
		}
		function inWorker() {
			const source = {};
			new Worker("/worker.js", { type: "module" }).onmessage = ({ data: [handler, event] }) => {
				source.state = event.state ?? source.state;
				source[handler](event);
			};
			return source;
		}
		window.source = SOURCE;
		source.onmessage = ({ data, time }) => {
			heard.push(data);
			if (!(Math.abs(performance.timeOrigin + performance.now() - time) < 60_000)) untimed++;
		};
		source.onstate = ({ state, reason, status }) => states.push([state, status ?? reason].filter(Boolean).join(" "));
		source.onreset = ({ data }) => resets.push(data.reason);`,
	"/worker.js": `import { RowcastSource } from "/rowcast.js";
		const source = new RowcastSource("events?uid=alice");
		source.onmessage = ({ data, time }) => postMessage(["onmessage", { data, time }]);
		source.onstate = ({ state, reason, status }) => postMessage(["onstate", { state, reason, status }]);
		source.onreset = ({ data }) => postMessage(["onreset", { data }]);`,
	"/service-worker.js": `addEventListener("install", () => skipWaiting());
		addEventListener("activate", (event) => event.waitUntil(clients.claim()));
		addEventListener("fetch", (event) => event.respondWith(fetch(event.request)));`,
}

// newJourney starts a hub, a proxy that can cut streams, and a site. source is a JavaScript expression for the
// RowcastSource of the page. In it, HUB and CUTTER stand for the URLs of the hub and of the proxy, and CURSOR for the
// cursor of the database before the first row. args are more arguments of the hub. By
// default, the heartbeat interval of a hub without tokens is 1 s. On a slow machine, such a stream may be delayed or given up at any time, so a
// test that does not allow this needs a longer interval.
func newJourney(t *testing.T, dsn, source string, args ...string) *journey {
	t.Helper()
	j := &journey{cast: &cast{t: t, dsn: dsn}}
	j.site = httptest.NewServer(http.HandlerFunc(j.serve))
	t.Cleanup(func() {
		j.site.CloseClientConnections()
		j.site.Close()
	})
	j.cookie = fmt.Sprint("journey", j.site.Listener.Addr().(*net.TCPAddr).Port)
	if strings.Contains(source, "token") || strings.Contains(source, "withCredentials") {
		h := startHub(t, j.dsn, append([]string{"--jwt-secret", secret, "--jwt-leeway", "0s", "--jwt-cookie", j.cookie, "--cors-origin", j.site.URL, "--retry", "200ms"}, args...)...)
		j.hub = &rollingHub{address: strings.TrimPrefix(h.url, "http://")}
	} else {
		j.hub = &rollingHub{t: t, dsn: j.dsn, address: freeAddress(t), args: append([]string{"--heartbeat", "1s"}, args...)}
		j.hub.start()
	}
	j.cutter = startCutter(t, j.hub.address, "")
	j.source = strings.NewReplacer("HUB", "http://"+j.hub.address, "CUTTER", "http://"+j.cutter.address, "CURSOR", queried[string](t, dsn, "SELECT rowcast.cursor()")).Replace(source)
	return j
}

func (j *journey) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; worker-src 'self'; connect-src 'self' http://"+j.hub.address+" http://"+j.cutter.address)
	w.Header().Set("Content-Type", "text/javascript")
	switch path := r.URL.Path; path {
	case "/", "/other":
		w.Header().Set("Content-Type", "text/html")
		if strings.Contains(j.source, "withCredentials") {
			w.Header().Set("Set-Cookie", j.cookie+"="+signed(j.t, jwt.MapClaims{"sub": cmp.Or(r.FormValue("user"), "alice"), "exp": time.Now().Add(time.Hour).Unix()}))
		}
		_, _ = io.WriteString(w, map[string]string{"/": journeyHTML, "/other": "<!doctype html>"}[path])
	case "/rowcast.js":
		_, _ = w.Write(stream.Script)
	case "/events":
		w.Header().Del("Content-Type")
		proxy := httputil.NewSingleHostReverseProxy(&url.URL{Scheme: "http", Host: j.hub.address})
		proxy.ErrorHandler = func(w http.ResponseWriter, _ *http.Request, _ error) { w.WriteHeader(http.StatusBadGateway) }
		proxy.ServeHTTP(w, r)
	case "/token":
		if j.signedOut.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		_, _ = io.WriteString(w, signed(j.t, jwt.MapClaims{"exp": time.Now().Add(10 * time.Second).Unix()}))
	default:
		_, _ = io.WriteString(w, strings.ReplaceAll(journeyScripts[path], "SOURCE", j.source))
	}
}

// travel inserts rows while something happens, and checks that the page receives each row once and in order.
func (j *journey) travel(happens func(*journey)) {
	j.t.Helper()
	ctx, stop := context.WithCancel(j.t.Context())
	rows := 0
	var writing sync.WaitGroup
	writing.Go(func() { rows = j.write(ctx) })
	defer writing.Wait()
	defer stop()
	happens(j)
	stop()
	writing.Wait()
	j.page.await("heard.at(-1) === 0")
	j.check("the page", value[[]int](j.page, "heard"), rows)
	if n := value[int](j.page, "untimed"); n > 0 {
		j.t.Errorf("%d rows have no time, or a time that differs by a minute or more from their arrival, want none", n)
	}
	if resets := value[[]string](j.page, "resets"); len(resets) > 0 {
		j.t.Errorf("the page was reset with the reasons %q, want no reset", resets)
	}
}

// hears waits until the stream of the page is open and the page has received 10 more rows.
func (j *journey) hears() {
	j.t.Helper()
	j.page.await(fmt.Sprintf("source.state === 'open' && heard.length >= %d", value[int](j.page, "window.heard?.length ?? 0")+10))
}

// misses waits until 20 more rows were inserted, whether or not the page has received them.
func (j *journey) misses() {
	j.t.Helper()
	count := func() int { return queried[int](j.t, j.dsn, "SELECT count(*) FROM rowcast.notifications") }
	before := count()
	waitFor(j.t, "20 more rows", func() bool { return count() >= before+20 })
}

// queried returns the value of a query.
func queried[T any](t *testing.T, dsn, query string) (value T) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	if err := conn.QueryRow(t.Context(), query).Scan(&value); err != nil {
		t.Fatal(err)
	}
	return value
}
