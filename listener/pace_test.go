package listener

import (
	"context"
	"math"
	"runtime"
	"slices"
	"testing"
	"time"
)

// commitAt adds commits to a pace from now on, for the given time, at a rate in commits a second. It returns the time
// at the end.
func commitAt(p *pace, now time.Time, rate float64, while time.Duration) time.Time {
	every := time.Duration(float64(time.Second) / rate)
	for end := now.Add(while); now.Before(end); now = now.Add(every) {
		p.add(now, 1)
	}
	return now
}

func TestPaceMeasuresTheRate(t *testing.T) {
	t.Parallel()
	for _, rate := range []float64{100, 1000, 10_000} {
		var p pace
		now := commitAt(&p, time.Now(), rate, time.Second)
		p.decay(now)
		if math.Abs(p.rate-rate) > 0.15*rate {
			t.Errorf("measured %.0f commits a second, want %.0f, with an error of at most 15%%", p.rate, rate)
		}
	}
}

func TestPaceIsBusyFromBusyToQuiet(t *testing.T) {
	t.Parallel()
	const busy, quiet = 2000, 1000
	var p pace
	now := time.Now()
	for _, step := range []struct {
		rate  float64
		while time.Duration
		want  bool
	}{
		{500, time.Second, false},
		{1500, time.Second, false}, // the rate is below busy, so the pace is still not busy
		{3000, time.Second, true},
		{1500, time.Second, true}, // the rate is above quiet, so the pace is still busy
		{500, time.Second, false},
		{100_000, 5 * time.Millisecond, true}, // a short burst makes the pace busy at once
	} {
		now = commitAt(&p, now, step.rate, step.while)
		if got := p.isBusy(now, busy, quiet); got != step.want {
			t.Errorf("at %.0f commits a second: got busy %t, want %t", step.rate, got, step.want)
		}
	}
	if now = now.Add(time.Second); p.isBusy(now, busy, quiet) {
		t.Error("the pace is busy a second after the last commit, want it not busy")
	}
}

func TestPaceCountsTransactions(t *testing.T) {
	t.Parallel()
	rows := make([]row, 6)
	for i, xid := range []uint64{7, 7, 7, 8, 9, 9} {
		rows[i].Xid = xid
	}
	if got := commits(rows); got != 3 {
		t.Errorf("got %d commits, want 3", got)
	}
	if got := commits(nil); got != 0 {
		t.Errorf("got %d commits of no rows, want 0", got)
	}
}

// Writers that wait for each other make a pace busy for a while, and for longer if they wait again soon after.
func TestPaceIsBusyWhileWritersWait(t *testing.T) {
	t.Parallel()
	var p pace
	now := time.Now()
	busy := func() bool { return p.isBusy(now, 2000, 1000) }
	for range 100 { // queues that do not last, as when two writers commit at the same time or the disk stalls briefly
		for range lasting - 1 {
			p.observe(now, true)
		}
		p.observe(now, false)
	}
	if busy() {
		t.Error("the pace is busy, want it not busy, because no queue of writers lasted")
	}
	queue := func() {
		for range lasting {
			p.observe(now, true)
		}
	}
	for hold := minHold; hold <= 4*minHold; hold *= 2 {
		queue()
		if now = now.Add(hold - 1); !busy() {
			t.Errorf("%v after a queue, the pace is not busy, want it busy until %v", hold-1, hold)
		}
		if now = now.Add(1); busy() {
			t.Errorf("%v after a queue, the pace is busy, want it not busy", hold)
		}
	}
	now = now.Add(maxHold)
	queue()
	if now = now.Add(minHold); busy() {
		t.Error("the pace is busy after minHold, want it not busy, because the last hold ended maxHold before this queue")
	}
}

func TestPaceChecksForAQueue(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		rate    float64
		waiting bool // whether the last check found waiting writers
		want    time.Duration
	}{
		"many commits":               {1000, false, checkEvery},
		"many commits, with a queue": {1000, true, checkAgain},
		"few commits":                {checkFrom - 1, false, 0},
		"few commits, with a queue":  {checkFrom - 1, true, 0},
	} {
		now := time.Now()
		p := pace{rate: test.rate, at: now}
		p.observe(now, test.waiting)
		var got time.Duration
		for ms := time.Millisecond; ms <= time.Second && got == 0; ms += time.Millisecond {
			if p.rate, p.at = test.rate, now.Add(ms); p.isCheckDue(p.at) {
				got = ms
			}
		}
		if got != test.want {
			t.Errorf("%s: the next check is due after %v, want %v; 0 means never", name, got, test.want)
		}
	}
}

