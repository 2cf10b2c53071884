package listener

import (
	"fmt"
	"os"
	"testing"
	"time"
)

func TestIdleShare(t *testing.T) {
	t.Parallel()
	const before = "cpu  100 10 50 1000 40 3 7 0 0 0\ncpu0 50 5 25 500 20 2 3 0 0 0\n"
	for after, want := range map[string]float64{
		"cpu  100 10 50 1010 40 3 7 0 0 0\n": 1,
		"cpu  110 10 50 1000 40 3 7 0 0 0\n": 0,
		"cpu  110 11 55 1005 45 4 8 2 0 0\n": 1. / 3, // 10 of 30 ticks are idle or iowait
		"cpu  110 10 50 1010 40 3 7 0\n":     0.5,    // Linux before version 2.6.24
		before:                               1,      // no time has passed
		"cpu  300 10 50 1000 30 3 7 0 0 0\n": 1,      // iowait has decreased
		"cpu  100 10 50\n":                   1,
		"intr 12345\n":                       1,
		"":                                   1,
	} {
		if got := parseCPUTimes(after).idleSince(parseCPUTimes(before)); got != want {
			t.Errorf("from %q to %q: got %v, want %v", before, after, got, want)
		}
	}
	if got := parseCPUTimes(before).idleSince(cpuTimes{}); got != 1 {
		t.Errorf("with no times before: got %v, want 1", got)
	}
}

// The meter reads the times of this machine, at most once in measureEvery. If the last reading is outdated, the
// meter returns 1, because it does not know the present share.
func TestIdleMeter(t *testing.T) {
	t.Parallel()
	stat, err := os.ReadFile("/proc/stat")
	if err != nil {
		t.Skipf("cannot read the times of this machine's CPUs: %v", err)
	}
	if times := parseCPUTimes(string(stat)); times.total == 0 || times.idle > times.total {
		t.Errorf("the times of this machine's CPUs are %+v, want more than 0 in total, and no more idle time than that", times)
	}
	now := time.Now()
	known := cpuTimes{idle: 0, total: 1} // since this time, the machine has been idle for some ticks and busy for others
	for _, test := range []struct {
		m    idleMeter
		want string
	}{
		{idleMeter{}, "1"},
		{idleMeter{now.Add(-outdated), known, 0.25}, "1"},
		{idleMeter{now.Add(1 - measureEvery), known, 0.25}, "0.25"},
		{idleMeter{now.Add(-measureEvery), known, 2}, "between 0 and 1"},
	} {
		got := test.m.read(now)
		if text := fmt.Sprint(got); text != test.want && !(test.want == "between 0 and 1" && got > 0 && got < 1) {
			t.Errorf("%+v: got %v, want %s", test.m, text, test.want)
		}
	}
}

// While the CPUs are busy, a hub that polls waits longer between two polls. If there are also many commits a second, a
// hub that was notified waits up to a millisecond before it fetches.
func TestHubWaitsWhileTheCPUsAreBusy(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	l := &Listener{PollInterval: 8 * ms, Busy: 2000, Quiet: 1000}
	hub := func(rate float64) *wakeup {
		now := time.Now()
		w := &wakeup{Listener: l, link: &link{Listener: l}, pace: pace{rate: rate, at: now}}
		w.idle = idleMeter{at: now.Add(time.Minute), share: 0} // measured in the future, so that it is not measured again
		return w
	}
	began := time.Now()
	if why, _, err := hub(l.Busy).pollAfter(t.Context(), fetched{}); err != nil || why != pollDue {
		t.Errorf("poll: got the reason %d and the error %v, want %d (pollDue) and no error", why, err, pollDue)
	}
	if waited := time.Since(began); waited < 2*ms {
		t.Errorf("the hub polled after %v, want at least 2 ms: four sixteenths of PollInterval", waited)
	}
	began = time.Now()
	w := hub(1000)
	w.link.notified = true
	if why, err := w.sleep(t.Context(), func() (bool, error) { return false, nil }); err != nil || why != woken {
		t.Errorf("notification: got the reason %d and the error %v, want %d (woken) and no error", why, err, woken)
	}
	if waited := time.Since(began); waited < ms {
		t.Errorf("the hub fetched %v after the notification, want at least 1 ms", waited)
	}
}
