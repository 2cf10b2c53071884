package listener

import (
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// nap sleeps for a time that can be well below a millisecond. time.Sleep and deadlines do not suffice: while a program
// is idle, Go waits for them with epoll_wait, which counts in whole milliseconds.
func nap(d time.Duration) {
	until := time.Now().Add(d)
	// The goroutines that this one has made ready run first.
	runtime.Gosched()
	for d = time.Until(until); d > 0; d = time.Until(until) { // a signal ends the system call early
		t := unix.NsecToTimespec(int64(d))
		_ = unix.ClockNanosleep(unix.CLOCK_MONOTONIC, 0, &t, nil)
	}
}
