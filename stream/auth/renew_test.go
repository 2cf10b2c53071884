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

// Renew lets a stream continue if the app's answer has the same user and groups, or if the endpoint fails within the
// grace. It ends the stream if the app denies the client or answers with another user or other groups.
func TestGrantIsRenewed(t *testing.T) {
	t.Parallel()
	for name, tt := range map[string]struct {
		second string // the second answer of the app
		want   bool
	}{
		"the same":                     {acceptance("alice", 100, "team:7", "team:8"), true},
		"in another order":             {acceptance("alice", 100, "team:8", "team:7", "team:8"), true},
		"one group less":               {acceptance("alice", 100, "team:7"), false},
		"one group more":               {acceptance("alice", 100, "team:7", "team:8", "team:9"), false},
		"no groups":                    {acceptance("alice", 100), false},
		"another user":                 {acceptance("bob", 100, "team:7", "team:8"), false},
		"signed out":                   {"401", false},
		"a group instead of a user":    {acceptance("team:7", 100), false},
		"status 503, within the grace": {"", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newFakeApp(func(string) string { return acceptance("alice", 100, "team:7", "team:8") })
				grant, err := a.withCookie(t, "session")
				if want := []string{"alice", "team:7", "team:8"}; err != nil || !slices.Equal(grant.Recipients(), want) {
					t.Fatalf("got %+v, %v, want the recipients %q", grant, err, want)
				}
				var all []time.Duration
				for range 10 { // grants that are issued at the same time are renewed at different times
					grant, _ := a.withCookie(t, "session")
					all = append(all, time.Until(grant.Expires))
				}
				if first, last := slices.Min(all), slices.Max(all); first < 90*time.Second || last > 100*time.Second || first == last {
					t.Errorf("the grants are renewed after %v, want different times in the last tenth of 100s", all)
				}
				time.Sleep(time.Until(grant.Expires))
				a.answer = func(string) string { return tt.second }
				if next, ok := grant.Renew(t.Context()); ok != tt.want || ok && !next.After(time.Now()) {
					t.Errorf("Renew: got %v and the time %v, want %v (and, if true, a time after now)", ok, next, tt.want)
				}
			})
		})
	}
}

// A stream that a renewal has ended may be opened again within a second. Its client then does not get the old answer
// from the cache.
func TestEndedGrantIsNotCached(t *testing.T) {
	t.Parallel()
	for second, want := range map[string][]string{
		acceptance("alice", 100, "team:8"): {"alice", "team:8"},
		"401":                              nil,
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newFakeApp(func(string) string { return acceptance("alice", 1, "team:7") })
			grant, err := a.withCookie(t, "session")
			if err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Until(grant.Expires))
			a.answer = func(string) string { return second }
			if _, ok := grant.Renew(t.Context()); ok {
				t.Fatal("Renew returned true, want false, which ends the stream")
			}
			if again, err := a.withCookie(t, "session"); err == nil && !slices.Equal(again.Recipients(), want) || err != nil && want != nil {
				t.Errorf("the next stream: got %+v, %v, want the recipients %q, or an error if there are none", again, err, want)
			}
		})
	}
}

// The log says why a stream was ended at a renewal, and names the topic that the app does not grant any more. It
// contains nothing else of the app's answer, and does not name a public topic, which the app need not grant. Many
// streams that end at once cause few lines.
func TestEndsAtRenewalsAreLogged(t *testing.T) {
	t.Parallel()
	for second, want := range map[string]string{
		"401":                              `reason="not signed in: the app answered 401"`,
		acceptance("alice", 100, "room:1"): `reason="the app does not name the topic \"ticket:42\" among the groups any more"`,
		acceptance("alice", 100, "ticket:42", "secret:1"): `reason="the app has answered with another recipient or other groups"`,
		"": `reason="the app has given no valid answer until the end of the grace"`,
	} {
		synctest.Test(t, func(t *testing.T) {
			a := newFakeApp(func(string) string { return acceptance("alice", 100, "room:1", "ticket:42") })
			request := requestTo(t, "topic=ticket:42&topic=public:status", "Cookie", "session")
			grant, err := (&Public{Next: a.Authenticate}).Authenticate(request)
			if err != nil {
				t.Fatal(err)
			}
			a.answer = func(string) string { return second }
			time.Sleep(time.Until(grant.Expires) + 2*a.Grace + time.Minute)
			for range 20 {
				if _, ok := grant.Renew(t.Context()); ok {
					t.Fatal("Renew returned true, want false, which ends the stream")
				}
			}
			got := a.log.String()
			if n := strings.Count(got, `level=INFO msg="a stream was ended at its renewal" `+want+" from=192.0.2.1"); n != 5 || strings.Contains(got, "secret") || strings.Contains(got, "session") {
				t.Errorf("got %d lines of %s, want five with %s, without the group secret:1 and the cookie session", n, got, want)
			}
		})
	}
}

