//go:build unix

package dbtest

import (
	"errors"
	"io/fs"
	"os/exec"
	"syscall"
)

// Suspend suspends a process until Resume is called or the process is killed.
func Suspend(pid int) error { return syscall.Kill(pid, syscall.SIGSTOP) }

// Resume lets a process continue that Suspend has suspended.
func Resume(pid int) error { return syscall.Kill(pid, syscall.SIGCONT) }

// Running reports whether there is a process with the id. A process that has ended counts until its parent waits for
// it.
func Running(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// Owner returns the user and the group of a file.
func Owner(info fs.FileInfo) (uid, gid int) {
	stat := info.Sys().(*syscall.Stat_t)
	return int(stat.Uid), int(stat.Gid)
}

// RunAs makes a program run as another user. Only root can start such a program.
func RunAs(cmd *exec.Cmd, uid, gid int) {
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}}
}
