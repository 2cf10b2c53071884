package auth

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"rowcast/listener/failures"
	"rowcast/stream"
)

// Open streams are asked about again before their time is over, and go on as long as the answer is the same.
func TestStreamsAreRenewed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		then string // what the app says the second time; "" is away
		want bool
	}{
		"the same":              {says("alice", 100, "team:7", "team:8"), true},
		"in another order":      {says("alice", 100, "team:8", "team:7", "team:8"), true},
		"one group less":        {says("alice", 100, "team:7"), false},
		"one group more":        {says("alice", 100, "team:7", "team:8", "team:9"), false},
		"no groups":             {says("alice", 100), false},
		"somebody else":         {says("bob", 100, "team:7", "team:8"), false},
		"logged out":            {"no", false},
		"a group for a user":    {says("team:7", 100), false},
		"away, within the time": {"", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAskedApp(func(string) string { return says("alice", 100, "team:7", "team:8") })
				grant, err := a.by(t, "session")
				if want := []string{"alice", "team:7", "team:8"}; err != nil || !slices.Equal(grant.Recipients(), want) {
					t.Fatalf("got %+v, %v", grant, err)
				}
				var all []time.Duration
				for range 10 { // who come together are not asked about together
					grant, _ := a.by(t, "session")
					all = append(all, time.Until(grant.Expires))
				}
				if first, last := slices.Min(all), slices.Max(all); first < 90*time.Second || last > 100*time.Second || first == last {
					t.Errorf("it is asked again in %v, want the last tenth of 100s, and each at a time of its own", all)
				}
				time.Sleep(time.Until(grant.Expires))
				a.answer = func(string) string { return tt.then }
				if next, ok := grant.Renew(t.Context()); ok != tt.want || ok && !next.After(time.Now()) {
					t.Errorf("got %v, %v, want %v", next, ok, tt.want)
				}
			})
		})
	}
}

// A renewal that gets no answer from the app is logged and counted, also while no new stream is opened. The log does not fill up, and
// says nothing of the client.
func TestRenewalsThatFailAreShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAskedApp(theCookie)
		var all []stream.Grant
		for i := range 100 {
			grant, err := a.by(t, fmt.Sprintf("user%d", i))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, grant)
		}
		time.Sleep(time.Until(all[0].Expires))
		if a.log.Len() > 0 {
			t.Errorf("before anything failed the log says %s", a.log)
		}
		a.answer = func(string) string { return "" }
		for _, grant := range all {
			if _, ok := grant.Renew(t.Context()); !ok {
				t.Error("the stream ends, though the app may soon be back")
			}
		}
		const line = `level=WARN msg="authentication endpoint failed" host=app.example error="no usable answer from the app: it answers 503"`
		if said := a.log.String(); strings.Count(said, line) != 5 || strings.Count(said, "\n") != 5 || strings.Contains(said, "user1") {
			t.Errorf("the log says %s", said)
		}
		if got := a.Failures.Of(failures.AuthURL); got.Total != 100 || !got.Failing() {
			t.Errorf("got %+v, want 100 failures", got)
		}
		a.answer = theCookie
		if _, ok := all[0].Renew(t.Context()); !ok {
			t.Error("the stream ends, though the app is back")
		}
		time.Sleep(failures.Recovering)
		if a.Failures.Of(failures.AuthURL).Failing() {
			t.Error("it is said to fail, though the app is back")
		}
	})
}

// While the app is away a stream goes on for the grace after its time and not longer, and the app is asked every now and then.
func TestStreamsOutliveTheAppByTheGrace(t *testing.T) {
	t.Parallel()
	for _, back := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a := newAskedApp(theCookie)
			grant, err := a.by(t, "alice")
			if err != nil {
				t.Fatal(err)
			}
			opened := time.Now()
			a.answer = func(string) string { return "" }
			next, ok := grant.Expires, true
			for ok && a.asked.Load() < 100 {
				if back && time.Since(opened) > 330*time.Second {
					a.answer = theCookie
				}
				time.Sleep(time.Until(next))
				before := time.Now()
				if next, ok = grant.Renew(t.Context()); ok && next.Sub(before) > 15*time.Second {
					break // renewed
				}
			}
			lasted, asked := time.Since(opened), a.asked.Load()
			switch {
			case back && (!ok || lasted < 330*time.Second || time.Until(next) < 270*time.Second):
				t.Errorf("the app is back: after %v got %v for %v, want another five minutes", lasted, ok, time.Until(next))
			case !back && (ok || lasted != 360*time.Second):
				t.Errorf("it ended after %v, want 5m and the grace of 1m", lasted)
			case asked < 5 || asked > 22:
				t.Errorf("%d questions, want one every 5 to 15 s of a minute and a half", asked)
			}
		})
	}
}