func TestPollInterval(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for name, test := range map[string]struct {
		rate              float64
		pollOnly, crowded bool
		took, want        time.Duration
		busy              float64 // the share of the CPUs' time in which they are busy
	}{
		"many commits, a quick fetch":             {2000, false, false, ms / 8, ms / 8, 0},
		"many commits":                            {2000, false, false, ms, ms / 2, 0},
		"many commits, a slow fetch":              {2000, false, false, 6 * ms, 3 * ms, 0},
		"many commits, a very slow fetch":         {2000, false, false, time.Second, 4 * ms, 0},
		"more commits, a quick fetch":             {5000, false, false, ms / 8, 5 * ms / 16, 0},
		"very many commits":                       {12_000, false, false, ms / 4, 9 * ms / 8, 0},
		"very many commits, a slow fetch":         {12_000, false, false, 6 * ms, 3 * ms, 0},
		"too many commits":                        {1e9, false, false, ms / 4, 4 * ms, 0},
		"many commits, a full NOTIFY queue":       {2000, false, true, ms, ms / 2, 0},
		"idle enough":                             {2000, false, false, ms / 8, ms / 8, 0.7},
		"busy":                                    {2000, false, false, ms / 8, 9 * ms / 32, 0.8},
		"busier":                                  {2000, false, false, ms / 8, ms / 2, 0.85},
		"no idle time":                            {2000, false, false, ms / 8, ms / 2, 1},
		"busy, very many commits":                 {12_000, false, false, ms / 8, 81 * ms / 32, 0.8},
		"busy, too many commits":                  {1e9, false, false, ms / 8, 4 * ms, 1},
		"busy, a slow fetch":                      {2000, false, false, 3 * ms, 3 * ms / 2, 0.8},
		"busy, few commits":                       {1000, false, false, ms / 8, 9 * ms / 32, 0.8},
		"busy, PollOnly":                          {1000, true, false, ms / 4, 2 * ms, 1},
		"few commits, a quick fetch":              {1000, false, false, ms / 8, ms / 8, 0},
		"few commits":                             {1000, false, false, ms, ms / 2, 0},
		"few commits, a very slow fetch":          {1000, false, false, time.Second, 2 * ms, 0},
		"few commits, a full NOTIFY queue":        {1000, false, true, ms, gapPoll, 0},
		"few commits, PollOnly":                   {1000, true, false, ms / 4, 2 * ms, 0},
		"few commits, a slow fetch, PollOnly":     {1000, true, false, 3 * ms / 2, 3 * ms, 0},
		"no commits, a very slow fetch, PollOnly": {0, true, false, time.Second, 4 * ms, 0},
	} {
		w := wakeup{Listener: &Listener{PollInterval: 2 * ms, Busy: 2000, PollOnly: test.pollOnly}, pace: pace{rate: test.rate}, crowded: test.crowded}
		if got := w.interval(test.took, 1-test.busy); (got - test.want).Abs() > time.Microsecond {
			t.Errorf("%s: got %v, want %v", name, got, test.want)
		}
	}
}

// With a negative Busy, the hub always polls, at the shortest interval.
func TestPollIntervalWithNegativeBusy(t *testing.T) {
	t.Parallel()
	w := wakeup{Listener: &Listener{PollInterval: 2 * time.Millisecond, Busy: -1}, pace: pace{rate: 3000}}
	if got, want := w.interval(0, 1), time.Millisecond/8; got != want {
		t.Errorf("got %v, want %v", got, want)
	}
}

func TestHubCollectsCommits(t *testing.T) {
	t.Parallel()
	const ms = time.Millisecond
	for busy, want := range map[float64]time.Duration{0: 0, 0.7: 0, 0.8: 9 * ms / 32, 0.85: ms / 2, 1: ms / 2} {
		w := wakeup{Listener: &Listener{PollInterval: 2 * ms}}
		if got := w.collectWhile(1 - busy); (got - want).Abs() > time.Microsecond {
			t.Errorf("the CPUs are busy for %v of the time: the hub waits for %v, want %v", busy, got, want)
		}
	}
	w := wakeup{Listener: &Listener{PollInterval: time.Second}}
	if got := w.collectWhile(0); got != ms {
		t.Errorf("with a long PollInterval: the hub waits for %v, want %v", got, ms)
	}
	now := time.Now()
	w.pace = pace{rate: 15 * collectFrom, at: now.Add(-3 * memory)} // 15 is below e to the power of 3
	if got := w.collect(now); got != 0 {
		t.Errorf("after %v without commits: the hub waits for %v, want 0", 3*memory, got)
	}
}

// One slow fetch does not delay the next poll. Two slow fetches in a row do.
func TestOneSlowFetchDelaysNothing(t *testing.T) {
	t.Parallel()
	w := newWakeup(&Listener{}, nil, nil)
	for i, test := range []struct{ took, want time.Duration }{{3, 0}, {3, 3}, {900, 3}, {4, 4}, {800, 4}, {700, 700}} {
		var got time.Duration
		w.phase = func(_ context.Context, last fetched) (reason, phase, error) {
			got = last.took
			return pollDue, nil, nil
		}
		if _, err := w.next(t.Context(), fetched{took: test.took}); err != nil || got != test.want {
			t.Errorf("fetch %d took %d ns: got %d ns and the error %v, want %d ns", i, test.took, got, err, test.want)
		}
	}
}

// On Linux, a nap of 100 µs can end within a millisecond, although the program is idle meanwhile. The test is not
// parallel, because a busy program would also wake up in time from time.Sleep.
func TestNap(t *testing.T) {
	const d, late = 100 * time.Microsecond, 900 * time.Microsecond
	took := make([]time.Duration, 300)
	for i := range took {
		began := time.Now()
		nap(d)
		took[i] = time.Since(began)
	}
	slices.Sort(took)
	if took[0] < d {
		t.Errorf("the shortest nap took %v, want at least %v", took[0], d)
	}
	// On a busy machine many naps end late, but not nine of ten.
	if got := took[len(took)/10]; runtime.GOOS == "linux" && got > late {
		t.Errorf("the shortest tenth of the naps took up to %v, want at most %v", got, late)
	}
}
