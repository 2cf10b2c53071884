package main_test

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"rowcast/sql/dbtest"
	"rowcast/stream/sse"
)

// With the documented configuration, each proxy passes on a stream at once, tries the other hub when one is down, asks
// the client to retry later when both are down, and notices that a client has disconnected. The app learns the real
// address of the client, and the host and protocol that the client called, even if the client forges the headers.
func TestDocumentedProxies(t *testing.T) {
	t.Parallel()
	for name, start := range map[string]func(t *testing.T, address string, hubs [2]string){
		"nginx":   startDocumentedNginx,
		"Caddy":   startCaddy,
		"HAProxy": startHAProxy,
		"Apache":  startApache,
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address, hubs := freeAddress(t), [2]string{freeAddress(t), freeAddress(t)}
			start(t, address, hubs)
			url := "http://" + address + "/events"
			got := ask(t, "GET", url)
			if got.status != 200 || got.header.Get("Content-Type") != "text/event-stream" || got.header.Get("Cache-Control") != "no-store" || strings.TrimSpace(got.body) != "retry: 3000" {
				t.Errorf("without a hub: got %+v, want 200, the type text/event-stream, no-store, and only \"retry: 3000\"", got)
			}
			app := newAuthApp(t, saying(200, `{"recipient": "alice", "expires_in": 60}`))
			dsn := dbtest.Database(t)
			h := startHub(t, dsn, "--listen", hubs[1], "--auth-url", app.URL, "--trusted-proxy", "127.0.0.1", "--heartbeat", "1s")
			testThroughProxy(t, url, dsn)
			askUntil(t, h.url+"/metrics", `(?m)^rowcast_streams 0$`)
			asked := app.questions()[0].Header
			from := asked.Get("X-Forwarded-For")
			if from = from[strings.LastIndex(from, " ")+1:]; from != clientAddress {
				t.Errorf("the app is told that the client's address is %s, want %s", from, clientAddress)
			}
			if proto, host := asked.Get("X-Forwarded-Proto"), asked.Get("X-Forwarded-Host"); proto != "http" || host != address {
				t.Errorf("the app receives X-Forwarded-Proto %q and X-Forwarded-Host %q, want \"http\" and %q", proto, host, address)
			}
		})
	}
}

// clientAddress is the address of the client in testThroughProxy. A hub that trusts 127.0.0.1 does not trust it.
const clientAddress = "127.0.0.3"

// testThroughProxy opens a stream with forged headers and a long cursor, and disconnects when it has received a row. The
// request has an Origin header and no Sec-Fetch-Site header, as a browser sends it over plain HTTP. The hub accepts it
// only if the proxy passes the Host header on.
func testThroughProxy(t *testing.T, url, dsn string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), waitLimit)
	defer cancel()
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, value := range map[string]string{
		"X-Forwarded-For": "203.0.113.7", "X-Forwarded-Proto": "https", "X-Forwarded-Host": "other.example",
		"Cookie": "session=1", "Origin": "http://" + request.URL.Host, "Last-Event-ID": strings.Repeat("1", 10_000),
	} {
		request.Header.Set(name, value)
	}
	dialer := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(clientAddress)}}
	client := http.Client{Transport: &http.Transport{DialContext: dialer.DialContext, DisableKeepAlives: true}}
	response, err := client.Do(request)
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	if response.StatusCode != 200 {
		t.Fatalf("got the status %s, want 200", response.Status)
	}
	var decoder sse.Decoder
	for event, err := range decoder.Events(response.Body) {
		if err != nil {
			t.Fatal(err)
		}
		switch event.Name {
		case "rowcast.reset": // because the cursor is malformed
			runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
		case "message":
			return
		}
	}
	t.Fatal("the stream has ended without the row")
}

func startDocumentedNginx(t *testing.T, address string, hubs [2]string) {
	dir := t.TempDir()
	n := &nginx{pages: filepath.Join(dir, "pages")}
	site := documented(t, "nginx", "listen 80;", "listen "+address+";", "10.0.0.1:8080", hubs[0], "10.0.0.2:8080", hubs[1])
	n.run(t, dir, address, nginxConf(dir, "access_log off;"+site))
}

func startCaddy(t *testing.T, address string, hubs [2]string) {
	program := dbtest.Program(t, "caddy", "caddy")
	site := documented(t, "caddyfile", ":80 {", "http://"+address+" {", "10.0.0.1:8080", hubs[0], "10.0.0.2:8080", hubs[1])
	file := writeConf(t, t.TempDir(), "Caddyfile", "{\n\tadmin off\n}\n"+site)
	startProxy(t, address, program, "run", "--config", file)
}

