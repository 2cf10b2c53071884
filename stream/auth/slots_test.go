package auth

import (
	"fmt"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// from asks for a stream by a cookie, from an address. The server has put the address of a trusted proxy's client in its place.
func (a *askedApp) from(t *testing.T, remote, cookie string, headers ...string) (err error) {
	r := requestBy(t.Context(), append(headers, "Cookie", cookie)...)
	r.RemoteAddr = remote
	_, err = a.Authenticate(r)
	return err
}

// slow is how long a slow app takes for an answer.
const slow = 2 * time.Second

// slowly makes the app a slow one.
func (a *askedApp) slowly() {
	a.answer = func(cookie string) string {
		time.Sleep(slow)
		return theCookie(cookie)
	}
}

// flood has so many ask at once, each by a cookie of its own, and returns when all of them wait.
func flood(n int, ask func(i int, cookie string)) *sync.WaitGroup {
	var all sync.WaitGroup
	for i := range n {
		all.Go(func() { ask(i, fmt.Sprint("flood ", i)) })
	}
	synctest.Wait()
	return &all
}

// Whoever asks a hundred questions at once has eight on their way and waits behind himself: another one's is asked at once.
func TestAnAddressHasAShareOfTheQuestions(t *testing.T) {
	t.Parallel()
	same := func(address string) func(int) string { return func(int) string { return address } }
	for name, tt := range map[string]struct {
		remote    func(i int) string // of the many
		forwarded string             // of them
		other     string
		others    string // X-Forwarded-For
	}{
		"IPv4":                   {same("192.0.2.1:1"), "", "192.0.2.2:1", ""},
		"an IPv6 network":        {func(i int) string { return fmt.Sprintf("[2001:db8::%x]:1", i+1) }, "", "[2001:db8:0:1::1]:1", ""},
		"made up before another": {same("192.0.2.1:1"), "192.0.2.2", "192.0.2.2:1", ""},
		"no address at all":      {same("@"), "", "192.0.2.2:1", ""},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				a := newAskedApp(theCookie)
				a.slowly()
				many := flood(100, func(i int, cookie string) { _ = a.from(t, tt.remote(i), cookie, "X-Forwarded-For", tt.forwarded) })
				if got := a.asked.Load(); got != 8 {
					t.Errorf("%d questions of one address are on their way, want 8", got)
				}
				began := time.Now()
				err := a.from(t, tt.other, "alice", "X-Forwarded-For", tt.others)
				if took := time.Since(began); err != nil || took != slow {
					t.Errorf("the other had an answer after %v, %v, want %v", took, err, slow)
				}
				many.Wait()
				if got := a.asked.Load(); got != 8*3+1 { // the rest waited for the five seconds that it may
					t.Errorf("%d questions were asked, want 25", got)
				}
				if len(a.slots.addresses) != 0 {
					t.Errorf("%d addresses are remembered that have no questions", len(a.slots.addresses))
				}
			})
		})
	}
}

// Newcomers never keep an open stream from being asked about, however many there are: from everywhere, from its own address, or with
// its own cookie.
func TestNewcomersDoNotHoldUpRenewals(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAskedApp(theCookie)
		grant, err := a.by(t, "alice")
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Until(grant.Expires))
		a.slowly()
		many := flood(100, func(i int, cookie string) { _ = a.from(t, fmt.Sprintf("198.51.100.%d:1", i), cookie) })
		own := flood(100, func(_ int, cookie string) { _, _ = a.by(t, strings.Replace(cookie, "flood 99", "alice", 1)) })
		began := time.Now()
		if _, ok := grant.Renew(t.Context()); !ok || time.Since(began) != slow {
			t.Errorf("renewed: %v after %v, want true after %v", ok, time.Since(began), slow)
		}
		many.Wait()
		own.Wait()
	})
}

// The app is never asked more than 32 questions at a time, renewals included.
func TestRenewalsAreBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		a := newAskedApp(theCookie)
		a.may = make(chan struct{})
		a.once.Do(a.init)
		c := func(cookie string) credentials { return credentials{cookie: cookie} }
		many := flood(100, func(_ int, cookie string) { a.renew(c(cookie), answer{})(t.Context()) })
		if got := a.asked.Load(); got != 32 {
			t.Errorf("%d renewals are on their way, want 32", got)
		}
		newcomers := flood(10, func(_ int, cookie string) { _ = a.from(t, "192.0.2.1:1", "new"+cookie) })
		if got := a.asked.Load(); got != 32 {
			t.Errorf("%d questions are on their way, want 32", got)
		}
		many.Wait()
		newcomers.Wait()
	})
}
