package main_test

import (
	"context"
	"io"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/jackc/pgx/v5"

	"rowcast/sql/dbtest"
)

// A hub stops in time even if the connections to its database are silent and queries get no answer. Requests that are
// being answered have 3 s, and then the connections for replays and for the inbox together one. A loaded machine can
// delay one attempt.
func TestServeEndsWithASilentDatabase(t *testing.T) {
	t.Parallel()
	server := dbtest.Cluster(t)
	dsn := server.DSN("postgres")
	if code, _, stderr := run(t, nil, "migrate", "--inbox", "--database-url", dsn); code != 0 {
		t.Fatalf("migrate: got exit code %d, %s, want 0", code, stderr)
	}
	const most = 4900 * time.Millisecond
	took := most
	for i := 0; i < 6 && took >= most; i++ {
		t.Run("stop", func(t *testing.T) { took = stopInSilence(t, dsn) })
	}
	if took >= most {
		t.Errorf("the hub stopped after %v, want less than %v", took, most)
	}
}

// stopInSilence starts a hub, silences its database, and returns how long the hub takes to stop.
func stopInSilence(t *testing.T, dsn string) time.Duration {
	p, url := spawnServe(t, dsn, "--drain", "100ms", "--inbox")
	openStreams(t, url, 2)
	// The hub must query the database about a cursor of another epoch. The connections of these queries stay open.
	const stream, list = "/events?uid=bob&last_event_id=77-1042-1042--5be3b1f2-0c9a8e11", "/inbox?uid=bob"
	askUntil(t, url+stream+"&poll=1", `rowcast.reset`)
	askUntil(t, url+list, `"items"`)
	silence(t, dsn)
	for _, path := range []string{stream, list} { // these queries get no answer
		conn, err := net.Dial("tcp", strings.TrimPrefix(url, "http://"))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		if _, err := io.WriteString(conn, "GET "+path+" HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
	}
	askUntil(t, url+"/metrics", `(?m)^rowcast_streams 3$`)
	began := time.Now()
	if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	p.err.await(t, "msg=stopped") // with -race, the process ends a second later
	took := time.Since(began)
	if err := p.wait(t); err != nil {
		t.Errorf("got %v, want exit code 0", err)
	}
	return took
}

// silence suspends the main process of a server (postmaster) and the server processes of a hub's idle sessions until
// the test ends. The connections stay open, but no data arrives.
func silence(t *testing.T, dsn string) {
	t.Helper()
	conn, err := pgx.Connect(t.Context(), dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close(context.Background())
	const find = `SELECT array_agg(pid) || split_part(pg_read_file('postmaster.pid'), E'\n', 1)::int FROM pg_stat_activity
		WHERE application_name IN ('rowcast listener', 'rowcast park lock', 'rowcast replay', 'rowcast inbox') AND state = 'idle'`
	var pids []int
	for deadline := time.Now().Add(waitLimit); len(pids) < 5; time.Sleep(10 * time.Millisecond) {
		if err := conn.QueryRow(t.Context(), find).Scan(&pids); err != nil {
			t.Fatal(err)
		}
		if time.Now().After(deadline) {
			t.Fatalf("found the postmaster and the idle sessions of the hub in the processes %v, want 5", pids)
		}
	}
	for _, pid := range pids {
		if err := dbtest.Suspend(pid); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = dbtest.Resume(pid) })
	}
}
