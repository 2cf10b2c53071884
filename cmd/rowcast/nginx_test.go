package main_test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"rowcast/sql/dbtest"
)

// An nginx is a running nginx.
type nginx struct {
	url   string
	pages string // a directory of pages that nginx serves
	stop  func() // may be called twice

	// log is a file with a line for each request: the status, the path, and the hubs that were tried. Only startNginx
	// sets it.
	log string
}

// findNginx returns the path of nginx. If nginx is not installed, the test is skipped, or fails with CI=true.
func findNginx(t *testing.T) string {
	t.Helper()
	return dbtest.Program(t, "nginx", "nginx", "/usr/sbin/nginx", "/usr/local/sbin/nginx")
}

// startNginx starts nginx in front of two hubs, with the documented configuration and some additions, and waits until
// it listens. The arguments hubs are the addresses of the hubs.
func startNginx(t *testing.T, hubs ...string) *nginx {
	t.Helper()
	dir, address := t.TempDir(), freeAddress(t)
	n := &nginx{url: "http://" + address, pages: filepath.Join(dir, "pages"), log: filepath.Join(dir, "access.log")}
	n.run(t, dir, address, n.configuration(t, dir, address, hubs))
	return n
}

// run starts nginx with a complete nginx.conf, and waits until it listens. At the end of the test, nginx is stopped.
func (n *nginx) run(t *testing.T, dir, address, configuration string) {
	t.Helper()
	program := findNginx(t)
	if err := os.Mkdir(n.pages, 0o755); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(dir, "nginx.conf")
	if err := os.WriteFile(file, []byte(configuration), 0o600); err != nil {
		t.Fatal(err)
	}
	n.stop = startProxy(t, address, program, "-p", dir, "-c", file)
}

// configuration returns a complete nginx.conf: the documented configuration with other addresses, an access log, a
// location for pages, and the location /buffered, which is like /events, but buffers responses.
func (n *nginx) configuration(t *testing.T, dir, address string, hubs []string) string {
	t.Helper()
	site := documented(t, "nginx", "listen 80;", "listen "+address+";", "10.0.0.1:8080", hubs[0], "10.0.0.2:8080", hubs[1])
	site = strings.TrimSuffix(site, "}\n")
	events := regexp.MustCompile(`(?s)location = /events \{.*?\n    \}`).FindString(site)
	buffered := strings.NewReplacer("/events {", "/buffered {\n proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;",
		"http://rowcast;", "http://rowcast/events;").Replace(events)
	return nginxConf(dir, fmt.Sprintf(`log_format events '$status $request_uri $upstream_addr';
			access_log %s events;
			%s
			%s
			location / { root %s; }
			}`, n.log, site, buffered, n.pages))
}

// nginxConf returns a complete nginx.conf with the given content of the block http.
func nginxConf(dir, http string) string {
	user := ""
	if os.Geteuid() == 0 {
		user = "user root;" // the workers of nginx must read directories that belong to root
	}
	temporary := ""
	for _, name := range []string{"client_body", "proxy", "fastcgi", "uwsgi", "scgi"} {
		temporary += fmt.Sprintf("%s_temp_path %s/%s;\n", name, dir, name)
	}
	return fmt.Sprintf(`daemon off; pid %s/pid; error_log stderr; %s
		events { worker_connections 1024; }
		http {
			types { text/html html; text/javascript js; }
			%s
			%s
		}`, dir, user, temporary, http)
}

// freeAddress returns an address at farLoopback with a reserved port (see dbtest.Port). If the machine does not have
// this IP address, the test is skipped.
func freeAddress(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", farLoopback+":0")
	if err != nil {
		t.Skipf("this machine has no loopback address %s: %v", farLoopback, err)
	}
	defer l.Close()
	return fmt.Sprintf("%s:%d", farLoopback, dbtest.Port(t))
}

const farLoopback = "127.0.0.2"