// All failures of the app's endpoint during renewals are counted. A few of them are logged, without the client's
// credentials.
func TestFailedRenewalsAreLogged(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newFakeApp(acceptCookie)
		var all []stream.Grant
		for i := range 100 {
			grant, err := a.withCookie(t, fmt.Sprintf("user%d", i))
			if err != nil {
				t.Fatal(err)
			}
			all = append(all, grant)
		}
		time.Sleep(time.Until(all[0].Expires))
		if a.log.Len() > 0 {
			t.Errorf("got the log %s before the first failure, want none", a.log)
		}
		a.answer = func(string) string { return "" }
		for _, grant := range all {
			if _, ok := grant.Renew(t.Context()); !ok {
				t.Error("Renew returned false during the grace, want true")
			}
		}
		const line = `level=WARN msg="authentication endpoint failed" host=app.example error="no usable answer from the app: it answered 503"`
		if got := a.log.String(); strings.Count(got, line) != 5 || strings.Count(got, "\n") != 5 || strings.Contains(got, "user1") {
			t.Errorf("got log %s, want five lines with %s, no other line, and no cookie", got, line)
		}
		if got := a.Failures.Of(failures.AuthURL); got.Total != 100 || !got.Failing() {
			t.Errorf("got %+v, want 100 failures and an operation that is failing", got)
		}
		a.answer = acceptCookie
		if _, ok := all[0].Renew(t.Context()); !ok {
			t.Error("Renew returned false, want true, because the app answers again")
		}
		time.Sleep(failures.Recovering)
		if a.Failures.Of(failures.AuthURL).Failing() {
			t.Error("the operation is failing, want not failing, because the app answers again")
		}
	})
}

// While the app's endpoint fails, a stream continues for the grace after its grant has expired. The app is asked every 5
// to 15 s. The last request is at the end of the grace, which can be less than 5 s after the request before it.
func TestGraceWhileTheAppFails(t *testing.T) {
	t.Parallel()
	for _, recovers := range []bool{false, true} {
		synctest.Test(t, func(t *testing.T) {
			a := newFakeApp(acceptCookie)
			grant, err := a.withCookie(t, "alice")
			if err != nil {
				t.Fatal(err)
			}
			opened := time.Now()
			a.answer = func(string) string { return "" }
			next, ok := grant.Expires, true
			for ok && a.requests.Load() < 100 {
				if recovers && time.Since(opened) > 330*time.Second {
					a.answer = acceptCookie
				}
				time.Sleep(time.Until(next))
				before := time.Now()
				if next, ok = grant.Renew(t.Context()); ok && next.Sub(before) > 15*time.Second {
					break // renewed
				}
			}
			lasted, requests := time.Since(opened), a.requests.Load()
			switch {
			case recovers && (!ok || lasted < 330*time.Second || time.Until(next) < 270*time.Second):
				t.Errorf("the app answers again: Renew returned %v after %v, with the next time in %v, want true after at least 5m30s, with the next time in at least 4m30s", ok, lasted, time.Until(next))
			case !recovers && (ok || lasted != 360*time.Second):
				t.Errorf("Renew returned %v after %v, want false after 6m: 5m and the grace of 1m", ok, lasted)
			case requests < 5 || requests > 22:
				t.Errorf("%d requests, want 5 to 22: the first one, and then one every 5 to 15 s, for 30 to 90 s", requests)
			}
		})
	}
}
