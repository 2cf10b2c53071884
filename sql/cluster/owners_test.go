//go:build unix

package cluster_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"rowcast/sql/cluster"
	"rowcast/sql/dbtest"
)

// ownerVariable makes this test binary start a cluster, and stop the cluster when the standard input of the binary
// ends. The variable contains the directory of the cluster.
const ownerVariable = "ROWCAST_TEST_OWNER"

func own(dir string) int {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c := &cluster.Cluster{Dir: dir, Settings: map[string]string{"fsync": "off"}}
	if err := c.Start(ctx); err != nil {
		fmt.Println("failed", err)
		return 1
	}
	fmt.Println(c.PID(), c.Dir)
	_, _ = io.Copy(io.Discard, os.Stdin)
	if err := c.Stop(ctx); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// owner is a process that owns a cluster.
type owner struct {
	cmd   *exec.Cmd
	stdin io.Closer
	pid   int // the process id of the server
	dir   string
}

func begin(t *testing.T, dir string, prepare ...func(*exec.Cmd)) *owner {
	t.Helper()
	o := &owner{cmd: exec.CommandContext(dbtest.Context(t), os.Args[0])}
	o.cmd.Env = append(os.Environ(), ownerVariable+"="+dir)
	o.cmd.Stderr = os.Stderr
	for _, f := range prepare {
		f(o.cmd)
	}
	stdin, err := o.cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := o.cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := o.cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(o.kill)
	o.stdin = stdin
	line, _ := bufio.NewReader(stdout).ReadString('\n')
	pid, dir, _ := strings.Cut(strings.TrimSpace(line), " ")
	if o.pid, err = strconv.Atoi(pid); err != nil {
		t.Fatalf("start a cluster in another process: %s", line)
	}
	o.dir = dir
	return o
}

// kill ends the owner as kill -9 does.
func (o *owner) kill() {
	_ = o.cmd.Process.Kill()
	_ = o.cmd.Wait()
}

func (o *owner) end(t *testing.T) {
	t.Helper()
	o.stdin.Close()
	if err := o.cmd.Wait(); err != nil {
		t.Errorf("wait for the other process to stop its cluster: %v", err)
	}
}

func TestOneOwnerAtATime(t *testing.T) {
	t.Parallel()
	o := begin(t, directory(t))
	if err := quick(o.dir).Start(dbtest.Context(t)); !errors.Is(err, cluster.ErrInUse) {
		t.Errorf("Start beside another owner: got error %v, want ErrInUse", err)
	}
	o.end(t)
	if running(o.pid) {
		t.Error("the server still runs after its owner has stopped it")
	}
	start(t, quick(o.dir))
}

func TestServerEndsWithItsKilledOwner(t *testing.T) {
	t.Parallel()
	o := begin(t, directory(t))
	o.kill()
	next := quick(o.dir)
	start(t, next) // Start stops the server of the killed owner, if it still runs
	if pid := next.PID(); running(o.pid) || pid == o.pid {
		t.Errorf("the server %d of a killed owner still runs, or the new server has the same process id: %d", o.pid, pid)
	}
	other := begin(t, directory(t))
	other.kill()
	if runtime.GOOS == "linux" || runtime.GOOS == "freebsd" {
		until(t, "the server of a killed owner ends", func() bool { return !running(other.pid) })
	}
}

func TestLeftoverServerIsStopped(t *testing.T) {
	t.Parallel()
	leftover := started(t)
	pid := leftover.PID()
	leftover.Abandon()
	next := quick(leftover.Dir)
	start(t, next)
	if running(pid) || next.PID() == pid {
		t.Errorf("the server %d that was left behind still runs, or the new server has the same process id: %d", pid, next.PID())
	}
}

// A killed server leaves a file with its process id. If another program has that id now, Start does not stop the
// program.
func TestReusedProcessID(t *testing.T) {
	t.Parallel()
	c := started(t)
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(c.Dir, "data", "postmaster.pid")
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "\n")
	// The other program runs as the server's user. With the pid file, PostgreSQL would take the program for the old
	// server and not start. So Start must remove the file.
	stranger := exec.CommandContext(dbtest.Context(t), "sleep", "600")
	info, err := os.Stat(filepath.Join(c.Dir, "data"))
	if err != nil {
		t.Fatal(err)
	}
	if owner := info.Sys().(*syscall.Stat_t); int(owner.Uid) != os.Geteuid() {
		stranger.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: owner.Uid, Gid: owner.Gid}}
	}
	if err := stranger.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = stranger.Process.Kill(); _ = stranger.Wait() })
	if err := os.WriteFile(file, fmt.Appendf(nil, "%d\n%s", stranger.Process.Pid, rest), 0o600); err != nil {
		t.Fatal(err)
	}
	start(t, c)
	if !running(stranger.Process.Pid) {
		t.Error("the other program was stopped, want it running")
	}
}

// If root runs the tests, the other tests show only that root can run a cluster. This test shows that an unprivileged
// user can.
func TestWithoutRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("only root needs this test")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, _ := strconv.ParseUint(nobody.Gid, 10, 32)
	home, program := filepath.Dir(directory(t)), directory(t)
	if err := os.Chown(home, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(dbtest.Context(t), "install", "-m", "755", os.Args[0], program).CombinedOutput(); err != nil {
		t.Fatalf("copy the program: %v: %s", err, out)
	}
	begin(t, filepath.Join(home, "cache", "pg"), func(cmd *exec.Cmd) {
		cmd.Path, cmd.Dir = program, "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	}).end(t)
}
