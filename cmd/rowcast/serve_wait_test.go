package main_test

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// A refuser is a fake PostgreSQL server that answers every connection with an error.
type refuser struct {
	socket net.Listener
	code   atomic.Value // the SQLSTATE, a string
	asked  atomic.Int32
}

func newRefuser(t *testing.T, code string) *refuser {
	t.Helper()
	socket, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	r := &refuser{socket: socket}
	r.code.Store(code)
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for {
			conn, err := socket.Accept()
			if err != nil {
				return
			}
			r.asked.Add(1)
			r.refuse(conn)
		}
	}()
	t.Cleanup(func() {
		_ = socket.Close()
		receive(t, ended, "the end of the fake server")
	})
	return r
}

// refuse reads a start-up packet and answers with an error that has the SQLSTATE r.code. The formats are in
// https://www.postgresql.org/docs/current/protocol-message-formats.html.
func (r *refuser) refuse(conn net.Conn) {
	defer conn.Close()
	var length [4]byte
	if _, err := io.ReadFull(conn, length[:]); err != nil {
		return
	}
	_, _ = io.CopyN(io.Discard, conn, int64(binary.BigEndian.Uint32(length[:]))-4)
	fields := "SFATAL\x00VFATAL\x00C" + r.code.Load().(string) + "\x00Mgo away\x00\x00"
	answer := binary.BigEndian.AppendUint32([]byte{'E'}, uint32(len(fields)+4))
	_, _ = conn.Write(append(answer, fields...))
}

func (r *refuser) dsn() string {
	return "postgres://me:secret@" + r.socket.Addr().String() + "/app?sslmode=disable"
}

// error returns the error that rowcast reports.
func (r *refuser) error() string {
	code := r.code.Load().(string)
	return `cannot connect to PostgreSQL at ` + r.socket.Addr().String() + `, database "app", user "me": FATAL: go away (SQLSTATE ` + code + ")" + hints[code]
}

// hints are the texts that rowcast adds to the error of a failed connection. The keys are SQLSTATEs.
var hints = map[string]string{
	"28P01": " (check the user and the password in the database URL, PGPASSWORD or ~/.pgpass; in a URL, special characters are percent-encoded, such as %40 for @)",
	"28000": " (check the user in the database URL or PGUSER, and whether pg_hba.conf of the server allows the connection)",
	"3D000": " (create the database with CREATE DATABASE, or name another one in the database URL or PGDATABASE)",
	"42704": " (remove the parameters that are meant for another program from the database URL)",
}

// noDatabase returns the URL of a database that does not exist, and the error with which serve then ends.
func noDatabase(t *testing.T) (dsn, says string) {
	t.Helper()
	r := newRefuser(t, "3D000")
	return r.dsn(), r.error()
}

// waiting starts a hub that cannot use its database yet. It returns when the hub has logged that it waits.
func waiting(t *testing.T, dsn string, args ...string) *hub {
	t.Helper()
	args = append([]string{"serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--drain", "10ms", "--retry", "10ms", "--database-url", dsn}, args...)
	h := &hub{process: start(t, nil, args...)}
	h.url = "http://" + h.err.await(t, `msg="waiting for PostgreSQL" listen=([0-9.:]+) error=`)[1]
	return h
}

// checkWaits checks what a hub answers while it waits.
func (h *hub) checkWaits(t *testing.T) {
	t.Helper()
	if got := ask(t, "GET", h.url+"/healthz"); got.status != 200 {
		t.Errorf("/healthz: got %d, want 200", got.status)
	}
	if got := ask(t, "GET", h.url+"/readyz"); got.status != 503 || !strings.Contains(got.body, `"ready":false`) || !strings.Contains(got.body, `"failing":{"connect":{`) {
		t.Errorf("/readyz: got %d, %s, want 503, not ready, and connect in failing", got.status, got.body)
	}
	askUntil(t, h.url+"/metrics", `(?m)^rowcast_failures_total{operation="connect"} [1-9]`)
	got := ask(t, "GET", h.url+"/events?uid=alice")
	if got.status != 200 || !regexp.MustCompile(`^retry: \d+\n$`).MatchString(got.body) {
		t.Errorf("/events: got %d, %q, want 200 and only a retry time", got.status, got.body)
	}
}

