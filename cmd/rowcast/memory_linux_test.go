package main_test

import (
	"cmp"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"rowcast/sql/dbtest"
)

// In a cgroup with a memory limit, a hub logs nine tenths of the cgroup's limit as the memory limit of the Go runtime.
// If GOMEMLIMIT is set, the hub logs the value of GOMEMLIMIT instead.
func TestTheMemoryLimitFollowsTheCgroup(t *testing.T) {
	t.Parallel()
	const limit = 256 << 20
	for _, tt := range []struct {
		variable string
		want     string
	}{
		{"", `memory limit of the Go runtime" bytes=` + strconv.Itoa(limit*9/10)},
		{"GOMEMLIMIT=300MiB", `memory limit of the Go runtime" bytes=` + strconv.Itoa(300<<20)},
	} {
		t.Run(cmp.Or(tt.variable, "no GOMEMLIMIT"), func(t *testing.T) {
			t.Parallel()
			procs := newCgroup(t, limit)
			p := &spawned{command(t, t.TempDir(), "serve", "--insecure-uid", "--listen=127.0.0.1:0", "--database-url", dbtest.Database(t)), newOutput(), make(chan error, 1)}
			p.cmd.Args = append([]string{"sh", "-c", `echo $$ > "$0" && exec "$@"`, procs, p.cmd.Path}, p.cmd.Args[1:]...)
			p.cmd.Path, p.cmd.Stderr = "/bin/sh", p.err
			if tt.variable != "" {
				p.cmd.Env = append(p.cmd.Environ(), tt.variable)
			}
			if err := p.cmd.Start(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() {
				_ = p.cmd.Process.Kill()
				_ = p.cmd.Wait()
			})
			p.err.await(t, tt.want)
		})
	}
}

// connectionBytes is what the memory limit of the Go runtime allows for a poll, and for an idle connection.
const connectionBytes = 1.5 * 50_000

// A hub computes the memory limit of the Go runtime from its flags, as cmd/rowcast/README.md says. GOMEMLIMIT overrides
// this limit.
func TestTheMemoryLimitFollowsTheFlags(t *testing.T) {
	t.Parallel()
	const flags = 12e6 + 1.5*(1.2*(10<<20)+1.125*(64<<20)+3*(1<<20)*(1+3)+3000*100)
	dsn := dbtest.Inbox(t)
	for _, tt := range []struct {
		variable string
		more     string
		want     float64
	}{
		{"GOMEMLIMIT=", "--inbox=false", flags},
		{"GOMEMLIMIT=", "--inbox", flags + 64<<20 + 4*50e6},
		{"GOMEMLIMIT=3GiB", "--inbox", 3 << 30},
	} {
		_, url := spawnServeIn(t, []string{tt.variable}, 0, dsn,
			"--memory=10MiB", "--pending=64MiB", "--max-event=1MiB", "--replays=3", "--max-connections=100", tt.more)
		if tt.want != 3<<30 { // an eighth of the open files is for idle connections
			files := int(min(metric(t, url, "process_max_fds"), 1<<20))
			tt.want += connectionBytes * float64(min(max(files/8, 16), 4096))
		}
		if got := metric(t, url, "go_gc_gomemlimit_bytes"); math.Abs(got-tt.want) > 1 {
			t.Errorf("%s %s: the limit is %.0f bytes, want %.0f", tt.variable, tt.more, got, tt.want)
		}
	}
}

// While many polls are open, a hub allows the Go runtime memory for each of them.
func TestTheMemoryLimitGrowsWithThePolls(t *testing.T) {
	t.Parallel()
	_, url := spawnServeIn(t, []string{"GOMEMLIMIT="}, 0, dbtest.Database(t), "--heartbeat=1m")
	const polls = 300
	before, present := metric(t, url, "go_gc_gomemlimit_bytes"), firstPoll(t, url)
	for range polls {
		raw(t, url, "GET /events?uid=alice&poll=1&last_event_id="+present+" HTTP/1.1\r\nHost: localhost\r\n\r\n")
	}
	askUntil(t, url+"/metrics", fmt.Sprintf(`(?m)^rowcast_streams %d$`, polls))
	allowed := (metric(t, url, "go_gc_gomemlimit_bytes") - before) / connectionBytes
	if allowed < polls || allowed > 2*polls {
		t.Errorf("during %d polls, the memory limit has grown by the memory of %.0f polls, want from %d to %d", polls, allowed, polls, 2*polls)
	}
}

// newCgroup creates a cgroup with a memory limit, and returns the path of its file cgroup.procs. A process joins by
// writing its pid to this file. If no such cgroup can be created, the test is skipped. The cgroup is removed at the end
// of the test, after its processes have ended.
func newCgroup(t *testing.T, limit int) (procs string) {
	t.Helper()
	name := fmt.Sprintf("rowcast-test-%d-%d", os.Getpid(), time.Now().UnixNano())
	for _, version := range []struct{ root, file string }{
		{"/sys/fs/cgroup", "memory.max"},
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"},
	} {
		dir := filepath.Join(version.root, name)
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Log(err)
			continue
		}
		t.Cleanup(func() { removeCgroup(t, dir) })
		file := filepath.Join(dir, version.file)
		if _, err := os.Stat(file); err == nil && os.WriteFile(file, []byte(strconv.Itoa(limit)), 0o600) == nil {
			return filepath.Join(dir, "cgroup.procs")
		}
	}
	t.Skip("cannot create a cgroup with a memory limit: run the test as root, where /sys/fs/cgroup is writable")
	return ""
}

// removeCgroup removes a cgroup as soon as its processes have ended.
func removeCgroup(t *testing.T, dir string) {
	var err error
	for deadline := time.Now().Add(waitLimit); time.Now().Before(deadline); <-time.After(10 * time.Millisecond) {
		if err = os.Remove(dir); err == nil || !strings.Contains(err.Error(), "busy") {
			break
		}
	}
	if err != nil {
		t.Errorf("remove the cgroup: %v", err)
	}
}
