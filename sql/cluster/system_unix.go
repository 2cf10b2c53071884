//go:build unix

package cluster

import (
	"errors"
	"io/fs"
	"os"
	"syscall"
)

// supported reports whether a Cluster can run on this system.
const supported = true

// ownerOf returns the user id of the owner of a file.
func ownerOf(info fs.FileInfo) int { return int(info.Sys().(*syscall.Stat_t).Uid) }

// attributes makes a program run as the account, and in a new session, which Ctrl-C in the terminal does not reach.
func attributes(a account) *syscall.SysProcAttr {
	attr := &syscall.SysProcAttr{Setsid: true}
	if a.other {
		attr.Credential = &syscall.Credential{Uid: uint32(a.uid), Gid: uint32(a.gid)}
	}
	return attr
}

// lockFile locks a file. It returns ErrInUse if the file is already locked.
func lockFile(file *os.File) error {
	err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	if errors.Is(err, syscall.EWOULDBLOCK) {
		return ErrInUse
	}
	return os.NewSyscallError("flock", err)
}

// unlockFile unlocks a file at once. Closing the file alone is not enough, because a program that is being started
// shares the file until it runs.
func unlockFile(file *os.File) { _ = syscall.Flock(int(file.Fd()), syscall.LOCK_UN) }