// A hub that starts before its database waits for the database, and then serves a client that has retried meanwhile.
// The database was stopped, or has crashed and must recover first.
func TestServeStartsBeforeItsDatabase(t *testing.T) {
	t.Parallel()
	c := dbtest.Cluster(t)
	dsn := dbtest.TCP(t, c, "postgres")
	migrate(t, dsn)
	for _, ending := range []struct {
		name string
		end  func() error
	}{
		{"stopped", func() error { return c.Stop(t.Context()) }},
		{"crashed", c.Kill},
	} {
		t.Run(ending.name, func(t *testing.T) {
			if err := ending.end(); err != nil {
				t.Fatal(err)
			}
			h := waiting(t, dsn)
			h.checkWaits(t)
			tail := start(t, nil, "tail", "--verbose", "--json", "--url", h.url+"/events", "--uid", "alice")
			tail.err.await(t, "the stream has ended; reconnecting")
			if err := c.Start(t.Context()); err != nil {
				t.Fatal(err)
			}
			h.err.await(t, `msg=listening addr=`+regexp.QuoteMeta(strings.TrimPrefix(h.url, "http://")))
			tail.out.await(t, "rowcast.hello")
			runSQL(t, dsn, `INSERT INTO rowcast.notifications (recipient, data) VALUES ('alice', '1')`)
			tail.out.await(t, `"data":1}`)
			if got := ask(t, "GET", h.url+"/readyz"); got.status != 200 {
				t.Errorf("/readyz: got %d, %s, want 200", got.status, got.body)
			}
			if code := h.stop(); code != 0 {
				t.Errorf("got exit code %d, want 0: %s", code, h.err)
			}
		})
	}
}

