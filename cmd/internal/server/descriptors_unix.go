//go:build unix

package server

import "golang.org/x/sys/unix"

// descriptors is how many files and connections this process may have open. Go has raised the soft limit to the hard one.
func descriptors() uint64 {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		return manyDescriptors
	}
	return min(uint64(limit.Cur), manyDescriptors) // int64 on FreeBSD
}
