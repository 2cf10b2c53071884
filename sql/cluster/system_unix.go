//go:build unix

package cluster

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
)

// supported reports whether a Cluster can run on this system.
const supported = true

// noFollow makes opening a file fail if its name is a symbolic link.
const noFollow = syscall.O_NOFOLLOW

// ownerOf returns the user id of the owner of a file.
func ownerOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// runAs makes a program run as another user.
func runAs(attr *syscall.SysProcAttr, uid, gid int) {
	attr.Credential = &syscall.Credential{Uid: uint32(uid), Gid: uint32(gid)}
}

// ownSession makes a program run in a new session, which has no terminal.
func ownSession(attr *syscall.SysProcAttr) { attr.Setsid = true }

// lockFile locks a file. It returns ErrInUse if the file is already locked.
func lockFile(file *os.File) error {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrInUse
	}
	return err
}

// unlockFile unlocks a file at once. Closing the file alone is not enough,
// because a program that is being started shares the file until it runs.
func unlockFile(file *os.File) { _ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN) }

// exists reports whether there is a process with the id.
func exists(pid int) bool { return !errors.Is(syscall.Kill(pid, 0), syscall.ESRCH) }

// suspend stops a process until it is continued or killed.
func suspend(process *os.Process) error {
	err := process.Signal(syscall.SIGSTOP)
	if errors.Is(err, os.ErrProcessDone) {
		return nil
	}
	return err
}

// killChildren kills the direct children of a process.
func killChildren(pid int) error {
	parent := strconv.Itoa(pid)
	text, err := os.ReadFile("/proc/" + parent + "/task/" + parent + "/children")
	if err != nil { // not Linux
		text, err = exec.Command("pgrep", "-P", parent).Output()
	}
	for child := range strings.FieldsSeq(string(text)) {
		n, _ := strconv.Atoi(child)
		_ = syscall.Kill(n, syscall.SIGKILL) // the child may have ended
	}
	return err
}
