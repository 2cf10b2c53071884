//go:build unix

package bench

import (
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// maxDescriptors returns how many files this process may have open.
func maxDescriptors() (uint64, error) {
	var limit syscall.Rlimit
	err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit)
	return uint64(limit.Cur), err // Cur is an int64 on FreeBSD
}

// ownGroup returns attributes for a process that Ctrl-C in the terminal does not reach.
func ownGroup() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

// usedCPU returns the CPU time that this process has used.
func usedCPU() (user, system time.Duration, err error) {
	var usage syscall.Rusage
	err = syscall.Getrusage(syscall.RUSAGE_SELF, &usage)
	return time.Duration(usage.Utime.Nano()), time.Duration(usage.Stime.Nano()), err
}

// writeSocket writes to a socket by one system call, without waiting.
func writeSocket(fd uintptr, p []byte) (int, error) { return unix.Write(int(fd), p) }