// A hub that starts during a failover, when the primary cannot be reached and its standby has not been promoted yet,
// waits for the promotion.
func TestServeStartsDuringAFailover(t *testing.T) {
	t.Parallel()
	primary := dbtest.Cluster(t)
	migrate(t, primary.DSN("postgres"))
	standby := dbtest.Standby(t, primary)
	if err := primary.Kill(); err != nil {
		t.Fatal(err)
	}
	first, err := pgx.ParseConfig(primary.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	second, err := pgx.ParseConfig(standby.DSN("postgres"))
	if err != nil {
		t.Fatal(err)
	}
	query := url.Values{
		"host": {first.Host + "," + second.Host}, "port": {fmt.Sprintf("%d,%d", first.Port, second.Port)}, "target_session_attrs": {"read-write"},
	}
	h := waiting(t, "postgres://"+second.User+"@/postgres?"+query.Encode())
	h.err.await(t, `\(a server answers, but it is a standby or read-only, and target_session_attrs asks for the primary\)" retry_in=`)
	h.checkWaits(t)
	runSQL(t, standby.DSN("postgres"), "SELECT pg_promote()")
	h.err.await(t, `msg=listening`)
}

// A hub that starts during a switchover, when all of several hosts are read-only, waits until one of them is the primary.
// With a single host, it does not wait. Here, the hosts are two paths of one server.
func TestServeStartsDuringASwitchover(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	config, err := pgx.ParseConfig(dsn)
	if err != nil {
		t.Fatal(err)
	}
	other := filepath.Join(dbtest.Home(t), "other")
	if err := os.Symlink(config.Host, other); err != nil {
		t.Fatal(err)
	}
	runSQL(t, dsn, "ALTER DATABASE "+config.Database+" SET default_transaction_read_only = on")
	url := func(hosts, ports string) string {
		query := url.Values{"host": {hosts}, "port": {ports}, "target_session_attrs": {"read-write"}}
		return "postgres://" + config.User + "@/" + config.Database + "?" + query.Encode()
	}
	single := start(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", url(config.Host, fmt.Sprint(config.Port)))
	single.err.await(t, "target_session_attrs asks for the primary")
	if code := single.wait(); code != 1 {
		t.Errorf("with a single host, serve ended with exit code %d, want 1", code)
	}
	h := waiting(t, url(config.Host+","+other, fmt.Sprintf("%d,%d", config.Port, config.Port)))
	h.err.await(t, `\(a server answers, but it is a standby or read-only, and target_session_attrs asks for the primary\)" retry_in=`)
	h.checkWaits(t)
	runSQL(t, dsn, "SET default_transaction_read_only = off", "ALTER DATABASE "+config.Database+" RESET default_transaction_read_only")
	h.err.await(t, `msg=listening`)
}

// A hub that starts when a table has no index, because pg_restore creates the indexes last, waits for the index.
func TestServeWaitsForARestore(t *testing.T) {
	t.Parallel()
	dsn := dbtest.Database(t)
	runSQL(t, dsn, "ALTER TABLE rowcast.epoch DROP CONSTRAINT epoch_pkey")
	h := waiting(t, dsn)
	h.checkWaits(t)
	runSQL(t, dsn, "ALTER TABLE rowcast.epoch ADD PRIMARY KEY (one)")
	h.err.await(t, `msg=listening`)
}

// A hub waits while its database answers with a temporary error or cannot be reached. The hub ends when it
// is stopped, or when the database answers with a permanent error.
func TestServeWaits(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"57P03", "57P01", "57P02", "57014", "53300", "08006", "08P01"} {
		t.Run(code, func(t *testing.T) {
			t.Parallel()
			r := newRefuser(t, code)
			h := waiting(t, r.dsn())
			h.err.await(t, regexp.QuoteMeta(`(SQLSTATE `+code+`)" retry_in=`))
			h.checkWaits(t)
			if code := h.stop(); code != 0 || !strings.HasSuffix(h.err.String(), "msg=stopped\n") {
				t.Errorf("got exit code %d, %s, want 0 and msg=stopped at the end", code, h.err)
			}
		})
	}
	t.Run("a permanent error later", func(t *testing.T) {
		t.Parallel()
		r := newRefuser(t, "57P03")
		h := waiting(t, r.dsn())
		r.code.Store("28P01")
		if code := h.wait(); code != 1 || !strings.HasSuffix(h.err.String(), "\nrowcast: "+r.error()+"\n") {
			t.Errorf("got exit code %d, %s, want 1 and the error %q", code, h.err, r.error())
		}
	})
	for name, address := range map[string]string{
		"no server":    "127.0.0.1:1",
		"no such name": "db.invalid:5432",
		"no route":     "224.0.0.1:5432", // a multicast address, to which the kernel does not connect
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			h := waiting(t, "postgres://me:secret@"+address+"/app")
			h.checkWaits(t)
			if name == "no route" && runtime.GOOS == "linux" {
				h.err.await(t, "cannot connect to PostgreSQL at 224.0.0.1:5432.*network is unreachable")
			}
			if code := h.stop(); code != 0 || strings.Contains(h.err.String(), "secret") {
				t.Errorf("got exit code %d, %s, want 0 and no password", code, h.err)
			}
		})
	}
}

// A hub that waits for its database does not log every attempt.
func TestServeWaitsQuietly(t *testing.T) {
	t.Parallel()
	r := newRefuser(t, "57P03")
	h := waiting(t, r.dsn())
	waitFor(t, "the fifth attempt", func() bool { return r.asked.Load() >= 5 })
	h.stop()
	if got := strings.Count(h.err.String(), "waiting for PostgreSQL"); got > 3 {
		t.Errorf("waiting for PostgreSQL was logged %d times in %d attempts, want at most 3 times: %s", got, r.asked.Load(), h.err)
	}
}

