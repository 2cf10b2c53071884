package main_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"reflect"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/chromedp/chromedp"

	"rowcast/sql/dbtest"
)

// An inboxStage has a server for a page that contains <rowcast-inbox>. The server serves the files of the page and
// forwards other requests to a hub.
type inboxStage struct {
	t       *testing.T
	dsn     string
	url     string
	browser browser
	profile browser // the profile in which the pages are opened (see browser.profile)
	mux     *http.ServeMux
	broken  *atomic.Bool  // if true, the server answers POST requests with 503
	streams *atomic.Int64 // the number of open streams
}

const elementHTML = `<!doctype html><html lang="en"><head><meta charset="utf-8"><title>Stage</title><link rel="stylesheet" href="/page.css"><script src="/helpers.js"></script>
<script type="module" src="/rowcast-inbox.js"></script></head>
<body><main><h1>Stage</h1><div class="trap"><rowcast-inbox id="bell" title-badge toasts events="/events?uid=alice"></rowcast-inbox></div></main></body></html>`

// elementCSS would hide and distort the element if the styles of the page affected it.
const elementCSS = `.trap { overflow: hidden; transform: translateX(0); height: 60px; z-index: 0; position: relative; }
.hostile * { font: 40px/3 serif !important; color: red; letter-spacing: 9px !important; text-transform: uppercase !important; box-sizing: content-box !important; padding: 9px !important; list-style: square !important; }
.hostile button, .hostile li, .hostile svg, .hostile header { display: none !important; position: absolute !important; }`

func newInboxStage(t *testing.T, b browser) *inboxStage {
	dsn := dbtest.Inbox(t)
	h := startHub(t, dsn, "--inbox", "--insecure-uid")
	target, err := url.Parse(h.url)
	if err != nil {
		t.Fatal(err)
	}
	proxy := &httputil.ReverseProxy{FlushInterval: -1, Rewrite: func(r *httputil.ProxyRequest) {
		r.SetURL(target)
		r.Out.Header.Del("Origin")
		if cookie, err := r.In.Cookie("uid"); err == nil { // the cookie replaces a uid in the URL
			query := r.Out.URL.Query()
			query.Set("uid", cookie.Value)
			r.Out.URL.RawQuery = query.Encode()
		}
	}}
	var broken atomic.Bool
	var streams atomic.Int64
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/events" {
			streams.Add(1)
			defer streams.Add(-1)
		}
		if broken.Load() && r.Method == http.MethodPost {
			http.Error(w, "broken", http.StatusServiceUnavailable)
			return
		}
		proxy.ServeHTTP(w, r)
	})
	server := httptest.NewServer(mux)
	t.Cleanup(func() {
		server.CloseClientConnections()
		server.Close()
	})
	s := &inboxStage{t: t, dsn: dsn, url: server.URL, browser: b, profile: b.profile(t), mux: mux, broken: &broken, streams: &streams}
	for path, file := range map[string][2]string{
		"/page": {"text/html", elementHTML}, "/page.css": {"text/css", elementCSS}, "/helpers.js": {"text/javascript", elementHelpers}, "/late": {"text/html", strings.Replace(elementHTML, `src="/rowcast-inbox.js"`, "", 1)},
	} {
		s.serve(path, file[0], file[1])
	}
	return s
}

// serve adds a file to the server.
func (s *inboxStage) serve(path, contentType, text string) {
	s.mux.HandleFunc(path, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", contentType)
		w.Header().Set("Content-Security-Policy", "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; require-trusted-types-for 'script'; trusted-types 'none'")
		_, _ = w.Write([]byte(text))
	})
}

// elementHelpers is a script of the page. It defines functions for the expressions of the tests, and collects the
// errors and warnings of the page in failures. If the URL has a query, as in a link of a test, the script stores that
// the page was opened.
const elementHelpers = `
	window.failures = [];
	if (location.search) localStorage.setItem(location.search, "opened");
	document.addEventListener("securitypolicyviolation", ({ violatedDirective, sourceFile }) => failures.push("violates " + violatedDirective + " " + sourceFile));
	addEventListener("error", ({ message }) => failures.push(message));
	addEventListener("unhandledrejection", ({ reason }) => failures.push(String(reason)));
	for (const level of ["error", "warn"]) console[level] = (...texts) => failures.push(texts.join(" "));
	window.root = () => bell.shadowRoot;
	window.find = (selector) => [...root().querySelectorAll(selector)];
	window.titles = () => find("li .head").map((head) => head.textContent);
	window.unread = () => find("li.unread .head").map((head) => head.textContent);
	window.badge = () => find(".badge:not([hidden])").map((found) => found.textContent).join();
	window.row = (title) => find("li").find((li) => li.querySelector(".head").textContent === title);
	window.within = (element) => { const { left, right, top, bottom } = element.getBoundingClientRect(); return left >= 0 && top >= 0 && right <= innerWidth && bottom <= innerHeight; };`

// open opens the page and waits until its stream is open. At the end of the test, the page must have reported no error
// or warning.
func (s *inboxStage) open() page {
	s.t.Helper()
	p := s.profile.open(s.t, s.url+"/page")
	p.await(`window.bell?.store?.state === "open"`)
	s.t.Cleanup(func() {
		if got := value[[]string](p, "failures"); len(got) > 0 {
			s.t.Errorf("the page reported the errors or warnings %q, want none", got)
		}
	})
	return p
}

// openWith opens the page and waits until its stream is open. The script runs before the page's own scripts.
func (s *inboxStage) openWith(script string) page {
	s.t.Helper()
	p := s.visit("/page", script)
	p.await(`window.bell?.store?.state === "open"`)
	return p
}

// visit opens the page at a path. The script runs before the page's own scripts.
func (s *inboxStage) visit(path, script string) page {
	s.t.Helper()
	p := s.profile.open(s.t, "about:blank")
	p.onNewDocument(script)
	p.do(chromedp.Navigate(s.url + path))
	return p
}

// insert inserts rows for alice in one statement, so that a page receives them within a short time.
func (s *inboxStage) insert(data ...any) {
	s.t.Helper()
	var rows []string
	for _, d := range data {
		text, err := json.Marshal(d)
		if err != nil {
			s.t.Fatal(err)
		}
		rows = append(rows, fmt.Sprintf(`('alice', 'notify', convert_from('\x%x', 'UTF8')::jsonb)`, text))
	}
	runSQL(s.t, s.dsn, `INSERT INTO rowcast.notifications (recipient, event, data) VALUES `+strings.Join(rows, ", "))
}

// finishRise finishes the animation of the panel. In a tab in the background, it could last for ever.
func (p page) finishRise() {
	p.t.Helper()
	value[bool](p, `find(".panel")[0].getAnimations().forEach((animation) => animation.finish()), true`)
}

func (p page) want(expression string, want any) {
	p.t.Helper()
	if got := value[any](p, expression); !reflect.DeepEqual(got, want) {
		p.t.Errorf("%s: got %v, want %v", expression, got, want)
	}
}
