package main_test

import (
	"net/http"
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

func TestEndpoints(t *testing.T) {
	t.Parallel()
	h := serve(t, dbtest.Database(t))
	t.Run("health", func(t *testing.T) {
		if got := ask(t, "GET", h.url+"/healthz"); got.status != 200 || got.body != "ok\n" {
			t.Errorf("GET: got %+v, want 200 and the body \"ok\\n\"", got)
		}
		if got := ask(t, "HEAD", h.url+"/healthz"); got.status != 200 {
			t.Errorf("HEAD: got %+v, want 200", got)
		}
	})
	t.Run("readiness", func(t *testing.T) {
		got := askUntil(t, h.url+"/readyz", `^{"ready":true,"postgres":"connected","behind_seconds":\d\.\d+,"lag_seconds":\d\.\d+,"lagging":false,`+
			`"notification_queue":{"ratio":\d[^,]*,"polling":false},"failing":{}}\n$`)
		if got.status != 200 || got.header.Get("Content-Type") != "application/json" {
			t.Errorf("got %+v, want 200 and application/json", got)
		}
	})
	t.Run("scripts", func(t *testing.T) {
		for path, want := range map[string]string{
			"/rowcast.js": "as RowcastSource", "/rowcast-inbox.js": `from"./rowcast-inbox-store.js"`, "/rowcast-inbox-store.js": `from"./rowcast.js"`,
		} {
			got := ask(t, "GET", h.url+path, "Origin", "https://elsewhere.example")
			if got.status != 200 || got.header.Get("Content-Type") != "text/javascript; charset=utf-8" || !strings.Contains(got.body, want) ||
				got.header.Get("Access-Control-Allow-Origin") != "*" {
				t.Errorf("%s: got %+v, want 200, the type text/javascript; charset=utf-8, Access-Control-Allow-Origin *, and a script that contains %s", path, got, want)
			}
			if _, printed, _ := run(t, nil, "client", path[1:]); printed != got.body {
				t.Errorf("rowcast client %s does not print what the hub serves", path[1:])
			}
			if again := ask(t, "GET", h.url+path, "If-None-Match", got.header.Get("ETag")); again.status != 304 {
				t.Errorf("%s with the ETag of the first answer: got %d, want 304", path, again.status)
			}
		}
	})
	t.Run("script with a hash in its name", func(t *testing.T) {
		_, script, _ := run(t, nil, "client")
		_, name, _ := run(t, nil, "client", "--name")
		for path, want := range map[string]string{
			"/rowcast.js":                  "no-cache",
			"/" + strings.TrimSpace(name):  "public, max-age=31536000, immutable",
			"/rowcast-0123456789abcdef.js": "no-cache", // a name with another hash, which an old page may request during an upgrade
		} {
			got := ask(t, "GET", h.url+path)
			if got.status != 200 || got.header.Get("Cache-Control") != want || got.body != script {
				t.Errorf("%s: got %d, Cache-Control %q, the text of rowcast client: %t, want 200, %q, true", path, got.status, got.header.Get("Cache-Control"), got.body == script, want)
			}
		}
	})
	t.Run("not found", func(t *testing.T) {
		for _, path := range []string{"/", "/event", "/events/", "/debug/pprof/", "/../events/x"} {
			got := ask(t, "GET", h.url+path)
			if want := "not found: the stream is at /events\n"; got.status != 404 || got.body != want {
				t.Errorf("%s: got %d, %q, want 404, %q", path, got.status, got.body, want)
			}
		}
	})
	t.Run("methods", func(t *testing.T) {
		for path, allow := range map[string]string{"/events": "GET, HEAD", "/rowcast.js": "GET, HEAD", "/readyz": "GET, HEAD", "/metrics": "GET, HEAD"} {
			got := ask(t, "POST", h.url+path)
			want := "method not allowed: use " + allow + "\n"
			if got.status != 405 || got.header.Get("Allow") != allow || got.body != want {
				t.Errorf("POST %s: got %d, Allow %q, body %q, want 405, Allow %q, body %q", path, got.status, got.header.Get("Allow"), got.body, allow, want)
			}
		}
		if got := ask(t, "BREW", h.url+"/events?uid=a"); got.status != 405 || got.header.Get("Allow") != "GET, HEAD" {
			t.Errorf("BREW /events: got %d, Allow %q, want 405, Allow \"GET, HEAD\"", got.status, got.header.Get("Allow"))
		}
		for _, method := range []string{"HEAD", "BREW"} {
			if got := ask(t, method, h.url+"/nothing"); got.status != 404 || got.header.Values("Allow") != nil {
				t.Errorf("%s /nothing: got %d, Allow %q, want 404 and no Allow", method, got.status, got.header.Values("Allow"))
			}
		}
	})
	t.Run("large request header", func(t *testing.T) {
		if got := ask(t, "GET", h.url+"/healthz", "Cookie", strings.Repeat("x", 14<<10)); got.status != 200 {
			t.Errorf("with a cookie of 14 KiB: got %d, want 200", got.status)
		}
		if got := ask(t, "GET", h.url+"/healthz", "Cookie", strings.Repeat("x", 32<<10)); got.status != 431 {
			t.Errorf("with a cookie of 32 KiB: got %d, want 431", got.status)
		}
	})
}

// A HEAD request for the stream gets the status and the type of GET, but opens no stream. The hub authenticates the
// client as for GET.
func TestHEADOfTheStream(t *testing.T) {
	t.Parallel()
	h := startHub(t, dbtest.Database(t), "--jwt-secret", secret, "--cors-origin", "https://app.example.com")
	for credential, want := range map[string]int{"": 401, "Bearer wrong": 401, "Bearer " + signed(t, nil): 200} {
		got := ask(t, "HEAD", h.url+"/events", "Authorization", credential, "Origin", "https://app.example.com")
		if got.status != want || got.body != "" || got.header.Get("Access-Control-Allow-Origin") != "https://app.example.com" {
			t.Errorf("with the credential %q: got %+v, want %d without a body, and Access-Control-Allow-Origin", credential, got, want)
		}
		if stream := got.header.Get("Content-Type") == "text/event-stream"; stream != (want == 200) {
			t.Errorf("with the credential %q: got the type %q, want text/event-stream only with the status 200", credential, got.header.Get("Content-Type"))
		}
	}
	if got := ask(t, "HEAD", h.url+"/events?token=x"); got.status != 400 {
		t.Errorf("with a token in the URL: got %d, want 400", got.status)
	}
	metrics := ask(t, "GET", h.url+"/metrics").body
	for _, want := range []string{"rowcast_streams 0", "rowcast_streams_opened_total 0", "rowcast_auth_denied_total 3"} {
		if !strings.Contains(metrics, "\n"+want+"\n") {
			t.Errorf("the metrics do not contain %q:\n%s", want, metrics)
		}
	}
}

func TestStreamIsForOneUser(t *testing.T) {
	t.Parallel()
	h := serve(t, dbtest.Database(t))
	const who = "uid is missing: open /events?uid=alice"
	tests := []struct {
		query  string
		status int
		want   string
	}{
		{"", 401, who},
		{"?uid=", 401, who},
		{"?UID=alice", 401, who},
		{"?uid=alice&uid=bob", 400, "a stream is for one user: give uid once"},
		{"?uid=alice&uid=alice", 400, "a stream is for one user: give uid once"},
		{"?uid=" + strings.Repeat("x", 257), 400, "the uid is longer than 256 bytes"},
		{"?uid=" + strings.Repeat("%C3%A9", 129), 400, "the uid is longer than 256 bytes"},
		{"?uid=*", 400, `the uid is "*", which means everyone`},
		{"?uid=a%00", 400, "the uid contains a control character"},
		{"?uid=%ff", 400, "the uid is not valid UTF-8"},
		{"?uid=%zz", 400, `the query cannot be read: invalid URL escape "%zz"`},
		{"?uid=alice;uid=bob", 400, "the query cannot be read: invalid semicolon separator in query"},
	}
	for _, tt := range tests {
		got := ask(t, "GET", h.url+"/events"+tt.query)
		if got.status != tt.status || got.body != tt.want+"\n" {
			t.Errorf("/events%s: got %d, %q, want %d, %q", tt.query, got.status, got.body, tt.status, tt.want+"\n")
		}
	}
	// A uid of 256 bytes, the maximum length of a recipient in the table, is accepted.
	h.tail(t, strings.Repeat("é", 128))
}

// An attacker's domain name may resolve to this machine, so that its pages have the hub's origin (DNS rebinding). With
// --insecure-uid, the hub accepts only an empty Host header, localhost, subdomains of localhost, and loopback
// addresses. With tokens, or with --insecure-uid=anywhere, it accepts every host.
func TestInsecureUIDAnswersAsLocalhostOnly(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	local, anywhere, tokens := serve(t, dsn), serve(t, dsn, "--insecure-uid=anywhere"), startHub(t, dsn, "--jwt-secret", secret)
	for host, want := range map[string]string{
		"localhost": "200", "localhost:8080": "200", "app.localhost:8080": "200", "127.0.0.1": "200", "127.0.0.1:8080": "200", "[::1]": "200", "[::1]:8080": "200", "": "200",
		"evil.example": "403", "evil.example:8080": "403", "127.0.0.1.evil.example": "403", "192.0.2.1:8080": "403", "0.0.0.0:8080": "403",
	} {
		request := "GET /events?uid=alice HTTP/1.1\r\nHost: " + host + "\r\nConnection: close\r\n\r\n"
		if got := statuses(t, local.url, request); got != want {
			t.Errorf("with the host %q: got %s, want %s", host, got, want)
		}
		if got := statuses(t, anywhere.url, request); got != "200" {
			t.Errorf("with the host %q and --insecure-uid=anywhere: got %s, want 200", host, got)
		}
		if got := statuses(t, tokens.url, request); got != "400" { // because the URL contains a uid
			t.Errorf("with the host %q and tokens: got %s, want 400", host, got)
		}
	}
	const text = "the Host header must be localhost, a subdomain of localhost, or a loopback address such as 127.0.0.1; behind a proxy that sends another Host header, start the hub with --insecure-uid=anywhere\n"
	for _, path := range []string{"/events?uid=alice", "/rowcast.js", "/metrics", "/nothing"} {
		if got := ask(t, "GET", local.url+path, "Host", "evil.example", "Origin", "http://evil.example"); got.status != 403 || got.body != text {
			t.Errorf("%s: got %d, %q, want 403, %q", path, got.status, got.body, text)
		}
	}
	local.err.await(t, `msg="a stream was denied" status=403 reason="the Host header must be localhost`)
	// Five hosts were refused in the first loop, and /events in the second.
	askUntil(t, local.url+"/metrics", "(?m)^rowcast_auth_denied_total 6$")
}

// TestCORS shows that only pages of the origins of --cors-origin may read the hub's answers, but that every page may
// load the browser client.
func TestCORS(t *testing.T) {
	t.Parallel()
	const ours, foreign = "https://app.example.com", "https://evil.example.com"
	h := startHub(t, dbtest.Database(t), "--jwt-secret", secret, "--cors-origin", ours, "--cors-origin", "http://localhost:3000",
		"--cors-header", "traceparent,X-Requested-With", "--cors-header", "baggage")
	for path, others := range map[string]string{"/rowcast.js": "*", "/events": "", "/nothing": ""} {
		for _, origin := range []string{ours, "http://localhost:3000"} {
			got := ask(t, "GET", h.url+path, "Origin", origin).header
			if got.Get("Access-Control-Allow-Origin") != origin || got.Get("Access-Control-Allow-Credentials") != "true" || got.Get("Vary") != "Origin" {
				t.Errorf("%s from %s: got %v, want Access-Control-Allow-Origin %q, credentials and Vary", path, origin, got, origin)
			}
		}
		for _, origin := range []string{foreign, "null", ours + ".evil.example", "http://localhost:3001", "http://app.example.com"} {
			got := ask(t, "GET", h.url+path, "Origin", origin).header
			if got.Get("Access-Control-Allow-Origin") != others || got.Get("Access-Control-Allow-Credentials") != "" || got.Get("Vary") != "Origin" {
				t.Errorf("%s from %s: got %v, want Access-Control-Allow-Origin %q, no credentials, and Vary", path, origin, got, others)
			}
		}
	}
	preflight := func(origin, headers string) http.Header {
		return ask(t, "OPTIONS", h.url+"/events?uid=a", "Origin", origin, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", headers).header
	}
	for asked, want := range map[string]string{
		"authorization,last-event-id":                        "Authorization, Last-Event-Id",
		"authorization,baggage,traceparent,x-requested-with": "Authorization, Baggage, Traceparent, X-Requested-With", // the last three are in --cors-header
	} {
		if got := preflight(ours, asked); got.Get("Access-Control-Allow-Headers") != want ||
			got.Get("Access-Control-Allow-Origin") != ours || got.Get("Access-Control-Allow-Methods") != "GET" {
			t.Errorf("preflight: got %v, want that this origin may send GET with %s", got, want)
		}
	}
	if got := preflight(ours, "x-other"); got.Get("Access-Control-Allow-Origin") != "" {
		t.Errorf("preflight with another header: got %v, want no Access-Control-Allow-Origin", got)
	}
}

// The preflight request of a page whose origin may not use the hub is refused with 403. The hub's log names the origin,
// because browsers do not tell the page why a request was refused.
func TestForeignPreflightsAreRefused(t *testing.T) {
	t.Parallel()
	const foreign = "https://evil.example"
	for what, args := range map[string][]string{"without --cors-origin": nil, "with --cors-origin": {"--cors-origin", "https://app.example.com"}} {
		h := startHub(t, dbtest.Database(t), append([]string{"--jwt-secret", secret}, args...)...)
		got := ask(t, "OPTIONS", h.url+"/events", "Origin", foreign, "Access-Control-Request-Method", "GET", "Access-Control-Request-Headers", "authorization")
		if got.status != 403 || !strings.Contains(got.body, foreign) || got.header.Get("Access-Control-Allow-Origin") != "" {
			t.Errorf("%s: got %d, %s, %v, want 403, the origin in the body, and no Access-Control-Allow-Origin", what, got.status, got.body, got.header)
		}
		h.err.await(t, `level=INFO msg="a stream was denied" status=403 reason="pages of the origin .*https://evil.example.* may not use this hub`)
	}
}

// TestCORSByDefault shows that without --cors-origin and --insecure-uid, pages of other origins may load rowcast.js,
// but may not read the answers of /events and /metrics.
func TestCORSByDefault(t *testing.T) {
	t.Parallel()
	h := startHub(t, dbtest.Database(t), "--jwt-secret", secret)
	for path, want := range map[string]string{"/rowcast.js": "*", "/events": "", "/metrics": ""} {
		for _, origin := range []string{"https://app.example.com", "http://localhost:3000", "null"} {
			if got := ask(t, "GET", h.url+path, "Origin", origin).header; got.Get("Access-Control-Allow-Origin") != want {
				t.Errorf("%s from %s: got %v, want Access-Control-Allow-Origin %q", path, origin, got, want)
			}
		}
	}
	for _, method := range []string{"GET", "HEAD"} {
		got := ask(t, method, h.url+"/rowcast.js").header
		for name, want := range map[string]string{
			"Content-Type": "text/javascript; charset=utf-8", "Cross-Origin-Resource-Policy": "cross-origin", "Access-Control-Allow-Origin": "*",
		} {
			if got.Get(name) != want {
				t.Errorf("%s /rowcast.js: got %s %q, want %q", method, name, got.Get(name), want)
			}
		}
	}
}

// TestInsecureUIDAcceptsLoopbackPages shows which requests get a stream from a hub with --insecure-uid: requests of
// pages with a loopback origin, on any port, or with an origin in --cors-origin. Requests without an Origin header also
// get a stream if their Sec-Fetch-Site header is same-origin, none or missing.
func TestInsecureUIDAcceptsLoopbackPages(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	local, anywhere := serve(t, dsn, "--cors-origin", "https://app.example"), serve(t, dsn, "--insecure-uid=anywhere")
	for _, tt := range []struct {
		origin, site string // the headers Origin and Sec-Fetch-Site
		status       string
		allowed      bool // the answer names the origin in Access-Control-Allow-Origin
	}{
		{"http://localhost:3000", "cross-site", "200", true},
		{"https://localhost", "cross-site", "200", true},
		{"http://127.0.0.1:5173", "same-site", "200", true},
		{"http://127.8.9.1", "", "200", true},
		{"http://[::1]:3000", "cross-site", "200", true},
		{"", "same-origin", "200", false},
		{"", "none", "200", false},
		{"", "", "200", false},
		{"null", "cross-site", "403", false},
		{"null", "", "403", false},
		{"https://evil.example", "cross-site", "403", false},
		{"https://evil.example", "", "403", false},
		{"", "cross-site", "403", false},
		{"http://localhost.evil.example", "cross-site", "403", false},
		{"http://127.0.0.1.evil.example:3000", "cross-site", "403", false},
		{"http://192.168.0.1:3000", "cross-site", "403", false},
		{"file://", "cross-site", "403", false},
	} {
		for name, h := range map[string]*hub{"local": local, "anywhere": anywhere} {
			head := "GET /events?uid=alice HTTP/1.1\r\nHost: " + strings.TrimPrefix(h.url, "http://") + "\r\nConnection: close\r\n"
			for header, value := range map[string]string{"Origin": tt.origin, "Sec-Fetch-Site": tt.site} {
				if value != "" {
					head += header + ": " + value + "\r\n"
				}
			}
			if got := statuses(t, h.url, head+"\r\n"); got != tt.status {
				t.Errorf("%s, Origin %q, Sec-Fetch-Site %q: got %s, want %s", name, tt.origin, tt.site, got, tt.status)
			}
			want := ""
			if tt.allowed {
				want = tt.origin
			}
			if got := ask(t, "GET", h.url+"/nothing", "Origin", tt.origin).header.Get("Access-Control-Allow-Origin"); got != want {
				t.Errorf("%s, from %q: Access-Control-Allow-Origin is %q, want %q", name, tt.origin, got, want)
			}
		}
	}
	if got := statuses(t, local.url, "GET /events?uid=alice HTTP/1.1\r\nHost: localhost\r\nOrigin: https://app.example\r\nConnection: close\r\n\r\n"); got != "200" {
		t.Errorf("from the origin of --cors-origin: got %s, want 200", got)
	}
	// Without =anywhere, a request whose Host header does not name this machine is refused, even if a page with a
	// loopback origin sends the request.
	if got := ask(t, "GET", local.url+"/events?uid=alice", "Host", "evil.example", "Origin", "http://localhost:3000"); got.status != 403 {
		t.Errorf("with the host evil.example: got %d, want 403", got.status)
	}
}

// An open stream has the headers that browsers and proxies need, including CORS.
func TestStreamHeaders(t *testing.T) {
	t.Parallel()
	h := serve(t, dbtest.Database(t), "--cors-origin", "https://app.example.com")
	request, err := http.NewRequestWithContext(t.Context(), "GET", h.url+"/events?uid=alice", nil)
	if err != nil {
		t.Fatal(err)
	}
	request.Header.Set("Origin", "https://app.example.com")
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	for name, want := range map[string]string{
		"Content-Type":                     "text/event-stream",
		"Cache-Control":                    "no-store, no-transform",
		"X-Accel-Buffering":                "no",
		"Access-Control-Allow-Origin":      "https://app.example.com",
		"Access-Control-Allow-Credentials": "true",
	} {
		if got := response.Header.Get(name); got != want {
			t.Errorf("%s: got %q, want %q", name, got, want)
		}
	}
}

func TestMetrics(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	h := serve(t, dsn)
	tails := []*process{h.tail(t, "alice"), h.tail(t, "alice")}
	runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1'), ('bob', '2')`)
	for _, tail := range tails {
		tail.out.await(t, `"data":1`)
	}
	for _, want := range []string{
		"rowcast_streams 2", "rowcast_streams_opened_total 2", "rowcast_sent_events_total 2", "rowcast_rows_total 2",
		"rowcast_database_connected 1", "rowcast_database_sessions_total 1", "rowcast_resets_total 0",
		`rowcast_overflows_total\{reason="backlog"\} 0`, `rowcast_overflows_total\{reason="pending"\} 0`, "rowcast_pending_bytes 0",
		"rowcast_replayed_events_total 0", "rowcast_park_lock_acquired_total 1", `rowcast_wakeups_total \d+`, `rowcast_behind_seconds 0\..*`,
		`rowcast_lag_seconds \d.*`,
		`rowcast_fetches_total [1-9]\d*`, `rowcast_sent_bytes_total [1-9]\d+`, `go_goroutines \d+`,
		"# HELP rowcast_streams Streams that are open now, and polls that wait for their answer.",
	} {
		askUntil(t, h.url+"/metrics", "(?m)^"+want+"$")
	}
}

func TestAdminListen(t *testing.T) {
	t.Parallel()
	h := serve(t, dbtest.Database(t), "--admin-listen", "127.0.0.1:0")
	admin := "http://" + h.err.await(t, `admin_addr=([0-9.:]+)`)[1]
	for path, public := range map[string]bool{"/healthz": false, "/readyz": false, "/metrics": false, "/rowcast.js": true, "/events": true} {
		here, there := ask(t, "GET", h.url+path).status, ask(t, "GET", admin+path).status
		if (here != 404) != public || (there != 404) == public {
			missing := map[bool]string{true: "--admin-listen", false: "--listen"}[public]
			t.Errorf("%s: got status %d at --listen and %d at --admin-listen, want 404 only at %s", path, here, there, missing)
		}
	}
}
