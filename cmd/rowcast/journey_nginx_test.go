package main_test

import (
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/chromedp/cdproto/security"
	"github.com/chromedp/chromedp"

	"rowcast/sql/dbtest"
	"rowcast/stream"
)

// testJourneysBehindNginx tests pages that receive their streams through nginx.
func testJourneysBehindNginx(t *testing.T, b browser) {
	t.Parallel()
	for name, test := range map[string]func(*testing.T, browser){
		"nginx answers 502 and 504":                 testGateway,
		"both hubs are away when the page loads":    testHubsAway,
		"nginx buffers, and a hub is unavailable":   testBufferedByNginx,
		"seven tabs have their streams over HTTP/2": testHTTP2,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			findNginx(t)
			test(t, b)
		})
	}
}

// newJourneyBehindNginx starts two hubs behind nginx with the documented configuration. nginx serves the page too.
func newJourneyBehindNginx(t *testing.T, source string, args ...string) *journey {
	t.Helper()
	c := &cast{t: t, dsn: dbtest.Database(t)}
	for i := range c.hubs {
		c.hubs[i] = &rollingHub{t: t, dsn: c.dsn, address: freeAddress(t), args: args}
		c.hubs[i].start()
	}
	c.nginx = startNginx(t, c.hubs[0].address, c.hubs[1].address)
	source = strings.ReplaceAll(source, "CURSOR", queried[string](t, c.dsn, "SELECT rowcast.cursor()"))
	for name, text := range map[string]string{
		"index.html": journeyHTML,
		"rowcast.js": string(stream.Script),
		"page.js":    strings.ReplaceAll(journeyScripts["/page.js"], "SOURCE", source),
	} {
		if err := os.WriteFile(filepath.Join(c.nginx.pages, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return &journey{cast: c}
}

func (j *journey) bothHubs(do func(*rollingHub)) {
	for _, hub := range j.hubs {
		do(hub)
	}
}

// testGateway uses an nginx with only one hub. nginx answers 502 while the hub does not run, and 504 while the hub is
// suspended. The page is loaded while the hub does not run.
func testGateway(t *testing.T, b browser) {
	j := newJourney(t, dbtest.Database(t), `new RowcastSource("/events?uid=alice", { lastEventId: "CURSOR" })`)
	j.hub.stop(syscall.SIGKILL)
	dir, address := t.TempDir(), freeAddress(t)
	n := &nginx{url: "http://" + address, pages: filepath.Join(dir, "pages")}
	n.run(t, dir, address, nginxConf(dir, fmt.Sprintf(`access_log off;
		server {
			listen %s;
			location /events { proxy_pass http://%s; proxy_http_version 1.1; proxy_buffering off; proxy_read_timeout 3s; }
			location / { proxy_pass %s; }
		}`, address, j.hub.address, j.site.URL)))
	j.page = b.profile(t).open(t, n.url)
	j.travel(func(j *journey) {
		j.page.await("window.states?.includes('retrying 502')")
		j.hub.start()
		j.hears()
		if err := dbtest.Suspend(j.hub.process.cmd.Process.Pid); errors.Is(err, errors.ErrUnsupported) {
			t.Skip("this system cannot suspend a process")
		} else if err != nil {
			t.Fatal(err)
		}
		j.page.await("states.includes('retrying 504')")
		if err := dbtest.Resume(j.hub.process.cmd.Process.Pid); err != nil {
			t.Fatal(err)
		}
		j.hears()
	})
}

// testHubsAway loads the page while no hub runs. nginx has the documented configuration, so it asks the page to retry
// later.
func testHubsAway(t *testing.T, b browser) {
	j := newJourneyBehindNginx(t, `new RowcastSource("/events?uid=alice", { lastEventId: "CURSOR" })`)
	j.bothHubs(func(hub *rollingHub) { hub.stop(syscall.SIGKILL) })
	j.page = b.profile(t).open(t, j.nginx.url)
	j.travel(func(j *journey) {
		j.page.await("window.states?.includes('retrying end')")
		j.misses()
		j.bothHubs((*rollingHub).start)
		j.hears()
	})
}

// testBufferedByNginx has a page that polls, because nginx buffers responses. The hubs are stopped one after the other,
// and nginx then uses the other hub. At the end, both hubs are killed and started again.
func testBufferedByNginx(t *testing.T, b browser) {
	j := newJourneyBehindNginx(t, `new RowcastSource("/buffered?uid=alice", { lastEventId: "CURSOR" })`, "--unavailable-status", "503", "--heartbeat", "1s")
	j.page = b.profile(t).open(t, j.nginx.url)
	// Wait before rows are inserted. Many rows would fill the buffers of nginx. Then nginx would send them on, and the
	// page might not poll.
	j.page.await("window.states?.at(-1) === 'open buffered'")
	j.travel(func(j *journey) {
		for _, hub := range j.hubs {
			hub.stop(syscall.SIGTERM)
			j.hears()
			hub.start()
		}
		j.bothHubs(func(hub *rollingHub) { hub.stop(syscall.SIGKILL) })
		j.misses()
		j.bothHubs((*rollingHub).start)
		j.hears()
	})
}

// testHTTP2 uses an nginx with HTTP/2. Each of seven tabs has its own stream. Over HTTP/1.1, the seventh
// tab would get no stream, because a browser has at most six connections to a host.
func testHTTP2(t *testing.T, b browser) {
	s := &tabs{journey: newJourney(t, dbtest.Database(t), `new RowcastSource("/events?uid=alice", { lastEventId: "CURSOR", shared: false })`)}
	dir, address := t.TempDir(), freeAddress(t)
	n := &nginx{url: "https://" + address, pages: filepath.Join(dir, "pages")}
	n.run(t, dir, address, nginxConf(dir, fmt.Sprintf(`access_log off;
		server {
			listen %s ssl http2;
			%s
			location /events { proxy_pass http://%s; proxy_http_version 1.1; }
			location / { proxy_pass %s; }
		}`, address, certificate(t, dir), s.hub.address, s.site.URL)))
	s.profile = b.profile(t)
	for s.streams = 0; s.streams < 7; s.streams++ {
		p := s.profile.open(t, "about:blank")
		if p.tab != nil {
			// a browser with a driver accepts any certificate
		} else if _, err := chromedp.Call(p.ctx, security.SetIgnoreCertificateErrors, security.SetIgnoreCertificateErrorsParams{Ignore: true}); err != nil {
			t.Fatal(err)
		}
		p.navigate(n.url)
		p.await("window.source?.state === 'open'")
		if got := value[string](p, "performance.getEntriesByType('navigation')[0].nextHopProtocol"); got != "h2" {
			t.Errorf("the page was loaded over %s, want h2", got)
		}
		s.open = append(s.open, p)
	}
	s.travel(func(s *tabs) {
		s.hub.stop(syscall.SIGKILL)
		s.misses()
		s.hub.start()
		s.misses()
	})
}

// certificate writes a certificate and its key into a directory. It returns the directives of nginx for them.
func certificate(t *testing.T, dir string) (directives string) {
	t.Helper()
	server := httptest.NewTLSServer(http.NotFoundHandler())
	defer server.Close()
	pair := server.TLS.Certificates[0]
	key, err := x509.MarshalPKCS8PrivateKey(pair.PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []struct {
		directive, kind string
		content         []byte
	}{{"ssl_certificate", "CERTIFICATE", pair.Certificate[0]}, {"ssl_certificate_key", "PRIVATE KEY", key}} {
		path := filepath.Join(dir, file.directive+".pem")
		if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: file.kind, Bytes: file.content}), 0o600); err != nil {
			t.Fatal(err)
		}
		directives += fmt.Sprintf("%s %s;\n", file.directive, path)
	}
	return directives
}
