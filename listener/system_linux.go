package listener

import (
	"fmt"
	"os"
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

// An idleMeter measures for which share of their time the CPUs of this machine are idle.
type idleMeter struct {
	at    time.Time // when the CPUs' times were read
	times cpuTimes
	share float64
}

const (
	// measureEvery is the minimum time between two measurements.
	measureEvery = 100 * time.Millisecond
	// outdated is the age from which on a measurement says nothing about the present.
	outdated = time.Second
)

// read returns the idle share of the time between the last two measurements, from 0 to 1. It returns 1 if the share is
// not known.
func (m *idleMeter) read(now time.Time) float64 {
	age := now.Sub(m.at)
	if age < measureEvery {
		return m.share
	}
	stat, _ := os.ReadFile("/proc/stat")
	times := parseCPUTimes(string(stat))
	m.share = 1
	if age < outdated {
		m.share = times.idleSince(m.times)
	}
	m.at, m.times = now, times
	return m.share
}

// cpuTimes are the times of all CPUs since the machine started, in the kernel's unit.
type cpuTimes struct{ idle, total uint64 }

// parseCPUTimes reads the first line of /proc/stat. The times are 0 if the line is not as expected.
func parseCPUTimes(stat string) cpuTimes {
	var user, nice, system, idle, iowait, irq, softirq, steal uint64
	_, err := fmt.Sscanf(stat, "cpu %d %d %d %d %d %d %d %d", &user, &nice, &system, &idle, &iowait, &irq, &softirq, &steal)
	if err != nil {
		return cpuTimes{}
	}
	return cpuTimes{idle + iowait, user + nice + system + idle + iowait + irq + softirq + steal}
}

// idleSince returns the idle share of the time since before, or 1 if the share is not known. It is not known, for
// example, if the idle time has decreased, because the kernel's iowait can decrease.
func (t cpuTimes) idleSince(before cpuTimes) float64 {
	if before.total == 0 || t.total <= before.total || t.idle < before.idle {
		return 1
	}
	return min(float64(t.idle-before.idle)/float64(t.total-before.total), 1)
}
