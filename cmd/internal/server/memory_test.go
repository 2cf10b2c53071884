package server

import (
	"runtime/debug"
	"testing"
)

// The memory limit grows with the polls that are open at the same time, up to its bound. The test is not parallel,
// because the limit is the limit of the process.
func TestMemoryLimitOfPolls(t *testing.T) {
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	const base, highest, perPoll = 1 << 40, 1<<40 + 50e6, connectionMemory * 3 / 2
	var m memoryLimit
	m.set(highest, base)
	want := func(when string, limit int64) {
		t.Helper()
		if got := debug.SetMemoryLimit(-1); got != limit {
			t.Errorf("%s: the limit is %d bytes above the limit without polls, want %d", when, got-base, limit-base)
		}
	}
	want("without polls", base)
	for range 1000 {
		m.begin()()
	}
	want("after 1,000 polls, one after the other", base+101*perPoll)
	for range 102 {
		m.begin()
	}
	want("during 102 polls", base+227*perPoll)
	for range 1000 {
		m.begin()
	}
	want("during 1,102 polls, for which the bound is too low", highest)
}