// A permanent error of the database ends the command at once, with a message.
func TestServeDoesNotWait(t *testing.T) {
	t.Parallel()
	for _, code := range []string{"28P01", "28000", "3D000", "42501", "42704"} {
		r := newRefuser(t, code)
		got, _, stderr := run(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", r.dsn())
		want := "rowcast: " + r.error() + "\n"
		if code == "42501" {
			want = strings.Replace(want, "\n", ": run rowcast doctor, which prints the missing rights\n", 1)
		}
		if got != 1 || stderr != want || r.asked.Load() != 1 {
			t.Errorf("SQLSTATE %s: got exit code %d, %q after %d attempts, want 1, %q, and one attempt", code, got, stderr, r.asked.Load(), want)
		}
	}
	c := dbtest.Cluster(t)
	wrong, err := url.Parse(dbtest.TCP(t, c, "postgres"))
	if err != nil {
		t.Fatal(err)
	}
	wrong.User = url.UserPassword("postgres", "wrong")
	code, _, stderr := run(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", wrong.String())
	if code != 1 || !strings.HasSuffix(stderr, `FATAL: password authentication failed for user "postgres" (SQLSTATE 28P01)`+hints["28P01"]+"\n") {
		t.Errorf("a wrong password: got exit code %d, %q, want 1 and the error 28P01 with a hint", code, stderr)
	}
	wrong.User = url.User("postgres")
	code, _, stderr = run(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", wrong.String())
	if code != 1 || !strings.HasSuffix(stderr, " (no password is given: put it into the database URL, PGPASSWORD or ~/.pgpass)\n") {
		t.Errorf("without a password: got exit code %d, %q, want 1 and a hint", code, stderr)
	}
	wrong.RawQuery = "sslmode=require"
	code, _, stderr = run(t, nil, "serve", "--insecure-uid", "--listen", "127.0.0.1:0", "--database-url", wrong.String())
	if code != 1 || !strings.Contains(stderr, "server refused TLS connection") {
		t.Errorf("with sslmode=require, and a server without TLS: got exit code %d, %q, want 1 and \"server refused TLS connection\"", code, stderr)
	}
}

// SIGHUP does not end a hub. The hub logs that the signal has no effect.
func TestHangupEndsNothing(t *testing.T) {
	t.Parallel()
	p, url := spawnServe(t, dbtest.Database(t))
	for range 3 {
		if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
	}
	p.err.await(t, "SIGHUP has no effect")
	if got := ask(t, "GET", url+"/readyz"); got.status != 200 {
		t.Errorf("after SIGHUP: got %d, %s, want 200", got.status, got.body)
	}
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("after an interrupt, the hub ended with %v, want exit code 0: %s", err, p.err)
	}
}

// A hub goes on if the program that reads its log ends.
func TestTheReaderOfTheLogEnds(t *testing.T) {
	t.Parallel()
	log, stderr, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	hub := command(t, t.TempDir(), "serve", "--insecure-uid", "--listen=127.0.0.1:0", "--database-url", dbtest.Database(t))
	hub.Stderr = stderr
	if err := errors.Join(hub.Start(), stderr.Close(), log.SetReadDeadline(time.Now().Add(waitLimit))); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = hub.Process.Kill() })
	lines := bufio.NewScanner(log)
	for !strings.Contains(lines.Text(), "msg=listening") {
		if !lines.Scan() {
			t.Fatalf("the log has ended without the line \"listening\": %v", lines.Err())
		}
	}
	if err := errors.Join(log.Close(), hub.Process.Signal(os.Interrupt)); err != nil {
		t.Fatal(err)
	}
	// The hub logs that it has stopped. If it did not ignore SIGPIPE, this would end it.
	ended := make(chan error, 1)
	go func() { ended <- hub.Wait() }()
	if err, _ := receive(t, ended, "the end of the hub"); err != nil {
		t.Errorf("the hub ended with %v, want exit code 0", err)
	}
}

// SIGHUP does not end a hub that waits for the keys of --jwks-url either.
func TestHangupWhileTheHubWaitsForItsKeys(t *testing.T) {
	t.Parallel()
	asked := make(chan struct{}, 1)
	keys := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		asked <- struct{}{}
		<-r.Context().Done()
	}))
	t.Cleanup(keys.Close)
	p := spawnProgram(t, nil, 0, "serve", "--listen=127.0.0.1:0", "--database-url", dbtest.Database(t), "--jwks-url", keys.URL)
	receive(t, asked, "a request for the keys")
	if err := p.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	p.err.await(t, "SIGHUP has no effect")
	if err := p.cmd.Process.Signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if err := p.wait(t); err != nil {
		t.Errorf("after an interrupt, the hub ended with %v, want exit code 0: %s", err, p.err)
	}
}
