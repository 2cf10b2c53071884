package cluster_test

import (
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"

	"rowcast/sql/dbtest"
)

// The tests of a machine's root show only the half of it.
func TestWithoutRoot(t *testing.T) {
	t.Parallel()
	if os.Geteuid() != 0 {
		t.Skip("the other tests show it")
	}
	nobody, err := user.Lookup("nobody")
	if err != nil {
		t.Fatal(err)
	}
	uid, _ := strconv.ParseUint(nobody.Uid, 10, 32)
	gid, _ := strconv.ParseUint(nobody.Gid, 10, 32)
	home := filepath.Dir(directory(t))
	if err := os.Chown(home, int(uid), int(gid)); err != nil {
		t.Fatal(err)
	}
	o := owner{Dir: filepath.Join(home, "cache", "pg")}
	o.begin(t, copyOf(t, os.Args[0]), func(cmd *exec.Cmd) {
		cmd.Dir = "/"
		cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
	})
	if o.Err != "" {
		t.Fatal(o.Err)
	}
	if got := query(t, o.DSN, "SELECT 1"); got != "1" {
		t.Errorf("answer %s, want 1", got)
	}
	o.end(t)
}

// copyOf puts a program where every user can run it.
func copyOf(t *testing.T, program string) string {
	t.Helper()
	to := directory(t)
	// Not by this process: a program cannot be run while a process that is being started has it open for writing.
	if out, err := exec.CommandContext(dbtest.Context(t), "install", "-m", "755", program, to).CombinedOutput(); err != nil {
		t.Fatalf("copy the program: %v: %s", err, out)
	}
	return to
}
