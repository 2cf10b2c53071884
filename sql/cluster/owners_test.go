package cluster_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

func TestSecondOwnerIsRefused(t *testing.T) {
	t.Parallel()
	c := started(t)
	o := owner{Dir: c.Dir}
	o.begin(t, os.Args[0])
	o.end(t)
	want := fmt.Sprintf("start PostgreSQL in %s: directory is in use: another rowcast (pid %d) uses it", c.Dir, os.Getpid())
	if o.Err != want {
		t.Errorf("second owner got %q, want %q", o.Err, want)
	}
	shared := &cluster.Cluster{Dir: c.Dir, Shared: true}
	if err := shared.Start(dbtest.Context(t)); !errors.Is(err, cluster.ErrInUse) {
		t.Errorf("shared owner of an exclusive cluster got %v, want ErrInUse", err)
	}
	query(t, c.DSN("postgres"), "SELECT 1")
}

func TestKilledOwner(t *testing.T) {
	t.Parallel()
	files, err := template()
	if err != nil {
		t.Fatal(err)
	}
	o := owner{Dir: directory(t), Template: files}
	o.begin(t, os.Args[0], func(cmd *exec.Cmd) {
		// What the user has set for psql is nothing to the server.
		cmd.Env = append(cmd.Env, "PGPORT=1", "PGDATA=/nowhere", "PGHOST=nowhere", "PGCLIENTENCODING=bad", "LC_ALL=xx_XX")
	})
	if o.Err != "" {
		t.Fatal(o.Err)
	}
	query(t, o.DSN, "CREATE TABLE kept AS SELECT 1")
	session := connect(t, o.DSN)
	o.kill()
	if runtime.GOOS == "linux" || runtime.GOOS == "freebsd" {
		// The kernel tells the server to stop, which ends the session.
		ctx, cancel := context.WithTimeout(dbtest.Context(t), time.Minute)
		defer cancel()
		if _, err := session.WaitForNotification(ctx); err == nil || ctx.Err() != nil {
			t.Errorf("session of the killed owner's server: %v, want it to end with the server", err)
		}
	}
	c := &cluster.Cluster{Dir: o.Dir}
	start(t, c)
	if running(o.PID) {
		t.Errorf("server %d of the killed owner still runs", o.PID)
	}
	if got := query(t, c.DSN("postgres"), "SELECT count(*) FROM kept"); got != "1" {
		t.Errorf("found %s rows of the killed owner, want 1", got)
	}
}