func startHAProxy(t *testing.T, address string, hubs [2]string) {
	program := dbtest.Program(t, "haproxy", "haproxy", "/usr/sbin/haproxy")
	conf := documented(t, "haproxy", "bind :80", "bind "+address, "10.0.0.1:8080", hubs[0], "10.0.0.2:8080", hubs[1])
	startProxy(t, address, program, "-db", "-f", writeConf(t, t.TempDir(), "haproxy.cfg", conf))
}

func startApache(t *testing.T, address string, hubs [2]string) {
	const modules = "/usr/lib/apache2/modules"
	program := dbtest.Program(t, "apache2-bin", "apache2", "/usr/sbin/apache2")
	dir := t.TempDir()
	if err := os.Chmod(filepath.Dir(dir), 0o755); err != nil { // if root starts Apache, another user reads the file
		t.Fatal(err)
	}
	away := writeConf(t, dir, "rowcast-away", "Status:"+documented(t, "text\nStatus:"))
	site := documented(t, "apache", "*:80", address, "10.0.0.1:8080", hubs[0], "10.0.0.2:8080", hubs[1], "/etc/apache2/rowcast-away", away)
	conf := fmt.Sprintf("ServerRoot %s\nDefaultRuntimeDir %[1]s\nPidFile %[1]s/pid\nErrorLog %[1]s/log\nServerName localhost\nListen %s\n", dir, address)
	if os.Geteuid() == 0 {
		conf += "User www-data\nGroup www-data\n"
	}
	enabled := regexp.MustCompile(`(?m)^# a2enmod (.*)$`).FindStringSubmatch(site)
	if enabled == nil {
		t.Fatalf("the configuration for Apache in README.md does not name the modules:\n%s", site)
	}
	// Debian enables alias and authz_core. The command a2enmod also enables the modules that a module needs.
	for _, module := range append([]string{"mpm_event", "authz_core", "alias", "proxy", "slotmem_shm"}, strings.Fields(enabled[1])...) {
		conf += fmt.Sprintf("LoadModule %s_module %s/mod_%[1]s.so\n", module, modules)
	}
	startProxy(t, address, program, "-DFOREGROUND", "-f", writeConf(t, dir, "apache2.conf", conf+site))
}

func writeConf(t *testing.T, dir, name, conf string) (path string) {
	t.Helper()
	path = filepath.Join(dir, name)
	if err := os.WriteFile(path, []byte(conf), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// documented returns the first code block of a language in README.md, with replacements: old, new, old, new. Each old
// text must occur exactly once.
func documented(t *testing.T, language string, replacements ...string) string {
	t.Helper()
	readme, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, block, found := strings.Cut(string(readme), "\n```"+language)
	block, _, closed := strings.Cut(block, "\n```")
	if !found || !closed {
		t.Fatalf("README.md has no code block of %s", language)
	}
	for i := 0; i < len(replacements); i += 2 {
		if strings.Count(block, replacements[i]) != 1 {
			t.Fatalf("the configuration for %s in README.md does not contain %q exactly once:\n%s", language, replacements[i], block)
		}
		block = strings.Replace(block, replacements[i], replacements[i+1], 1)
	}
	return block + "\n"
}

// startProxy starts a proxy, and waits until it listens at address. At the end of the test, the proxy is stopped.
func startProxy(t *testing.T, address, program string, args ...string) (stop func()) {
	t.Helper()
	stderr := newOutput()
	cmd := exec.Command(program, args...)
	cmd.Stderr = stderr
	cmd.Env = append(os.Environ(), "HOME="+t.TempDir()) // Caddy writes files there
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	ctx, stopped := context.WithCancel(context.Background())
	stop = func() { // may be called twice
		if ctx.Err() == nil {
			_ = cmd.Process.Signal(syscall.SIGTERM)
			receive(t, ended, "the end of "+program)
			stopped()
		}
	}
	t.Cleanup(stop)
	for deadline := time.Now().Add(waitLimit); ; time.Sleep(10 * time.Millisecond) {
		conn, err := net.Dial("tcp", address)
		if err == nil {
			conn.Close()
			return stop
		}
		if time.Now().After(deadline) {
			t.Fatalf("%s does not listen after %v: %s", program, waitLimit, stderr)
		}
	}
}
