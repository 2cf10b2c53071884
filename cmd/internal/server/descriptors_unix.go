//go:build unix

package server

import "golang.org/x/sys/unix"

// descriptors returns the maximum number of files and connections that this process may have open, but at most
// maxDescriptors. At startup, the Go runtime raises the soft limit to the hard limit.
func descriptors() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return maxDescriptors
	}
	return min(uint64(limit.Cur), maxDescriptors) // Cur is an int64 on FreeBSD
}