func TestKilledPostmaster(t *testing.T) {
	t.Parallel()
	c := started(t)
	busy := connect(t, c.DSN("postgres"))
	ended := make(chan error, 1)
	go func() { // keeps the shared memory for a while
		_, err := busy.Exec(context.Background(), "DO $$ BEGIN WHILE clock_timestamp() < now() + '700 ms' LOOP END LOOP; END $$")
		ended <- err
	}()
	until(t, "the session is busy", func() bool {
		return query(t, c.DSN("postgres"), "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'DO %' AND state = 'active'") == "1"
	})
	if err := syscall.Kill(c.PID(), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	if err := c.Wait(dbtest.Context(t)); err == nil {
		t.Error("the killed postmaster was not noticed")
	}
	if err := c.Start(dbtest.Context(t)); err != nil {
		t.Fatal(err)
	}
	query(t, c.DSN("postgres"), "SELECT 1")
	_ = dbtest.Receive(t, ended, "the session of the killed postmaster to end")
}

// The pid that a killed server leaves in its file may be another program's by
// the time of the next start. PostgreSQL would refuse to start for it, and
// nobody may stop it.
func TestStalePIDFile(t *testing.T) {
	t.Parallel()
	c := started(t)
	info, err := os.Stat(filepath.Join(c.Dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	other := started(t)                                       // the most alike
	innocent := exec.CommandContext(dbtest.Context(t), "cat") // of the server's user: others PostgreSQL does not mind
	if owner := info.Sys().(*syscall.Stat_t); os.Geteuid() == 0 {
		innocent.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	stdin, err := innocent.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := innocent.Start(); err != nil {
		t.Fatal(err)
	}
	for _, pid := range []int{innocent.Process.Pid, other.PID()} {
		if err := c.Kill(); err != nil {
			t.Fatal(err)
		}
		replacePID(t, c, pid)
		if err := c.Start(dbtest.Context(t)); err != nil {
			t.Fatal(err)
		}
	}
	query(t, other.DSN("postgres"), "SELECT 1")
	stdin.Close()
	if err := innocent.Wait(); err != nil {
		t.Errorf("the program that had the pid: %v", err)
	}
}

// replacePID puts another pid into the file that a killed server has left.
func replacePID(t *testing.T, c *cluster.Cluster, pid int) {
	t.Helper()
	path := filepath.Join(c.Dir, "data", "postmaster.pid")
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	if err := os.WriteFile(path, []byte(strconv.Itoa(pid)+"\n"+rest), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestSharedByProcesses(t *testing.T) {
	t.Parallel()
	files, err := template()
	if err != nil {
		t.Fatal(err)
	}
	dir := directory(t)
	owners := make([]*owner, 4)
	var all sync.WaitGroup
	for i := range owners {
		owners[i] = &owner{Dir: dir, Template: files, Shared: true}
		all.Go(func() {
			if err := owners[i].tryBegin(dbtest.Context(t), os.Args[0]); err != nil {
				t.Error(err)
			}
		})
	}
	dbtest.Wait(t, all.Wait, "four owners to start")
	for _, o := range owners {
		t.Cleanup(o.kill)
	}
	starters := 0
	for _, o := range owners {
		if o.Err != "" {
			t.Fatal(o.Err)
		}
		if o.PID != owners[0].PID || o.DSN != owners[0].DSN {
			t.Errorf("one has server %d at %s, another %d at %s, want one server", o.PID, o.DSN, owners[0].PID, owners[0].DSN)
		}
		if !o.Joined {
			starters++
		}
	}
	if starters != 1 {
		t.Fatalf("%d owners started the server, want 1", starters)
	}
	exclusive := &cluster.Cluster{Dir: dir}
	if err := exclusive.Start(dbtest.Context(t)); !errors.Is(err, cluster.ErrInUse) {
		t.Errorf("exclusive owner of a shared cluster got %v, want ErrInUse", err)
	}
	// The server outlives all but the last, whoever started it and however
	// they end.
	session := connect(t, owners[0].DSN)
	for i, o := range owners[:3] {
		if i == 1 {
			o.kill()
		} else {
			o.end(t)
		}
		if err := session.Ping(dbtest.Context(t)); err != nil {
			t.Fatalf("after owner %d of 4 has gone: %v", i+1, err)
		}
	}
	owners[3].end(t)
	if err := session.Ping(dbtest.Context(t)); err == nil {
		t.Error("the last owner left the server running")
	}
	if _, err := os.Stat(filepath.Join(dir, "data", "postmaster.pid")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the last owner did not stop the server in order (%v)", err)
	}
}

func TestSharedSurvivesKilledOwners(t *testing.T) {
	t.Parallel()
	files, err := template()
	if err != nil {
		t.Fatal(err)
	}
	o := owner{Dir: directory(t), Template: files, Shared: true}
	o.begin(t, os.Args[0])
	if o.Err != "" {
		t.Fatal(o.Err)
	}
	o.kill()
	query(t, o.DSN, "CREATE TABLE kept (n int)") // by another that would share it

	c := &cluster.Cluster{Dir: o.Dir, Shared: true, Settings: map[string]string{"max_connections": "33"}}
	start(t, c)
	if c.Joined() || c.PID() == o.PID || running(o.PID) {
		t.Errorf("joined: %t, pid %d, the dead owner's server %d runs: %t; want a new server and the old one stopped", c.Joined(), c.PID(), o.PID, running(o.PID))
	}
	if got := query(t, c.DSN("postgres"), "SHOW max_connections"); got != "33" {
		t.Errorf("server has %s connections, want its new owner's 33", got)
	}
	if c.DSN("postgres") != o.DSN {
		t.Errorf("connection string is %s, want as before %s", c.DSN("postgres"), o.DSN)
	}
	for name, err := range map[string]error{"kill": c.Kill(), "restart": c.Restart(dbtest.Context(t), cluster.Fast)} {
		if err == nil {
			t.Errorf("%s of a shared server succeeded", name)
		}
	}
}

// running tells whether a process exists that is not a zombie: the init of a
// container may leave the dead around.
func running(pid int) bool {
	if runtime.GOOS == "linux" {
		text, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid))
		return len(text) > 0
	}
	return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH)
}

// until waits for what another process must bring about.
func until(t *testing.T, what string, done func() bool) {
	t.Helper()
	deadline := time.After(patience)
	again := time.NewTicker(10 * time.Millisecond)
	defer again.Stop()
	for !done() {
		select {
		case <-again.C:
		case <-deadline:
			t.Fatalf("waited %v until %s", patience, what)
		}
	}
}
